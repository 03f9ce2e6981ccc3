"""Renders the results of a run as docs/llama-cpp-tests.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from scripts.llama_cpp_tests.reasons import DESCRIPTIONS, REASONS, Group
from scripts.llama_cpp_tests.run import Outcome

_HEAD = """# llama.cpp's server tests against this server

llama.cpp tests its server with pytest. The tests can be run against any running server
(`DEBUG_EXTERNAL=1 PORT=…`), so they show how far this server can replace llama-server. This page is
written by

```console
$ scripts/llama_cpp_server_tests.sh
```

which takes the tests from the sources of the pinned llama-cpp-python ({version}), starts a server,
loads the demo model as model 0 in each format and runs the files below. The demo model is not the
one that the tests download. Models are loaded with `"temperature": 0`, where the tests start their
server with a fixed seed; for `test_chat_completion` and `test_completion` with the tests' context
of 256 tokens. Cases that the authors skip are left out; those marked as slow need large models.

The columns show the passed and run cases, and the number of failed cases by kind of reason (per
format, where the two differ):

"""

_OTHERS = """
Results of other servers with the same model and tests, from one manual run:

{others}
"""


def page(
    version: str, outcomes: dict[str, list[Outcome]], others: str, files: Sequence[str]
) -> str:
    """The page; ``outcomes``: by model."""
    failed = [one for found in outcomes.values() for one in found if not one.has_passed]
    parts = [_HEAD.format(version=version) + _figures(outcomes, files)]
    parts += ["", "## Reasons", "", *_reasons(failed)]
    return "\n".join(parts) + "\n" + _OTHERS.format(others=others)


def _figures(outcomes: dict[str, list[Outcome]], files: Sequence[str]) -> str:
    titles = [f"{model}{kind}" for model in outcomes for kind in ("", ", slow")]
    rows = [_row(["file", *titles, *Group]), _row(["---"] * (1 + len(titles) + len(Group)))]
    for file in [*files, "all"]:
        chosen = {
            model: [one for one in found if file in (one.file, "all")]
            for model, found in outcomes.items()
        }
        shares = [
            _share(one for one in found if one.is_slow is is_slow)
            for found in chosen.values()
            for is_slow in (False, True)
        ]
        counts = [_counts([*chosen.values()], group) for group in Group]
        rows.append(_row([f"`{file}`" if file != "all" else "all", *shares, *counts]))
    return "\n".join(rows)


def _counts(found: list[list[Outcome]], group: Group) -> str:
    """Number of each format's cases that fail for that reason; one number if all are equal."""
    counts = [
        sum(not one.has_passed and _group_of(one) is group for one in cases) for cases in found
    ]
    shown = dict.fromkeys(counts) if len(set(counts)) == 1 else counts
    return ", ".join(map(str, shown)) if any(counts) else ""


def _group_of(one: Outcome) -> Group | None:
    reason = REASONS.get(one.function)
    return None if reason is None else reason.group


def _reasons(failed: Sequence[Outcome]) -> list[str]:
    lines = []
    for group in Group:
        lines.append(f"- **{group}**: {DESCRIPTIONS[group]}")
        functions: dict[str, list[str]] = {}
        for one in failed:
            if _group_of(one) is group:
                named = functions.setdefault(REASONS[one.function].detail, [])
                if one.function not in named:
                    named.append(one.function)
        for detail, names in functions.items():
            listed = ", ".join(f"`{name.removeprefix('test_')}`" for name in names)
            lines.append(f"  - {detail}: {listed}" if detail else f"  - {listed}")
    return lines


def _share(cases: Iterable[Outcome]) -> str:
    found = list(cases)
    return f"{sum(one.has_passed for one in found)} of {len(found)}" if found else ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def unexplained(known: Iterable[Outcome]) -> list[Outcome]:
    """Failed cases whose function has no reason."""
    return [one for one in known if not one.has_passed and one.function not in REASONS]


def outdated(known: Sequence[Outcome]) -> list[str]:
    """Functions with a reason whose cases all pass."""
    run = {one.function for one in known}
    failed = {one.function for one in known if not one.has_passed}
    return sorted(name for name in REASONS if name in run and name not in failed)
