"""The order of a check: one server for most rows, others for other settings."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from api.cli.check import rows, sleep
from api.cli.check.asking import chat, user
from api.cli.check.trial import Trial, trial
from api.cli.client import CliError
from api.cli.doctor import Check, Verdict, setup_checks
from api.cli.serve import project_root

STEP_BUDGETS_MS = (50, 200, 1000)
DEMO_MODELS = ("demo", "demo.gguf")
_BENCH_S = 900.0
_LEAST_RATIO = 0.7
_LAST_LINES = 30


@dataclass(slots=True)
class Machine:
    """What is tried: models of a folder, for so many seconds at once, with a sleep or not."""

    models_dir: Path
    names: list[str]
    seconds: float
    is_sleeping: bool
    say: Callable[[str], None]
    log: str = field(default="", init=False)
    """The end of the last server's output."""
    done: list[Check] = field(default_factory=list, init=False)

    def examine(self) -> Iterator[Check]:
        """All checks, each when it is done; a failure of one prevents none of the others."""
        for check in self._all():
            self.done.append(check)
            yield check

    def _all(self) -> Iterator[Check]:
        yield from setup_checks()
        yield from self._guarded("a server", self._with_one_server)
        yield from self._guarded("prompt speed", self._prompt_speeds)
        yield from self._guarded("speed beside the bare libraries", self._beside_bare)
        if self.is_sleeping:
            yield from self._guarded("sleep", self._sleep)

    def _guarded(self, subject: str, check: Callable[[], Iterator[Check]]) -> Iterator[Check]:
        try:
            yield from check()
        except Exception as error:  # the report shall have the rows that follow
            yield Check("problem", subject, f"{type(error).__name__}: {error}")

    def _with_one_server(self) -> Iterator[Check]:
        ids = [str(place) for place in range(len(self.names))]
        with trial(self.models_dir) as one:
            try:
                for name, model_id in zip(self.names, ids, strict=True):
                    yield rows.answers(one, name, model_id)
                yield from rows.together(one, ids, self.seconds)
                for name, model_id in zip(self.names, ids, strict=True):
                    yield rows.second_turn(one, name, model_id)
                    yield rows.footprint(one, name, model_id)
                    yield from rows.too_much(one, name, model_id)
            finally:
                self._note_log(one)

    def _prompt_speeds(self) -> Iterator[Check]:
        """A lone prompt in pieces of several sizes, by model."""
        found: dict[str, list[str]] = {name: [] for name in self.names}
        for budget in STEP_BUDGETS_MS:
            self.say(f"prompts in pieces of {budget} ms")
            with trial(self.models_dir, MGS_STEP_BUDGET_MS=str(budget)) as one:
                for place, name in enumerate(self.names):
                    one.load(name, str(place))
                    speed, problem = rows.prompt_speed(one, str(place), budget)
                    found[name].append(f"{budget} ms: {problem or f'{speed:.0f}'}")
                self._note_log(one)
        for name, speeds in found.items():
            yield Check("ok", f"prompt tokens/s by size of piece, {name}", ", ".join(speeds))

    def _beside_bare(self) -> Iterator[Check]:
        """The benchmark's shortest round of this server and of the libraries without one."""
        name, folder = "machine-check", project_root() / "bench" / "results"
        command = [sys.executable, "-m", "bench", "--quick", "--scenarios", "distinct"]
        command += ["--models", "tiny.gguf", "tiny", "--clients", "1", "--targets", "bare", "ours"]
        self.say("this server beside the bare libraries: a minute")
        try:
            done = subprocess.run(
                [*command, "--name", name],
                cwd=project_root(), capture_output=True, text=True, timeout=_BENCH_S,
            )  # fmt: skip
            if done.returncode:
                raise CliError(done.stderr.strip()[-500:] or "the benchmark failed")
            measured = json.loads((folder / f"{name}.json").read_text())["measurements"]
        finally:
            for file in folder.glob(f"{name}.*"):
                file.unlink()
        speeds = {
            (one["model"], one["target"]): one["value"]
            for one in measured
            if one["metric"] == "tokens/s"
        }
        for model in ("tiny", "tiny.gguf"):
            ours, bare = speeds[model, "ours"], speeds[model, "bare"]
            finding = f"{ours:.0f} tokens/s, the library alone {bare:.0f}: {ours / bare:.2f}"
            verdict: Verdict = "ok" if ours >= _LEAST_RATIO * bare else "warning"
            yield Check(verdict, f"speed beside the library, {model}", finding)

    def _sleep(self) -> Iterator[Check]:
        settings = {"MGS_LOG_TTL_S": str(sleep.LOG_TTL_S), "MGS_SLOTS": "1"}
        with trial(self.models_dir, MGS_KEEP_AWAKE="0", **settings) as one:
            one.load(self.names[0], "0")
            speed = chat(one, [user("Hello!")], "0", 128).tokens_per_s
            self.say(
                f"Now put the machine to sleep (on a Mac: Apple menu, Sleep), for at least "
                f"{sleep.SHORTEST_S} s, and wake it."
            )
            try:
                yield sleep.survive(one, "0", speed)
            finally:
                self._note_log(one)

    def _note_log(self, one: Trial) -> None:
        lines = one.log.read_text(errors="replace").splitlines()
        self.log = "\n".join(lines[-_LAST_LINES:])
