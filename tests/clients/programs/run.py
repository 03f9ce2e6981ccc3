"""Runs the cases of one client: ``python run.py PROGRAM URL MODEL``.

A case is a public function of the program; how each ended is told as a line of JSON. This runs in
the environment that has the client, and needs nothing of ours there.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

_E = TypeVar("_E", bound=Exception)


@dataclass(frozen=True)
class Target:
    """The server, and the model that a client is to use."""

    url: str
    model: str

    @property
    def openai_url(self) -> str:
        """What clients of OpenAI's API call the base URL."""
        return f"{self.url}/v1"

    @staticmethod
    def error_of(kind: type[_E], call: Callable[..., object], **arguments: Any) -> _E:
        """The error of that kind that the call ends with."""
        try:
            call(**arguments)
        except kind as error:
            return error
        raise AssertionError(f"no {kind.__name__}")


def main(program: str, url: str, model: str) -> None:
    target = Target(url, model)
    for name, case in cases_of(importlib.import_module(program)).items():
        print(json.dumps({"case": name, "outcome": outcome(case, target)}), flush=True)


def cases_of(module: ModuleType) -> dict[str, Callable[[Target], object]]:
    """The functions that the module itself defines, but for those with an underscore."""
    functions = inspect.getmembers_static(module, inspect.isfunction)
    return {
        name: function
        for name, function in functions
        if function.__module__ == module.__name__ and not name.startswith("_")
    }


def outcome(case: Callable[[Target], Any], target: Target) -> str:
    """``ok``, or what went wrong."""
    try:
        case(target)
    except Exception:
        return traceback.format_exc()
    return "ok"


if __name__ == "__main__":
    main(*sys.argv[1:])
