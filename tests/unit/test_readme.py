"""The documents say what the code says: every setting, command, route and load option."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from pydantic.fields import FieldInfo

from api.admin.models.schema import LoadBody
from api.app import ROUTERS
from api.cli import main
from jobs.settings import Settings

_ROOT = Path(__file__).resolve().parents[2]
_README = (_ROOT / "README.md").read_text()
_SETTINGS = (_ROOT / "docs" / "settings.md").read_text()
_COMMANDS = (_ROOT / "docs" / "commands.md").read_text()
_ROUTES = (_ROOT / "docs" / "routes.md").read_text()
_OLDER = (_ROOT / "docs" / "older-clients.md").read_text()
_SETTING = re.compile(r"^\| `((?:MGS_|REDIS_|HF_|OLLAMA_)\w+)` \| (?:`(.*?)`)? ?\|", re.MULTILINE)
_ROUTE = re.compile(r"`(GET|POST|PATCH|DELETE) (/[^`?]*)")
_OPTION_TABLE = re.compile(r"^### Load options\n(.*?)^## ", re.MULTILINE | re.DOTALL)


def test_the_table_has_every_setting_with_its_default() -> None:
    assert _settings_in(_SETTINGS) == _real_settings()


def test_the_readme_has_ten_settings_with_their_defaults() -> None:
    written = _settings_in(_README)
    assert len(written) == 10
    assert written.items() <= _real_settings().items()


def test_the_table_has_every_command() -> None:
    written = set(re.findall(r"^\| `mgs ([a-z-]+)", _COMMANDS, re.MULTILINE))
    real = {c.name or c.callback.__name__ for c in main.app.registered_commands if c.callback}
    groups = {str(group.name) for group in main.app.registered_groups}
    assert written == real | groups


def test_the_table_has_every_load_option() -> None:
    rows = [row.split("|")[1] for row in re.findall(r"^\| `.*", _option_table(), re.MULTILINE)]
    written = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert written == set(LoadBody.model_fields)


def test_the_documents_have_every_route() -> None:
    assert _real_routes() <= set(_ROUTE.findall(_ROUTES + _OLDER))


@pytest.mark.parametrize("text", [_README, _ROUTES], ids=["README.md", "routes.md"])
def test_every_route_that_is_written_is_there(text: str) -> None:
    assert set(_ROUTE.findall(text)) <= _real_routes()


def _settings_in(text: str) -> dict[str, str]:
    return {name: default or "" for name, default in _SETTING.findall(text)}


def _real_settings() -> dict[str, str]:
    return {_variable(n, field): _default(field) for n, field in Settings.model_fields.items()}


def _option_table() -> str:
    found = _OPTION_TABLE.search(_ROUTES)
    assert found is not None
    return found[1]


def _real_routes() -> set[tuple[str, str]]:
    """Those of the description and those that are not in it."""
    return {
        (method, route.path.replace(":path}", "}"))
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }


def _variable(name: str, field: FieldInfo) -> str:
    return str(field.validation_alias or f"MGS_{name.upper()}")


def _default(field: FieldInfo) -> str:
    value = field.default
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value in (None, "") else str(value)
