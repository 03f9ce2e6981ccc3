"""OpenAI's bodies of chats and completions to what all dialects mean. Pure."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from api.dialects.generation_params import GenerationParams, build_request, checked_text
from api.dialects.openai.embeddings.schema import EmbeddingsBody
from api.dialects.openai.generation.messages import to_messages
from api.dialects.openai.generation.reasoning import template_options_of
from api.dialects.openai.generation.schema import ChatBody, CompletionBody, TokenCountBody
from api.dialects.openai.generation.tools import Tools, read_tools, refuse_functions, to_tools
from api.dialects.sampling_fields import same_value
from api.dialects.shared_params import shared_params
from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.requests import (
    EmbedRequest,
    GenerateRequest,
    GenerationDefaults,
    Message,
    Prompt,
    TokenCountRequest,
)

_COMPLETION_MAX_TOKENS = 16  # OpenAI's default on /v1/completions

GenerationRoute = ChatBody | CompletionBody


def to_generate_request(
    body: GenerationRoute, defaults: GenerationDefaults, model_name: str
) -> GenerateRequest:
    """The job that ``body`` asks for; ``InvalidRequestError`` names the parameter at fault."""
    return checked_text(build_request(_to_params(body), defaults, model_name), body)


def _to_params(body: GenerationRoute) -> GenerationParams:
    refuse_unsupported(body)
    tools, tool_use = read_tools(body.tools, body.tool_choice, body.parallel_tool_calls)
    prompts = _prompts(body, tools)
    return GenerationParams(
        prompts=prompts,
        is_chat=_is_chat(body, prompts),
        num_logprobs=_num_logprobs(body),
        **shared_params(body, limits=_limits(body), response_format=body.response_format),
        fallback_max_tokens=_COMPLETION_MAX_TOKENS if isinstance(body, CompletionBody) else None,
        num_choices=_num_choices(body),
        echo=_echo(body, prompts),
        tool_use=tool_use,
        reasoning_budget=body.budget,
        stream=bool(body.stream),
        include_usage=body.stream_options is not None and bool(body.stream_options.include_usage),
        complete_text=bool(body.complete_text),
    )


def _limits(body: GenerationRoute) -> dict[str, int | None]:
    return {"max_completion_tokens": body.max_completion_tokens, "max_tokens": body.max_tokens}


def _num_choices(body: GenerationRoute) -> int:
    return same_value({"n": body.n, "n_cmpl": body.n_cmpl}) or 1


def to_token_count_request(body: TokenCountBody) -> TokenCountRequest:
    """``messages`` through the chat template, else ``prompt`` or ``text`` as it is."""
    text = body.prompt or body.text
    if text and body.messages:
        raise InvalidRequestError("only one of prompt and messages may be given", "messages")
    if body.messages:
        prompt = Prompt(
            messages=to_messages(body.messages),
            tools=to_tools(body.tools),
            template_options=template_options_of(body),
        )
    elif text is None and body.prompt is None:
        raise InvalidRequestError("prompt, text or messages is required", "prompt")
    else:
        prompt = Prompt(text=text or "")
    return checked_text(TokenCountRequest(prompt=prompt), body)


def to_embed_request(body: EmbeddingsBody, model_name: str) -> EmbedRequest:
    """One prompt per input, taken as it is; none may be empty."""
    if not body.input:
        raise InvalidRequestError("input is required and must not be empty", "input")
    request = EmbedRequest(
        inputs=_plain_prompts(body.input, param="input"),
        dimensions=body.dimensions,
        input_type=_input_type(body),
        prompt_name=body.prompt_name,
        model=model_name,
        encoding_format=body.encoding_format or "float",
        # The original's clients name no model, OpenAI's always do.
        is_shown_twice=body.model is None,
    )
    return checked_text(request, body)


def _input_type(body: EmbeddingsBody) -> Literal["query", "document"] | None:
    if body.input_type is None:
        return None
    if body.prompt_name is not None:
        raise InvalidRequestError("prompt_name: not together with input_type", "prompt_name")
    return "query" if body.input_type in ("query", "search_query") else "document"


def refuse_unsupported(body: GenerationRoute) -> None:
    """Features not there (yet) are refused by name, never dropped."""
    refuse_functions(body)
    _refuse((body.best_of or 1) > _num_choices(body), "best_of", "use n")
    is_chat = isinstance(body, ChatBody) or bool(body.messages or body.apply_chat_template)
    # A raw prompt gets BOS, a chat's template writes it.
    _refuse(body.add_special_tokens is is_chat, "add_special_tokens", f"{is_chat} is not done here")
    for name, asks in (
        ("continue_final_message", bool(body.continue_final_message)),
        ("add_generation_prompt", body.add_generation_prompt is False),
    ):
        _refuse(asks and not body.messages, name, "needs messages")
    if isinstance(body, CompletionBody):
        _refuse_suffix(body)
        if body.max_tokens == 0 and not body.echo:
            raise InvalidRequestError("max_tokens: 0 needs echo", "max_tokens")


def _refuse_suffix(body: CompletionBody) -> None:
    """What a text with a gap cannot be combined with."""
    is_chat = bool(body.messages or body.apply_chat_template)
    _refuse(bool(body.suffix) and is_chat, "suffix", "a chat has no gap to fill")
    is_scored = bool(body.echo) and _num_logprobs(body) is not None
    _refuse(bool(body.suffix) and is_scored, "suffix", "a prompt with a gap is not scored")


def _refuse(is_refused: bool, param: str, reason: str) -> None:
    if is_refused:
        raise UnsupportedParameterError(f"{param}: {reason}", param)


def _prompts(body: GenerationRoute, tools: Tools | None) -> list[Prompt]:
    if body.prompt and body.messages:
        raise InvalidRequestError("only one of prompt and messages may be given", "messages")
    if body.messages:
        messages = to_messages(body.messages)
        chat = Prompt(messages=messages, is_continued=_is_continued(body, messages))
        return [_with_options(chat, body, tools)]
    is_chat = isinstance(body, ChatBody) or body.apply_chat_template
    if isinstance(body, CompletionBody) and body.suffix:
        return _prompts_with_gap(body.prompt, body.suffix)
    if not body.prompt:
        param = "messages" if isinstance(body, ChatBody) else "prompt"
        raise InvalidRequestError(f"{param} is required and must not be empty", param)
    if is_chat and not isinstance(body.prompt, str):
        raise InvalidRequestError("a chat takes messages or one text", "prompt")
    if is_chat:
        return [_with_options(Prompt(text=str(body.prompt), is_chat=True), body, tools)]
    return _plain_prompts(body.prompt)


def _is_continued(body: GenerationRoute, messages: list[Message]) -> bool:
    """Whether the answer goes on where the last message ends: vLLM's words for it."""
    name = "continue_final_message"
    if not body.continue_final_message:
        is_begun = body.add_generation_prompt is not False
        _refuse(not is_begun, "add_generation_prompt", f"false needs {name}")
        return False
    if body.add_generation_prompt:
        raise InvalidRequestError(f"{name} excludes add_generation_prompt", name)
    last = messages[-1]
    if last.role != "assistant" or not last.content or last.tool_calls:
        raise InvalidRequestError(f"{name}: the last message is no assistant's text", name)
    return True


def _with_options(prompt: Prompt, body: GenerationRoute, tools: Tools | None) -> Prompt:
    return msgspec.structs.replace(prompt, tools=tools, template_options=template_options_of(body))


def _prompts_with_gap(value: str | list[Any], suffix: str) -> list[Prompt]:
    """The model fills what is missing between each prompt, which may be empty, and the suffix."""
    prompts = _plain_prompts(value) if value else [Prompt(text="")]
    return [msgspec.structs.replace(prompt, suffix=suffix) for prompt in prompts]


def _plain_prompts(value: str | list[Any], param: str = "prompt") -> list[Prompt]:
    if isinstance(value, str):
        return [Prompt(text=value)]
    if isinstance(value[0], int):
        return [Prompt(token_ids=value)]
    if isinstance(value[0], str):
        if not all(value):
            raise InvalidRequestError(f"{param}: a text must not be empty", param)
        return [Prompt(text=text) for text in value]
    return [Prompt(token_ids=token_ids) for token_ids in value]


def _is_chat(body: GenerationRoute, prompts: list[Prompt]) -> bool:
    """The answer's shape follows the template, not the route: so it was in the original."""
    return isinstance(body, ChatBody) or prompts[0].is_chat or prompts[0].messages is not None


def _echo(body: GenerationRoute, prompts: list[Prompt]) -> bool:
    if not body.echo:
        return False
    if any(prompt.messages is not None or prompt.is_chat for prompt in prompts):
        raise UnsupportedParameterError("echo: a chat cannot be echoed", "echo")
    if _num_logprobs(body) is None and any(prompt.text is None for prompt in prompts):
        raise UnsupportedParameterError("echo: token ids are echoed with logprobs only", "echo")
    return True


def _num_logprobs(body: GenerationRoute) -> int | None:
    """A number, or whether and how many; 0 as a number are none only in chats."""
    given, others = body.logprobs, {"n_probs": body.n_probs or None}
    if isinstance(given, bool) or given is None:
        if body.top_logprobs and not given:
            raise InvalidRequestError("top_logprobs needs logprobs: true", "top_logprobs")
        return same_value({"top_logprobs": (body.top_logprobs or 0) if given else None, **others})
    is_asked_for = given > 0 or isinstance(body, CompletionBody)
    names = {"logprobs": given if is_asked_for else None, "top_logprobs": body.top_logprobs}
    return same_value({**names, **others})
