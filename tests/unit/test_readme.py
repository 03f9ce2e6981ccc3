"""The README says what the code says: every setting, every command."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic.fields import FieldInfo

from api.cli import main
from jobs.settings import Settings

_README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
_ROW = re.compile(r"^\| `((?:MGS_|REDIS_)\w+)` \| (?:`(.*?)`)? ?\|", re.MULTILINE)


def test_the_table_has_every_setting_with_its_default() -> None:
    written = {name: default or "" for name, default in _ROW.findall(_README)}
    real = {_variable(n, field): _default(field) for n, field in Settings.model_fields.items()}
    assert written == real


def test_the_table_has_every_command() -> None:
    written = set(re.findall(r"^\| `mgs ([a-z-]+)", _README, re.MULTILINE))
    real = {c.name or c.callback.__name__ for c in main.app.registered_commands if c.callback}
    assert written == real


def _variable(name: str, field: FieldInfo) -> str:
    return str(field.validation_alias or f"MGS_{name.upper()}")


def _default(field: FieldInfo) -> str:
    value = field.default
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value in (None, "") else str(value)
