"""Names of models: one rule, one answer, and an error that says what else there is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.catalog.catalog import Catalog
from jobs.catalog.entry import ModelEntry
from jobs.catalog.model_aliases import parse_aliases
from jobs.catalog.names import find_all, model_id_of, without_collisions
from jobs.contract.errors import ModelNotFoundError
from jobs.storage.names import check_model_id
from tests.helpers.stores import add_described_gguf


def mlx(name: str) -> ModelEntry:
    return ModelEntry(name, Path("x") / name, "mlx", 1)


def gguf(name: str, file: str = "", quantization: str = "") -> ModelEntry:
    path = Path("x") / (file or name)
    return ModelEntry(name, path, "llama-cpp", 1, quantization=quantization)


ENTRIES = [
    mlx("Qwen3"),
    mlx("mlx-community/Llama-3.2-1B-4bit"),
    gguf("Qwen3.gguf"),
    gguf("gemma-3-Q4_K_M.gguf", quantization="Q4_K_M"),
    gguf("gemma-3-Q8_0.gguf", quantization="Q8_0"),
    gguf("org/Phi-GGUF:Q4_0", "Phi-4-Q4_0.gguf", "Q4_0"),
    gguf("org/Phi-GGUF:Q6_K", "Phi-4-Q6_K.gguf", "Q6_K"),
    gguf("org/One-GGUF:BF16", "One-BF16.gguf", "BF16"),
    gguf("me/folder/plain.gguf", "plain.gguf"),
    gguf("big-Q2_K-00001-of-00003.gguf", quantization="Q2_K"),
    ModelEntry("llama3:latest", Path("blobs/sha256-1"), "llama-cpp", 1, "ollama"),
    ModelEntry("llama3:8b", Path("blobs/sha256-2"), "llama-cpp", 1, "ollama"),
]


def catalog(*entries: ModelEntry, aliases: str = "") -> Catalog:
    return Catalog(list(entries), {}, parse_aliases(aliases))


def find(name: str, aliases: str = "") -> str:
    return catalog(*ENTRIES, aliases=aliases).find(name, "model").name


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("qwen3", "Qwen3"), ("QWEN3.GGUF", "Qwen3.gguf"), ("Qwen3:latest", "Qwen3"),
        ("any/Qwen3", "Qwen3"), ("llama-3.2-1b-4bit", "mlx-community/Llama-3.2-1B-4bit"),
        ("gemma-3:q4_k_m", "gemma-3-Q4_K_M.gguf"), ("gemma-3@q8_0", "gemma-3-Q8_0.gguf"),
        ("gemma-3-q8_0", "gemma-3-Q8_0.gguf"), ("Phi-GGUF:Q4_0", "org/Phi-GGUF:Q4_0"),
        ("phi:q6_k", "org/Phi-GGUF:Q6_K"), ("phi-4-q6_k.gguf", "org/Phi-GGUF:Q6_K"),
        ("phi-4:Q6_K", "org/Phi-GGUF:Q6_K"), ("org/One-GGUF", "org/One-GGUF:BF16"),
        ("one", "org/One-GGUF:BF16"), ("plain", "me/folder/plain.gguf"),
        ("folder", "me/folder/plain.gguf"), ("me/folder", "me/folder/plain.gguf"),
        ("big:q2_k", "big-Q2_K-00001-of-00003.gguf"), ("big", "big-Q2_K-00001-of-00003.gguf"),
        ("llama3", "llama3:latest"), ("LLAMA3:8B", "llama3:8b"), ("llama3@ollama", "llama3:latest"),
        ("library/llama3:8b", "llama3:8b"),
    ],
)  # fmt: skip
def test_a_name_may_leave_out_what_makes_no_difference(name: str, found: str) -> None:
    assert find(name) == found


@pytest.mark.parametrize(
    ("name", "candidates"),
    [
        ("gemma-3", ["gemma-3-Q4_K_M.gguf", "gemma-3-Q8_0.gguf"]),
        ("org/phi-gguf", ["org/Phi-GGUF:Q4_0", "org/Phi-GGUF:Q6_K"]),
        ("gemma-3:Q5_K_M", ["gemma-3-Q4_K_M.gguf"]), ("qwem3", ["Qwen3", "Qwen3.gguf"]),
        ("other/Llama-3.2-1B-4bit", ["mlx-community/Llama-3.2-1B-4bit"]),
        ("qwen3@ollama", []), ("org", []), ("latest", []), ("", []), (":", []), ("/", []),
        ("@hf", []), ("x" * 5000, []), ("Qwen3@nowhere", ["Qwen3"]),
    ],
)  # fmt: skip
def test_a_name_that_means_none_or_several_gets_candidates(
    name: str, candidates: list[str]
) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        find(name)
    assert all(repr(one) in caught.value.message for one in candidates), caught.value.message
    assert caught.value.param == "model"
    assert len(caught.value.message) < 4000


def test_at_most_twenty_candidates_are_named() -> None:
    entries = [gguf(f"m-Q{number}_0.gguf", quantization=f"Q{number}_0") for number in range(50)]
    with pytest.raises(ModelNotFoundError) as ambiguous:
        catalog(*entries).find("m", "model")
    assert ambiguous.value.message.count(".gguf") == 20
    assert ambiguous.value.message.endswith("and 30 more")
    with pytest.raises(ModelNotFoundError) as unknown:
        catalog(*entries).find("m-Q77_0.ggu", "model")
    assert unknown.value.message.count("'m-Q") == 21


def test_an_alias_comes_before_a_likeness_and_after_the_name() -> None:
    aliases = "QWEN3=llama3:8b, Qwen3=llama3:8b, gpt-*=phi:q6_k, gpt-4=Qwen3, gone=nothing"
    assert find("Qwen3", aliases) == "Qwen3"
    assert find("QWEN3", aliases) == "llama3:8b"
    assert find("gpt-4", aliases) == "Qwen3"
    assert find("gpt-5", aliases) == "org/Phi-GGUF:Q6_K"
    with pytest.raises(ModelNotFoundError):
        find("gone", aliases)


def test_a_header_says_the_quantization_that_a_name_does_not(tmp_path: Path) -> None:
    add_described_gguf(tmp_path / "m.gguf", {"general.file_type": 15})
    entry = ModelEntry("m.gguf", tmp_path / "m.gguf", "llama-cpp", 1)
    assert find_all([entry], "m:Q4_K_M") == [entry]
    assert find_all([entry], "m:Q8_0") == []


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=90)
LIKELY = st.from_regex(
    r"\A([Oo]rg/)?[ABab](-GGUF)?([-:](Q4_K_M|q8_0))?(\.gguf|:latest|@hf)?\Z", fullmatch=True
)


@st.composite
def _entries(draw: st.DrawFn) -> list[ModelEntry]:
    names = draw(st.lists(NAMES | LIKELY, max_size=8))
    kinds = st.sampled_from(["Q4_K_M", "Q8_0", ""])
    sources = st.sampled_from(["models", "hf"])
    found = [
        ModelEntry(name, Path("x") / f"f{n}.gguf", "llama-cpp", 1, draw(sources), draw(kinds))
        for n, name in enumerate(names)
    ]
    return without_collisions(found)


@given(_entries())
@settings(max_examples=60, deadline=None)
def test_every_model_is_found_by_the_name_under_which_it_is_listed(
    entries: list[ModelEntry],
) -> None:
    assert len({entry.name for entry in entries}) == len(entries)
    for entry in entries:
        assert find_all(entries, entry.name) == [entry]


@given(_entries(), NAMES | LIKELY)
@settings(max_examples=100, deadline=None)
def test_a_name_means_the_same_whatever_the_order_of_the_models(
    entries: list[ModelEntry], name: str
) -> None:
    found = find_all(entries, name)
    again = find_all(entries[::-1], name)
    assert sorted(entry.name for entry in found) == sorted(entry.name for entry in again)
    assert len({entry.name for entry in found}) == len(found)


@given(_entries(), NAMES | LIKELY, st.text(alphabet="AbQ4_K:/.", min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_another_model_never_changes_what_a_full_name_means(
    entries: list[ModelEntry], name: str, other: str
) -> None:
    before = {entry.name: entry for entry in entries}
    more = without_collisions([*entries, ModelEntry(other, Path(other), "mlx", 1, "lmstudio")])
    for listed, entry in before.items():
        assert find_all(more, listed) == [entry]


@given(st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_a_model_id_of_any_name_is_valid_and_its_own(name: str) -> None:
    model_id = model_id_of(name)
    assert check_model_id(model_id) == model_id
    assert model_id == name or len(model_id) <= 63


def test_long_names_that_begin_alike_have_different_model_ids() -> None:
    first, second = (model_id_of("x" * 80 + ending) for ending in "ab")
    assert first != second
    assert first.startswith("x" * 50 + "-")
    assert len(first) == 63
    assert model_id_of("y" * 64) == "y" * 64
