"""DRY: which repetitions it sees, what it takes for them, and what breaks them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.contract.sampling import Sampling
from workers.engines.dry import BreakerFinder, Breakers, Repetitions, penalties
from workers.engines.fake import FakeTokenizer

DRY = Sampling(dry_multiplier=1.0, dry_base=2.0, dry_allowed_length=2)
SETTINGS = st.builds(
    Sampling,
    dry_multiplier=st.just(0.5),
    dry_base=st.sampled_from([1.0, 1.75]),
    dry_allowed_length=st.integers(0, 4),
    dry_penalty_last_n=st.sampled_from([-1, 1, 2, 7, 100]),
)
BREAKERS: Breakers = {3: ((),), 2: ((1,), (1, 0))}
TOKENS = st.lists(st.integers(0, 4), min_size=1, max_size=40)


def by_definition(tokens: list[int], sampling: Sampling, breakers: Breakers) -> dict[int, float]:
    """As slowly as it can be said."""
    num = sampling.dry_penalty_last_n
    window = tokens if num < 0 else tokens[-num:]
    limit = len(window)
    for start in reversed(range(len(window))):
        tails = breakers.get(window[start], ())
        ends = [start + 1 + len(tail) for tail in tails
                if window[start + 1 : start + 1 + len(tail)] == list(tail)]  # fmt: skip
        if ends:
            limit = len(window) - max(ends)
            break
    longest: dict[int, int] = {}
    for end in range(1, len(window)):
        length = 0
        while length < min(end, limit) and window[end - 1 - length] == window[-1 - length]:
            length += 1
        if length >= sampling.dry_allowed_length and () not in breakers.get(window[end], ()):
            longest[window[end]] = max(length, longest.get(window[end], 0))
    if len(window) <= sampling.dry_allowed_length or limit < sampling.dry_allowed_length:
        return {}
    return {
        token: sampling.dry_multiplier * sampling.dry_base ** (length - sampling.dry_allowed_length)
        for token, length in longest.items()
    }


def test_what_goes_on_with_a_repetition_is_penalised_by_its_length() -> None:
    assert penalties([1, 2, 3, 9, 2, 3], DRY, {}) == {9: 1.0}
    assert penalties([1, 2, 3, 9, 1, 2, 3], DRY, {}) == {9: 2.0}
    assert penalties([7, 1, 2, 3, 9, 7, 1, 2, 3], DRY, {}) == {9: 4.0}


def test_of_several_repetitions_the_longest_counts() -> None:
    assert penalties([2, 3, 9, 1, 2, 3, 9, 1, 2, 3], DRY, {}) == {9: 16.0}


def test_a_short_repetition_is_allowed() -> None:
    assert penalties([1, 3, 9, 2, 3], DRY, {}) == {}
    assert penalties([1], DRY, {}) == {}


def test_it_looks_back_as_far_as_it_is_told() -> None:
    tokens = [2, 3, 9, 5, 6, 2, 3]
    for num, expected in ((7, {9: 1.0}), (6, {}), (0, {}), (-1, {9: 1.0})):
        assert (
            penalties(tokens, msgspec.structs.replace(DRY, dry_penalty_last_n=num), {}) == expected
        )


def test_a_breaker_ends_what_counts_as_repeated() -> None:
    tokens = [1, 2, 3, 9, 1, 2, 3]
    assert penalties(tokens, DRY, {1: ((),)}) == {9: 1.0}
    assert penalties(tokens, DRY, {2: ((),)}) == {}
    assert penalties(tokens, DRY, {2: ((4,),)}) == {9: 2.0}, "not the whole breaker"


def test_a_breaker_itself_is_never_penalised() -> None:
    assert penalties([1, 2, 3, 9, 1, 2, 3], DRY, {9: ((),)}) == {}


def test_without_a_multiplier_it_is_off() -> None:
    assert penalties([1, 2, 3, 9, 1, 2, 3], Sampling(), {}) == {}


def test_a_long_repetition_is_as_good_as_forbidden_and_still_a_number() -> None:
    strong = msgspec.structs.replace(DRY, dry_base=100.0, dry_multiplier=100.0)
    [value] = penalties([1] * 5000, strong, {}).values()
    assert 1e29 < value < 1e38


@given(TOKENS, SETTINGS)
def test_it_is_what_its_definition_says(tokens: list[int], sampling: Sampling) -> None:
    found = penalties(tokens, sampling, BREAKERS)
    assert found == pytest.approx(by_definition(tokens, sampling, BREAKERS))


@given(TOKENS, SETTINGS, st.integers(1, 40))
def test_a_sequence_that_grew_is_one_that_began_so(
    tokens: list[int], sampling: Sampling, first: int
) -> None:
    growing = Repetitions(sampling, BREAKERS)
    for end in range(min(first, len(tokens)), len(tokens) + 1):
        found = growing.penalties(tokens[:end])
    assert found == penalties(tokens, sampling, BREAKERS)


class Words(FakeTokenizer):
    """Tokens of several characters."""

    pieces = (b"a", b"b", b"c", b"ab", b"xa", b"ca", b"<", b"abc")
    vocab_size = len(pieces) + 1

    def piece(self, token_id: int) -> bytes:
        return self.pieces[token_id] if token_id < len(self.pieces) else b""

    def control_text(self, token_id: int) -> str:
        return "" if token_id < len(self.pieces) else "<|b|>"

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return [self.pieces.index(character.encode()) for character in text]


def find(*texts: str) -> Breakers:
    return BreakerFinder(Words()).of(msgspec.structs.replace(DRY, dry_sequence_breakers=texts))


def test_a_breaker_may_lie_in_a_token_or_begin_in_one() -> None:
    assert find("ab") == {0: ((1,),), 3: ((),), 4: ((1,),), 5: ((1,),), 7: ((),)}
    assert find("b", "c")[7] == ((),)
    assert find("abc") == {0: ((1, 2),), 3: ((2,),), 4: ((1, 2),), 5: ((1, 2),), 7: ((),)}


def test_a_control_token_is_known_by_its_text() -> None:
    assert find("|b|") == {8: ((),)}
    assert find("z") == {}
