"""The whole benchmark: ``python -m bench``. See ``bench/README.md``."""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import sys
from pathlib import Path

from bench import scenarios, system
from bench.machine import describe_machine, heading, physical_cores
from bench.measurement import BenchError
from bench.model_files import EngineKind, find_models
from bench.overhead import OVERHEAD
from bench.plot import plot
from bench.report import report
from bench.result_file import ResultFile
from bench.runner import Plan, run
from bench.servers import NUM_SLOTS, Setup, find_llama_server
from bench.targets import TARGETS

RESULTS = Path(__file__).parent / "results"
_SCENARIOS = {
    **{name: name for name in scenarios.NAMES},
    OVERHEAD: OVERHEAD,
    "jobs": system.JOBS,
    "streams": system.STREAMS,
    "idle": system.IDLE,
    "memory": system.WORKER_MEMORY,
}
_MODELS = ("half.gguf", "tiny", "small")
_QUICK_NOTE = "A quick run, to check that everything works; its figures are not significant.\n\n"
_QUICK_MODELS = ("tiny.gguf", "tiny")


def main() -> int:
    """Run, print and write the tables; exit status 1 when something failed."""
    arguments = _parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # servers are ended
    try:
        plan = _plan(arguments)
        return _run(plan, arguments)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


def _run(plan: Plan, arguments: argparse.Namespace) -> int:
    path = RESULTS / f"{arguments.name or ('quick' if arguments.quick else 'bench')}.json"
    machine = describe_machine(find_llama_server(plan.setup.llama_server))
    file = ResultFile(path, machine, _settings(plan), is_continued=arguments.append)
    record = file.record
    num_failures = len(record.failures)
    run(dataclasses.replace(plan, first_round=record.next_round), record, file.write)
    file.write()
    note = _QUICK_NOTE if arguments.quick else ""
    text = f"{heading(machine)}\n\n{note}{report(record)}"
    path.with_suffix(".txt").write_text(text)
    path.with_suffix(".svg").write_text(plot(record))
    print(f"\n{text}\nwritten: {path.name} and, beside it, .txt and .svg")
    return 1 if len(record.failures) > num_failures else 0


def _settings(plan: Plan) -> dict[str, str]:
    return {
        "models": " ".join(model.name for model in plan.models),
        "rounds": str(plan.rounds),
        "threads": str(plan.setup.threads),
        "scale": str(plan.scale),
        "own scale": str(plan.system_scale),
    }


def _plan(arguments: argparse.Namespace) -> Plan:
    names = arguments.models or (_QUICK_MODELS if arguments.quick else _MODELS)
    chosen = arguments.scenarios or list(_SCENARIOS)
    clients = tuple(arguments.clients or ((1, 4) if arguments.quick else (1, 4, 16)))
    if not 1 <= min(clients) <= max(clients) <= NUM_SLOTS:
        raise BenchError(f"--clients: 1 to {NUM_SLOTS}, the number of slots on all sides")
    plan = Plan(
        scenarios=frozenset(_SCENARIOS[name] for name in chosen),
        models=tuple(find_models(list(names), list(EngineKind))),
        targets=frozenset(arguments.targets),
        clients=clients,
        rounds=arguments.rounds or (1 if arguments.quick else 5),
        setup=Setup(arguments.threads, arguments.llama_server),
        is_every_scenario_for_all=bool(arguments.scenarios),
    )
    if not arguments.quick:
        return plan
    return dataclasses.replace(plan, scale=scenarios.QUICK, system_scale=system.QUICK)


def _parse() -> argparse.Namespace:
    names = [target.name for target in TARGETS]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--scenarios", nargs="+", choices=_SCENARIOS, metavar="NAME",
                        help=f"of {', '.join(_SCENARIOS)}; default: all")  # fmt: skip
    parser.add_argument("--models", nargs="+", metavar="MODEL",
                        help=f"presets or paths; default: {' '.join(_MODELS)}")  # fmt: skip
    parser.add_argument("--clients", nargs="+", type=int, metavar="N", help="default: 1 4 16")
    parser.add_argument("--rounds", type=int, metavar="N", help="default: 5")
    parser.add_argument("--targets", nargs="+", choices=names, default=names, metavar="TARGET",
                        help=f"of {', '.join(names)}; default: all that are installed")  # fmt: skip
    parser.add_argument("--threads", type=int, default=physical_cores(), metavar="N",
                        help="of llama.cpp, on all sides; default: physical cores")  # fmt: skip
    parser.add_argument("--llama-server", type=Path, metavar="PATH",
                        default=os.environ.get("BENCH_LLAMA_SERVER") or None,
                        help="default: BENCH_LLAMA_SERVER, PATH, build/llama-server")  # fmt: skip
    parser.add_argument("--name", help="of the files in bench/results; default: bench, or quick")
    parser.add_argument("--append", action="store_true",
                        help="add the rounds to those in the files")  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="one short round, to check that it works"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
