"""What a message says, block by block, as its job's events tell it. Pure.

Every step is told as a stream event: (type, fields) pairs. The blocks stand in the order in which
the model wrote them; only the last may be open.
"""

from __future__ import annotations

from typing import Any, Literal

from api.dialects.call_arguments import arguments_object
from jobs.contract.events import CalledTool

Step = tuple[str, dict[str, Any]]
BlockObject = dict[str, Any]
TextKind = Literal["text", "thinking"]


class Content:
    """The blocks of one message.

    ``signature`` is given to thoughts, which clients send back with it; without
    ``is_thinking_shown`` it is all that they see of them.
    """

    def __init__(self, signature: str, is_thinking_shown: bool) -> None:
        self.blocks: list[BlockObject] = []
        self._signature = signature
        self._is_thinking_shown = is_thinking_shown
        self._open: TextKind | BlockObject | None = None  # a call's block
        self._texts: list[str] = []

    def write(self, kind: TextKind, text: str) -> list[Step]:
        """``text`` goes on with the open block of that kind, else begins one."""
        steps: list[Step] = []
        if self._open != kind:
            steps += self.close()
            self._open = kind
            steps.append(self._start(_text_block(kind, "")))
        if not text or (kind == "thinking" and not self._is_thinking_shown):
            return steps
        self._texts.append(text)
        return [*steps, self._delta(f"{kind}_delta", {kind: text})]

    def call(self, call: CalledTool) -> list[Step]:
        """A tool call begins, and what was open is done; or its arguments go on."""
        steps: list[Step] = []
        if call.id or not isinstance(self._open, dict):
            steps += self.close()
            self._open = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            steps.append(self._start(self._open))
        if not call.arguments:
            return steps
        self._texts.append(call.arguments)
        return [*steps, self._delta("input_json_delta", {"partial_json": call.arguments})]

    def close(self) -> list[Step]:
        """The open block, if there is one, is done."""
        if self._open is None:
            return []
        steps: list[Step] = []
        text = "".join(self._texts)
        if isinstance(self._open, dict):
            block = {**self._open, "input": arguments_object(text)}
        else:
            block = _text_block(self._open, text)
        if self._open == "thinking":
            block["signature"] = self._signature
            steps.append(self._delta("signature_delta", {"signature": self._signature}))
        steps.append(self._stop())
        self.blocks.append(block)
        self._open, self._texts = None, []
        return steps

    def finish(self) -> list[Step]:
        """No more comes: a message without any block gets an empty text."""
        steps = [] if self.blocks or self._open else self.write("text", "")
        return steps + self.close()

    def _start(self, block: BlockObject) -> Step:
        return "content_block_start", {"index": len(self.blocks), "content_block": block}

    def _delta(self, kind: str, fields: dict[str, Any]) -> Step:
        delta = {"type": kind, **fields}
        return "content_block_delta", {"index": len(self.blocks), "delta": delta}

    def _stop(self) -> Step:
        return "content_block_stop", {"index": len(self.blocks)}


def _text_block(kind: TextKind, text: str) -> BlockObject:
    block = {"type": kind, kind: text}
    return {**block, "signature": ""} if kind == "thinking" else block
