from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.catalog.gguf_header import (
    GgufHeader,
    read_gguf_header,
    read_gguf_start,
    split_parts,
)
from jobs.contract.errors import ModelLoadError
from tests.gguf_bytes import Metadata, gguf_bytes

METADATA: Metadata = {
    "general.architecture": "qwen3",
    "general.name": "demo",
    "general.file_type": 15,
    "qwen3.context_length": 2048,
    "qwen3.rope.freq_base": 10000.0,
    "tokenizer.ggml.tokens": ["a", "bc", ""],
    "tokenizer.ggml.token_type": [1, 1, 3],
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.chat_template": "{{ messages }}",
}


def read(tmp_path: Path, data: bytes) -> GgufHeader:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    return read_gguf_header(path)


def error_of(tmp_path: Path, data: bytes) -> str:
    with pytest.raises(ModelLoadError) as caught:
        read(tmp_path, data)
    return caught.value.message


def test_facts_are_read_past_the_arrays(tmp_path: Path) -> None:
    header = read(tmp_path, gguf_bytes(METADATA, num_tensors=7))
    assert (header.architecture, header.name, header.quantization) == ("qwen3", "demo", "Q4_K_M")
    assert (header.context_length, header.num_tensors, header.version) == (2048, 7, 3)
    assert header.chat_template == "{{ messages }}"
    assert header.metadata["tokenizer.ggml.add_bos_token"] is True
    assert header.metadata["qwen3.rope.freq_base"] == 10000.0
    assert (header.num_parts, header.part) == (1, 0)


def test_what_is_before_the_tokenizer_can_be_had_alone(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    whole = gguf_bytes({"other.context_length": 7, **METADATA})
    path.write_bytes(whole[: whole.index(b"tokenizer.") + 30])
    header = read_gguf_start(path)
    assert (header.architecture, header.context_length) == ("qwen3", 2048)
    assert not any(key.startswith("tokenizer.") for key in header.metadata)
    with pytest.raises(ModelLoadError, match="No such file"):
        read_gguf_start(tmp_path / "none.gguf")


def test_long_arrays_of_strings_are_skipped_whatever_their_lengths(tmp_path: Path) -> None:
    """They are read in blocks of a megabyte; a string may lie in several."""
    texts = ["", "a", "b" * 300, "c" * 3_000_000, "d" * (1 << 20)] * 2 + ["e"] * 200_000
    data = gguf_bytes({"a": texts, "general.name": "behind"})
    assert read(tmp_path, data).name == "behind"
    for cut in (30, 40, 1 << 20, 5_000_000, len(data) - 30):
        with pytest.raises(ModelLoadError, match="cut off"):
            read(tmp_path, data[:cut])


def test_a_file_without_facts_has_none(tmp_path: Path) -> None:
    header = read(tmp_path, gguf_bytes({}))
    assert (header.architecture, header.quantization, header.name) == ("", "", "")
    assert header.context_length is None
    assert header.chat_template is None


def test_an_unknown_file_type_keeps_its_number(tmp_path: Path) -> None:
    assert read(tmp_path, gguf_bytes({"general.file_type": 999})).quantization == "type 999"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"PK\x03\x04 a zip file", "not a GGUF file"),
        (gguf_bytes({}, version=1), "version 1 is not supported"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(16), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "metadata keys"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62), "bytes of a string"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 77), "unknown type 77"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 8, 1 << 62), "an array"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 4, 1 << 20), "cut off"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 9) + struct.pack("<IQ", 9, 1) * 9,
         "nested"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, data: bytes, reason: str) -> None:
    message = error_of(tmp_path, data)
    assert message.startswith("model.gguf: ")
    assert reason in message


@pytest.mark.parametrize("length", range(4, len(gguf_bytes(METADATA)), 13))
def test_a_header_cut_anywhere_is_called_cut_off(tmp_path: Path, length: int) -> None:
    assert "cut off" in error_of(tmp_path, gguf_bytes(METADATA)[:length])


@settings(deadline=None)  # the machine may be busy
@given(st.binary(max_size=200))
def test_random_bytes_give_a_header_or_a_load_error(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "random.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 3) + tail)
    with contextlib.suppress(ModelLoadError):
        assert read_gguf_header(path).version == 3


def test_a_missing_file_is_a_load_error(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="No such file"):
        read_gguf_header(tmp_path / "none.gguf")


def test_the_parts_of_a_split_model_are_named_in_order(tmp_path: Path) -> None:
    names = [part.name for part in split_parts(tmp_path / "m-00002-of-00003.gguf", 3)]
    assert names == [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]


def test_a_part_under_another_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="one of 3 parts"):
        split_parts(tmp_path / "renamed.gguf", 3)
