"""The invariants of each state of Redis and of each step."""

from __future__ import annotations

import itertools

from jobs.contract.events import EventKind, decode_event
from jobs.contract.records import DesiredModel, decode_record
from jobs.storage import names
from jobs.storage.lua.job_scripts import RESERVE_S
from tests.explorer.memory import Cells, Database, Hash, Stream, Value
from tests.explorer.rules import Rules
from tests.explorer.state_fields import BATCH, QUEUE, QUEUES, SLUG, list_keys

TERMINAL = (b"finished", b"failed", b"cancelled")
_ENDED_TTL_S = (RESERVE_S + 3600, RESERVE_S + 86400)


class Checks:
    """Checks states by their numbers; each job's state and each state once."""

    def __init__(self, cells: Cells, databases: list[Database], rules: Rules) -> None:
        self._rules = rules
        self._cells = cells
        self._databases = databases
        self._wrong: dict[int, str | None] = {}
        self._wrong_jobs: dict[tuple[int | None, ...], str | None] = {}
        self._wrong_steps: dict[tuple[int, int], str | None] = {}
        self._ended: dict[int, tuple[bool, bool]] = {}
        self._yields: dict[int, int] = {}

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
            is_ended = all(r[b"status"] in TERMINAL for r in records if r is not None)
            self._ended[number] = is_ended, is_ended and self._is_clean(database)
        return self._ended[number]

    def num_yields(self, number: int) -> int:
        """How often jobs have given way, by their records."""
        if not self._rules.yields:
            return 0
        if number not in self._yields:
            database = self._databases[number]
            records = [self._hash(database, names.job_key(job)) for job in _jobs(database)]
            self._yields[number] = sum(int(r.get(b"yields", b"0")) for r in records if r)
        return self._yields[number]

    def _is_clean(self, database: Database) -> bool:
        return not any(
            key.startswith((b"rq:queue:", b"mgs:claims:", b"mgs:live", b"mgs:hints:"))
            for key in database
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
            or self._order(database)
        )

    def _job(self, database: Database, job: str) -> str | None:
        record, log = self._hash(database, names.job_key(job)), self._log(database, job)
        assert record is not None
        seqs, attempt = [entry.id[1] for entry in log], int(record.get(b"attempt", b"0"))
        ends = [decode_event(entry.fields[1]).is_terminal for entry in log]
        is_ended = record[b"status"] in TERMINAL
        if seqs != list(range(1, len(seqs) + 1)):
            return f"{job} has events {seqs}"
        if log and log[-1].id[0] > attempt:
            return f"{job} has an event of an attempt that was not opened"
        if sum(ends) != is_ended or (is_ended and not ends[-1]):
            return f"{job} is {record[b'status'].decode()} and has {sum(ends)} terminal events"
        num_tokens = sum(decode_event(e.fields[1]).kind is EventKind.CHUNK for e in log)
        if job in self._rules.jobs and num_tokens > self._rules.jobs[job]:
            return f"{job} has said a token twice"
        if not is_ended:
            return None
        is_whole = job not in self._rules.jobs or num_tokens == self._rules.jobs[job]
        if record[b"status"] == b"finished" and not is_whole:
            return f"{job} has finished without all of its tokens"
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
        unclaimed = (
            self._ids(database, list_keys(QUEUE)[1]) if self._rules.has_unclaimed_job else set()
        )
        for job in _jobs(database):
            num_holders = (job.encode() in waiting) + claimed.count(job.encode())
            num_holders = num_holders or job.encode() in unclaimed
            record = self._hash(database, names.job_key(job))
            assert record is not None
            if num_holders == 1 or record[b"status"] in TERMINAL:
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
        num_ended = sum(r is not None and r[b"status"] in TERMINAL for r in records)
        counted = sum(int(number) for name, number in totals.items() if name.startswith(b"jobs "))
        has_deleted = bool(self._rules.lines) and counted > num_ended
        if counted == num_ended or has_deleted:
            return None
        return f"{num_ended} jobs have ended, and the totals count {counted}"

    def _parked(self, database: Database) -> str | None:
        """A worker that is stopped because its model is parked has no job."""
        desired = self._hash(database, names.DESIRED_MODELS) or Hash()
        claims = self._value(database, names.claims_key(SLUG))
        is_parked = any(decode_record(DesiredModel, data).is_parked for data in desired.values())
        return "a parked model has a claimed job" if is_parked and claims else None

    def _order(self, database: Database) -> str | None:
        """The queues of the classes, the hints and what callers have used."""
        for kind, queue in (("interactive", QUEUE), ("batch", BATCH)):
            hints = names.hints_key(queue)
            callers = self._value(database, hints) or frozenset()
            assert isinstance(callers, frozenset)
            for key in database:
                caller = key.removeprefix(f"{hints}:".encode())
                if caller != key and caller not in callers:
                    return f"{key.decode()} is not listed, and nobody removes it"
            waiting = self._ids(database, *list_keys(queue))
            if any(self._rules.class_of(job.decode()) != kind for job in waiting):
                return f"a job of another class is on {queue}"
        used = self._hash(database, names.fair_key(SLUG)) or Hash()
        counts = [float(n) for field, n in used.items() if not field.startswith(b"last:")]
        return "a caller has used less than nothing" if min(counts, default=0) < -1e-6 else None

    # One step.

    def _step(self, before: Database, after: Database) -> str | None:
        if (job := self._taken_while_held(before, after)) is not None:
            return f"{job} is taken while its class is held"
        for job in _jobs(before):
            old = self._hash(before, names.job_key(job))
            new = self._hash(after, names.job_key(job))
            if old is None:
                continue
            if new is None and self._rules.is_line(job) and old[b"status"] in TERMINAL:
                continue
            if new is None:
                return f"{job} has no record any more"
            if (wrong := self._yield(before, after, job)) is not None:
                return wrong
            if old[b"status"] in TERMINAL and (old[b"status"], old[b"end"]) != (
                new[b"status"],
                new[b"end"],
            ):
                return f"{job} has a second end"
            added = self._log(after, job)[len(self._log(before, job)) :]
            if any(entry.id[0] != int(old.get(b"attempt", b"0")) for entry in added):
                return f"{job} gets an event of a closed attempt"
        return None

    def _taken_while_held(self, before: Database, after: Database) -> str | None:
        held = self._hash(before, names.hold_key(SLUG))
        if not held:
            return None
        key = names.claims_key(SLUG)
        claims = [self._value(one, key) or frozenset() for one in (before, after)]
        assert isinstance(claims[0], frozenset)
        assert isinstance(claims[1], frozenset)
        for claim in claims[1] - claims[0]:
            job = claim.partition(b"|")[2].decode()
            job_class = self._rules.class_of(job) if job in self._rules.jobs else ""
            if held.get(job_class.encode()) == b"hold":
                return job
        return None

    def _yield(self, before: Database, after: Database, job: str) -> str | None:
        """A job that gives way goes from its worker to the front of its queue, and is counted."""
        old = self._hash(before, names.job_key(job)) or Hash()
        new = self._hash(after, names.job_key(job)) or Hash()
        num = int(new.get(b"yields", b"0")) - int(old.get(b"yields", b"0"))
        if not num:
            return None
        changes = (old[b"status"], new[b"status"]), num, old.get(b"deaths") == new.get(b"deaths")
        queue = BATCH if self._rules.class_of(job) == "batch" else QUEUE
        front = self._value(after, list_keys(queue)[0]) or ()
        assert isinstance(front, tuple)
        if changes != ((b"running", b"queued"), 1, True) or front[:1] != (job.encode(),):
            return f"{job} gives way, and is not put back as it should be"
        return f"{job} gives way after a cancel" if new.get(b"cancel") else None

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
