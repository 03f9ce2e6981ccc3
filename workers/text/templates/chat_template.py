"""Renders chat messages into the prompt text in a model's own format."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jinja2 import meta
from jinja2.exceptions import TemplateError

from jobs.contract.errors import InvalidRequestError, ModelLoadError
from workers.text.templates.chat_formats import CHATML, chat_format
from workers.text.templates.input_text import as_input, as_input_message, concat
from workers.text.templates.limits import MAX_SIZE, check_time, time_limit
from workers.text.templates.sandbox import TemplateSandbox
from workers.text.templates.traits import TemplateTraits, find_traits

MAX_SOURCE = 1 << 18  # characters; the largest known templates have about 30,000
MAX_RENDER_S = 10.0  # CPU time; a chat of 1,000 messages takes about 0.05

Message = Mapping[str, Any]
"""One message: ``role``, ``content`` (a string), ``tool_calls`` (arguments as JSON text), …"""

_SMALL_CHAT: Sequence[Message] = [{"role": "user", "content": "Hi"}]


class ChatTemplate:
    """A compiled template, with the texts of its model's BOS and EOS tokens ("" for none).

    The constructor raises ``ModelLoadError`` for a source that does not compile.
    """

    def __init__(self, source: str, bos_token: str = "", eos_token: str = "") -> None:
        if len(source) > MAX_SOURCE:
            reason = f"the chat template has {len(source)} characters (limit {MAX_SOURCE})"
            raise ModelLoadError(reason)
        self.source = source
        self._special_tokens = {"bos_token": bos_token, "eos_token": eos_token}
        environment = TemplateSandbox()
        try:
            self._template = environment.from_string(source)
            self._variables = meta.find_undeclared_variables(environment.parse(source))
        # Besides Jinja's errors: those from Python's limits on nesting.
        except (TemplateError, SyntaxError, RecursionError, ValueError) as error:
            raise ModelLoadError(f"the chat template does not compile: {error}") from error
        self.traits = TemplateTraits()
        self.traits = find_traits(self._probe)

    @property
    def has_tools(self) -> bool:
        """Whether the template uses ``tools``."""
        return "tools" in self._variables

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        options: Mapping[str, Any] | None = None,
        add_generation_prompt: bool = True,
        keeps_origin: bool = False,
    ) -> str:
        """The prompt text. Raises ``InvalidRequestError`` if the template refuses or fails.

        ``tools``: OpenAI's tool objects. ``options``: further variables from the client.
        ``keeps_origin``: return an ``InputText``, which knows what is from the request. The text
        contains control tokens, so encode it with ``parse_special``; the template writes BOS itself
        if the model needs it.
        """
        given = self.traits.adapt([dict(message) for message in messages])
        rest = {"tools": self.traits.adapt_tools(tools), "options": dict(options or {})}
        if keeps_origin:
            given, rest = [*map(as_input_message, given)], as_input(rest)
        return self._render({"messages": given, **rest}, add_generation_prompt)

    @functools.cached_property
    def opening(self) -> str:
        """The text at a prompt's end that opens the answer, in a small chat; "" if unknown."""
        try:
            text = self.render(_SMALL_CHAT, add_generation_prompt=False)
            prompt = self.render(_SMALL_CHAT)
        except InvalidRequestError:
            return ""
        return prompt[len(text) :] if prompt.startswith(text) else ""

    def _probe(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
        return self._render({"messages": messages, "tools": tools, "options": {}}, True)

    def _render(self, request: dict[str, Any], add_generation_prompt: bool) -> str:
        variables = {
            "documents": None,
            **request["options"],
            "messages": request["messages"],
            "tools": request["tools"],
            "add_generation_prompt": add_generation_prompt,
            **self._special_tokens,
        }
        try:
            with time_limit(MAX_RENDER_S):
                return _join_bounded(self._template.generate(variables))
        except TemplateError as error:  # raised by the template itself or by the sandbox's limits
            reason = f"the chat template refuses the messages: {error}"
            raise InvalidRequestError(reason, "messages") from error
        # A template is a program by the model's author: its errors are no failure of the worker.
        except Exception as error:
            reason = f"the chat template fails on the messages: {type(error).__name__}: {error}"
            raise InvalidRequestError(reason, "messages") from error


class ChatTemplates:
    """The templates of a model by use: ``default``, possibly ``tool_use`` and ``rag``."""

    def __init__(self, sources: Mapping[str, str], bos_token: str, eos_token: str) -> None:
        """``sources``: at least one; the first is the default if none is named ``default``."""
        self._templates = {
            name: ChatTemplate(source, bos_token, eos_token) for name, source in sources.items()
        }
        first = next(iter(self._templates.values()))
        self.default = self._templates.get("default", first)

    @classmethod
    def choose(
        cls,
        chat_format_name: str | None,
        model_templates: Mapping[str, str],
        bos_token: str = "",
        eos_token: str = "",
    ) -> ChatTemplates:
        """The named format, else the model's own templates, else ChatML.

        Raises ``InvalidRequestError`` for an unknown name.
        """
        if chat_format_name is not None:
            return cls({"default": chat_format(chat_format_name)}, bos_token, eos_token)
        return cls(model_templates or {"default": CHATML}, bos_token, eos_token)

    def for_use(self, *, has_tools: bool, has_documents: bool) -> ChatTemplate:
        """The template for a chat with tools, or with documents, or with neither."""
        name = "tool_use" if has_tools else "rag" if has_documents else "default"
        return self._templates.get(name, self.default)


def _join_bounded(pieces: Iterable[str]) -> str:
    parts: list[str] = []
    size = 0
    for piece in pieces:
        check_time()
        size += len(piece)
        if size > MAX_SIZE:
            raise TemplateError(f"the text exceeds {MAX_SIZE} characters")
        parts.append(piece)
    return concat(parts)
