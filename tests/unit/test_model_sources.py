"""Models in all four places, laid out as the programs do it that own them, whole and broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.catalog.catalog import find_model, list_models, read_catalog
from tests.helpers.stores import (
    add_files,
    add_gguf,
    add_to_hugging_face,
    add_to_ollama,
    gguf,
    mlx_files,
    settings_of,
)

LIBRARY = "registry.ollama.ai/library"
SECRET = "secret"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A place for all stores, beside a file that no link may reach."""
    (tmp_path / SECRET).write_bytes(gguf(SECRET))
    return tmp_path / "home"


def listed(home: Path, source: str) -> list[str]:
    return [entry.name for entry in list_models(settings_of(home, source))]


def problems(home: Path, source: str) -> dict[str, str]:
    entries = read_catalog(settings_of(home, source)).entries
    return {entry.name: entry.problem for entry in entries if entry.problem}


def add_tree(top: Path) -> None:
    """What both the models folder and LM Studio's hold."""
    add_files(top / "org" / "mlx-4bit", mlx_files(2))
    for name in ("Qwen-Q4_K_M.gguf", "Qwen-Q8_0.gguf", "mmproj-Qwen-F16.gguf"):
        add_gguf(top / "org" / "Qwen-GGUF" / name)
    for part in (1, 2):
        add_gguf(
            top / "org" / "Big-GGUF" / "UD-Q2_K_XL" / f"Big-UD-Q2_K_XL-0000{part}-of-00002.gguf"
        )
    for name in ("a-Q4_0.gguf", "b-Q4_0.gguf", "c.gguf"):
        add_gguf(top / "org" / "mixed" / name)


TREE = [
    "org/Big-GGUF:UD-Q2_K_XL",
    "org/Qwen-GGUF:Q4_K_M",
    "org/Qwen-GGUF:Q8_0",
    "org/mixed/a-Q4_0.gguf",
    "org/mixed/b-Q4_0.gguf",
    "org/mixed/c.gguf",
    "org/mlx-4bit",
]


@pytest.mark.parametrize(("source", "folder"), [("models", "models"), ("lmstudio", "lmstudio")])
def test_models_of_publishers_lie_one_level_deeper(home: Path, source: str, folder: str) -> None:
    add_tree(home / folder)
    add_gguf(home / folder / "top-Q4_0.gguf")
    add_gguf(home / folder / "mine" / "own.gguf")
    add_files(home / folder / "flat", mlx_files())
    expected = sorted([*TREE, "top-Q4_0.gguf", "mine/own.gguf", "flat"])
    assert listed(home, source) == expected
    entry = find_model(settings_of(home, source), "org/Qwen-GGUF:Q8_0")
    assert entry.projector is not None
    assert (entry.path.name, entry.source) == ("Qwen-Q8_0.gguf", source)
    assert entry.projector.name == "mmproj-Qwen-F16.gguf"


def test_what_is_no_model_or_not_yet_one_is_not_listed(home: Path) -> None:
    top = home / "models"
    add_files(top / "half", {k: v for k, v in mlx_files(3).items() if "00002" not in k})
    add_files(top / "no-index", {"config.json": b"{}", "model-00001-of-00002.safetensors": b"x"})
    add_files(top / "lora", {"adapter_config.json": b"{}", "adapters.safetensors": b"x"})
    add_files(top / "peft", {"config.json": b"{}", "adapter_model.safetensors": b"x"})
    add_gguf(top / "lora.gguf", kind="adapter")
    add_gguf(top / "vision.gguf", kind="mmproj")
    add_gguf(top / "vision-of-old.gguf", architecture="clip")
    add_gguf(top / "x.gguf.part")
    add_gguf(top / "downloading_y.gguf.part")
    add_gguf(top / ".pull" / "z" / "z.gguf")
    (top / "zeros.gguf").write_bytes(bytes(100))
    add_files(top / "mute", {"config.json": b"{}", "model.safetensors": b"x"})
    assert listed(home, "models") == []
    assert list(problems(home, "models")) == ["half", "mute", "no-index", "peft", "zeros.gguf"]


def test_a_stale_index_hides_no_complete_model(home: Path) -> None:
    """Its engine reads the files that are there, if they have every tensor."""
    files = mlx_files(3)
    index = {"model.safetensors.index.json": files["model.safetensors.index.json"]}
    add_files(home / "models" / "stale", mlx_files() | index)
    add_files(home / "models" / "odd", mlx_files() | {"model.safetensors.index.json": b"[]"})
    assert listed(home, "models") == ["odd", "stale"]


def test_a_model_is_listed_once_the_last_file_that_it_needs_is_there(home: Path) -> None:
    files = mlx_files(2)
    folder = home / "models" / "copied"
    for number, name in enumerate(sorted(files)):
        assert listed(home, "models") == [], number
        add_files(folder, {name: files[name]})
    assert listed(home, "models") == ["copied"]


def test_links_in_the_models_folder_are_the_users_own(home: Path) -> None:
    add_files(home / "elsewhere" / "mlx", mlx_files())
    (home / "models").mkdir()
    (home / "models" / "linked").symlink_to(home / "elsewhere" / "mlx")
    (home / "models" / "linked.gguf").symlink_to(home.parent / SECRET)
    (home / "models" / "gone").symlink_to(home / "nothing")
    assert listed(home, "models") == ["linked", "linked.gguf"]


def test_the_cache_of_hugging_face_is_snapshots_of_links(home: Path) -> None:
    hub = home / "hub"
    add_to_hugging_face(hub, "org/two", mlx_files(2))
    add_to_hugging_face(hub, "plain", mlx_files())
    add_to_hugging_face(hub, "org/GGUF", {"m-Q4_0.gguf": gguf("4"), "Q8_0/m-Q8_0.gguf": gguf("8")})
    add_files(hub / "datasets--org--data" / "snapshots" / "x", mlx_files())
    assert listed(home, "hf") == ["org/GGUF:Q4_0", "org/GGUF:Q8_0", "org/two", "plain"]
    assert find_model(settings_of(home, "hf"), "two").size_bytes == 20


def test_a_repository_with_a_missing_shard_is_not_listed(home: Path) -> None:
    snapshot = add_to_hugging_face(home / "hub", "org/dangling", mlx_files(2))
    (snapshot / "model-00002-of-00002.safetensors").resolve().unlink()
    snapshot = add_to_hugging_face(home / "hub", "org/absent", mlx_files(2))
    (snapshot / "model-00001-of-00002.safetensors").unlink()
    assert listed(home, "hf") == []
    assert problems(home, "hf") == {
        "org/absent": "missing: model-00001-of-00002.safetensors",
        "org/dangling": "missing: model-00002-of-00002.safetensors",
    }


def test_the_snapshot_of_the_main_branch_counts_or_the_only_one(home: Path) -> None:
    snapshot = add_to_hugging_face(home / "hub", "org/a", mlx_files())
    snapshot.rename(snapshot.with_name("fedcba"))
    assert listed(home, "hf") == [], "main names another one"
    (snapshot.parents[1] / "refs" / "main").unlink()
    assert listed(home, "hf") == ["org/a"]
    add_files(snapshot.with_name("second"), {})
    snapshot.with_name("second").mkdir()
    assert listed(home, "hf") == []


@pytest.mark.parametrize("ref", ["../../../../elsewhere", "/", "..", ".", ""])
def test_a_ref_is_no_path(home: Path, ref: str) -> None:
    add_files(home.parent / "elsewhere", mlx_files())
    snapshot = add_to_hugging_face(home / "hub", "org/a", mlx_files())
    (snapshot.parents[1] / "refs" / "main").write_text(ref)
    assert listed(home, "hf") == []


def test_a_link_that_leads_out_of_a_store_hides_its_model(home: Path) -> None:
    snapshot = add_to_hugging_face(home / "hub", "org/a", mlx_files())
    (snapshot / "merges.txt").symlink_to(home.parent / SECRET)
    snapshot = add_to_hugging_face(home / "hub", "org/b", {"b.gguf": gguf("b")})
    (snapshot / "c.gguf").symlink_to(home.parent / SECRET)
    outside = home.parent / "outside"
    add_files(outside, mlx_files())
    (home / "lmstudio" / "org").mkdir(parents=True)
    (home / "lmstudio" / "org" / "linked").symlink_to(outside)
    (home / "lmstudio" / "all").symlink_to(home.parent)
    blob = add_to_ollama(home / "ollama", f"{LIBRARY}/x/latest", gguf(SECRET))
    blob.unlink()
    blob.symlink_to(home.parent / SECRET)
    assert listed(home, "hf,lmstudio,ollama") == ["org/b/b.gguf"]
    assert "leads out" in problems(home, "hf,lmstudio,ollama")["org/a"]
    assert "leads out" in problems(home, "hf,lmstudio,ollama")["x:latest"]


def test_a_store_itself_may_be_a_link(home: Path) -> None:
    add_to_hugging_face(home / "disk", "org/a", mlx_files())
    (home / "hub").symlink_to(home / "disk")
    assert listed(home, "hf") == ["org/a"]


def test_ollamas_models_have_its_short_names(home: Path) -> None:
    store = home / "ollama"
    blob = add_to_ollama(store, f"{LIBRARY}/qwen3/8b", gguf("a"))
    add_to_ollama(store, f"{LIBRARY}/qwen3/latest", gguf("a"), template=b"t", projector=b"p")
    add_to_ollama(store, "registry.ollama.ai/me/own/v1", gguf("b"))
    add_to_ollama(store, "hf.co/org/Repo-GGUF/Q4_K_M", gguf("c"))
    expected = ["hf.co/org/Repo-GGUF:Q4_K_M", "me/own:v1", "qwen3:8b", "qwen3:latest"]
    assert listed(home, "ollama") == expected
    settings = settings_of(home, "ollama")
    assert find_model(settings, "qwen3:8b").path.samefile(blob)
    assert find_model(settings, "qwen3").name == "qwen3:latest"
    assert find_model(settings, "qwen3").projector is not None
    assert find_model(settings, "hf.co/org/repo-gguf:q4_k_m").name == expected[0]


def test_blobs_of_ollama_that_are_not_whole_models_are_not_listed(home: Path) -> None:
    store = home / "ollama"
    blob = add_to_ollama(store, f"{LIBRARY}/gone/1", gguf("1"))
    blob.rename(blob.with_name(f"{blob.name}-partial"))
    blob = add_to_ollama(store, f"{LIBRARY}/short/1", gguf("2"))
    blob.write_bytes(gguf("2")[:-3])
    add_to_ollama(store, f"{LIBRARY}/other/1", b"PK\x03\x04")
    add_to_ollama(store, f"{LIBRARY}/tuned/1", gguf("3"), adapter=b"a")
    assert listed(home, "ollama") == []
    assert list(problems(home, "ollama")) == ["gone:1", "other:1", "short:1"]


@pytest.mark.parametrize(
    "manifest",
    [
        "", "[]", "{", "null", '{"layers": 3}', '{"layers": [3]}', "[" * 100_000,
        '{"layers": [{"mediaType": "application/vnd.ollama.image.model", "size": 1, '
        '"digest": "sha256:../../../secret"}]}',
        '{"layers": [{"mediaType": "application/vnd.ollama.image.model", "size": "x", '
        f'"digest": "sha256:{"0" * 64}"}}]}}',
    ],
)  # fmt: skip
def test_a_broken_manifest_hides_no_other(home: Path, manifest: str) -> None:
    add_to_ollama(home / "ollama", f"{LIBRARY}/good/1", gguf("1"))
    add_files(home / "ollama" / "manifests" / LIBRARY / "bad", {"1": manifest.encode()})
    assert listed(home, "ollama") == ["good:1"]


def test_one_name_in_several_sources_has_the_source_behind_it(home: Path) -> None:
    add_files(home / "models" / "org" / "a", mlx_files())
    add_to_hugging_face(home / "hub", "org/a", mlx_files())
    add_files(home / "lmstudio" / "org" / "a", mlx_files())
    assert listed(home, "models,hf,lmstudio") == ["org/a", "org/a@hf", "org/a@lmstudio"]
    assert listed(home, "lmstudio,hf") == ["org/a", "org/a@hf"]
    settings = settings_of(home, "models,hf,lmstudio")
    for name, source in (
        ("org/a", "models"),
        ("org/a@models", "models"),
        ("org/a@hf", "hf"),
        ("A@hf", "hf"),
        ("ORG/A@lmstudio", "lmstudio"),
    ):
        assert find_model(settings, name).source == source


def test_a_model_in_two_sources_under_two_names_is_reached_by_both(home: Path) -> None:
    snapshot = add_to_hugging_face(home / "hub", "org/a", mlx_files())
    (home / "models").mkdir()
    (home / "models" / "mine").symlink_to(snapshot)
    assert listed(home, "models,hf") == ["mine", "org/a"]


def test_sources_that_are_not_there_or_not_asked_for_hold_nothing(home: Path) -> None:
    assert listed(home, "models,hf,lmstudio,ollama") == []
    add_to_ollama(home / "ollama", f"{LIBRARY}/qwen3/8b", gguf("a"))
    assert listed(home, "models,hf") == []


def test_nothing_is_written_to_a_foreign_store(home: Path) -> None:
    add_to_hugging_face(home / "hub", "org/a", mlx_files(2))
    add_to_ollama(home / "ollama", f"{LIBRARY}/qwen3/8b", gguf("a"))
    before = {str(path): path.lstat().st_mtime_ns for path in home.rglob("*")}
    assert len(listed(home, "models,hf,lmstudio,ollama")) == 2
    assert {str(path): path.lstat().st_mtime_ns for path in home.rglob("*")} == before


def test_an_index_is_read_again_when_it_changes(home: Path) -> None:
    add_files(home / "models" / "a", mlx_files(2))
    assert listed(home, "models") == ["a"]
    index = home / "models" / "a" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "model-00003-of-00003.safetensors"}}))
    (home / "models" / "a" / "model-00002-of-00002.safetensors").unlink()
    assert listed(home, "models") == []
