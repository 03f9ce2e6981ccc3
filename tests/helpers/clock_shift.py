"""Moves the wall clock of processes, as sleep does: their other clocks do not notice (Linux)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def clock_shift(folder: Path) -> dict[str, str]:
    """Variables for processes whose wall clock is ahead by the seconds in ``folder/clock``."""
    library, clock = folder / "clock_shift.so", folder / "clock"
    source = Path(__file__).with_suffix(".c")
    compiler = os.environ.get("CC", "cc")
    command = [compiler, "-shared", "-fPIC", "-O2", str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    clock.write_text("0")
    return {"LD_PRELOAD": str(library), "CLOCK_SHIFT_FILE": str(clock)}
