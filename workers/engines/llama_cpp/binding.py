"""The only place that imports ``llama_cpp``.

``lib`` mirrors llama.h one to one. Its type hints are partial and wrong in places (pointers typed
as ints, calls by value as by reference), so it is ``Any`` here and the modules of this package put
types around it.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
from collections import deque
from typing import Any

import llama_cpp
import llama_cpp.llama_cpp as _llama_cpp

lib: Any = _llama_cpp

LIBRARY_VERSION: str = llama_cpp.__version__

Pointer = Any
"""A ctypes pointer into llama.cpp: model, context, vocabulary, memory or sampler."""

NULL_TOKEN = -1

logits_address: Any = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)(
    ("llama_get_logits_ith", _llama_cpp._lib)
)
"""``llama_get_logits_ith`` that answers with a number, which is sooner made than a pointer."""

_logger = logging.getLogger(__name__)
_WARNING_LEVEL = 3  # enum ggml_log_level: 2 info, 3 warning, 4 error, 5 continues the last line
_CONTINUE_LEVEL = 5


class NativeLog:
    """Takes what llama.cpp would print: all of it at DEBUG, the last complaints kept for errors."""

    def __init__(self) -> None:
        self._complaints: deque[str] = deque(maxlen=8)
        self._line = ""
        self._level = 0

    def write(self, level: int, text: bytes | None, _user_data: object = None) -> None:
        """The ``ggml_log_callback``: ``text`` is a line with its end, or a part of one."""
        if level != _CONTINUE_LEVEL:
            self._line, self._level = "", level
        self._line += (text or b"").decode("utf-8", errors="replace")
        if self._line.endswith("\n"):
            self._end_line()

    def clear(self) -> None:
        """Forget past complaints, before an operation whose own are of interest."""
        self._complaints.clear()

    def complaints(self) -> str:
        """The last warnings and errors in one line, "" when there were none."""
        return "; ".join(self._complaints)

    def _end_line(self) -> None:
        line, self._line = self._line.strip(), ""
        _logger.debug("llama.cpp: %s", line)
        if self._level >= _WARNING_LEVEL and line:
            self._complaints.append(line)


llama_log = NativeLog()

# llama.cpp keeps the pointer for good, so the callback must live as long as the process. At exit
# its own destructors still log, when Python can no longer be called: hand logging back first.
_log_callback = lib.llama_log_callback(llama_log.write)
lib.llama_log_set(_log_callback, None)
atexit.register(lib.llama_log_set, lib.llama_log_callback(), None)

lib.llama_backend_init()
