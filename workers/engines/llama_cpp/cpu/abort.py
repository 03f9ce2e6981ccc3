"""Aborts a decode pass from another thread."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Collection, Iterator

from workers.engines.llama_cpp.binding import Pointer, lib

_CONTINUE, _STOP = b"", b"x"


class Abort:
    """Aborts decode passes that run inside ``watching``.

    llama.cpp calls an abort callback before each node of its graph. A Python function would take
    the GIL a thousand times per pass; the callback is C's ``strlen`` of a text with 0 or 1 bytes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: Collection[int] = ()
        self._text = ctypes.create_string_buffer(2)

    def attach(self, context: Pointer) -> None:
        """Set the abort callback of ``context``."""
        address = ctypes.cast(ctypes.CDLL(None).strlen, ctypes.c_void_p).value
        lib.llama_set_abort_callback(
            context, lib.ggml_abort_callback(address), ctypes.addressof(self._text)
        )

    def stop(self, sequence_id: int) -> None:
        """Abort the running pass if it is watched for this sequence; any thread may call it."""
        with self._lock:
            if sequence_id in self._watched:
                self._text.value = _STOP

    @contextlib.contextmanager
    def watching(self, sequence_ids: Collection[int]) -> Iterator[None]:
        """``stop`` of any of these sequences aborts the pass that runs inside this context."""
        with self._lock:
            self._watched = sequence_ids
        try:
            yield
        finally:
            with self._lock:
                self._watched = ()
                self._text.value = _CONTINUE
