"""What a run found, as docs/llama-cpp-tests.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from scripts.llama_cpp_tests.reasons import REASONS
from scripts.llama_cpp_tests.run import Outcome

_HEAD = """# llama.cpp's server tests against this server

llama.cpp tests its server with pytest. The same tests can talk to any server that is already
running (`DEBUG_EXTERNAL=1 PORT=…`), so they show how far this server can stand in for llama-server.
This page is written by

```console
$ scripts/llama_cpp_server_tests.sh
```

which takes the tests from the sources of the pinned llama-cpp-python ({version}), starts a server,
loads the demo model as model 0 in either format and runs the files below. The tests would start
llama-server with a model of their own, which they download: what looks at that model's text, token
counts or chat template cannot pass with another one, not even with llama-server itself. Cases that
the authors mark slow want large real models, and run here with the demo model all the same.

Loaded with `"temperature": 0`, where the tests start their server with a fixed seed;
`test_chat_completion` and `test_completion` with a context of 256 tokens, as they do.

## Counts

Passed of run, without the cases that the authors skip.
"""

_OTHERS = """
For comparison, once, by hand: other servers with the same model under the same tests.

{others}
"""


def page(
    version: str, outcomes: dict[str, list[Outcome]], others: str, files: Sequence[str]
) -> str:
    """The whole page; ``outcomes`` by model."""
    parts = [_HEAD.format(version=version), _counts(outcomes, files)]
    parts.append(_OTHERS.format(others=others))
    parts.append("## Tests\n")
    parts += [_file_table(file, outcomes) for file in files]
    return "\n".join(parts)


def _counts(outcomes: dict[str, list[Outcome]], files: Sequence[str]) -> str:
    titles = [f"{model}{kind}" for model in outcomes for kind in ("", ", slow")]
    rows = [_row(["file", *titles]), _row(["---"] * (len(titles) + 1))]
    for file in [*files, "all"]:
        cells = [
            _share(one for one in found if one.is_slow is is_slow and file in (one.file, "all"))
            for found in outcomes.values()
            for is_slow in (False, True)
        ]
        rows.append(_row([f"`{file}`" if file != "all" else "all", *cells]))
    return "\n".join(rows)


def _file_table(file: str, outcomes: dict[str, list[Outcome]]) -> str:
    rows = [f"### {file}\n", _row(["test", *outcomes, "why not all"]), _row(["---"] * 4)]
    functions = dict.fromkeys(
        one.function for found in outcomes.values() for one in found if one.file == file
    )
    for function in functions:
        cases = [
            [one for one in found if (one.file, one.function) == (file, function)]
            for found in outcomes.values()
        ]
        is_whole = all(one.has_passed for group in cases for one in group)
        reason = "" if is_whole else REASONS.get(function, "?")
        rows.append(_row([f"`{function}`", *map(_share, cases), reason]))
    return "\n".join(rows) + "\n"


def _share(cases: Iterable[Outcome]) -> str:
    found = list(cases)
    return f"{sum(one.has_passed for one in found)} of {len(found)}" if found else ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def unexplained(known: Iterable[Outcome]) -> list[Outcome]:
    """Failures of functions that have no reason."""
    return [one for one in known if not one.has_passed and one.function not in REASONS]


def outdated(known: Sequence[Outcome]) -> list[str]:
    """Functions that have a reason and need none."""
    run = {one.function for one in known}
    failed = {one.function for one in known if not one.has_passed}
    return sorted(name for name in REASONS if name in run and name not in failed)
