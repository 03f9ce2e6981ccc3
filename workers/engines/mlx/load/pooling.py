"""How an embedding model pools: its folder says it in sentence-transformers' format."""

from __future__ import annotations

from pathlib import Path

from jobs.catalog.mlx_folder import read_optional_json
from jobs.contract.errors import ModelLoadError
from workers.engines.base import Pooling

_FILE = Path("1_Pooling") / "config.json"
_PREFIX = "pooling_mode_"
_MODES = {"mean_tokens": Pooling.MEAN, "cls_token": Pooling.CLS, "lasttoken": Pooling.LAST}


def own_pooling(path: Path) -> Pooling:
    """The pooling of the model folder ``path``; the mean if it says nothing.

    Raises ``ModelLoadError`` for a pooling, or a combination, that is not supported.
    """
    settings = read_optional_json(path / _FILE)
    wanted = [
        key.removeprefix(_PREFIX)
        for key, is_used in settings.items()
        if key.startswith(_PREFIX) and is_used is True
    ]
    if not wanted:
        return Pooling.MEAN
    if len(wanted) > 1 or wanted[0] not in _MODES:
        message = (
            f"{_FILE} of {path.name} asks for {', '.join(wanted)}; known are: {', '.join(_MODES)}"
        )
        raise ModelLoadError(message)
    return _MODES[wanted[0]]
