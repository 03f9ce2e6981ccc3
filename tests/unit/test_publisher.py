"""The publisher: everything in order, once, however long Redis is away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobs.contract.errors import EngineError
from jobs.contract.events import EventKind, TokenLogprob, Usage
from tests.helpers.driver import assert_whole, text, token_ids
from tests.helpers.loop_rig import MemoryWriter
from tests.helpers.waiting import wait_until
from workers.generation.outbox import Outbox
from workers.generation.publisher import Publisher


class Rig:
    def __init__(self) -> None:
        self.writer = MemoryWriter()
        self.refused: list[str] = []
        self.settled: list[tuple[str, bool]] = []
        self.publisher = Publisher(
            self.writer,
            self.refused.append,
            lambda event, is_end: self.settled.append((event.job, is_end)),
        )

    def outbox(self, job_id: str = "j", attempt: int = 1, seq: int = 0) -> Outbox:
        return Outbox(self.publisher, job_id, attempt, seq)

    def say(self, outbox: Outbox, words: str, choice: int = 0) -> None:
        for letter in words:
            outbox.chunk(choice, ord(letter), letter)
        self.publisher.notify()

    def wait_for(self, count: int) -> None:
        wait_until(lambda: len(self.writer.events) >= count, f"{count} events are written")

    def wait_blocked(self) -> None:
        """The publisher has tried, and holds what it could not send."""
        before = len(self.writer.offered)
        wait_until(lambda: len(self.writer.offered) > before, "it tries (again)")


@pytest.fixture
def rig() -> Iterator[Rig]:
    found = Rig()
    found.publisher.start()
    yield found
    found.writer.is_away = False
    assert found.publisher.stop(20)


def test_events_are_numbered_on_from_what_the_log_holds(rig: Rig) -> None:
    outbox = rig.outbox(attempt=3, seq=17)
    outbox.started(Usage(5))
    rig.wait_for(1)
    outbox.finish(Usage(5, 1))
    rig.wait_for(2)
    assert [str(event.id) for event in rig.writer.events] == ["3-18", "3-19"]
    assert rig.settled == [("j", True)]


def test_tokens_that_wait_become_one_chunk_and_none_is_lost(rig: Rig) -> None:
    outbox = rig.outbox()
    rig.writer.is_away = True
    outbox.started()
    rig.wait_blocked()
    rig.say(outbox, "many words that wait")
    outbox.finish()
    rig.writer.is_away = False
    rig.wait_for(3)
    assert_whole(rig.writer.events)
    assert [event.kind for event in rig.writer.events] == [
        EventKind.STARTED, EventKind.CHUNK, EventKind.FINISHED,
    ]  # fmt: skip
    assert text(rig.writer.events) == "many words that wait"
    assert len(token_ids(rig.writer.events)) == 20


def test_what_was_offered_is_offered_again_with_the_same_ids(rig: Rig) -> None:
    rig.writer.is_away = True
    rig.say(rig.outbox(), "a")
    rig.wait_blocked()
    rig.wait_blocked()
    rig.writer.is_away = False
    rig.wait_for(1)
    assert {(str(event.id), event.text) for event in rig.writer.offered} == {("1-1", "a")}


def test_an_end_is_settled_again_until_redis_takes_it(rig: Rig) -> None:
    rig.writer.is_away = True
    rig.outbox().fail(EngineError("broken"))
    rig.wait_blocked()
    rig.wait_blocked()
    assert rig.settled == []
    rig.writer.is_away = False
    rig.wait_for(1)
    wait_until(lambda: rig.settled == [("j", True)], "the end is reported once")


def test_the_order_of_each_job_is_kept_and_choices_keep_apart(rig: Rig) -> None:
    outboxes = [rig.outbox(f"job-{number}") for number in range(5)]
    for outbox in outboxes:
        outbox.started()
    for _ in range(50):
        for outbox in outboxes:
            rig.say(outbox, "ab", choice=0)
            rig.say(outbox, "cd", choice=1)
    for outbox in outboxes:
        outbox.finish()
    wait_until(lambda: len(rig.settled) == 5, "all have ended")
    for outbox in outboxes:
        found = rig.writer.of(outbox.job_id)
        assert_whole(found)
        assert text(found, 0) == "ab" * 50
        assert text(found, 1) == "cd" * 50


def test_a_choices_last_chunk_carries_its_reason_and_log_probabilities(rig: Rig) -> None:
    outbox = rig.outbox()
    rig.writer.is_away = True
    outbox.started()
    rig.wait_blocked()
    outbox.chunk(0, 1, "a", TokenLogprob(1, "a", -0.5))
    outbox.chunk(0, 2, "b", TokenLogprob(2, "b", -0.25), "stop", stop="END")
    rig.publisher.notify()
    rig.writer.is_away = False
    rig.wait_for(2)
    chunk = rig.writer.events[1]
    assert (chunk.token_ids, chunk.text, chunk.finish_reason) == ([1, 2], "ab", "stop")
    assert chunk.stop == "END"
    assert [entry.logprob for entry in chunk.logprobs] == [-0.5, -0.25]


def test_a_refused_attempt_is_reported_and_its_end_is_not_written(rig: Rig) -> None:
    """Redis takes the end of a job that went back to its queue: without its last words."""
    outbox = rig.outbox()
    rig.writer.refused.add("j")
    rig.writer.is_away = True
    rig.outbox("other").started()
    rig.wait_blocked()
    rig.say(outbox, "unheard")
    outbox.finish()
    rig.writer.is_away = False
    wait_until(lambda: rig.refused == ["j"], "it is reported")
    rig.outbox("third").finish()
    wait_until(lambda: ("third", True) in rig.settled, "the publisher goes on")
    assert rig.writer.of("j") == []


def test_nothing_of_a_refused_attempt_is_written_later(rig: Rig) -> None:
    outbox = rig.outbox()
    rig.writer.refused.add("j")
    rig.say(outbox, "unheard")
    wait_until(lambda: rig.refused == ["j"], "it is reported")
    outbox.finish()
    rig.outbox("third").finish()
    wait_until(lambda: ("third", True) in rig.settled, "the publisher goes on")
    assert rig.writer.of("j") == []


def test_the_next_attempt_of_a_refused_job_is_heard(rig: Rig) -> None:
    rig.writer.refused.add("j")
    rig.say(rig.outbox(), "unheard")
    wait_until(lambda: rig.refused == ["j"], "it is reported")
    rig.writer.refused.clear()
    again = rig.outbox(attempt=2)
    rig.say(again, "heard")
    again.finish()
    rig.wait_for(2)
    assert text(rig.writer.of("j")) == "heard"


def test_tokens_that_redis_has_not_taken_are_sent_again_before_what_follows(rig: Rig) -> None:
    """Their answer is read late: with the next ones, or with the end."""
    outbox = rig.outbox()
    outbox.started()
    rig.wait_for(1)
    rig.writer.is_away = True
    rig.say(outbox, "ab")
    rig.wait_blocked()
    outbox.finish()
    rig.writer.is_away = False
    rig.wait_for(3)
    assert_whole(rig.writer.events)
    assert text(rig.writer.events) == "ab"


def test_the_answer_to_the_last_tokens_is_read_although_nothing_follows(rig: Rig) -> None:
    outbox = rig.outbox()
    rig.writer.refused.add("j")
    rig.say(outbox, "unheard")
    wait_until(lambda: rig.refused == ["j"], "it is reported")
    wait_until(lambda: rig.publisher.num_unpublished == 0, "nothing is left")


def test_stopping_sends_what_is_there() -> None:
    rig = Rig()
    outbox = rig.outbox()
    rig.publisher.start()
    for _ in range(100):
        rig.say(outbox, "x")
    outbox.finish()
    assert rig.publisher.stop(20)
    assert text(rig.writer.events) == "x" * 100
    assert rig.writer.events[-1].kind is EventKind.FINISHED
    assert rig.publisher.num_unpublished == 0


def test_stopping_gives_up_when_redis_is_away() -> None:
    rig = Rig()
    rig.writer.is_away = True
    rig.publisher.start()
    rig.say(rig.outbox(), "x")
    rig.wait_blocked()
    assert not rig.publisher.stop(0.05)
    assert rig.publisher.num_unpublished > 0
    rig.writer.is_away = False
    assert rig.publisher.stop(20)


@pytest.mark.parametrize("value", [float("-inf"), float("inf"), float("nan")])
def test_a_log_probability_that_json_cannot_say_reaches_the_reader(rig: Rig, value: float) -> None:
    from jobs.contract.events import decode_event, encode_event

    outbox = rig.outbox()
    outbox.chunk(0, 1, "a", TokenLogprob(1, "a", value))
    rig.publisher.notify()
    rig.wait_for(1)
    decode_event(encode_event(rig.writer.events[0]))
