"""The only place that imports ``llama_cpp``.

``lib`` mirrors llama.h one to one. Its type hints are incomplete and partly wrong (pointers typed
as ints, values as references), so it is ``Any`` here; the modules of this package add the types.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import re
from collections import deque
from typing import Any

import llama_cpp
import llama_cpp.llama_cpp as _llama_cpp

from workers.engines.failures import DeviceLostError
from workers.exits import ExitCode

lib: Any = _llama_cpp

LIBRARY_VERSION: str = llama_cpp.__version__

Pointer = Any
"""A ctypes pointer into llama.cpp: model, context, vocabulary, memory or sampler."""

NULL_TOKEN = -1

logits_address: Any = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)(
    ("llama_get_logits_ith", _llama_cpp._lib)
)
"""``llama_get_logits_ith`` that returns the address as an int: faster than a ctypes pointer."""

_logger = logging.getLogger(__name__)
_WARNING_LEVEL = 3  # enum ggml_log_level: 2 info, 3 warning, 4 error, 5 continues the last line
_CONTINUE_LEVEL = 5
# Of ggml-metal-context.m: when a command fails, and for each call after that.
_LOST_MARKS = ("command buffer", "backend is in error state")
_BUFFER = re.compile(r"(\w{1,20} buffer size) = {1,20}([\d.]{1,20}) MiB")
_OF_CELLS, _OF_PASSES = "KV buffer size", "compute buffer size"


class NativeLog:
    """Logs llama.cpp's output at DEBUG, and keeps its last warnings and errors for error texts."""

    def __init__(self) -> None:
        self._warnings: deque[str] = deque(maxlen=8)
        self._buffers: list[tuple[str, str, float]] = []
        self._line = ""
        self._level = 0

    def write(self, level: int, text: bytes | None, _user_data: object = None) -> None:
        """The ``ggml_log_callback``: ``text`` is a whole line, or a part of one."""
        if level != _CONTINUE_LEVEL:
            self._line, self._level = "", level
        self._line += (text or b"").decode("utf-8", errors="replace")
        if self._line.endswith("\n"):
            self._end_line()

    def clear(self) -> None:
        """Forget what was logged so far; call it before an operation that may fail."""
        self._warnings.clear()
        self._buffers.clear()

    def warnings(self) -> str:
        """The last warnings and errors in one line; "" if there are none."""
        return "; ".join(self._warnings)

    def cell_bytes(self) -> int:
        """Size of the KV cells of a context opened since ``clear``."""
        return int(sum(size for _, kind, size in self._buffers if kind == _OF_CELLS))

    def other_bytes(self) -> int:
        """Size of that context's other buffers: recurrent states, outputs, passes."""
        passes = {line: size for line, kind, size in self._buffers if kind == _OF_PASSES}
        others = [size for _, kind, size in self._buffers if kind not in (_OF_CELLS, _OF_PASSES)]
        return int(sum(passes.values()) + sum(others))  # passes are planned and logged repeatedly

    def check_device(self) -> None:
        """Raise ``DeviceLostError`` if a command of the GPU has failed since ``clear``.

        Metal notes that only here: ``llama_decode`` has returned 0 by then.
        """
        if any(mark in line for line in self._warnings for mark in _LOST_MARKS):
            raise DeviceLostError(self.warnings())

    def _end_line(self) -> None:
        line, self._line = self._line.strip(), ""
        _logger.debug("llama.cpp: %s", line)
        if found := _BUFFER.search(line):
            before = line[: found.start()]
            self._buffers.append((before, found[1], float(found[2]) * 2**20))
        if self._level >= _WARNING_LEVEL and line:
            self._warnings.append(line)
            if line.startswith("CUDA error"):  # ggml aborts the process next
                _logger.critical("the GPU failed: %s", line)
                os._exit(ExitCode.DEVICE_LOST)


llama_log = NativeLog()

# llama.cpp keeps the pointer, so the callback must live as long as the process. At exit its
# destructors still log when Python can no longer be called: unset the callback before.
_log_callback = lib.llama_log_callback(llama_log.write)
lib.llama_log_set(_log_callback, None)
atexit.register(lib.llama_log_set, lib.llama_log_callback(), None)

lib.llama_backend_init()
