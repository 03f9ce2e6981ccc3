"""From a prompt to token ids: chat templates, what clients wrote kept text, limits by name."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.requests import Message, Prompt
from workers.engines.base import Tokenizer
from workers.text.chat_template import ChatTemplate
from workers.text.control_token_escaping import Marker, has_control_tokens

Json = dict[str, Any]


# Behind the text of a message that goes on, so that its end is found in what the template makes of
# it: the last one there. A noncharacter, which no template trims, and no mark
# is (control_token_escaping.py).
_END = "\ufdd0"


class PromptEncoder:
    """Turns prompts into token ids for one loaded model; may be used from any thread."""

    def __init__(self, tokenizer: Tokenizer, chat_format: str | None) -> None:
        self._tokenizer = tokenizer
        self._template = ChatTemplate.choose(
            chat_format, tokenizer.chat_template, tokenizer.bos_token, tokenizer.eos_token
        )

    @property
    def template(self) -> str:
        """The source of the chat template in use."""
        return self._template.source

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of the prompt, at least one; ``InvalidRequestError`` names what is wrong."""
        if prompt.suffix is not None:
            return self._encode_gap(prompt, prompt.suffix)
        if prompt.token_ids is not None:
            return self._check_ids(prompt.token_ids)
        if prompt.messages is not None or prompt.is_chat:
            return self._encode_chat(prompt)
        ids = self._tokenizer.encode(prompt.text or "", add_special=True, parse_special=False)
        if not ids:
            raise InvalidRequestError("the prompt is empty", "prompt")
        return ids

    def _encode_gap(self, prompt: Prompt, suffix: str) -> list[int]:
        """A text with a gap that the model is to fill."""
        fim = self._tokenizer.fim_tokens
        if fim is None:
            reason = "this model has no tokens to fill in the middle"
            raise UnsupportedParameterError(f"suffix: {reason}", "suffix")
        beginning = self._tokenizer.encode("", add_special=True, parse_special=False)
        before, after = (
            self._tokenizer.encode(text, add_special=False, parse_special=False)
            for text in (prompt.text or "", suffix)
        )
        if prompt.token_ids is not None:
            before = self._check_ids(prompt.token_ids)
        return [*beginning, fim.prefix, *before, fim.suffix, *after, fim.middle]

    def render(self, prompt: Prompt, *, add_generation_prompt: bool = True) -> str:
        """What the chat template makes of the prompt's messages; without it, no answer begins."""
        return self._render(self._messages(prompt), prompt, add_generation_prompt)

    def _render(self, messages: list[Json], prompt: Prompt, begins_answer: bool = True) -> str:
        text = self._template.render(
            messages,
            tools=prompt.tools,
            options=prompt.template_options,
            add_generation_prompt=begins_answer and not prompt.is_continued,
        )
        return _up_to_end(text) if prompt.is_continued else text

    def _messages(self, prompt: Prompt) -> list[Json]:
        if prompt.tools and not self._template.has_tools:
            raise UnsupportedParameterError("this model's chat template knows no tools", "tools")
        given = prompt.messages or [Message(role="user", content=prompt.text or "")]
        messages = [_to_dict(message) for message in given]
        if prompt.is_continued:
            messages[-1]["content"] += _END
        return messages

    def _encode_chat(self, prompt: Prompt) -> list[int]:
        messages = self._messages(prompt)
        text = self._render(messages, prompt)
        # The template writes its own BOS where the model wants one.
        if not has_control_tokens(messages, self._tokenizer):
            ids = self._tokenizer.encode(text, add_special=False, parse_special=True)
        else:
            marker = Marker(text)
            ids = marker.encode(self._render(marker.mark(messages), prompt), self._tokenizer)
        if not ids:
            raise InvalidRequestError("the chat template makes no prompt of this", "messages")
        return ids

    def _check_ids(self, token_ids: list[int]) -> list[int]:
        if not token_ids:
            raise InvalidRequestError("the prompt is empty", "prompt")
        for token_id in token_ids:
            if not 0 <= token_id < self._tokenizer.vocab_size:
                raise InvalidRequestError(f"token {token_id} is not in the vocabulary", "prompt")
        return list(token_ids)


def _up_to_end(text: str) -> str:
    """What the template wrote up to the end of the last message's own text."""
    text, found, _ = text.rpartition(_END)
    if not found:
        message = "the chat template does not show the last message as it is"
        raise InvalidRequestError(message, "messages")
    return text


def _to_dict(message: Message) -> Json:
    """The message as chat templates read it: plain dicts, ``arguments`` as an object."""
    fields: Json = msgspec.to_builtins(message)
    fields.setdefault("content", "")
    for call in fields.get("tool_calls") or ():
        function = call["function"]
        function["arguments"] = _to_object(function.get("arguments", "{}"))
    return fields


def _to_object(text: str) -> Any:
    """Arguments as templates want them; a text that is no JSON object stays one."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text
