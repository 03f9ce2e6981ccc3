"""How many tokens of each prompt a step prefills."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.memory.load_defaults import SCORED_ROWS
from workers.engines.llama_cpp.batch.decode_batch import IntArray
from workers.engines.llama_cpp.batch.running import Running


@dataclass(slots=True)
class Part:
    """The next ``num_tokens`` uncomputed tokens of a sequence, and drafts for those after them.

    ``num_padding``: number of padding rows that follow, see ``StepTuning``.
    """

    run: Running
    num_tokens: int
    drafts: IntArray | None = None
    first_row: int = 0
    num_padding: int = 0

    @property
    def is_last(self) -> bool:
        """Whether a token can be sampled after it."""
        return self.num_tokens == self.run.num_uncomputed

    @property
    def num_rows(self) -> int:
        return self.num_tokens + (0 if self.drafts is None else len(self.drafts))


def split_prefill_budget(prompts: list[Running], budget: int) -> list[Part]:
    """Split ``budget`` tokens among ``prompts``, the oldest first in the list.

    The oldest is completed if the budget allows, else it gets half. The rest goes to the shortest
    ones, because equal shares would delay all of them.
    """
    if not prompts:
        return []
    oldest = prompts[0].num_to_prefill
    shares = {prompts[0]: oldest if oldest <= budget else max(1, budget // 2)}
    budget -= shares[prompts[0]]
    num_scored = SCORED_ROWS
    for run in sorted(prompts, key=lambda run: run.num_to_prefill):
        already = shares.get(run, 0)
        more = min(run.num_to_prefill - already, budget)
        shares[run] = already + more
        budget -= more
    parts = []
    for run, share in shares.items():
        if run.is_scoring:
            share = min(share, num_scored)
            num_scored -= share
        if share:
            parts.append(Part(run, share))
    return parts
