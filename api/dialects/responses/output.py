"""What a response says, item by item, as its job's events tell it. Pure.

Every step is told as Responses stream events without their numbers: (type, fields) pairs. The
items stand in the order in which the model wrote them; only the last may be open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from api.dialects.responses.items import Item, output_text, reasoning_text
from jobs.contract.events import CalledTool

Step = tuple[str, dict[str, Any]]
Logprob = dict[str, Any]
TextKind = Literal["message", "reasoning"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class _OpenItem:
    """A message, or reasoning, that is being written."""

    def __init__(self, kind: TextKind, item_id: str, index: int) -> None:
        self.kind = kind
        self.item_id = item_id
        self.texts: list[str] = []
        self.logprobs: list[Logprob] = []
        self.place = {"item_id": item_id, "output_index": index, "content_index": 0}

    @property
    def stem(self) -> str:
        """Beginning of the names of the events of its text."""
        return "response.output_text" if self.kind == "message" else "response.reasoning_text"

    @property
    def part(self) -> dict[str, Any]:
        """Its only content part, as far as it is written."""
        text = "".join(self.texts)
        if self.kind == "reasoning":
            return reasoning_text(text)
        return {**output_text(text), "logprobs": list(self.logprobs)}

    def shown(self, status: ItemStatus) -> Item:
        """The item as far as it is written."""
        content = [self.part] if self.texts or status != "in_progress" else []
        item = {"id": self.item_id, "type": self.kind, "status": status, "content": content}
        return {**item, **({"role": "assistant"} if self.kind == "message" else {"summary": []})}


class Output:
    """The items of one response."""

    def __init__(self, response_id: str) -> None:
        self._suffix = response_id.partition("_")[2]
        self._done: list[Item] = []
        self._open: _OpenItem | None = None

    def items(self, status: ItemStatus) -> list[Item]:
        """All items; ``status`` is that of the one that is still open, if one is."""
        return self._done + ([self._open.shown(status)] if self._open else [])

    def write(self, kind: TextKind, text: str, logprobs: Sequence[Logprob] = ()) -> list[Step]:
        """``text`` goes on with the open item of that kind, else opens one.

        ``logprobs`` are of a message's tokens since the last ones.
        """
        steps: list[Step] = []
        item = self._open
        if item is None or item.kind != kind:
            steps += self.close()
            prefix = "msg" if kind == "message" else "rs"
            item = self._open = _OpenItem(kind, self._new_id(prefix), len(self._done))
            steps += _opening(item)
        if text or logprobs:
            item.texts.append(text)
            item.logprobs += logprobs
            delta = {**item.place, "delta": text, **_logprobs(item, logprobs)}
            steps.append((f"{item.stem}.delta", delta))
        return steps

    @property
    def is_message_open(self) -> bool:
        """Whether the model is writing a message."""
        return self._open is not None and self._open.kind == "message"

    def call(self, call: CalledTool) -> list[Step]:
        """A tool call, which comes whole; what was open is done."""
        before = self.close()
        item = {
            "id": self._new_id("fc"),
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
        }
        index = len(self._done)
        place = {"item_id": item["id"], "output_index": index}
        begun = {**item, "arguments": "", "status": "in_progress"}
        done = {**item, "arguments": call.arguments, "status": "completed"}
        self._done.append(done)
        stem = "response.function_call_arguments"
        whole = {"arguments": call.arguments, "name": call.name}
        return [
            *before,
            ("response.output_item.added", {"output_index": index, "item": begun}),
            (f"{stem}.delta", {**place, "delta": call.arguments}),
            (f"{stem}.done", {**place, **whole}),
            ("response.output_item.done", {"output_index": index, "item": done}),
        ]

    def close(self, *, is_cut: bool = False) -> list[Step]:
        """The open item, if there is one, is done; ``is_cut``: it was not allowed to be."""
        item = self._open
        if item is None:
            return []
        shown = item.shown("incomplete" if is_cut else "completed")
        self._open = None
        self._done.append(shown)
        text = {"text": item.part["text"], **_logprobs(item, item.logprobs)}
        index = item.place["output_index"]
        return [
            (f"{item.stem}.done", {**item.place, **text}),
            ("response.content_part.done", {**item.place, "part": item.part}),
            ("response.output_item.done", {"output_index": index, "item": shown}),
        ]

    def finish(self) -> list[Step]:
        """No more comes: an answer without any item gets an empty message."""
        steps = [] if self._done or self._open else self.write("message", "")
        return steps + self.close()

    def _new_id(self, prefix: str) -> str:
        return f"{prefix}_{self._suffix}{len(self._done):04x}"


def _opening(item: _OpenItem) -> list[Step]:
    index = item.place["output_index"]
    return [
        ("response.output_item.added", {"output_index": index, "item": item.shown("in_progress")}),
        ("response.content_part.added", {**item.place, "part": item.part}),
    ]


def _logprobs(item: _OpenItem, logprobs: Sequence[Logprob]) -> dict[str, Any]:
    return {"logprobs": list(logprobs)} if item.kind == "message" else {}
