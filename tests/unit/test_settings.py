"""Settings: read once, refused by name, never open to the world by mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import settings as settings_module
from jobs.platform.darwin import Darwin
from jobs.settings import Settings, is_loopback, load_server_settings, load_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith(("MGS_", "REDIS_URL")):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MGS_PORT", "0"), ("MGS_PORT", "ninety"), ("MGS_PORT", "65536"),
        ("MGS_LOG_LEVEL", "loud"), ("MGS_GRACE_S", "-1"), ("MGS_GRACE_S", "nan"),
        ("MGS_GRACE_S", "inf"), ("MGS_LOG_TTL_S", "0"), ("MGS_SLOTS", "257"),
        ("MGS_SLOTS", "0"), ("MGS_FAKE_ENGINE", "perhaps"), ("MGS_MAX_QUEUED_PER_MODEL", "0"),
        ("MGS_PROMPT_CACHE_BYTES", "-1"), ("MGS_PROMPT_CACHE_BYTES", "2 GB"),
        ("MGS_LOAD_TIMEOUT_S", "inf"), ("MGS_REQUEST_TIMEOUT_S", "nan"),
        ("MGS_ORPHAN_S", "4.9"), ("MGS_UNKNOWN_MODEL", "first"), ("MGS_MODEL_ALIASES", "a=b,c"),
        ("MGS_CORS_ORIGINS", "app.example"), ("MGS_CORS_ORIGINS", "*,http://a/b"),
    ],
)  # fmt: skip
def test_a_bad_value_names_itself_and_ends_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as caught:
        load_settings()
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"mgs: {name}: ")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("blank", ["", " ", "\t "])
def test_a_blank_value_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch, blank: str) -> None:
    unset = load_settings()
    for name, field in Settings.model_fields.items():
        monkeypatch.setenv(str(field.validation_alias or f"MGS_{name.upper()}"), blank)
    assert load_settings() == unset


@pytest.mark.parametrize("value", ["a=b,gpt-4o", "a=b,gpt-4o,c"])
def test_a_bad_alias_names_its_entry(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    monkeypatch.setenv("MGS_MODEL_ALIASES", value)
    with pytest.raises(SystemExit):
        load_settings()
    said = capsys.readouterr().err
    assert said.startswith("mgs: MGS_MODEL_ALIASES: ")
    assert "'gpt-4o'" in said


def test_aliases_and_words_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MGS_MODEL_ALIASES", " gpt-4o = qwen3 ")
    monkeypatch.setenv("MGS_UNKNOWN_MODEL", " Default ")
    monkeypatch.setenv("MGS_LOG_LEVEL", " DEBUG ")
    settings = load_settings()
    assert settings.aliases.exact == {"gpt-4o": "qwen3"}
    assert (settings.unknown_model, settings.log_level) == ("default", "debug")


def test_an_answer_is_waited_for_as_long_as_its_job_may_wait_and_run() -> None:
    settings = Settings(queue_timeout_s=100, request_timeout_s=1000)
    assert settings.answer_timeout_s > 1100


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", "127.evil.org"])
def test_nothing_listens_beyond_this_machine_without_a_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], host: str
) -> None:
    monkeypatch.setenv("MGS_HOST", host)
    with pytest.raises(SystemExit):
        load_settings()
    assert "MGS_API_KEY" in capsys.readouterr().err
    monkeypatch.setenv("MGS_API_KEY", "  ")
    with pytest.raises(SystemExit):
        load_settings()
    monkeypatch.setenv("MGS_API_KEY", "secret")
    assert load_settings().host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_key(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("MGS_HOST", host)
    assert load_settings().host == host


@pytest.mark.parametrize("host", ["127.evil.org", "0.0.0.0", "localhost.evil.org", "::", "", "127"])
def test_a_name_that_looks_like_loopback_is_none(host: str) -> None:
    assert not is_loopback(host)


def test_a_secret_is_not_printed_with_a_bad_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MGS_API_KEY", "canary")
    monkeypatch.setenv("REDIS_URL", "redis://:canary@localhost")
    monkeypatch.setenv("MGS_PORT", "x")
    with pytest.raises(SystemExit):
        load_settings()
    assert "canary" not in capsys.readouterr().err


def test_settings_cannot_be_changed() -> None:
    settings = Settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1


def test_the_embedded_redis_listens_in_the_state_folder(tmp_path: Path) -> None:
    settings = Settings(state_dir=Path("/tmp/s"))
    assert settings.redis_socket == Path("/tmp/s/redis.sock").resolve()
    assert settings.effective_redis_url == f"unix://{settings.redis_socket}?db=0"


def test_a_socket_path_that_is_too_long_moves_to_a_short_one_of_its_own() -> None:
    one, other = (Settings(state_dir=Path("/tmp") / (letter * 100)) for letter in "ab")
    for settings in (one, other):
        assert len(bytes(settings.redis_socket)) <= 100
        assert "mgs" in str(settings.socket_dir)
    assert one.socket_dir != other.socket_dir
    assert one.socket_dir == Settings(state_dir=one.state_dir).socket_dir
    exact = Settings(state_dir=Path("/tmp") / ("c" * (100 - len("/tmp//redis.sock"))))
    assert exact.socket_dir == exact.state_dir.resolve()


def test_a_given_redis_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", " redis://elsewhere:1 ")
    assert load_settings().effective_redis_url == "redis://elsewhere:1"
    monkeypatch.setenv("REDIS_URL", " ")
    assert load_settings().effective_redis_url.startswith("unix://")


def test_on_a_mac_a_long_socket_path_moves_to_where_launchd_and_the_shell_agree(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """TMPDIR differs between them, and the system cleans it each night."""
    monkeypatch.setattr(settings_module, "current_platform", lambda: Darwin(rusage=lambda *_: -1))
    settings = Settings(state_dir=Path("/tmp") / ("a" * 100))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("HOME", "/Users/somebody-with-a-name")
    assert settings.socket_dir.parent == Path("/Users/somebody-with-a-name/Library/Caches/mgs")
    assert len(bytes(settings.redis_socket)) <= 100


def test_a_server_does_not_start_with_a_wrong_keys_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys.toml"
    monkeypatch.setenv("MGS_KEYS_FILE", str(file))
    monkeypatch.setenv("MGS_HOST", "0.0.0.0")
    for text, problem in (
        (None, "there is no such file: `mgs keys add NAME` makes it"),
        ('[[keys]]\nname = "a"\nsha256 = "x"\n', "keys[0] ('a'): sha256: must be the SHA-256"),
    ):
        if text is not None:
            file.write_text(text)
        with pytest.raises(SystemExit):
            load_server_settings()
        assert f"mgs: {file}: {problem}" in capsys.readouterr().err
    file.write_text("")
    assert load_server_settings().has_keys, "also while there are none"
