"""P: guarantees over many jobs and concurrent faults."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.storage.event_log import read_log
from tests.faults.clients import body, expected, is_exact, read_all
from tests.faults.crash_histories import WRITES
from tests.faults.redis_faults import cutting
from tests.faults.registry import Result, Run, Tally
from tests.faults.rig import (
    Remote,
    Rig,
    direct_client,
    kill,
    remote_server,
    running_server,
    submit,
    text_of,
    wait_ended,
    wait_worker,
    workers_of,
)
from tests.faults.worker_faults import reload_model
from tests.helpers.server import Server
from tests.helpers.tcp_proxy import Exchange, Watch

_NUM_STREAMS = 64
_LENGTH = 400
_MODEL = "fake-5ms"

# P1.


def million_tokens(rig: Rig, rounds: int) -> Result:
    """64 streams of 400 tokens a round, under all faults of ``trouble``."""
    tally, fault_counts = Tally(), Counter[str]()
    num_tokens = num_refused = 0
    with remote_server(MGS_SLOTS=str(_NUM_STREAMS)) as remote:
        for _ in range(rounds):
            # A worker without crashes, so that its next start has no back-off.
            reload_model(remote.server, _MODEL)
            with trouble(remote, rig, fault_counts):
                answers = read_all(remote.server.port, [body(8, _LENGTH)] * _NUM_STREAMS)
            for answer in answers:
                # A request that was refused before its start is not lost.
                is_refused = answer.status == 503 and not answer.text
                num_refused += is_refused
                num_tokens += len(answer.text)
                what = f"{answer.status} {answer.code!r} {answer.text[-20:]!r}"
                tally.check(is_exact(answer, 8, _LENGTH) or is_refused, what)
            tally.rounds += 1
    shown = ", ".join(f"{count} {name}" for name, count in fault_counts.items())
    goal = 1_000_000 if rounds >= 40 else 1
    tally.note_least("tokens", num_tokens, goal, "")
    return tally.result(f"{shown}; refused with 503 {num_refused}")


@contextmanager
def trouble(remote: Remote, rig: Rig, fault_counts: Counter[str]) -> Iterator[None]:
    """Connections and subscribers are cut, replies are lost; the worker is killed once."""
    remote.proxy.watch(_losing(rig.random, fault_counts))
    stop = threading.Event()
    killer = threading.Thread(
        target=_kill_once, args=(remote, rig, fault_counts, stop), daemon=True
    )
    subscribers = threading.Thread(target=_cut_subscribers, args=(remote, fault_counts, stop))
    killer.start()
    subscribers.start()
    try:
        with cutting(remote, rig, mean_s=1.0) as counts:
            yield
        fault_counts["times connections cut"] += len(counts)
    finally:
        stop.set()
        killer.join()
        subscribers.join()
        remote.proxy.watch(None)


def _losing(random_: random.Random, fault_counts: Counter[str]) -> Watch:
    def is_lost(exchange: Exchange) -> bool:
        is_hit = exchange.name in WRITES and random_.random() < 0.002
        fault_counts["replies to writes lost"] += is_hit
        return is_hit

    return is_lost


def _kill_once(remote: Remote, rig: Rig, fault_counts: Counter[str], stop: threading.Event) -> None:
    if not stop.wait(rig.random.uniform(0.5, 2.5)):
        for pid in workers_of(remote.server):
            kill(pid)
            fault_counts["workers killed"] += 1


def _cut_subscribers(remote: Remote, fault_counts: Counter[str], stop: threading.Event) -> None:
    while not stop.wait(2.0):
        remote.direct.client_kill_filter(_type="pubsub")
        fault_counts["times subscribers cut"] += 1


# P2.

_JOBS_A_ROUND = 50


def jobs_under_kills(rig: Rig, rounds: int) -> Result:
    """Fifty jobs a round, and a kill of their worker at a random moment.

    After three deaths the model is reloaded, as the restart back-off grows with each death.
    """
    tally = Tally()
    with running_server() as server, direct_client(server.redis_url) as redis:
        for number in range(rounds):
            if number % 3 == 0:
                reload_model(server, _MODEL, slots=16)
            jobs = _submit_under_fire(server, rig)
            for job_id, length in jobs.items():
                found = wait_ended(server, job_id)
                is_right = text_of(found) == expected(8, length)
                tally.check(is_right, f"{job_id}: {found['status']} {found.get('error')}")
                num_ends = sum(event.is_terminal for event in read_log(redis, job_id))
                tally.check(num_ends == 1, f"{job_id} has {num_ends} terminal events")
            tally.rounds += 1
    return tally.result(f"{rounds * _JOBS_A_ROUND} jobs, {rounds} kills")


def _submit_under_fire(server: Server, rig: Rig) -> dict[str, int]:
    """The jobs' ids and lengths; the worker is killed during their submission or run."""
    pid, delay_s = wait_worker(server), rig.random.uniform(0.0, 0.8)
    timer = threading.Timer(delay_s, kill, [pid])
    timer.start()
    found: dict[str, int] = {}
    for _ in range(_JOBS_A_ROUND):
        length = rig.random.randint(5, 60)
        found[submit(server, body(8, length))] = length
    timer.join()
    return found


RUNS = {
    "P1": Run(million_tokens, full=42),
    "P2": Run(jobs_under_kills, full=200),
}
