"""Encodes prompts: renders chat templates, encodes raw prompts, fills in the middle."""

from __future__ import annotations

from typing import Any

import msgspec

from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.requests import Message, Prompt
from workers.engines.base import Tokenizer
from workers.text.templates.chat_template import ChatTemplate, ChatTemplates
from workers.text.templates.control_tokens import ControlTokens

Json = dict[str, Any]


# Marks the end of a message that the model continues: its last occurrence in the rendered template
# is where the prompt ends. A noncharacter, which no template trims.
_END = "\ufdd0"


class PromptEncoder:
    """Turns prompts into token ids for one loaded model; any thread may use it."""

    def __init__(self, tokenizer: Tokenizer, chat_format: str | None) -> None:
        self._tokenizer = tokenizer
        self._templates = ChatTemplates.choose(
            chat_format, tokenizer.chat_templates, tokenizer.bos_token, tokenizer.eos_token
        )
        self._control_tokens = ControlTokens(tokenizer)

    @property
    def template(self) -> str:
        """The source of the chat template for chats with tools."""
        return self._templates.for_use(has_tools=True, has_documents=False).source

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of the prompt, at least one. Raises ``InvalidRequestError``."""
        if prompt.suffix is not None:
            return self._encode_gap(prompt, prompt.suffix)
        if prompt.token_ids is not None:
            return self._check_ids(prompt.token_ids)
        if prompt.messages is not None or prompt.is_chat:
            return self._encode_chat(prompt)
        ids = self._encode_raw(prompt.text or "")
        if not ids:
            raise InvalidRequestError("the prompt is empty", "prompt")
        return ids

    def num_opening(self, prompt: Prompt, ids: list[int]) -> int | None:
        """How many tokens at the end of ``ids``, the prompt's, open the answer; ``None``: unknown.

        Options of the template may change the opening; then it is not that of a small chat.
        """
        is_rendered = prompt.suffix is None and prompt.token_ids is None
        is_chat = prompt.messages is not None or prompt.is_chat
        if not (is_rendered and is_chat) or prompt.is_continued:
            return None
        opening = self._tokenizer.encode(
            self._template_for(prompt).opening, add_special=False, parse_special=True
        )
        return len(opening) if opening and ids[-len(opening) :] == opening else None

    def _encode_raw(self, text: str) -> list[int]:
        """A raw prompt: its control tokens take effect, and a leading BOS is not doubled."""
        ids = self._tokenizer.encode(text, add_special=True, parse_special=True)
        bos = self._tokenizer.bos_token
        if bos and text.startswith(bos) and len(ids) > 1 and ids[0] == ids[1]:
            return ids[1:]
        return ids

    def _encode_gap(self, prompt: Prompt, suffix: str) -> list[int]:
        """A text with a gap for the model to fill (fill in the middle)."""
        fim = self._tokenizer.fim_tokens
        if fim is None:
            reason = "this model has no fill-in-the-middle tokens"
            raise UnsupportedParameterError(f"suffix: {reason}", "suffix")
        bos = self._tokenizer.encode("", add_special=True, parse_special=False)
        before, after = (
            self._tokenizer.encode(text, add_special=False, parse_special=True)
            for text in (prompt.text or "", suffix)
        )
        if prompt.token_ids is not None:
            before = self._check_ids(prompt.token_ids)
        return [*bos, fim.prefix, *before, fim.suffix, *after, fim.middle]

    def render(self, prompt: Prompt, *, add_generation_prompt: bool = True) -> str:
        """The rendered chat template; ``add_generation_prompt``: with the start of an answer."""
        return self._render(prompt, begins_answer=add_generation_prompt)

    def _render(
        self, prompt: Prompt, *, begins_answer: bool = True, keeps_origin: bool = False
    ) -> str:
        template = self._template_for(prompt)
        text = template.render(
            _messages(prompt),
            tools=prompt.tools,
            options=prompt.template_options,
            add_generation_prompt=begins_answer and not prompt.is_continued,
            keeps_origin=keeps_origin,
        )
        return _up_to_end(text) if prompt.is_continued else text

    def _template_for(self, prompt: Prompt) -> ChatTemplate:
        documents = (prompt.template_options or {}).get("documents")
        template = self._templates.for_use(
            has_tools=bool(prompt.tools), has_documents=bool(documents)
        )
        if prompt.tools and not template.has_tools:
            message = "this model's chat template does not support tools"
            raise UnsupportedParameterError(message, "tools")
        return template

    def _encode_chat(self, prompt: Prompt) -> list[int]:
        given = [_messages(prompt), prompt.tools, prompt.template_options]
        # No ``add_special``: the template writes BOS itself if the model needs it.
        if self._control_tokens.may_be_in(given):
            ids = self._control_tokens.encode(self._render(prompt, keeps_origin=True))
        else:
            text = self._render(prompt)
            ids = self._tokenizer.encode(text, add_special=False, parse_special=True)
        if not ids:
            raise InvalidRequestError("the chat template renders an empty prompt", "messages")
        return ids

    def _check_ids(self, token_ids: list[int]) -> list[int]:
        if not token_ids:
            raise InvalidRequestError("the prompt is empty", "prompt")
        for token_id in token_ids:
            if not 0 <= token_id < self._tokenizer.vocab_size:
                raise InvalidRequestError(f"token {token_id} is not in the vocabulary", "prompt")
        return list(token_ids)


def _messages(prompt: Prompt) -> list[Json]:
    given = prompt.messages or [Message(role="user", content=prompt.text or "")]
    messages = [_to_dict(message) for message in given]
    if prompt.is_continued:
        messages[-1]["content"] += _END
    return messages


def _up_to_end(text: str) -> str:
    """The rendered text up to the end of the last message."""
    text, found, _ = text.rpartition(_END)
    if not found:
        message = "the chat template does not render the last message unchanged"
        raise InvalidRequestError(message, "messages")
    return text


def _to_dict(message: Message) -> Json:
    """The message as a plain dict, with ``content``."""
    fields: Json = msgspec.to_builtins(message)
    fields.setdefault("content", "")
    return fields
