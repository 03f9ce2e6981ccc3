"""What ends jobs whose time is over, and what forgets them: by Redis' clock, for any supervisor."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from jobs.contract.errors import ContractError
from jobs.contract.events import EventKind
from jobs.contract.records import JobRecord, JobStatus
from jobs.contract.requests import (
    EmbedRequest,
    LoadRequest,
    Prompt,
    TokenCountRequest,
    UnloadRequest,
)
from jobs.storage import names, object_names
from jobs.storage.contact import STABLE_AFTER_S, RedisContact
from jobs.storage.event_log import read_log
from jobs.storage.lua.job_scripts import RESERVE_S
from jobs.storage.store import JobStore
from tests.helpers.clock import Clock
from tests.helpers.samples import event, generate, settings_for, submission
from tests.helpers.taking import WORKER, open_attempt, take
from workers.supervision.recovery import Recovery
from workers.supervision.sweeper import Sweeper

LIMIT_S = 60.0
DAY_S = 86400.0


class Rig:
    """A sweeper, and what is wanted: by slug, the id of the load job, or an error."""

    def __init__(self, store: JobStore, redis_url: str, folder: Path, clock: Clock) -> None:
        settings = settings_for(redis_url, folder, queue_timeout_s=LIMIT_S)
        self.store = store
        self.redis = store.redis
        self.clock = clock
        self.contact = RedisContact(clock, clock)
        self.wanted: dict[str, str | Exception] = {}
        self.sweeper = Sweeper(
            store, Recovery(store, settings), settings, self.contact, self._load_job_of
        )

    def _load_job_of(self, slug: str) -> str | None:
        found = self.wanted.get(slug)
        if isinstance(found, Exception):
            raise found
        return found

    def sweep(self, unloading: dict[str, str | None] | None = None) -> None:
        """One tick of a supervisor, a second after the last one."""
        self.clock.now += 1
        self.contact.note_answer()
        self.sweeper.sweep(unloading or {})

    def submit(self, request: Any = None, age_s: float = 0.0, **fields: Any) -> str:
        new = submission(request, **fields)
        self.store.submit(new)
        if age_s:
            key = names.job_key(new.job_id)
            self.redis.hset(key, "created_at", self.store.now() - age_s)
        return new.job_id

    def record(self, job_id: str) -> JobRecord:
        return self.store.record(job_id)

    def statuses(self, *job_ids: str) -> list[str]:
        return [self.record(job_id).status.value for job_id in job_ids]

    def error_codes(self, *job_ids: str) -> list[str]:
        return [self.record(job_id).error_code for job_id in job_ids]


@pytest.fixture
def rig(store: JobStore, redis_url: str, tmp_path: Path, clock: Clock) -> Rig:
    return Rig(store, redis_url, tmp_path, clock)


# Waiting too long.


def test_what_has_waited_longer_than_it_may_is_told_so(rig: Rig) -> None:
    late, later = rig.submit(age_s=LIMIT_S + 1), rig.submit(age_s=LIMIT_S - 1)
    rig.sweep()
    assert rig.error_codes(late, later) == ["job_timeout", ""]
    assert rig.store.queue("mgs-gen-0").get_job_ids() == [later]
    (end,) = read_log(rig.redis, late)
    assert end.kind is EventKind.FAILED


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_of_ours_that_is_wrong_ends_no_wait(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + 3600 * hours)
    late, fresh = rig.submit(age_s=LIMIT_S + 1), rig.submit()
    rig.sweep()
    assert rig.error_codes(late, fresh) == ["job_timeout", ""]


def test_a_job_is_stamped_by_redis_and_not_by_who_submits_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)
    job_id = rig.submit()
    assert abs(rig.record(job_id).created_at - rig.store.now()) < 60


def test_what_has_run_already_is_not_ended_and_hides_no_other(rig: Rig) -> None:
    """Jobs that were given back stand at the front of the queue, whatever their age."""
    returned = rig.submit(age_s=LIMIT_S + 5)
    open_attempt(rig.redis, WORKER, returned)
    late = rig.submit(age_s=LIMIT_S + 1)
    assert rig.store.return_to_queue(rig.record(returned), WORKER, counted_as=None)
    assert rig.store.queue("mgs-gen-0").get_job_ids() == [returned, late]
    rig.sweep()
    assert rig.statuses(returned, late) == ["queued", "failed"]


def test_an_id_that_is_none_of_ours_hides_nobody_and_stays(rig: Rig) -> None:
    rig.redis.rpush(rig.store.queue("mgs-gen-0").key, "foreign")
    late = rig.submit(age_s=LIMIT_S + 1)
    rig.sweep()
    assert rig.error_codes(late) == ["job_timeout"]
    assert rig.redis.lrange(rig.store.queue("mgs-gen-0").key, 0, -1) == [b"foreign"]


def test_jobs_of_all_models_are_looked_at_whoever_runs_them(rig: Rig) -> None:
    ids = [rig.submit(age_s=LIMIT_S + 1, model_id=model_id) for model_id in ("0", "1", "a b")]
    rig.sweep()
    assert rig.error_codes(*ids) == ["job_timeout"] * 3


def test_a_broken_record_hides_no_other(rig: Rig) -> None:
    broken, late = (rig.submit(age_s=LIMIT_S + 1) for _ in range(2))
    rig.redis.hset(names.job_key(broken), "status", "nonsense")
    rig.sweep()
    assert rig.error_codes(late) == ["job_timeout"]


def test_the_next_look_is_when_the_next_one_is_due(rig: Rig) -> None:
    rig.submit(age_s=LIMIT_S - 0.5)
    rig.submit(age_s=LIMIT_S - 20, model_id="1")
    rig.sweep()
    assert 0.0 < rig.sweeper.seconds_to_next() <= 0.5
    assert rig.sweeper.seconds_to_next() > LIMIT_S, "a tick looks again; it is not asked for twice"


def test_a_job_that_a_worker_takes_in_this_moment_is_left_to_it(rig: Rig) -> None:
    late = rig.submit(age_s=LIMIT_S + 1)
    take(rig.redis, WORKER, late)
    rig.sweep()
    assert rig.statuses(late) == ["queued"]
    open_attempt(rig.redis, WORKER, late)
    rig.sweep()
    assert rig.statuses(late) == ["running"]


def hold(rig: Rig, job_class: str, how: str = "hold") -> None:
    rig.redis.hset(names.hold_key("0"), job_class, how)


def resume(rig: Rig, job_class: str, ago_s: float = 0.0) -> None:
    rig.redis.hdel(names.hold_key("0"), job_class)
    rig.redis.hset(names.hold_key("0"), f"{job_class}:resumed_at", rig.store.now() - ago_s)


def flex(rig: Rig, age_s: float, **fields: Any) -> str:
    return rig.submit(age_s=age_s, job_class="batch", **fields)


def test_lines_of_a_batch_wait_for_ever_and_flex_jobs_for_a_day(rig: Rig) -> None:
    line = flex(rig, 40 * DAY_S, batch="batch_1", line=1)
    kept, late = flex(rig, DAY_S - 60), flex(rig, DAY_S + 60)
    rig.sweep()
    assert rig.error_codes(line, kept, late) == ["", "", "job_timeout"]
    assert rig.store.queue(names.batch_queue("0")).get_job_ids() == [line, kept]


def test_no_wait_of_a_class_on_hold_counts_and_after_it_waits_begin_anew(rig: Rig) -> None:
    waiting = rig.submit(age_s=10 * LIMIT_S)
    hold(rig, "interactive")
    rig.sweep()
    assert rig.statuses(waiting) == ["queued"]
    resume(rig, "interactive", ago_s=LIMIT_S - 5)
    rig.sweep()
    assert rig.statuses(waiting) == ["queued"]
    assert rig.sweeper.seconds_to_next() <= 5
    resume(rig, "interactive", ago_s=LIMIT_S + 5)
    rig.sweep()
    assert rig.error_codes(waiting) == ["job_timeout"]


def test_waits_of_a_class_that_is_drained_count(rig: Rig) -> None:
    late = rig.submit(age_s=LIMIT_S + 1)
    hold(rig, "interactive", "drain")
    rig.sweep()
    assert rig.error_codes(late) == ["job_timeout"]


def test_a_hold_of_one_class_is_none_of_the_other(rig: Rig) -> None:
    person, other = rig.submit(age_s=LIMIT_S + 1), flex(rig, DAY_S + 60)
    hold(rig, "batch")
    rig.sweep()
    assert rig.error_codes(person, other) == ["job_timeout", ""]


def test_a_hold_that_cannot_be_read_ends_nobodys_wait_early(rig: Rig) -> None:
    late = rig.submit(age_s=LIMIT_S + 1)
    rig.redis.hset(names.hold_key("0"), "interactive:resumed_at", "yesterday")
    rig.sweep()
    assert rig.error_codes(late) == ["job_timeout"]
    late = rig.submit(age_s=LIMIT_S + 1, model_id="1")
    rig.redis.set(names.hold_key("1"), "of another type")
    rig.sweep()
    assert rig.error_codes(late) == ["job_timeout"]


def test_what_waits_past_its_deadline_ends_wherever_it_stands(rig: Rig) -> None:
    """Held or not, for nobody wants it any more."""
    now = rig.store.now()
    first, gone = rig.submit(), rig.submit(age_s=9.0, deadline_at=now - 1)
    line = flex(rig, 9.0, batch="batch_1", line=1, deadline_at=now - 1)
    embed = rig.submit(EmbedRequest([Prompt(text="x")]), age_s=9.0, deadline_at=now - 1)
    soon = rig.submit(deadline_at=now + 30)
    hold(rig, "batch")
    rig.sweep()
    assert rig.error_codes(first, gone, line, embed, soon) == ["", *["job_timeout"] * 3, ""]
    assert rig.sweeper.seconds_to_next() <= 30
    end = read_log(rig.redis, gone)[-1]
    assert end.error is not None
    assert "deadline" in end.error.message


def test_a_job_that_gave_way_and_waits_past_its_deadline_ends_after_what_it_has_said(
    rig: Rig,
) -> None:
    line = flex(rig, 9.0, deadline_at=rig.store.now() - 1)
    open_attempt(rig.redis, WORKER, line)
    rig.store.writer.append([event(EventKind.STARTED, 1, job=line), event(seq=2, job=line)])
    assert rig.store.return_to_queue(rig.record(line), WORKER, counted_as=None)
    rig.sweep()
    assert [one.seq for one in read_log(rig.redis, line)] == [1, 2, 3]
    assert rig.error_codes(line) == ["job_timeout"]


def test_records_are_read_once_however_often_the_queues_are(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [rig.submit() for _ in range(3)]
    read: list[str] = []
    records = rig.store.records

    def counted(job_ids: Sequence[str]) -> list[JobRecord]:
        read.extend(job_ids)
        return records(job_ids)

    monkeypatch.setattr(rig.store, "records", counted)
    for _ in range(3):
        rig.sweep()
    assert read == ids


# Loads and unloads of desired models that are no more.


def load(rig: Rig, model_id: str = "0") -> str:
    return rig.submit(LoadRequest("fake", "fake"), model_id=model_id)


def test_a_load_that_nobody_wants_any_more_is_told_so(rig: Rig) -> None:
    gone, current = load(rig), load(rig)
    elsewhere = load(rig, "1")
    rig.wanted = {"0": current}
    rig.sweep()
    assert rig.error_codes(gone, current, elsewhere) == ["model_unloaded", "", "model_unloaded"]
    assert rig.store.queue("mgs-ctl-0").get_job_ids() == [current]


def test_an_unload_whose_process_is_gone_has_succeeded(rig: Rig) -> None:
    done, awaited = rig.submit(UnloadRequest()), rig.submit(UnloadRequest())
    rig.sweep({"0": awaited})
    assert rig.statuses(done, awaited) == ["finished", "queued"]
    rig.sweep({"0": None})
    assert rig.statuses(awaited) == ["finished"]
    assert [end.kind for end in read_log(rig.redis, awaited)] == [EventKind.FINISHED]


def test_an_unload_of_a_model_that_another_runs_is_left_to_it(rig: Rig) -> None:
    unload = rig.submit(UnloadRequest())
    rig.sweep({"1": None})
    assert rig.statuses(unload) == ["queued"]


def test_what_stands_beside_a_desired_model_that_cannot_be_read_stays(rig: Rig) -> None:
    ids = [load(rig), rig.submit(UnloadRequest())]
    rig.wanted = {"0": ContractError("of another version")}
    rig.sweep({"0": None})
    assert rig.statuses(*ids) == ["queued", "queued"]


def test_other_jobs_of_the_control_queue_are_left_to_the_worker(rig: Rig) -> None:
    count = rig.submit(TokenCountRequest(Prompt(text="x")), age_s=10 * LIMIT_S)
    rig.sweep({"0": None})
    assert rig.statuses(count) == ["queued"]


# Without anybody to read them.


def submit_of(rig: Rig, owner: str, **fields: Any) -> str:
    return rig.submit(generate(), owner=owner, **fields)


def apis(rig: Rig) -> set[str]:
    return {name.decode() for name in rig.redis.smembers(names.APIS)}


def test_the_jobs_of_a_dead_api_are_cancelled_on_every_model_and_then_it_is_forgotten(
    rig: Rig,
) -> None:
    rig.redis.sadd(names.APIS, "dead", "alive")
    rig.redis.set(names.api_key("alive"), b"")
    waiting = [submit_of(rig, "dead", model_id=model_id) for model_id in ("0", "1")]
    count = rig.submit(TokenCountRequest(Prompt(text="x")), owner="dead", model_id="2")
    running, on_its_way = submit_of(rig, "dead"), submit_of(rig, "dead")
    open_attempt(rig.redis, WORKER, running)
    take(rig.redis, WORKER, on_its_way)
    others = [submit_of(rig, "alive"), submit_of(rig, ""), submit_of(rig, "unknown")]
    background = submit_of(rig, "dead", is_background=True)
    manage = rig.submit(LoadRequest("fake", "fake"), owner="dead", model_id="3")
    rig.wanted = {"3": manage}
    rig.sweep()
    rig.sweep()
    assert rig.statuses(*waiting, count, on_its_way) == ["cancelled"] * 4
    assert "API process" in rig.record(running).cancel
    assert rig.statuses(*others, background, manage) == ["queued"] * 5
    assert apis(rig) == {"alive"}


def test_an_api_is_dead_only_at_the_second_look(rig: Rig) -> None:
    rig.redis.sadd(names.APIS, "late")
    job_id = submit_of(rig, "late")
    rig.sweep()
    assert rig.statuses(job_id) == ["queued"]
    rig.sweeper.sweep({})  # at once: that is no second
    assert rig.statuses(job_id) == ["queued"]
    rig.redis.set(names.api_key("late"), b"")
    rig.sweep()
    rig.redis.delete(names.api_key("late"))
    rig.sweep()
    assert rig.statuses(job_id) == ["queued"], "its silence begins anew"
    rig.sweep()
    assert rig.statuses(job_id) == ["cancelled"]


def test_who_was_blind_takes_no_api_for_dead(rig: Rig) -> None:
    """While Redis is away no heartbeat arrives, so that all of them have expired."""
    rig.redis.sadd(names.APIS, "alive")
    job_id = submit_of(rig, "alive")
    rig.sweep()
    rig.contact.note_interruption()
    for _ in range(int(STABLE_AFTER_S) - 1):
        rig.sweep()
        assert rig.statuses(job_id) == ["queued"]
    rig.redis.set(names.api_key("alive"), b"")
    for _ in range(5):
        rig.sweep()
    assert rig.statuses(job_id) == ["queued"]
    assert apis(rig) == {"alive"}


def test_a_dead_api_is_not_forgotten_before_all_its_jobs_are_dealt_with(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.redis.sadd(names.APIS, "dead")
    ids = [submit_of(rig, "dead") for _ in range(3)]
    cancel, calls = rig.store.cancel, []

    def cut_second(job_id: str, reason: str) -> JobRecord:
        calls.append(job_id)
        if len(calls) == 2:
            raise RedisConnectionError("away")
        return cancel(job_id, reason)

    monkeypatch.setattr(rig.store, "cancel", cut_second)
    rig.sweep()
    with pytest.raises(RedisConnectionError):
        rig.sweep()
    assert apis(rig) == {"dead"}
    rig.sweep()
    assert rig.statuses(*ids) == ["cancelled"] * 3
    assert apis(rig) == set()


def test_a_job_that_another_api_reads_is_given_to_it(rig: Rig) -> None:
    """With an idempotency key, readers of several API processes may wait for one job."""
    rig.redis.sadd(names.APIS, "dead")
    read, unread = submit_of(rig, "dead"), submit_of(rig, "dead")
    rig.redis.set(names.api_key("alive"), b"")
    rig.redis.sadd(object_names.readers_key(read), "dead|1", "alive|7")
    rig.redis.sadd(object_names.readers_key(unread), "dead|2")
    rig.sweep()
    rig.sweep()
    assert rig.statuses(read, unread) == ["queued", "cancelled"]
    assert rig.record(read).owner == "alive"
    assert apis(rig) == set()


def test_an_orphan_with_a_broken_record_saves_no_other(rig: Rig) -> None:
    rig.redis.sadd(names.APIS, "dead")
    broken, other = submit_of(rig, "dead"), submit_of(rig, "dead")
    rig.redis.hset(names.job_key(broken), "attempt", "many")
    rig.sweep()
    rig.sweep()
    assert rig.statuses(other) == ["cancelled"]
    assert apis(rig) == set()


# What has expired.


INDEXES = (names.JOB_INDEX, names.JOB_EXPIRY, names.LIVE)


def test_ids_of_records_that_have_expired_leave_every_index(rig: Rig) -> None:
    kept = rig.submit()
    with rig.redis.pipeline() as pipe:
        for number in range(2500):  # more than one call looks at
            for index in INDEXES:
                pipe.zadd(index, {f"gone-{number}": 1.0})
        pipe.execute()
    rig.sweep()
    for index in INDEXES:
        assert rig.redis.zrange(index, 0, -1) == [kept.encode()], index


def test_every_end_brings_the_expiry_of_its_record_into_the_index(rig: Rig) -> None:
    cancelled, run, timed_out = rig.submit(), rig.submit(), rig.submit(age_s=LIMIT_S + 1)
    purged = rig.submit(model_id="1", age_s=10)
    rig.store.cancel(cancelled, "enough")
    open_attempt(rig.redis, WORKER, run)
    assert rig.store.writer.settle(event(EventKind.FINISHED, 1, job=run))
    rig.sweep()
    rig.store.purge("1", 5.0)
    for job_id in (cancelled, run, timed_out, purged):
        assert rig.record(job_id).status in (
            JobStatus.CANCELLED, JobStatus.FINISHED, JobStatus.FAILED,
        )  # fmt: skip
        due = rig.store.now() + rig.redis.ttl(names.job_key(job_id)) - RESERVE_S
        assert rig.redis.zscore(names.JOB_EXPIRY, job_id) == pytest.approx(due, abs=10)


def test_the_indexes_are_as_long_as_there_are_jobs_however_many_there_were(rig: Rig) -> None:
    for _ in range(5):
        for _ in range(40):
            job_id = rig.submit()
            rig.store.cancel(job_id, "enough")
            rig.redis.delete(names.job_key(job_id))  # as if it had expired
            rig.redis.zadd(names.JOB_EXPIRY, {job_id: 1.0})
        rig.sweep()
    assert [rig.redis.zcard(index) for index in INDEXES] == [0, 0, 0]


NIGHT_S = 8 * 3600


def ended(rig: Rig) -> tuple[str, list[str]]:
    """A finished job with a stored response, and its keys."""
    response = f"resp_{secrets.token_hex(16)}"
    stored = {"stored_key": names.response_key(response), "stored_data": b"x", "stored_ttl_s": 60}
    job_id = rig.submit(job_id=response, **stored)
    open_attempt(rig.redis, WORKER, job_id)
    assert rig.store.writer.settle(event(EventKind.FINISHED, 1, job=job_id))
    keys = [names.job_key(job_id), names.log_key(job_id), names.request_key(job_id)]
    return job_id, [*keys, names.response_key(job_id)]


def let_pass(rig: Rig, seconds: float) -> None:
    """As if all the last times had been earlier, Redis' own expiries too."""
    rig.redis.decrby(names.LAST_EXPIRY, int(seconds))
    for index in (names.JOB_EXPIRY, names.RESPONSE_EXPIRY):
        for job_id in rig.redis.zrange(index, 0, -1):
            rig.redis.zincrby(index, -seconds, job_id)
    for key in rig.redis.scan_iter():
        if (left_ms := rig.redis.pttl(key)) > 0:
            rig.redis.pexpire(key, left_ms - int(seconds * 1000))


def test_what_a_night_of_sleep_would_have_expired_lives_for_its_time_awake(rig: Rig) -> None:
    rig.sweep()
    job_id, keys = ended(rig)
    for _ in range(30):  # a month of nights is longer than what Redis' own expiries wait
        let_pass(rig, NIGHT_S)
        rig.sweep()
        rig.sweep()
    assert rig.redis.exists(*keys) == len(keys)
    left_s = rig.redis.zscore(names.JOB_EXPIRY, job_id) - rig.store.now()
    assert left_s == pytest.approx(settings_for("", Path()).log_ttl_s, abs=30)
    for index in (names.JOB_EXPIRY, names.RESPONSE_EXPIRY):
        rig.redis.zadd(index, {job_id: 1.0})
    rig.sweep()
    assert rig.redis.exists(*keys) == 0
    assert [rig.redis.zcard(one) for one in (*INDEXES, names.RESPONSE_EXPIRY)] == [0] * 4


def test_seconds_between_two_rounds_count(rig: Rig) -> None:
    rig.sweep()
    job_id, _ = ended(rig)
    before = rig.redis.zscore(names.JOB_EXPIRY, job_id)
    rig.redis.decrby(names.LAST_EXPIRY, 3)
    rig.sweep()
    assert rig.redis.zscore(names.JOB_EXPIRY, job_id) == before
