"""The sequences whose states are in memory, and which of them stay when it is short.

Admission is optimistic: a sequence starts when its prompt fits beside the others as they are. When
they have grown too long, kept states leave first, then the youngest sequence: it is read again
later. One sequence alone always fits, because the context is no longer.
"""

from __future__ import annotations

from jobs.contract.errors import NoRoomError
from workers.engines.base import StepEvent
from workers.engines.mlx.batch.prefill import PrefillQueue
from workers.engines.mlx.batch.row import Row
from workers.engines.mlx.batch.running_batch import RunningBatch
from workers.engines.mlx.batch.speculation import SpeculativeBatch
from workers.engines.mlx.cache.prompt_cache import PromptStore
from workers.engines.mlx.memory import StateRoom
from workers.engines.shared.memory_text import to_text

# Tokens until the next look: read and not shown, scheduled, to be scheduled.
_NEXT_STEP = 3
# So that a sequence that starts does not make another one leave at once.
_AHEAD = 64


class Residents:
    """The prompts in ``prefill`` and the rows of ``batch``; ``room`` ``None``: all fits."""

    def __init__(
        self,
        room: StateRoom | None,
        store: PromptStore,
        prefill: PrefillQueue,
        batch: RunningBatch | SpeculativeBatch,
    ) -> None:
        self._room = room
        self._store = store
        self._prefill = prefill
        self._batch = batch
        if room is not None:
            store.limit_by(self._bytes_left)

    def __len__(self) -> int:
        return len(self._prefill) + len(self._batch)

    def fits(self, length: int) -> bool:
        """Whether a sequence of this length can start beside the others, all growing a little."""
        if self._room is None or len(self) == 0:
            return True
        return self._room.left([*self._lengths(_AHEAD), length + _AHEAD]) >= 0

    def preempt(self) -> tuple[list[StepEvent], list[Row]]:
        """Take rows out, the youngest first, while the states of the next step do not fit.

        Returns the tokens that were scheduled before, and the rows, the youngest last.
        """
        if self._fits_next_step():
            return [], []
        events = self._batch.read_scheduled()
        taken: list[Row] = []
        while not self._fits_next_step():
            row = max(self._rows, key=lambda row: row.number)
            self._prefill.remove(row.sequence.sequence_id)
            self._batch.remove(row.sequence.sequence_id)
            row.take_back()
            taken.insert(0, row)
        return [*events], taken

    def make_room_to_embed(self, num_tokens: int) -> None:
        """Evict kept states for a text of that length; ``NoRoomError`` if they are not enough."""
        if self._room is None:
            return
        needed = self._room.state_bytes(num_tokens)
        if self._room.left(self._lengths(_AHEAD)) < needed:
            message = f"no memory to embed {num_tokens} tokens now: {to_text(needed)} are needed"
            raise NoRoomError(message)
        self._store.make_room(needed)

    def _fits_next_step(self) -> bool:
        return (
            self._room is None or len(self) < 2 or self._room.left(self._lengths(_NEXT_STEP)) >= 0
        )

    @property
    def _rows(self) -> list[Row]:
        return [*self._prefill.rows, *self._batch.rows]

    def _lengths(self, num_more: int) -> list[int]:
        """Lengths of the sequences after so many more tokens."""
        return [row.length_after(num_more) for row in self._rows]

    def _bytes_left(self) -> int:
        """What kept states may take beside the sequences."""
        assert self._room is not None
        return self._room.left(self._lengths(_NEXT_STEP)) + self._prefill.num_taken_over
