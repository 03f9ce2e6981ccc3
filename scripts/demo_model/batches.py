"""Encoded documents, packed into rows of two fixed lengths.

At 448 tokens, attention takes more than half of the time, and changing shapes cost more than
padding, so most documents are packed into rows of 192, and only longer ones into rows of 448.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from scripts.demo_model.template import END_OF_TEXT, Piece

SHORT_ROW, LONG_ROW = 192, 448
TOKENS_PER_STEP = 3072
_OPEN_ROWS = 32  # open rows; beyond this number the fullest is emitted


@dataclass
class Row:
    """Token ids, and for each whether the model is trained to predict it."""

    ids: list[int]
    is_trained: list[bool]


def encode(documents: list[list[Piece]], tokenizer: Tokenizer) -> list[Row]:
    """Encode each piece separately, so that no token crosses a border between pieces."""
    texts = [text for document in documents for text, _ in document]
    encodings = iter(tokenizer.encode_batch_fast(texts, add_special_tokens=False))
    return [_encoded(document, encodings) for document in documents]


def _encoded(document: list[Piece], encodings: Iterator[object]) -> Row:
    row = Row([], [])
    for _, is_trained in document:
        ids = next(encodings).ids  # type: ignore[attr-defined]
        row.ids += ids
        row.is_trained += [is_trained] * len(ids)
    return row


def packed(documents: list[Row], length: int, pad: int, rng: random.Random) -> Iterator[Row]:
    """Endless rows of `length` + 1 tokens (the last is only a target)."""
    while True:
        rng.shuffle(documents)
        open_rows: list[Row] = []
        for document in documents:
            _place(document, open_rows, length + 1)
            if len(open_rows) > _OPEN_ROWS:
                fullest = max(open_rows, key=lambda row: len(row.ids))
                open_rows.remove(fullest)
                yield _padded(fullest, length + 1, pad)


def _place(document: Row, open_rows: list[Row], capacity: int) -> None:
    """Put the document into the fullest row with room for it, else into a new one."""
    fitting = [row for row in open_rows if len(row.ids) + len(document.ids) <= capacity]
    if not fitting:
        open_rows.append(Row(list(document.ids), list(document.is_trained)))
        return
    row = max(fitting, key=lambda candidate: len(candidate.ids))
    row.ids += document.ids
    row.is_trained += document.is_trained


def _padded(row: Row, capacity: int, pad: int) -> Row:
    missing = capacity - len(row.ids)
    return Row(row.ids + [pad] * missing, row.is_trained + [False] * missing)


def batches(
    documents: list[Row], tokenizer: Tokenizer, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (inputs, targets), both (rows, length); an untrained target is -100.

    Short and long rows take turns at random in proportion to their tokens.
    """
    rng, pad = random.Random(seed), tokenizer.token_to_id(END_OF_TEXT)
    assert pad is not None
    short = [row for row in documents if len(row.ids) <= SHORT_ROW + 1]
    long = [row for row in documents if SHORT_ROW + 1 < len(row.ids) <= LONG_ROW + 1]
    sources = [packed(short, SHORT_ROW, pad, rng), packed(long, LONG_ROW, pad, rng)]
    sizes = [sum(len(row.ids) for row in rows) for rows in (short, long)]
    while True:
        which = rng.choices([0, 1], sizes)[0]
        count = TOKENS_PER_STEP // (SHORT_ROW, LONG_ROW)[which]
        yield _tensors([next(sources[which]) for _ in range(count)])


def _tensors(rows: list[Row]) -> tuple[Tensor, Tensor]:
    ids = np.array([row.ids for row in rows])
    is_trained = np.array([row.is_trained for row in rows])
    targets = np.where(is_trained, ids, -100)[:, 1:]
    return torch.from_numpy(ids[:, :-1].copy()), torch.from_numpy(targets.copy())
