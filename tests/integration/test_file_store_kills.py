"""A process that is killed at any moment leaves whole files only, on disk and in the index."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from pathlib import Path

from jobs.files.store import FileStore
from jobs.settings import Settings
from jobs.storage import object_names
from jobs.storage.connection import SyncRedis
from tests.helpers.server import ROOT

ROUNDS = 5
WRITER = """
import contextlib, random, sys
from pathlib import Path
from jobs.files.record import new_file_id
from jobs.files.store import FileStore
from jobs.settings import Settings
from jobs.storage.connection import connect

url, folder, seed = sys.argv[1:]
files = FileStore(Settings(REDIS_URL=url, files_dir=Path(folder)), connect(url))
draw, made = random.Random(seed), []
while True:
    data = draw.randbytes(draw.randrange(200_000))
    with contextlib.closing(files.new_partial()) as partial:
        files.write(partial, data[:100])
        files.write(partial, data[100:])
        made.append(files.add(partial, "a", "user_data", "me").id)
    path = Path(folder) / f"finished-{seed}"
    path.write_bytes(data)
    made.append(files.add_from_path(path, "b", "batch_output", "me", None, new_file_id()).id)
    if draw.random() < 0.3:
        files.delete(made.pop(draw.randrange(len(made))))
    print(len(made), flush=True)
"""


def run_and_kill(url: str, folder: Path, seed: int) -> None:
    """Let the writer store some files, and kill it in the middle of another."""
    command = [sys.executable, "-c", WRITER, url, str(folder), str(seed)]
    draw = random.Random(seed)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(draw.randrange(1, 20)):
            process.stdout.readline()
        # As long as some part of a file takes; whichever part it is.
        for _ in range(draw.randrange(100_000)):
            pass
        process.kill()


def test_a_kill_at_any_moment_leaves_whole_files_only(
    redis: SyncRedis, redis_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "files"
    files = FileStore(Settings(REDIS_URL=redis_url, files_dir=folder), redis)
    for seed in range(ROUNDS):
        run_and_kill(redis_url, folder, seed)
        listed, _ = files.list_files("me")
        assert listed
        for record in listed:
            data = files.path(record.id).read_bytes()
            assert hashlib.sha256(data).hexdigest() == record.sha256
        known = {record.id for record in listed}
        on_disk = {path.stem for path in files.folder.record_paths()}
        assert known == on_disk
    files.forget_expired()
    assert list(files.folder.partial.iterdir()) == []
    redis.flushall()
    assert {record.id for record in files.list_files("me")[0]} == known
    assert redis.zcard(object_names.FILES) == len(known)
