"""Other names for models: read from one setting, the exact ones first."""

from __future__ import annotations

import pytest

from jobs.catalog.model_aliases import parse_aliases


@pytest.mark.parametrize(
    ("text", "model", "target"),
    [
        ("gpt-4o=qwen3", "gpt-4o", "qwen3"),
        ("gpt-4o=qwen3", "gpt-4", None),
        (" a = b , c=d=e ", "a", "b"),
        (" a = b , c=d=e ", "c", "d=e"),
        ("a=b,\n", "a", "b"),
        ("claude-*=x", "claude-", "x"),
        ("claude-*=x", "claude-haiku-4-5", "x"),
        ("claude-*=x", "claude", None),
        ("claude-*=x,claude-haiku-4-5=y", "claude-haiku-4-5", "y"),
        ("c*=x,claude-*=y", "claude-1", "y"),
        ("*=x", "anything", "x"),
        ("", "a", None),
        (" , ", "a", None),
    ],
)
def test_an_alias_stands_for_a_model(text: str, model: str, target: str | None) -> None:
    aliases = parse_aliases(text)
    assert (aliases.exact.get(model) or aliases.by_prefix(model)) == target


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("gpt-4o", "gpt-4o"),
        ("a=b,gpt-4o", "gpt-4o"),
        ("=qwen3", "=qwen3"),
        ("gpt-4o=", "gpt-4o="),
        ("gpt-*-mini=x", "gpt-*-mini=x"),
        ("**=x", "**=x"),
        ("a=b,a=c", "a=c"),
        ("a*=b,a*=c", "a*=c"),
    ],
)
def test_a_bad_entry_is_named(text: str, entry: str) -> None:
    with pytest.raises(ValueError, match="alias") as caught:
        parse_aliases(text)
    assert repr(entry) in str(caught.value)
