"""Faults planted in the scripts, each with a small world in which the explorer finds it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jobs.storage.lua import claim_scripts, job_scripts
from tests.explorer.rules import Rules
from tests.explorer.search import Search
from tests.explorer.world import JobWorld

_MOST_STATES = 300_000

_SCRIPTS = vars(job_scripts) | vars(claim_scripts)


@dataclass(frozen=True, slots=True)
class Planted:
    """``before`` becomes ``after`` in the script of that name. ``what`` is complained about, at the
    end of a history that has all of the ``steps`` in this order. ``more``: what is taken out of
    other scripts, as the protocol has more than one guard against that fault."""

    name: str
    script: str
    before: str
    after: str
    rules: Rules
    what: str
    steps: tuple[str, ...]
    more: tuple[tuple[str, str], ...] = ()

    def edit(self, text: str) -> str:
        """The script with the fault; any other as it is."""
        edits = [(self.script, self.before, self.after)]
        edits += [(script, before, "") for script, before in self.more]
        for script, before, after in edits:
            if text == _SCRIPTS[script]:
                assert before in text
                return text.replace(before, after)
        return text

    def complaint(self) -> str | None:
        """What is wrong with how the explorer finds it."""
        result = Search(JobWorld(self.rules, self.edit), _MOST_STATES).run()
        if not result.violations:
            return f"{self.name}: not found in {result.num_states} states"
        (violation,) = result.violations
        lines = iter(violation.history)
        is_shown = all(any(step in line for line in lines) for step in self.steps)
        if self.what in violation.what and is_shown:
            return None
        return f"{self.name}: found otherwise: {violation}"


_LATE_WORKER = Rules(tokens=(1,), supervisor_deaths=1, num_workers=2)
_DEATH = Rules(tokens=(1,), worker_deaths=1, num_workers=2)
_FROZEN = Rules(tokens=(1,), expiries=1, num_workers=2)
_LATE_REQUEST = Rules(tokens=(1,), lates=1, num_workers=1)
_STOP_TAKES = "STOP_TAKES"
_STOP_TAKES_FENCE = "if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end"

FAULTS = (
    Planted(
        "APPEND without its fence",
        "APPEND",
        "if state[1] == 'running' and state[2] == attempt then",
        "if state[1] then",
        _LATE_WORKER,
        "j0 takes an event of an attempt that is over",
        ("supervisor 0 dies", "RETURN_TO_QUEUE", "OPEN_ATTEMPT", "APPEND"),
    ),
    Planted(
        "SETTLE without compare-and-set",
        "SETTLE",
        "if (state[2] or '0') ~= ARGV[1] then return 0 end",
        "",
        _LATE_WORKER,
        "j0 takes an event of an attempt that is over",
        ("supervisor 0 dies", "RETURN_TO_QUEUE", "OPEN_ATTEMPT", "SETTLE"),
    ),
    Planted(
        "SETTLE of what has ended",
        "SETTLE",
        "if state[1] ~= 'queued' and state[1] ~= 'running' then",
        "if false then",
        Rules(tokens=(1,), cancelled=(0, 0), num_workers=0),
        "j0 is cancelled and has 2 ends in its log",
        ("REQUEST_CANCEL", "SETTLE", "SETTLE"),
    ),
    Planted(
        "a return that does not remove the claim",
        "RETURN_TO_QUEUE",
        "redis.call('SREM', KEYS[4], worker .. '|' .. id) == 0",
        "redis.call('SISMEMBER', KEYS[4], worker .. '|' .. id) == 0",
        _DEATH,
        "j0 is in more than one's hands",
        ("TAKE", "ends with code -9", "RETURN_TO_QUEUE"),
    ),
    Planted(
        "a take that forgets the claim",
        "TAKE",
        "redis.call('SADD', KEYS[3], ARGV[1] .. '|' .. id)",
        "",
        Rules(tokens=(1,), num_workers=1),
        "j0 waits nowhere, and nobody has it",
        ("SUBMIT", "TAKE"),
    ),
    Planted(
        "a take without the owner's fence",
        "TAKE",
        "if owner and owner ~= ARGV[2] then return false end",
        "",
        _LATE_WORKER,
        "goal 0 is out of reach",
        ("supervisor 0 dies", "REPLACE_OWNER", "TAKE 0.gen.w0", "worker 0 ends"),
    ),
    Planted(
        "an attempt opened without a claim",
        "OPEN_ATTEMPT",
        "if redis.call('SISMEMBER', KEYS[4], ARGV[2] .. '|' .. ARGV[1]) == 0",
        "if false",
        _LATE_WORKER,
        "j0 waits nowhere, and nobody has it",
        ("TAKE", "RETURN_TO_QUEUE", "0.gen.w1 ->", "OPEN_ATTEMPT j0 0.gen.w0", "drop"),
    ),
    Planted(
        "a submission that is not made once",
        "SUBMIT",
        "if redis.call('EXISTS', KEYS[1]) == 1 then return 'done' end",
        "",
        Rules(tokens=(1,), losses=1, num_workers=1),
        "holds a job twice",
        ("SUBMIT", "SUBMIT"),
    ),
    Planted(
        "a recovery that goes on when the model is another's",
        "RETURN_TO_QUEUE",
        "if ARGV[4] ~= '' and redis.call('GET', KEYS[7]) ~= ARGV[4] then return -1 end",
        "",
        _FROZEN,
        "goal 0 is out of reach",
        ("runs out", "REPLACE_OWNER", "TAKE 0.gen.w0", "RETURN_TO_QUEUE"),
        ((_STOP_TAKES, _STOP_TAKES_FENCE),),
    ),
    Planted(
        "an attempt that the same worker opens twice",
        "OPEN_ATTEMPT",
        "if status ~= 'running' or state[6] ~= ARGV[2] then",
        "if true then",
        _LATE_REQUEST,
        "j0 waits nowhere, and nobody has it",
        ("OPEN_ATTEMPT", "OPEN_ATTEMPT"),
    ),
    Planted(
        "a take that was given up and is answered",
        "TAKE",
        "tonumber(ARGV[5]) < tonumber(first)",
        "false",
        _LATE_REQUEST,
        "goal 0 is out of reach",
        ("TAKE", "FIND_TAKEN", "TAKE"),
    ),
    Planted(
        "a take of a worker that is dead",
        "TAKE",
        "first == 'dead' or",
        "first ~= 'dead' and",
        replace(_DEATH, lates=1, num_supervisors=1),
        "goal 0 is out of reach",
        ("has sent: TAKE", "STOP_TAKES", "late in take: TAKE"),
    ),
)

LARGE_FAULTS = (
    Planted(
        "a recovery that stops the takes of another's worker",
        _STOP_TAKES,
        _STOP_TAKES_FENCE,
        "",
        replace(_FROZEN, tokens=(1, 1)),
        "goal 0 is out of reach",
        ("runs out", "REPLACE_OWNER", "TAKE 0.gen.w0", "STOP_TAKES"),
    ),
)
"""Those whose worlds are too large for the test suite."""
