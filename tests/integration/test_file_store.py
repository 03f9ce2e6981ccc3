"""Files on disk and their index in Redis, and what crashes leave of them."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.contract.errors import DiskFullError
from jobs.files.record import (
    FileElsewhereError,
    FileNotFoundInStoreError,
    FileRecord,
    FilesFullError,
    FileTooLargeError,
    new_file_id,
)
from jobs.files.store import FileStore
from jobs.settings import Settings
from jobs.storage import object_names
from jobs.storage.connection import SyncRedis

OLD_ID = "file-" + "0" * 32
"""Its time is long ago: what has no file under such an id is not about to get one."""


@pytest.fixture
def files(settings: Settings, redis: SyncRedis) -> FileStore:
    return FileStore(settings, redis)


def add(files: FileStore, data: bytes = b"data", owner: str = "me", **fields: object) -> FileRecord:
    with contextlib.closing(files.new_partial()) as partial:
        files.write(partial, data)
        values = {"filename": "a.jsonl", "purpose": "batch", "owner": owner, **fields}
        return files.add(partial, **values)


def record_file(files: FileStore, record: FileRecord) -> Path:
    return files.folder.files / f"{record.id}.json"


def ids(files: FileStore, owner: str | None = "me") -> list[str]:
    return [record.id for record in files.list_files(owner)[0]]


def on_disk(files: FileStore) -> set[str]:
    places = (files.folder.files, files.folder.partial)
    return {path.name for place in places for path in place.iterdir()}


def test_a_file_is_listed_for_its_owner_and_for_managers(files: FileStore) -> None:
    mine, other = add(files), add(files, owner="other")
    assert files.path(mine.id).read_bytes() == b"data"
    assert ids(files) == [mine.id]
    assert set(ids(files, None)) == {mine.id, other.id}


def test_pages_go_on_after_a_file_that_was_deleted_meanwhile(files: FileStore) -> None:
    made = []
    for _ in range(5):
        made.append(add(files).id)
        time.sleep(0.002)  # ids of one millisecond are in no order
    seen, after = [], ""
    while True:
        page, has_more = files.list_files("me", after=after, limit=2)
        seen += [record.id for record in page]
        for record in page:
            files.delete(record.id)
        if not has_more:
            break
        after = seen[-1]
    assert seen == made[::-1]
    assert on_disk(files) == set()


@pytest.mark.parametrize("file_id", ["", "x", "../uid", "file-..", OLD_ID, "file-" + "g" * 32])
def test_an_unknown_id_is_not_found(files: FileStore, file_id: str) -> None:
    with pytest.raises(FileNotFoundInStoreError):
        files.path(file_id)


def test_the_index_is_written_again_after_a_loss_of_redis(
    files: FileStore, redis: SyncRedis
) -> None:
    made = {add(files).id for _ in range(3)}
    expiring = add(files, expires_at=time.time() + 0.2)
    redis.flushall()
    assert set(ids(files)) - {expiring.id} == made
    assert set(ids(files, None)) - {expiring.id} == made
    while time.time() < expiring.expires_at:
        time.sleep(0.01)
    assert files.forget_expired() == 1  # the index knows again when it expires


def test_a_torn_record_is_restored_from_the_index(files: FileStore, redis: SyncRedis) -> None:
    record = add(files)
    path = record_file(files, record)
    path.write_bytes(path.read_bytes()[:20])
    assert files.record(record.id) == record
    redis.flushall()
    assert ids(files) == [record.id]


def test_a_torn_record_without_an_index_hides_only_its_own_file(
    files: FileStore, redis: SyncRedis
) -> None:
    torn, whole = add(files), add(files)
    record_file(files, torn).write_bytes(b"{")
    redis.flushall()
    assert ids(files) == [whole.id]
    with pytest.raises(FileNotFoundInStoreError):
        files.record(torn.id)
    assert files.forget_expired() == 0, "it is kept, for who wants to look"
    month_ago = time.time() - 31 * 86400
    os.utime(record_file(files, torn), (month_ago, month_ago))
    assert files.forget_expired() == 1
    assert on_disk(files) == {whole.id, f"{whole.id}.json"}


def test_an_entry_without_a_file_is_dropped(files: FileStore, redis: SyncRedis) -> None:
    kept, lost = add(files), add(files, file_id=OLD_ID)
    record_file(files, lost).unlink()
    assert ids(files) == [kept.id]
    assert redis.zcard(object_names.FILES) == redis.zcard(object_names.files_key("me")) == 1
    assert not redis.exists(object_names.file_key(lost.id))


def test_an_unreadable_entry_hides_no_file(files: FileStore, redis: SyncRedis) -> None:
    made = {add(files).id for _ in range(3)}
    assert set(ids(files)) == made
    first, second, _ = made
    redis.delete(object_names.file_key(first))
    redis.set(object_names.file_key(first), "a key of another type")
    redis.hset(object_names.file_key(second), "record", b"\xff")
    redis.zadd(object_names.files_key("me"), {b"\xff": 0})
    for _ in range(2):
        assert set(ids(files)) == made
    assert redis.type(object_names.file_key(first)) == b"hash"


def test_an_expired_file_is_gone_before_it_is_removed(files: FileStore, redis: SyncRedis) -> None:
    record = add(files, expires_at=time.time() - 1)
    kept = add(files, expires_at=time.time() + 3600)
    with pytest.raises(FileNotFoundInStoreError):
        files.record(record.id)
    assert ids(files) == [kept.id]
    assert files.forget_expired() == 1
    assert on_disk(files) == {kept.id, f"{kept.id}.json"}
    assert not redis.exists(object_names.file_key(record.id))


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(
    files: FileStore,
) -> None:
    child = os.fork()
    if child == 0:  # dies in the middle of a file
        files.new_partial().write(b"half")
        os._exit(0)
    os.waitpid(child, 0)
    orphan = files.folder.files / OLD_ID
    orphan.write_bytes(b"its record was never written")
    os.utime(orphan, (0, 0))
    assert len(on_disk(files)) == 2
    with contextlib.closing(files.new_partial()) as living:
        assert files.forget_expired() == 2
        assert on_disk(files) == {living.path.name}
        assert ids(files) == []
    assert on_disk(files) == set()


@contextlib.contextmanager
def small_disk(max_bytes: int) -> Iterator[None]:
    """No file can grow beyond this; Python turns the signal into an error of the write."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_an_error_and_leaves_nothing(files: FileStore) -> None:
    with small_disk(1000), pytest.raises(DiskFullError):
        add(files, b"x" * 2000)
    with small_disk(20), pytest.raises(DiskFullError):  # enough for the file, not for its record
        add(files, b"x" * 10)
    assert on_disk(files) == set()
    assert ids(files) == []


def test_a_file_has_a_limit_and_all_together_have_one(settings: Settings, redis: SyncRedis) -> None:
    limits = {"max_file_bytes": 1024, "files_max_bytes": 12_000}
    files = FileStore(settings.model_copy(update=limits), redis)
    with pytest.raises(FileTooLargeError, match="1024"):
        add(files, b"x" * 1025)
    assert on_disk(files) == set()
    add(files, expires_at=time.time() - 1)
    add(files)
    with pytest.raises(FilesFullError, match="MGS_FILES_MAX_BYTES"):
        files.new_partial(9000)
    files.new_partial(4000).close()  # the expired one has made room


def test_what_lies_in_a_batch_counts_once(files: FileStore) -> None:
    record = add(files, b"x" * 10_000)
    folder = files.folder.batches / "batch_1"
    folder.mkdir(parents=True)
    files.link_into(record.id, folder, "input.jsonl")
    assert files.folder.usage() == (10_000, 1)
    (folder / "out.jsonl").write_bytes(b"x" * 5000)
    assert files.folder.usage() == (15_000, 2)
    files.delete(record.id)
    assert files.folder.usage() == (15_000, 2)


def test_a_linked_file_outlives_its_deletion(files: FileStore, tmp_path: Path) -> None:
    record = add(files)
    (tmp_path / "input").write_bytes(b"an earlier one")
    linked = files.link_into(record.id, tmp_path, "input")
    files.delete(record.id)
    assert linked.read_bytes() == b"data"
    with pytest.raises(FileNotFoundInStoreError):
        files.link_into(record.id, tmp_path, "input")


def test_a_finished_file_is_moved_in_once(files: FileStore, tmp_path: Path) -> None:
    path, file_id = tmp_path / "out", new_file_id()
    path.write_bytes(b"output")
    first = files.add_from_path(path, "out.jsonl", "batch_output", "me", None, file_id)
    again = files.add_from_path(path, "out.jsonl", "batch_output", "me", None, file_id)
    assert first == again == files.record(file_id)
    assert ids(files) == [file_id]
    assert not path.exists()
    assert files.path(file_id).read_bytes() == b"output"


def test_a_file_that_cannot_be_moved_in_stays_where_it_is(files: FileStore, tmp_path: Path) -> None:
    files.folder.make()
    path = tmp_path / "out"
    path.write_bytes(b"output" * 10)
    with small_disk(10), pytest.raises(DiskFullError):
        files.add_from_path(path, "out.jsonl", "batch_output", "me", None, new_file_id())
    assert on_disk(files) == set()
    assert path.read_bytes() == b"output" * 10


def test_a_closed_writer_writes_into_no_other_file(files: FileStore, tmp_path: Path) -> None:
    partial = files.new_partial()
    partial.close()
    # This one has the number of the closed descriptor.
    with (tmp_path / "other").open("wb"), pytest.raises(OSError, match="Bad file descriptor"):
        partial.write(b"late")
    assert (tmp_path / "other").read_bytes() == b""


def test_a_file_of_another_machine_is_listed_and_named(
    files: FileStore, settings: Settings, redis: SyncRedis, tmp_path: Path
) -> None:
    elsewhere = FileStore(settings.model_copy(update={"files_dir": tmp_path / "other"}), redis)
    far, near = add(elsewhere), add(files)
    elsewhere.list_files("me")  # says that its folder is in use
    assert set(ids(files)) == {far.id, near.id}
    with pytest.raises(FileElsewhereError, match=os.uname().nodename):
        files.path(far.id)
    redis.delete(object_names.file_home_key(elsewhere.folder.uid()))  # not seen for a month
    assert near.id in ids(files)
    with pytest.raises(FileNotFoundInStoreError):
        files.path(far.id)
    assert set(ids(elsewhere)) == {far.id, near.id}, "it comes back"


def test_two_processes_see_the_same_folder(
    files: FileStore, settings: Settings, redis: SyncRedis
) -> None:
    other = FileStore(settings, redis)
    record = add(files)
    assert other.record(record.id) == record
    assert other.folder.uid() == files.folder.uid()
