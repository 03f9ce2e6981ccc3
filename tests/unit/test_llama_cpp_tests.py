"""The page about llama.cpp's own server tests: what ran, and why a case does not pass."""

from __future__ import annotations

from scripts.llama_cpp_tests.document import outdated, page, unexplained
from scripts.llama_cpp_tests.run import Outcome


def outcome(model: str, function: str, *, has_passed: bool, is_slow: bool = False) -> Outcome:
    return Outcome(model, "test_tokenize", function, function, is_slow, has_passed, "")


GGUF = [
    outcome("demo.gguf", "test_tokenize_detokenize", has_passed=True),
    outcome("demo.gguf", "test_tokenize_with_bos", has_passed=False),
]
MLX = [
    outcome("demo", "test_tokenize_detokenize", has_passed=True),
    outcome("demo", "test_tokenize_with_bos", has_passed=True, is_slow=True),
]


def test_a_file_has_one_row_with_its_shares_and_the_number_of_each_reason() -> None:
    text = page("1.2", {"demo.gguf": GGUF, "demo": MLX}, "the others", ["test_tokenize"])
    assert "| `test_tokenize` | 1 of 2 |  | 1 of 1 | 1 of 1 | 1, 0 |  |  |  |" in text
    assert "  - the demo model has no BOS token: `tokenize_with_bos`" in text
    assert text.endswith("the others\n")


def test_a_failure_without_a_reason_and_a_reason_without_a_failure_are_found() -> None:
    strange = outcome("demo", "test_new", has_passed=False)
    assert unexplained([*GGUF, strange]) == [strange]
    assert outdated(GGUF) == []
    assert outdated(MLX) == ["test_tokenize_with_bos"]
