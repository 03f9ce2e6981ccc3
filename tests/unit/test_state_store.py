"""Kept states: how many, and which ones go first."""

from __future__ import annotations

from workers.engines.shared.state_store import StateStore, Stored
from workers.engines.shared.token_key import to_key


def stored(first: int, num_bytes: int) -> Stored[str]:
    return Stored("model", to_key([first, 2, 3]), f"state {first}", num_bytes, can_trim=True)


def kept(store: StateStore[str]) -> list[str]:
    return [entry.state for entry in store.entries]


def test_the_newest_is_kept_even_if_it_is_larger_than_the_budget() -> None:
    store: StateStore[str] = StateStore(100)
    store.put(stored(1, 60))
    assert store.fits(1000)
    store.put(stored(2, 1000))
    assert kept(store) == ["state 2"]
    store.put(stored(3, 50))
    assert kept(store) == ["state 3"]


def test_a_budget_that_was_asked_for_is_one_for_the_newest_too() -> None:
    store: StateStore[str] = StateStore(100, largest_bytes=100)
    assert store.fits(100)
    assert not store.fits(101)


def test_without_a_budget_nothing_is_kept() -> None:
    assert not StateStore[str](0).fits(1)


def test_a_limit_evicts_at_once_and_holds_for_the_newest_too() -> None:
    gone: list[str] = []
    store: StateStore[str] = StateStore(100, lambda entry: gone.append(entry.state))
    for first in (1, 2, 3):
        store.put(stored(first, 30))
    store.limit(40)
    assert (gone, kept(store)) == (["state 1", "state 2"], ["state 3"])
    assert not store.fits(41)
    store.limit(0)
    assert (gone[-1], store.num_bytes) == ("state 3", 0)


def test_room_is_made_before_a_state_is_copied() -> None:
    store: StateStore[str] = StateStore(100)
    for first in (1, 2, 3):
        store.put(stored(first, 30))
    assert store.make_room(50)
    assert kept(store) == ["state 3"]
    store.limit(70)
    assert not store.make_room(71)
    assert kept(store) == ["state 3"]
