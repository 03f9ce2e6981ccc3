"""What a response says, item by item, as its job's events tell it. Pure.

Every step is told as Responses stream events without their numbers: (type, fields) pairs. The
items stand in the order in which the model wrote them; only the last may be open.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from api.dialects.responses.items import Item, output_text, reasoning_text
from jobs.contract.events import CalledTool

Step = tuple[str, dict[str, Any]]
Logprob = dict[str, Any]
TextKind = Literal["message", "reasoning"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]

_ARGUMENTS = "response.function_call_arguments"


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


class _OpenCall:
    """A call whose arguments are being written."""

    kind = "function_call"

    def __init__(self, call: CalledTool, item_id: str, index: int) -> None:
        self.place = {"item_id": item_id, "output_index": index}
        self.arguments: list[str] = []
        self._item = {
            "id": item_id,
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
        }

    def shown(self, status: ItemStatus) -> Item:
        """The item as far as it is written."""
        return {**self._item, "arguments": "".join(self.arguments), "status": status}

    def write(self, arguments: str) -> list[Step]:
        """The arguments go on."""
        if not arguments:
            return []
        self.arguments.append(arguments)
        return [(f"{_ARGUMENTS}.delta", {**self.place, "delta": arguments})]

    def close(self, shown: Item) -> list[Step]:
        """The last events of the item as it is ``shown`` at its end."""
        whole = {"arguments": shown["arguments"], "name": shown["name"]}
        index = self.place["output_index"]
        return [
            (f"{_ARGUMENTS}.done", {**self.place, **whole}),
            ("response.output_item.done", {"output_index": index, "item": shown}),
        ]

    @property
    def is_complete(self) -> bool:
        """Whether the arguments are whole."""
        try:
            json.loads("".join(self.arguments))
        except ValueError:
            return False
        return True


class Output:
    """The items of one response."""

    def __init__(self, response_id: str) -> None:
        self._suffix = response_id.partition("_")[2]
        self._done: list[Item] = []
        self._open: _OpenItem | _OpenCall | None = None

    def items(self, status: ItemStatus) -> list[Item]:
        """All items; ``status`` is that of the one that is still open, if one is."""
        return self._done + ([self._open.shown(status)] if self._open else [])

    def write(self, kind: TextKind, text: str, logprobs: Sequence[Logprob] = ()) -> list[Step]:
        """``text`` goes on with the open item of that kind, else opens one.

        ``logprobs`` are of a message's tokens since the last ones.
        """
        steps: list[Step] = []
        item = self._open
        if not isinstance(item, _OpenItem) or item.kind != kind:
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
        """A tool call begins, and what was open is done; or its arguments go on."""
        steps: list[Step] = []
        if call.id or not isinstance(self._open, _OpenCall):
            steps += self.close()
            index = len(self._done)
            self._open = _OpenCall(call, self._new_id("fc"), index)
            begun = {"output_index": index, "item": self._open.shown("in_progress")}
            steps.append(("response.output_item.added", begun))
        return steps + self._open.write(call.arguments)

    def close(self, *, is_cut: bool = False) -> list[Step]:
        """The open item, if there is one, is done; ``is_cut``: it was not allowed to be."""
        item = self._open
        if item is None:
            return []
        is_whole = not is_cut or (isinstance(item, _OpenCall) and item.is_complete)
        shown = item.shown("completed" if is_whole else "incomplete")
        self._open = None
        self._done.append(shown)
        if isinstance(item, _OpenCall):
            return item.close(shown)
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
