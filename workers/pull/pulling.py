"""The steps of a pull: commit, choice, place, room on the disk, download, verification, rename."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from jobs.contract.errors import (
    DiskFullError,
    InsufficientMemoryError,
    JobError,
    PullError,
)
from jobs.contract.pulls import PullRequest
from workers.pull.choice import Choice, choose
from workers.pull.download import Downloader
from workers.pull.hub import Hub, HubAccess
from workers.pull.patience import Patience
from workers.pull.place import Place, find_place
from workers.pull.workspace import Workspace, workspace

RESERVE_BYTES = 5 << 30  # stays free after the download
_LEAST_BYTES = 1 << 30  # below this a download ends, if others fill the disk meanwhile
_INDEX = "model.safetensors.index.json"
_TICK_S = 1.0
_MAX_TICK_S = 10.0

Report = Callable[[int, int, str], None]
"""Called with the bytes that are there, the bytes of all files, and the current file ("": none)."""
FreeBytes = Callable[[Path], int]


def free_bytes(folder: Path) -> int:
    """Bytes that the folder's disk has left for us."""
    return shutil.disk_usage(folder).free


class Pull:
    """One pull. ``run`` may be repeated, also by another process after any crash.

    ``free`` and ``budget`` tell the bytes that the disk and all models may take (``None``: any).
    """

    def __init__(
        self,
        request: PullRequest,
        models_dir: Path,
        access: HubAccess,
        report: Report,
        patience: Patience | None = None,
        free: FreeBytes = free_bytes,
        budget: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._request = request
        self._models_dir = models_dir
        self._access = access
        self._report = report
        self._patience = patience or Patience()
        self._free = free
        self._budget = budget

    def run(self) -> str:
        """Download the model; returns its name. Raises ``JobError``: of the hub, or the disk."""
        try:
            return self._run()
        except OSError as error:
            raise _of_disk(error) from error

    def _run(self) -> str:
        repo = self._request.repo
        hub = Hub(self._access, repo, self._patience)
        try:
            commit = hub.resolve(self._request.revision)
            choice = choose(repo, hub.files(commit), self._request.quant)
            self._models_dir.mkdir(parents=True, exist_ok=True)
            place = find_place(self._models_dir, repo, choice)
            with workspace(self._models_dir, repo, commit, choice) as space:
                if place.missing:
                    self._check_memory(choice)
                    self._fetch_all(hub, commit, place, space)
                    place.take_in(space.files)
                space.remove()
        finally:
            hub.close()
        return place.name

    def _fetch_all(self, hub: Hub, commit: str, place: Place, space: Workspace) -> None:
        choice = place.choice
        meter = _Meter(choice.size_bytes, self._report, self._check_least)
        # Small files first: an error in them is found before the large ones are fetched.
        files = sorted(choice.files, key=lambda file: file.size)
        self._check_room(sum(file.size - space.present_bytes(file) for file in place.missing))
        meter.show()
        downloader = Downloader(hub, commit, self._patience, meter.add)
        for file in files:
            meter.file = file.path
            path = space.path_of(file)
            if file not in place.missing or path.is_file():
                meter.add(file.size)
                continue
            downloader.fetch(file, path)
            if file.path == _INDEX:
                _check_index(self._request.repo, path, choice)
        meter.show()

    def _check_memory(self, choice: Choice) -> None:
        """Refuse a model whose weights alone are more than all models may take."""
        limit = None if self._request.is_forced else self._budget()
        if limit is not None and choice.weights_bytes > limit:
            raise InsufficientMemoryError(
                f"{self._request.repo} has {_gb(choice.weights_bytes)} of weights, and all models "
                f"of the machine may take {_gb(limit)} of memory (`force` ignores this)",
                "model",
            )

    def _check_room(self, needed: int) -> None:
        free = self._free(self._models_dir)
        if not self._request.is_forced and needed + RESERVE_BYTES > free:
            raise DiskFullError(
                f"{self._request.repo} needs {_gb(needed)} more on disk, and {_gb(RESERVE_BYTES)} "
                f"are kept free: {_gb(free)} are free (`force` ignores this)",
                "model",
            )

    def _check_least(self) -> None:
        """End a download before it disturbs other programs."""
        if not self._request.is_forced and self._free(self._models_dir) < _LEAST_BYTES:
            message = f"less than {_gb(_LEAST_BYTES)} are free on the disk: make room and repeat"
            raise DiskFullError(message)


class _Meter:
    """Counts bytes and reports them: each second, later on less often, to keep the log short."""

    def __init__(self, total: int, report: Report, on_tick: Callable[[], None]) -> None:
        self.file = ""
        self._completed = 0
        self._total = total
        self._report = report
        self._on_tick = on_tick
        self._started_at = self._shown_at = time.monotonic()

    def add(self, num_bytes: int) -> None:
        self._completed += num_bytes
        now = time.monotonic()
        tick_s = min(max(_TICK_S, (now - self._started_at) / 300), _MAX_TICK_S)
        if now - self._shown_at >= tick_s:
            self._shown_at = now
            self._on_tick()
            self.show()

    def show(self) -> None:
        self._report(self._completed, self._total, self.file)


def _check_index(repo: str, path: Path, choice: Choice) -> None:
    """Raise ``PullError`` if the index names weights that the repository has not."""
    try:
        named = set(msgspec.json.decode(path.read_bytes())["weight_map"].values())
    except (msgspec.DecodeError, LookupError, TypeError, AttributeError):
        raise PullError(f"{repo}: {_INDEX} cannot be read", "model") from None
    missing = sorted(map(str, named - {file.path for file in choice.files}))
    if missing:
        raise PullError(f"{repo} is not whole: it has no {missing[0]}", "model")


def _of_disk(error: OSError) -> JobError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError("the disk is full: make room, and repeat the pull to continue")
    return PullError(f"the models folder cannot be written: {error.strerror}")


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
