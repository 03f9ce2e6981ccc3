"""Totals of models that are long gone: added up under one name, and none is lost."""

from __future__ import annotations

import pytest

from jobs.storage import names, totals
from jobs.storage.connection import SyncRedis
from jobs.storage.totals import MAX_FIELDS, OTHER, Sum, fold_totals, read_totals


def write(redis: SyncRedis, model_ids: list[str]) -> None:
    """What each model has added: three jobs, and some of two sums."""
    fields: dict[str, str] = {}
    for model_id in model_ids:
        fields[f"jobs mgs.generate finished {model_id}"] = "2"
        fields[f"jobs mgs.load failed {model_id}"] = "1"
        fields[f"prompt_tokens {model_id}"] = "10"
        fields[f"queue_s {model_id}"] = "0.5"
    redis.hset(names.TOTALS, mapping=fields)


def sums(redis: SyncRedis) -> dict[str, float]:
    """Each kind of total over all models."""
    found: dict[str, float] = {}
    read = read_totals(redis)
    for (task, status, _), number in read.jobs.items():
        found[f"{task} {status}"] = found.get(f"{task} {status}", 0) + number
    for name, by_model in read.sums.items():
        found[name.value] = sum(by_model.values())
    return found


MANY = [f"model {number}" for number in range(MAX_FIELDS // 4 + 1)]


def test_above_the_limit_what_is_gone_is_added_up_and_every_sum_stays(redis: SyncRedis) -> None:
    write(redis, MANY)
    before, kept = sums(redis), {names.slug_of(MANY[7])}
    assert fold_totals(redis, kept) == 4 * (len(MANY) - 1)
    assert sums(redis) == before
    read = read_totals(redis)
    assert {model_id for _, _, model_id in read.jobs} == {MANY[7], OTHER}
    assert set(read.sums[Sum.PROMPT_TOKENS]) == {MANY[7], OTHER}
    assert read.jobs["mgs.generate", "finished", OTHER] == 2 * (len(MANY) - 1)
    assert redis.hlen(names.TOTALS) == 8


def test_up_to_the_limit_every_model_keeps_its_own(redis: SyncRedis) -> None:
    write(redis, MANY[:-1])
    assert fold_totals(redis, set()) == 0
    assert redis.hlen(names.TOTALS) == MAX_FIELDS


def test_what_was_folded_before_is_added_to(redis: SyncRedis) -> None:
    for _ in range(3):
        write(redis, MANY)
        fold_totals(redis, set())
    assert read_totals(redis).jobs["mgs.load", "failed", OTHER] == 3 * len(MANY)
    assert read_totals(redis).sums[Sum.QUEUE_S][OTHER] == pytest.approx(1.5 * len(MANY))


def test_fields_that_are_none_of_ours_stay_and_stop_nothing(
    redis: SyncRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totals, "MAX_FIELDS", 1)
    write(redis, ["a", "b c"])
    odd = {"jobs": "1", "jobs x": "1", "alone": "1", b"\xff\xfe": "1", "": "1"}
    redis.hset(names.TOTALS, mapping=odd)
    redis.hset(names.TOTALS, "prompt_tokens broken", "many")
    fold_totals(redis, set())
    left = redis.hgetall(names.TOTALS)
    assert left[b"prompt_tokens " + OTHER.encode()] == b"20"
    assert left[b"jobs mgs.load failed " + OTHER.encode()] == b"2"
    assert {b"jobs", b"jobs x", b"alone", b""} <= set(left)
