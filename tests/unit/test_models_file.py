"""models.toml: what it may say, and errors that name file, line and key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from api.admin.models.schema import LoadBody
from jobs.catalog.catalog import find_model, list_models, model_options
from jobs.catalog.model_aliases import parse_aliases
from jobs.catalog.models_file import (
    DefaultsOptions,
    LoadOptions,
    ModelsFile,
    ModelsFileError,
    parse_models_file,
)
from jobs.catalog.options import load_request_of
from jobs.contract.errors import AdapterNotFoundError, ModelNotFoundError
from jobs.contract.requests import GenerationDefaults
from jobs.settings import Settings, load_server_settings
from tests.helpers.stores import add_files, add_gguf, mlx_files, settings_of

EVERYTHING = """
["qwen-Q4_K_M.gguf"]
aliases = ["qwen", "gpt-4o", "claude-*"]
ttl = "10m"
pinned = true
priority = 5
preload = true
unlisted = true
memory = "6GB"
load = { context_length = 16384, slots = 2, kv_bits = 8, chat_format = "chatml" }

["qwen-Q4_K_M.gguf".defaults]
temperature = 0
top_p = 0.9
logit_bias = { "7" = -1 }
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    for name in ("qwen-Q4_K_M.gguf", "small.gguf"):
        add_gguf(tmp_path / "models" / name)
    add_files(tmp_path / "models" / "mlx", mlx_files())
    return settings_of(tmp_path, "models", adapters_dir=tmp_path / "adapters")


def write(settings: Settings, text: str) -> None:
    (settings.models_dir / "models.toml").write_text(text)


def problems_of(text: str, aliases: str = "") -> list[str]:
    with pytest.raises(ModelsFileError) as caught:
        parse_models_file(text, "models.toml", parse_aliases(aliases))
    return caught.value.problems


def test_a_model_is_as_its_table_says(settings: Settings) -> None:
    write(settings, EVERYTHING)
    entry = find_model(settings, "qwen-Q4_K_M.gguf")
    options = model_options(settings, entry)
    assert (options.ttl_s, options.memory_bytes, options.priority) == (600, 6_000_000_000, 5)
    assert options.pinned
    assert options.preload
    assert options.unlisted
    request = load_request_of(settings, entry)
    assert (request.context_length, request.slots, request.kv_bits) == (16384, 2, 8)
    assert request.chat_format == "chatml"
    assert request.defaults == GenerationDefaults(temperature=0, top_p=0.9, logit_bias={7: -1})
    assert model_options(settings, find_model(settings, "small.gguf")).ttl_s is None


def test_what_a_load_gives_goes_before_the_file(settings: Settings) -> None:
    write(settings, EVERYTHING)
    entry = find_model(settings, "qwen")
    given = GenerationDefaults(temperature=1.5)
    request = load_request_of(settings, entry, slots=7, context_length=None, defaults=given)
    assert (request.slots, request.context_length) == (7, 16384)
    assert (request.defaults.temperature, request.defaults.top_p) == (1.5, 0.9)


def test_an_adapter_or_draft_that_is_not_there_is_said_by_name(settings: Settings) -> None:
    write(settings, '[mlx.load]\nadapter_name = "gone"\n["small.gguf".load]\ndraft_model = "no"')
    with pytest.raises(AdapterNotFoundError, match="gone"):
        load_request_of(settings, find_model(settings, "mlx"))
    with pytest.raises(ModelNotFoundError, match="no") as caught:
        load_request_of(settings, find_model(settings, "small.gguf"))
    assert caught.value.param == "draft_model"


def test_aliases_of_the_file_find_their_model(settings: Settings) -> None:
    write(settings, EVERYTHING)
    for name in ("qwen", "gpt-4o", "claude-opus-4-5"):
        assert find_model(settings, name).name == "qwen-Q4_K_M.gguf"
    assert find_model(settings, "small").aliases == ()
    write(settings, '[small]\naliases = ["s"]')
    assert find_model(settings, "s").aliases == ("s",)


def test_an_unlisted_model_is_hidden_and_can_be_reached(settings: Settings) -> None:
    write(settings, "[mlx]\nunlisted = true")
    assert [entry.name for entry in list_models(settings)] == ["qwen-Q4_K_M.gguf", "small.gguf"]
    assert find_model(settings, "mlx").name == "mlx"
    with pytest.raises(ModelNotFoundError) as caught:
        find_model(settings, "mlxx")
    assert "'mlx'" not in caught.value.message


def test_the_file_is_read_again_when_it_changes(settings: Settings) -> None:
    entry = find_model(settings, "mlx")
    assert not model_options(settings, entry).pinned
    write(settings, "[mlx]\npinned = true")
    assert model_options(settings, entry).pinned
    (settings.models_dir / "models.toml").unlink()
    assert not model_options(settings, entry).pinned


def test_while_the_file_is_wrong_the_last_right_one_counts(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    write(settings, "[mlx]\npriority = 3")
    entry = find_model(settings, "mlx")
    assert model_options(settings, entry).priority == 3
    write(settings, "[mlx]\npriority = high")
    assert model_options(settings, entry).priority == 3
    assert len([r for r in caplog.records if "models.toml is wrong" in r.message]) == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[a]\n\npinned = 1", "models.toml:3: [\"a\"] pinned: Input should be a valid boolean"),
        ("[a]\nttl = \"soon\"", "models.toml:2: [\"a\"] ttl: must be seconds, or a text"),
        ("[a]\nttl = -1", "models.toml:2: [\"a\"] ttl: Input should be greater than or equal to 0"),
        ("[a]\nmemory = \"6 gigs\"", "models.toml:2: [\"a\"] memory: must be bytes"),
        ("[a]\nwarm = true", "models.toml:2: [\"a\"] warm: unknown key"),
        ("# x\n[Qwen-0.6B]\nttl = 3", "models.toml:2: [\"Qwen-0\"] 6B: unknown key; a name with"),
        ("a = 3", "models.toml:1: [\"a\"]: must be a table"),
        ("[a.load]\nslots = 0", "models.toml:2: [\"a\"] load.slots: Input should be greater"),
        ("[a]\nttl = 1\nload = { slots = 1.5 }", "models.toml:3: [\"a\"] load.slots: Input should"),
        ("[a]\nload.threads = true", "models.toml:2: [\"a\"] load.threads: Input should be a"),
        ("[a]\n[a.defaults]\ntop_p = 2", "models.toml:3: [\"a\"] defaults.top_p: Input should be"),
        ("['a.gguf'.defaults]\ntop_p = nan", "models.toml:2: [\"a.gguf\"] defaults.top_p: Input"),
        ("[a]\naliases = [\n  \"x*y\",\n]", "models.toml:2: [\"a\"] aliases.0: an alias may have"),
        ("[a]\naliases = [\"\"]", "models.toml:2: [\"a\"] aliases.0: String should have at least"),
        ("[a]\naliases = \"x\"", "models.toml:2: [\"a\"] aliases: Input should be a valid tuple"),
        ("[a]\n\nb = ", "models.toml:3: Invalid value"),
        ("[a]\nb = 1\nb = 2", "models.toml:3: Cannot overwrite a value"),
        ("[a", "models.toml:1: "),
    ],
)  # fmt: skip
def test_an_error_names_file_line_and_key(text: str, problem: str) -> None:
    [found] = problems_of(text)
    assert found.startswith(problem)


def test_all_errors_are_said_at_once() -> None:
    text = '[a]\nttl = "x"\n[b]\npinned = 0\nfast = 1'
    assert [line.split(": ")[0] for line in problems_of(text)] == [
        "models.toml:2",
        "models.toml:4",
        "models.toml:5",
    ]


@pytest.mark.parametrize(
    ("text", "aliases", "problem"),
    [
        ('[a]\naliases=["x"]\n[b]\naliases=["x"]', "", ":4: [\"b\"] aliases: 'x' is an alias of"),
        ('[a]\naliases=["b"]\n[b]\nttl=1', "", ":2: [\"a\"] aliases: 'b' is a model of its own"),
        ('[a]\naliases=["x"]', "x=b", ":2: [\"a\"] aliases: 'x' is an alias of 'b' in MGS_MODEL"),
        ('[a]\naliases=["x*"]', "x*=b", ":2: [\"a\"] aliases: 'x*' is an alias of 'b' in MGS_"),
    ],
)  # fmt: skip
def test_an_alias_is_one_models_alone(text: str, aliases: str, problem: str) -> None:
    [found] = problems_of(text, aliases)
    assert found.startswith(f"models.toml{problem}")
    assert parse_models_file('[a]\naliases=["x"]', "", parse_aliases("x=a"))


@pytest.mark.parametrize(
    ("value", "seconds"), [("0", 0), ("90", 90), ('"90s"', 90), ('"1.5h"', 5400), ('"2d"', 172800)]
)
def test_times_are_seconds_or_texts(value: str, seconds: float) -> None:
    assert parse_models_file(f"[a]\nttl = {value}", "")["a"].ttl_s == seconds


@pytest.mark.parametrize(
    ("value", "size"),
    [("1000", 1000), ('"6GB"', 6 * 10**9), ('"1.5 GiB"', 3 << 29), ('"600MB"', 600 * 10**6)],
)
def test_sizes_are_bytes_or_texts(value: str, size: int) -> None:
    assert parse_models_file(f"[a]\nmemory = {value}", "")["a"].memory_bytes == size


def test_the_options_are_those_of_a_load() -> None:
    keeping = {"ttl", "pinned", "priority"}
    others = {"llm_model_name", "background", *keeping, *GenerationDefaults.__struct_fields__}
    assert set(LoadOptions.model_fields) == set(LoadBody.model_fields) - others
    assert set(DefaultsOptions.model_fields) == set(GenerationDefaults.__struct_fields__)


def test_a_wrong_file_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MGS_MODELS_DIR", str(tmp_path))
    assert load_server_settings().models_dir == tmp_path
    (tmp_path / "models.toml").write_text('[a]\nttl = "x"\nload = 3')
    with pytest.raises(SystemExit) as caught:
        load_server_settings()
    assert caught.value.code == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f'mgs: {tmp_path}/models.toml:2: ["a"] ttl: ')
    assert second.startswith(f'mgs: {tmp_path}/models.toml:3: ["a"] load: ')


def test_a_file_that_cannot_be_read_is_an_error_too(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ModelsFileError, match="cannot be read"):
        ModelsFile(tmp_path / "models.toml").check()
    os.unlink(tmp_path / "models.toml")
    (tmp_path / "models.toml").mkdir()
    with pytest.raises(ModelsFileError, match="cannot be read"):
        ModelsFile(tmp_path / "models.toml").check()
