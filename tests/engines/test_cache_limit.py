"""What a backend keeps allocated for reuse, and a limit of it."""

from __future__ import annotations

import pytest

from jobs.contract.errors import UnsupportedParameterError
from workers.engines.base import Engine

_NO_LIMIT = 1 << 40  # of a process that other tests share


def test_the_cache_has_a_size(engine: Engine) -> None:
    assert engine.cache_bytes >= 0


def test_a_limit_is_taken_or_refused_by_name(engine: Engine) -> None:
    if engine.info.backend == "llama-cpp":
        with pytest.raises(UnsupportedParameterError) as caught:
            engine.limit_cache(_NO_LIMIT)
        assert caught.value.param == "cache_limit"
    else:
        engine.limit_cache(_NO_LIMIT)
