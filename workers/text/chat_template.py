"""Chat messages to the text that a model was trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jinja2 import meta
from jinja2.exceptions import TemplateError

from jobs.contract.errors import InvalidRequestError, ModelLoadError
from workers.text.chat_formats import CHATML, chat_format
from workers.text.template_sandbox import MAX_SIZE, TemplateSandbox, check_time, time_limit

MAX_SOURCE = 1 << 18  # characters; the largest known templates have about 30,000
MAX_RENDER_S = 1.0

Message = Mapping[str, Any]
"""One message as a template sees it: ``role``, ``content`` (a string), ``tool_calls``, …"""


class ChatTemplate:
    """A compiled template and the texts of its model's BOS and EOS tokens ("" for none).

    Raises ``ModelLoadError`` for a source that does not compile.
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
        # Python's own limits on nesting come out of the compiler as these.
        except (TemplateError, SyntaxError, RecursionError, ValueError) as error:
            raise ModelLoadError(f"the chat template does not compile: {error}") from error

    @classmethod
    def choose(
        cls,
        chat_format_name: str | None,
        model_template: str | None,
        bos_token: str = "",
        eos_token: str = "",
    ) -> ChatTemplate:
        """The named format, else the model's own template, else ChatML.

        Raises ``InvalidRequestError`` for a name that is not known.
        """
        if chat_format_name is not None:
            return cls(chat_format(chat_format_name), bos_token, eos_token)
        return cls(model_template or CHATML, bos_token, eos_token)

    @property
    def has_tools(self) -> bool:
        """Whether the template does anything with ``tools``."""
        return "tools" in self._variables

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        options: Mapping[str, Any] | None = None,
        add_generation_prompt: bool = True,
    ) -> str:
        """The prompt text. Raises ``InvalidRequestError`` when the template refuses or fails.

        ``tools`` are OpenAI's tool objects, ``None`` for none; ``options`` further variables that a
        client may set. The text holds control tokens, so
        it is encoded with ``parse_special``; whether it begins with BOS is up to the template.
        """
        variables = {
            **(options or {}),
            "messages": messages,
            "tools": tools or None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            **self._special_tokens,
        }
        with time_limit(MAX_RENDER_S):
            return self._render(variables)

    def _render(self, variables: dict[str, Any]) -> str:
        try:
            return _join_bounded(self._template.generate(variables))
        except TemplateError as error:  # what the template raises itself, and the sandbox's limits
            reason = f"the chat template refuses the messages: {error}"
            raise InvalidRequestError(reason, "messages") from error
        # A template is a program of the model's author: whatever it does wrong is about the
        # messages it got, never a failure of the worker.
        except Exception as error:
            reason = f"the chat template fails on the messages: {type(error).__name__}: {error}"
            raise InvalidRequestError(reason, "messages") from error


def _join_bounded(pieces: Iterable[str]) -> str:
    parts: list[str] = []
    size = 0
    for piece in pieces:
        check_time()
        size += len(piece)
        if size > MAX_SIZE:
            raise TemplateError(f"the text exceeds {MAX_SIZE} characters")
        parts.append(piece)
    return "".join(parts)
