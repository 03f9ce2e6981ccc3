"""Asks llama.cpp which tensors a GGUF file's metadata calls for: it knows every architecture's."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib

Shape = tuple[int, ...]


class _TensorHead(ctypes.Structure):
    """The first fields of ``struct ggml_tensor``; ``ne``: the inner dimension first."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
    )


class _InitParams(ctypes.Structure):
    """``struct gguf_init_params``."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p))


def _function(name: str, result: Any, *arguments: Any) -> Any:
    return ctypes.CFUNCTYPE(result, *arguments)((name, lib._lib))


_read = _function("gguf_init_from_file", ctypes.c_void_p, ctypes.c_char_p, _InitParams)
_free = _function("gguf_free", None, ctypes.c_void_p)
_name_of = _function("ggml_get_name", ctypes.c_char_p, ctypes.c_void_p)
_num_dimensions = _function("ggml_n_dims", ctypes.c_int, ctypes.c_void_p)


def tensor_shapes(metadata: Path) -> dict[str, Shape]:
    """Shapes by name, as numpy has them, of all tensors that the model may have.

    ``metadata``: a GGUF file without tensors. Raises ``ValueError`` if llama.cpp refuses it; wrong
    sizes in it end the process.
    """
    shapes: dict[str, Shape] = {}

    def note(tensor: int, _user_data: object) -> None:
        sizes = _TensorHead.from_address(tensor).ne[: _num_dimensions(tensor)]
        shapes[_name_of(tensor).decode()] = tuple(reversed(sizes))

    facts = _read(os.fsencode(metadata), _InitParams(True, None))
    note_native = lib.llama_model_set_tensor_data_t(note)
    model = lib.llama_model_init_from_user(
        facts, note_native, None, lib.llama_model_default_params()
    )
    _free(facts)
    if not model:
        raise ValueError(f"{metadata.name}: llama.cpp refuses it")
    lib.llama_model_free(model)
    return shapes
