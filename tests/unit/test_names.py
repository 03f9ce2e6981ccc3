"""Names in Redis: one to one with model ids, and fit for queues, URLs and clients."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.contract.errors import InvalidRequestError
from jobs.storage import names

MODEL_IDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1,
                    max_size=64)  # fmt: skip
LOOKALIKES = st.from_regex(r"x[a-z2-7]{26}", fullmatch=True)
PLAIN = st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True)


@given(st.lists(MODEL_IDS | LOOKALIKES | PLAIN, unique=True, max_size=20))
def test_no_two_model_ids_share_a_slug(model_ids: list[str]) -> None:
    closed = {*model_ids, *(names.slug_of(model_id) for model_id in model_ids)}
    assert len({names.slug_of(model_id) for model_id in closed}) == len(closed)


@given(MODEL_IDS)
def test_a_slug_is_fit_for_queue_names_and_urls(model_id: str) -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", names.slug_of(model_id))


@given(PLAIN)
def test_a_plain_model_id_is_its_own_slug(model_id: str) -> None:
    is_lookalike = re.fullmatch(r"x[a-z2-7]{26}", model_id)
    assert (names.slug_of(model_id) == model_id) is not bool(is_lookalike)


@pytest.mark.parametrize(
    "model_id", ["a:intermediate", "a,b", "a b", "..", "/etc", "A", "é", "0\n"]
)
def test_an_id_that_could_confuse_a_name_is_hashed(model_id: str) -> None:
    assert re.fullmatch(r"x[a-z2-7]{26}", names.slug_of(model_id))


@pytest.mark.parametrize("model_id", ["0", "a" * 64, "my model", "漢字", "a:b/../c"])
def test_printable_model_ids_are_accepted(model_id: str) -> None:
    assert names.check_model_id(model_id) == model_id


@pytest.mark.parametrize(
    "model_id", ["", "a" * 65, "a\n", "\x00", "\x1b[31m", "\u202e", "\ud800", "a\u200bb"]
)
def test_other_model_ids_are_refused_by_the_headers_name(model_id: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        names.check_model_id(model_id)
    assert caught.value.param == "X-Model-Id"


def test_worker_names_have_no_space_and_no_comma() -> None:
    assert names.worker_name(names.slug_of("a, b"), "gen", "0123").count(" ") == 0


def test_every_kind_of_key_is_distinct() -> None:
    kinds = (
        names.request_key, names.job_key, names.log_key, names.event_channel, names.claims_key,
        names.status_key, names.node_key, names.owner_key, names.generation_queue,
        names.control_queue,
    )  # fmt: skip
    keys = [kind("a") for kind in kinds]
    assert len(set(keys)) == len(keys)
