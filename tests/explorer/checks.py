"""The invariants of each state of Redis and of each step."""

from __future__ import annotations

import itertools

from jobs.contract.events import decode_event
from jobs.contract.records import DesiredModel, decode_record
from jobs.storage import names
from jobs.storage.lua.job_scripts import RESERVE_S
from tests.explorer.memory import Cells, Database, Hash, Stream, Value
from tests.explorer.state_fields import QUEUE, QUEUES, SLUG, list_keys

_TERMINAL = (b"finished", b"failed", b"cancelled")
_ENDED_TTL_S = (RESERVE_S + 3600, RESERVE_S + 86400)


class Checks:
    """Checks states by their numbers; each job's state and each state once.
    ``has_unclaimed_job``: a job in an intermediate list needs no claim."""

    def __init__(self, cells: Cells, databases: list[Database], *, has_unclaimed_job: bool) -> None:
        self._has_unclaimed_job = has_unclaimed_job
        self._cells = cells
        self._databases = databases
        self._wrong: dict[int, str | None] = {}
        self._wrong_jobs: dict[tuple[int | None, ...], str | None] = {}
        self._wrong_steps: dict[tuple[int, int], str | None] = {}
        self._ended: dict[int, tuple[bool, bool]] = {}

    def violation_of(self, before: int, after: int) -> str | None:
        """The violated invariant of the state ``after`` or of the step to it."""
        if before == after:
            return None
        if after not in self._wrong:
            self._wrong[after] = self._state(self._databases[after])
        if (before, after) not in self._wrong_steps:
            self._wrong_steps[before, after] = self._step(
                self._databases[before], self._databases[after]
            )
        return self._wrong[after] or self._wrong_steps[before, after]

    def goals(self, number: int) -> tuple[bool, bool]:
        """Whether all jobs have ended, and whether only keys with an expiry are left of them."""
        if number not in self._ended:
            database = self._databases[number]
            records = [self._hash(database, names.job_key(job)) for job in _jobs(database)]
            is_ended = all(r[b"status"] in _TERMINAL for r in records if r is not None)
            self._ended[number] = is_ended, is_ended and self._is_clean(database)
        return self._ended[number]

    def _is_clean(self, database: Database) -> bool:
        return not any(
            key.startswith((b"rq:queue:", b"mgs:claims:", b"mgs:live")) for key in database
        )

    # One state.

    def _state(self, database: Database) -> str | None:
        for job in _jobs(database):
            numbers = tuple(database.get(key.encode()) for key in _keys_of(job))
            if numbers not in self._wrong_jobs:
                self._wrong_jobs[numbers] = self._job(database, job)
            if self._wrong_jobs[numbers] is not None:
                return self._wrong_jobs[numbers]
        return (
            self._orphans(database)
            or self._holders(database)
            or self._lists(database)
            or self._totals(database)
            or self._parked(database)
        )

    def _job(self, database: Database, job: str) -> str | None:
        record, log = self._hash(database, names.job_key(job)), self._log(database, job)
        assert record is not None
        seqs, attempt = [entry.id[1] for entry in log], int(record.get(b"attempt", b"0"))
        ends = [decode_event(entry.fields[1]).is_terminal for entry in log]
        is_ended = record[b"status"] in _TERMINAL
        if seqs != list(range(1, len(seqs) + 1)):
            return f"{job} has events {seqs}"
        if log and log[-1].id[0] > attempt:
            return f"{job} has an event of an attempt that was not opened"
        if sum(ends) != is_ended or (is_ended and not ends[-1]):
            return f"{job} is {record[b'status'].decode()} and has {sum(ends)} terminal events"
        if not is_ended:
            return None
        if b"%d-%d" % log[-1].id != record[b"end"]:
            return f"the record of {job} has another end than its log"
        return self._expiries(database, job)

    def _expiries(self, database: Database, job: str) -> str | None:
        for key in _keys_of(job):
            number = database.get(key.encode())
            if number is not None and self._cells[number].ttl_s not in _ENDED_TTL_S:
                return f"{key} of an ended job does not expire"
        return None

    def _orphans(self, database: Database) -> str | None:
        """Logs and requests without a record, and queues that are not listed for supervisors."""
        jobs = set(_jobs(database))
        for key in database:
            for prefix in (names.log_key("").encode(), names.request_key("").encode()):
                if key.startswith(prefix) and key.removeprefix(prefix).decode() not in jobs:
                    return f"{key.decode()} has no record"
            if (
                key.startswith((b"rq:queue:", b"mgs:claims:"))
                and names.SLUGS.encode() not in database
            ):
                return f"{key.decode()} exists, and its slug is not listed"
        return None

    def _holders(self, database: Database) -> str | None:
        """A job that has not ended is either queued or claimed by one worker."""
        claims = self._value(database, names.claims_key(SLUG)) or frozenset()
        assert isinstance(claims, frozenset)
        claimed = [member.partition(b"|")[2] for member in claims]
        waiting = self._ids(database, *(list_keys(queue)[0] for queue in QUEUES.values()))
        unclaimed = self._ids(database, list_keys(QUEUE)[1]) if self._has_unclaimed_job else set()
        for job in _jobs(database):
            num_holders = (job.encode() in waiting) + claimed.count(job.encode())
            num_holders = num_holders or job.encode() in unclaimed
            record = self._hash(database, names.job_key(job))
            assert record is not None
            if num_holders == 1 or record[b"status"] in _TERMINAL:
                continue
            if num_holders:
                return f"{job} has several holders"
            return f"{job} is neither queued nor claimed"
        return None

    def _ids(self, database: Database, *keys: str) -> set[bytes]:
        found = [self._value(database, key) or () for key in keys]
        return {
            job for one in found if isinstance(one, tuple) for job in one if isinstance(job, bytes)
        }

    def _lists(self, database: Database) -> str | None:
        for key in itertools.chain.from_iterable(map(list_keys, QUEUES.values())):
            found = self._value(database, key) or ()
            assert isinstance(found, tuple)
            if len(set(found)) < len(found):
                return f"{key} contains a job twice"
        return None

    def _totals(self, database: Database) -> str | None:
        totals = self._hash(database, names.TOTALS) or Hash()
        records = [self._hash(database, names.job_key(job)) for job in _jobs(database)]
        num_ended = sum(r is not None and r[b"status"] in _TERMINAL for r in records)
        counted = sum(int(number) for name, number in totals.items() if name.startswith(b"jobs "))
        return (
            None
            if counted == num_ended
            else f"{num_ended} jobs have ended, and the totals count {counted}"
        )

    def _parked(self, database: Database) -> str | None:
        """A worker that is stopped because its model is parked has no job."""
        desired = self._hash(database, names.DESIRED_MODELS) or Hash()
        claims = self._value(database, names.claims_key(SLUG))
        is_parked = any(decode_record(DesiredModel, data).is_parked for data in desired.values())
        return "a parked model has a claimed job" if is_parked and claims else None

    # One step.

    def _step(self, before: Database, after: Database) -> str | None:
        for job in _jobs(before):
            old = self._hash(before, names.job_key(job))
            new = self._hash(after, names.job_key(job))
            if old is None:
                continue
            if new is None:
                return f"{job} has no record any more"
            if old[b"status"] in _TERMINAL and (old[b"status"], old[b"end"]) != (
                new[b"status"],
                new[b"end"],
            ):
                return f"{job} has a second end"
            added = self._log(after, job)[len(self._log(before, job)) :]
            if any(entry.id[0] != int(old.get(b"attempt", b"0")) for entry in added):
                return f"{job} gets an event of a closed attempt"
        return None

    # Values.

    def _value(self, database: Database, key: str) -> Value | None:
        number = database.get(key.encode())
        return None if number is None else self._cells[number].value

    def _hash(self, database: Database, key: str) -> Hash | None:
        found = self._value(database, key)
        assert found is None or isinstance(found, Hash)
        return found

    def _log(self, database: Database, job: str) -> Stream:
        found = self._value(database, names.log_key(job)) or Stream()
        assert isinstance(found, Stream)
        return found


def _jobs(database: Database) -> list[str]:
    """Ids of all jobs with a record."""
    prefix = names.job_key("").encode()
    return [key.removeprefix(prefix).decode() for key in database if key.startswith(prefix)]


def _keys_of(job: str) -> tuple[str, ...]:
    return names.job_key(job), names.log_key(job), names.request_key(job)
