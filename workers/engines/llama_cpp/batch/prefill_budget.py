"""What a step takes of each sequence, and how prompts share it."""

from __future__ import annotations

from dataclasses import dataclass

from workers.engines.llama_cpp.batch.decode_batch import IntArray
from workers.engines.llama_cpp.batch.running import Running

SCORED_ROWS = 32  # prompt tokens per step whose logits are wanted: each costs a row of them


@dataclass(slots=True)
class Part:
    """The next ``num_tokens`` pending tokens of a sequence, and guesses at those after them.

    ``num_padding``: rows of no use that follow, see ``StepTuning``.
    """

    run: Running
    num_tokens: int
    drafts: IntArray | None = None
    first_row: int = 0
    num_padding: int = 0

    @property
    def is_last(self) -> bool:
        """A token can be drawn after it."""
        return self.num_tokens == self.run.num_uncomputed

    @property
    def num_rows(self) -> int:
        return self.num_tokens + (0 if self.drafts is None else len(self.drafts))


def split_prefill_budget(reading: list[Running], budget: int) -> list[Part]:
    """The oldest prompt is finished if that can be done, else it gets half; the rest the shortest.

    Of prompts that came together each would be late if all advanced alike.
    """
    if not reading:
        return []
    oldest = reading[0].num_uncomputed
    shares = {reading[0]: oldest if oldest <= budget else max(1, budget // 2)}
    budget -= shares[reading[0]]
    num_scored = SCORED_ROWS
    for run in sorted(reading, key=lambda run: run.num_uncomputed):
        already = shares.get(run, 0)
        more = min(run.num_uncomputed - already, budget)
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
