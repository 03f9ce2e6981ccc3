"""LoRA adapters: GGUF files of the adapters folder, each applied to a whole context."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from jobs.catalog.catalog import find_adapter
from jobs.contract.errors import InvalidRequestError
from workers.engines.llama_cpp.binding import Pointer, lib, llama_log

_FIELD = "adapter_name"


class Adapters:
    """The adapters of one model, each loaded at first use, and the one that is applied now."""

    def __init__(self, model: Pointer, folder: Path | None) -> None:
        self._model = model
        self._folder = folder
        self._loaded: dict[str, Pointer] = {}
        self._applied: str | None = None

    def load(self, name: str) -> None:
        """Load an adapter, unless it is loaded.

        Raises ``AdapterNotFoundError``, or ``InvalidRequestError`` if it does not fit the model.
        """
        if name in self._loaded:
            return
        path = find_adapter(self._folder, name, "llama-cpp").path
        llama_log.clear()
        adapter = lib.llama_adapter_lora_init(self._model, os.fsencode(path))
        if not adapter:
            reason = llama_log.warnings() or "llama.cpp gave no reason"
            raise InvalidRequestError(f"the adapter {name!r} cannot be used: {reason}", _FIELD)
        if lib.llama_adapter_get_alora_n_invocation_tokens(adapter):
            lib.llama_adapter_lora_free(adapter)
            message = f"the adapter {name!r} is an activated LoRA (aLoRA): not supported"
            raise InvalidRequestError(message, _FIELD)
        self._loaded[name] = adapter

    def apply(self, context: Pointer, name: str | None) -> None:
        """Use this adapter, or none, from the context's next decode pass on."""
        if name == self._applied:
            return
        if name is None:
            lib.llama_set_adapters_lora(context, None, 0, None)
        else:
            pointers = (lib.llama_adapter_lora_p_ctypes * 1)(self._loaded[name])
            lib.llama_set_adapters_lora(context, pointers, 1, (ctypes.c_float * 1)(1.0))
        self._applied = name
