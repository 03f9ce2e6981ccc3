"""Faults seeded in the scripts, each with a small world in which the explorer finds it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.explorer.rules import Rules
from tests.explorer.search import Search
from tests.explorer.step_text import SCRIPTS
from tests.explorer.world import JobWorld

_MAX_STATES = 1_000_000


@dataclass(frozen=True, slots=True)
class SeededFault:
    """``before`` is replaced by ``after`` in the script of that name. The expected ``violation`` is
    found at the end of a history that has all of the ``steps`` in this order. ``also_removed``:
    texts removed from other scripts, where the protocol has a second guard against the fault."""

    name: str
    script: str
    before: str
    after: str
    rules: Rules
    violation: str
    steps: tuple[str, ...]
    also_removed: tuple[tuple[str, str], ...] = ()

    def edit(self, text: str) -> str:
        """The script with the fault; any other unchanged."""
        edits = [(self.script, self.before, self.after)]
        edits += [(script, before, "") for script, before in self.also_removed]
        for script, before, after in edits:
            if text == SCRIPTS[script]:
                assert before in text
                return text.replace(before, after)
        return text

    def failure(self) -> str | None:
        """Why the explorer has not found the fault as expected; ``None`` if it has."""
        result = Search(JobWorld(self.rules, self.edit), _MAX_STATES).run()
        if not result.violations:
            return f"{self.name}: not found in {result.num_states} states"
        (violation,) = result.violations
        lines = iter(violation.history)
        is_shown = all(any(step in line for line in lines) for step in self.steps)
        if self.violation in violation.message and is_shown:
            return None
        return f"{self.name}: another violation was found: {violation}"


_LATE_WORKER = Rules(tokens=(1,), supervisor_deaths=1, num_workers=2)
_DEATH = Rules(tokens=(1,), worker_deaths=1, num_workers=2)
_FROZEN = Rules(tokens=(1,), expiries=1, num_workers=2)
_LATE_REQUEST = Rules(tokens=(1,), delays=1, num_workers=1)
_PARK = Rules(tokens=(1,), loads=1, parks=1, num_supervisors=1, num_workers=2)
_CLOSE = Rules(tokens=(1,), loads=1, closes=1, num_supervisors=1, num_workers=2)
_YIELD = Rules(tokens=(1,), batch=(0,), yields=1, num_supervisors=1, num_workers=1)
_STOP_TAKES = "STOP_TAKES"
_STOP_TAKES_FENCE = "if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end"

FAULTS = (
    SeededFault(
        "a model that is parked while a job of it is taken",
        "PARK",
        "or redis.call('EXISTS', KEYS[3]) == 1",
        "",
        _CLOSE,
        "a parked model has a claimed job",
        ("TAKE", "PARK"),
    ),
    SeededFault(
        "a parked model whose worker takes another job",
        "PARK",
        "redis.call('SET', KEYS[i], 'dead', 'EX', ARGV[6])",
        "",
        _PARK,
        "a parked model has a claimed job",
        ("PARK", "TAKE"),
    ),
    SeededFault(
        "APPEND without its fence",
        "APPEND",
        "if state[1] == 'running' and state[2] == attempt then",
        "if state[1] then",
        _LATE_WORKER,
        "j0 gets an event of a closed attempt",
        ("supervisor 0 dies", "RETURN_TO_QUEUE", "OPEN_ATTEMPT", "APPEND"),
    ),
    SeededFault(
        "SETTLE without compare-and-set",
        "SETTLE",
        "if (state[2] or '0') ~= ARGV[1] then return 0 end",
        "",
        _LATE_WORKER,
        "j0 gets an event of a closed attempt",
        ("supervisor 0 dies", "RETURN_TO_QUEUE", "OPEN_ATTEMPT", "SETTLE"),
    ),
    SeededFault(
        "SETTLE of a job that has ended",
        "SETTLE",
        "if state[1] ~= 'queued' and state[1] ~= 'running' then",
        "if false then",
        Rules(tokens=(1,), cancelled=(0, 0), num_workers=0),
        "j0 is cancelled and has 2 terminal events",
        ("REQUEST_CANCEL", "SETTLE", "SETTLE"),
    ),
    SeededFault(
        "a return to the queue that does not remove the claim",
        "RETURN_TO_QUEUE",
        "redis.call('SREM', KEYS[4], worker .. '|' .. id) == 0",
        "redis.call('SISMEMBER', KEYS[4], worker .. '|' .. id) == 0",
        _DEATH,
        "j0 has several holders",
        ("TAKE", "ends with code -9", "RETURN_TO_QUEUE"),
    ),
    SeededFault(
        "a take that writes no claim",
        "TAKE",
        "redis.call('SADD', KEYS[3], worker .. '|' .. id)",
        "",
        Rules(tokens=(1,), num_workers=1),
        "j0 is neither queued nor claimed",
        ("SUBMIT", "TAKE"),
    ),
    SeededFault(
        "a take without the fence on the owner",
        "TAKE",
        "if owner and owner ~= ARGV[2] then return false end",
        "",
        _LATE_WORKER,
        "goal 0 is unreachable",
        ("supervisor 0 dies", "REPLACE_OWNER", "TAKE 0.gen.w0", "worker 0 ends"),
    ),
    SeededFault(
        "an attempt opened without a claim",
        "OPEN_ATTEMPT",
        "if redis.call('SISMEMBER', KEYS[4], ARGV[2] .. '|' .. ARGV[1]) == 0",
        "if false",
        _LATE_WORKER,
        "j0 is neither queued nor claimed",
        ("TAKE", "RETURN_TO_QUEUE", "0.gen.w1 ->", "OPEN_ATTEMPT j0 0.gen.w0", "drop"),
    ),
    SeededFault(
        "a submission that is not idempotent",
        "SUBMIT",
        "if redis.call('EXISTS', KEYS[1]) == 1 then return 'done' end",
        "",
        Rules(tokens=(1,), losses=1, num_workers=1),
        "contains a job twice",
        ("SUBMIT", "SUBMIT"),
    ),
    SeededFault(
        "a recovery that continues after the model has another owner",
        "RETURN_TO_QUEUE",
        "if ARGV[4] ~= '' and redis.call('GET', KEYS[7]) ~= ARGV[4] then return -1 end",
        "",
        _FROZEN,
        "goal 0 is unreachable",
        ("expires", "REPLACE_OWNER", "TAKE 0.gen.w0", "RETURN_TO_QUEUE"),
        ((_STOP_TAKES, _STOP_TAKES_FENCE),),
    ),
    SeededFault(
        "an attempt that one worker opens twice",
        "OPEN_ATTEMPT",
        "if status ~= 'running' or state[6] ~= ARGV[2] then",
        "if true then",
        _LATE_REQUEST,
        "j0 is neither queued nor claimed",
        ("OPEN_ATTEMPT", "OPEN_ATTEMPT"),
    ),
    SeededFault(
        "a take that was given up and still takes a job",
        "TAKE",
        "tonumber(ARGV[5]) < tonumber(first)",
        "false",
        _LATE_REQUEST,
        "goal 0 is unreachable",
        ("TAKE", "FIND_TAKEN", "TAKE"),
    ),
    SeededFault(
        "a take of a dead worker",
        "TAKE",
        "first == 'dead' or",
        "first ~= 'dead' and",
        replace(_DEATH, delays=1, num_supervisors=1),
        "goal 0 is unreachable",
        ("has sent: TAKE", "STOP_TAKES", "delayed request in take: TAKE"),
    ),
    SeededFault(
        "a job that a late request takes from a later attempt",
        "YIELD",
        "if state[3] ~= ARGV[3] then return 0 end",
        "",
        replace(_YIELD, delays=1),
        "a job has given way more often than its worker wanted",
        ("gives way", "YIELD", "YIELD", "TAKE", "OPEN_ATTEMPT", "delayed request in hand_back"),
    ),
    SeededFault(
        "a job that gives way and stays claimed",
        "YIELD",
        "redis.call('SREM', KEYS[4], worker .. '|' .. id)",
        "",
        _YIELD,
        "j0 has several holders",
        ("TAKE", "gives way", "YIELD"),
    ),
    SeededFault(
        "a job that gives way and is still in the intermediate list",
        "YIELD",
        "redis.call('LREM', KEYS[2], 0, id)",
        "",
        _YIELD,
        "intermediate contains a job twice",
        ("gives way", "YIELD", "TAKE"),
    ),
    SeededFault(
        "a cancelled job that gives way",
        "YIELD",
        "if state[4] and state[4] ~= '' then return state[4] end",
        "",
        replace(_YIELD, cancelled=(0,)),
        "j0 gives way after a cancel",
        ("REQUEST_CANCEL", "YIELD"),
    ),
    SeededFault(
        "a take of a class that is held",
        "TAKE",
        "if redis.call('HGET', KEYS[6], class) == 'hold' then return false end",
        "",
        replace(_YIELD, yields=0, holds=("hold batch",)),
        "j0 is taken while its class is held",
        ("HOLD", "TAKE"),
    ),
    SeededFault(
        "a caller's job in each class, where it may have one",
        "TAKE",
        "+ tonumber(ARGV[9])",
        "",
        Rules(
            tokens=(1, 1),
            batch=(1,),
            callers=("a", "a"),
            max_running=1,
            slots=2,
            num_supervisors=1,
            num_workers=1,
        ),
        "a caller runs more jobs than it may",
        ("TAKE", "TAKE", "OPEN_ATTEMPT", "OPEN_ATTEMPT"),
    ),
    SeededFault(
        "hints that nobody removes",
        "TAKE",
        "redis.call('DEL', hints .. ':' .. caller)",
        "",
        replace(_YIELD, yields=0, cancelled=(0,)),
        "is not listed, and nobody removes it",
        ("REQUEST_CANCEL", "SETTLE", "TAKE"),
    ),
)

LARGE_FAULTS = (
    SeededFault(
        "a recovery that stops the takes of another owner's worker",
        _STOP_TAKES,
        _STOP_TAKES_FENCE,
        "",
        replace(_FROZEN, tokens=(1, 1)),
        "goal 0 is unreachable",
        ("expires", "REPLACE_OWNER", "TAKE 0.gen.w0", "STOP_TAKES"),
    ),
)
"""Faults whose worlds are too large for the test suite."""
