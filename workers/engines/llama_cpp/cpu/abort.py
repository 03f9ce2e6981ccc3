"""Breaking off a decode pass from another thread."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Collection, Iterator

from workers.engines.llama_cpp.binding import Pointer, lib

_GO_ON, _STOP = b"", b"x"


class Abort:
    """Breaks off the passes of a context that somebody watches.

    llama.cpp asks before each node of its graph whether to go on. A Python function would cost the
    GIL there, a thousand times a pass; it asks C's ``strlen`` of a text of one letter or none.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: Collection[int] = ()
        self._text = ctypes.create_string_buffer(2)

    def attach(self, context: Pointer) -> None:
        """The context whose passes it breaks off from now on."""
        address = ctypes.cast(ctypes.CDLL(None).strlen, ctypes.c_void_p).value
        lib.llama_set_abort_callback(
            context, lib.ggml_abort_callback(address), ctypes.addressof(self._text)
        )

    def stop(self, sequence_id: int) -> None:
        """Break off the pass at hand if it is watched for this sequence. Any thread may."""
        with self._lock:
            if sequence_id in self._watched:
                self._text.value = _STOP

    @contextlib.contextmanager
    def watching(self, sequence_ids: Collection[int]) -> Iterator[None]:
        """The pass within may be broken off for the sake of each of these sequences."""
        with self._lock:
            self._watched = sequence_ids
        try:
            yield
        finally:
            with self._lock:
                self._watched = ()
                self._text.value = _GO_ON
