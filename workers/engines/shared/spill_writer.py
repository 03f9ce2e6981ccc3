"""The thread that writes spilled states one at a time and limits the size of their folder."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workers.engines.shared import spill_file
from workers.engines.shared.spill_file import PackedState, SpillHeader

# Prefixes leave memory several at a time; this much may wait for the disk.
_MAX_WAITING_BYTES = 256 << 20

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Order:
    """Write ``state`` to ``path`` and delete ``replaced``."""

    header: SpillHeader
    path: Path
    state: PackedState
    replaced: list[Path]


class SpillWriter:
    """Writes in the order of the calls; only one thread may call it."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[SpillHeader, bool]] = queue.SimpleQueue()
        self._done = threading.Condition()
        self._num_waiting_bytes = 0
        self._thread = threading.Thread(target=self._run, name="spill", daemon=True)
        self._thread.start()

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait until the queue has room; False if it has none after ``timeout_s``."""
        with self._done:
            return self._done.wait_for(
                lambda: self._num_waiting_bytes <= _MAX_WAITING_BYTES, timeout_s
            )

    def write(
        self, header: SpillHeader, path: Path, state: PackedState, replaced: list[Path]
    ) -> None:
        """Queue ``state`` for writing to ``path`` and the files ``replaced`` by it for deletion."""
        with self._done:
            self._num_waiting_bytes += state.num_bytes
        self._orders.put(_Order(header, path, state, replaced))

    def results(self) -> Iterator[tuple[SpillHeader, bool]]:
        """(header, whether its file was written) of each order done since the last call."""
        while True:
            try:
                yield self._results.get_nowait()
            except queue.Empty:
                return

    def close(self, timeout_s: float) -> None:
        """End the thread after all orders, waiting at most ``timeout_s``."""
        self._orders.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (order := self._orders.get()) is not None:
            self._results.put((order.header, self._carry_out(order)))
            with self._done:
                self._num_waiting_bytes -= order.state.num_bytes
                self._done.notify()
            del order  # free its memory before waiting for the next one

    def _carry_out(self, order: _Order) -> bool:
        if order.state.num_bytes > self._max_bytes:
            return False
        try:
            spill_file.write(order.path, order.header, order.state)
            for path in order.replaced:
                path.unlink(missing_ok=True)
            self._make_room()
        except OSError as error:  # e.g. a full disk: the state is computed again when needed
            log.warning("spilling failed", extra={"file": order.path.name, "why": str(error)})
            return False
        return True

    def _make_room(self) -> None:
        """Delete the least recently used files, also those of other processes."""
        found = [(path, stat) for path in self._files() if (stat := _stat(path)) is not None]
        num_bytes = sum(stat.st_size for _, stat in found)
        for path, stat in sorted(found, key=lambda pair: pair[1].st_mtime_ns):
            if num_bytes <= self._max_bytes:
                return
            path.unlink(missing_ok=True)
            num_bytes -= stat.st_size

    def _files(self) -> Iterator[Path]:
        return self._folder.glob(f"[!.]*{spill_file.SUFFIX}")


def _stat(path: Path) -> os.stat_result | None:
    """``None`` if another process has just deleted the file."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None
