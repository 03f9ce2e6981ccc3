"""OpenAI's shapes to ours: a checked body becomes a ``GenerateRequest``. Pure."""

from __future__ import annotations

import secrets
from typing import Any, Literal, TypeVar

import msgspec

from api.dialects.openai.embeddings.schema import EmbeddingsBody
from api.dialects.openai.generation.grammars import to_grammar
from api.dialects.openai.generation.messages import to_messages
from api.dialects.openai.generation.reasoning import to_template_options
from api.dialects.openai.generation.schema import ChatBody, CompletionBody, TokenCountBody
from api.dialects.openai.generation.tools import shown_tools, to_tool_use, to_tools
from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.requests import (
    EmbedRequest,
    GenerateRequest,
    GenerationDefaults,
    Message,
    Prompt,
    TokenCountRequest,
    ToolUse,
)
from jobs.contract.sampling import Sampling

_COMPLETION_MAX_TOKENS = 16  # OpenAI's default on /v1/completions
_MAX_SEQUENCES = 256
_SEED_BITS = 64

GenerationRoute = ChatBody | CompletionBody
_T = TypeVar("_T")


def to_generate_request(
    body: GenerationRoute, defaults: GenerationDefaults, model_name: str
) -> GenerateRequest:
    """The job that ``body`` asks for; ``InvalidRequestError`` names the parameter at fault."""
    refuse_unsupported(body)
    prompts = _prompts(body)
    num_choices = body.n or 1
    if len(prompts) * num_choices > _MAX_SEQUENCES:
        raise InvalidRequestError(f"at most {_MAX_SEQUENCES} choices in one request", "n")
    options = body.stream_options
    api = _api(body, prompts)
    request = GenerateRequest(
        prompts=prompts,
        sampling=_sampling(body, defaults),
        max_tokens=_max_tokens(body, defaults),
        num_choices=num_choices,
        stop=body.stop or [],
        echo=_echo(body, prompts),
        adapter=body.adapter_name or None,
        grammar=to_grammar(body),
        tool_use=_tool_use(body, api),
        is_reasoning_split=api == "chat",
        reasoning_budget=body.thinking_budget,
        on_worker_loss=body.on_worker_loss,
        api=api,
        model=model_name,
        stream=bool(body.stream),
        include_usage=options is not None and options.include_usage,
        complete_text=body.complete_text,
    )
    check_text(request)
    return request


def to_token_count_request(body: TokenCountBody) -> TokenCountRequest:
    """``messages`` through the chat template, else ``prompt`` or ``text`` as it is."""
    text = body.prompt or body.text
    if text and body.messages:
        raise InvalidRequestError("only one of prompt and messages may be given", "messages")
    if body.messages:
        prompt = Prompt(
            messages=to_messages(body.messages),
            tools=to_tools(body.tools),
            template_options=to_template_options(body),
        )
    elif text is None and body.prompt is None:
        raise InvalidRequestError("prompt, text or messages is required", "prompt")
    else:
        prompt = Prompt(text=text or "")
    request = TokenCountRequest(prompt=prompt)
    check_text(request)
    return request


def to_embed_request(body: EmbeddingsBody, model_name: str) -> EmbedRequest:
    """One prompt per input, taken as it is; none may be empty."""
    if not body.input:
        raise InvalidRequestError("input is required and must not be empty", "input")
    request = EmbedRequest(
        inputs=_plain_prompts(body.input, param="input"),
        dimensions=body.dimensions,
        model=model_name,
        encoding_format=body.encoding_format or "float",
        # The original's clients name no model, OpenAI's always do.
        is_shown_twice=body.model is None,
    )
    check_text(request, "input")
    return request


def check_text(request: msgspec.Struct, param: str = "prompt") -> None:
    """Refuse half surrogate pairs: no UTF-8, so neither Redis nor a tokenizer can take them."""
    try:
        msgspec.json.encode(request)
    except UnicodeEncodeError:
        raise InvalidRequestError("a text has half a surrogate pair", param) from None


def refuse_unsupported(body: GenerationRoute) -> None:
    """Features not there (yet) are refused by name, never dropped."""
    if isinstance(body, CompletionBody):
        _refuse_suffix(body)
        _refuse((body.best_of or 1) > (body.n or 1), "best_of", "use n")


def _refuse_suffix(body: CompletionBody) -> None:
    """What a text with a gap cannot be combined with."""
    is_chat = bool(body.messages) or body.apply_chat_template
    _refuse(bool(body.suffix) and is_chat, "suffix", "a chat has no gap to fill")
    is_scored = bool(body.echo) and body.logprobs is not None
    _refuse(bool(body.suffix) and is_scored, "suffix", "a prompt with a gap is not scored")


def _refuse(is_refused: bool, param: str, reason: str) -> None:
    if is_refused:
        raise UnsupportedParameterError(f"{param}: {reason}", param)


def _prompts(body: GenerationRoute) -> list[Prompt]:
    if body.prompt and body.messages:
        raise InvalidRequestError("only one of prompt and messages may be given", "messages")
    if body.messages:
        messages = to_messages(body.messages)
        is_continued = _is_continued(body, messages)
        return [Prompt(messages=messages, is_continued=is_continued, **_chat_options(body))]
    is_chat = isinstance(body, ChatBody) or body.apply_chat_template
    if isinstance(body, CompletionBody) and body.suffix:
        return _prompts_with_gap(body.prompt, body.suffix)
    if not body.prompt:
        param = "messages" if isinstance(body, ChatBody) else "prompt"
        raise InvalidRequestError(f"{param} is required and must not be empty", param)
    if is_chat and not isinstance(body.prompt, str):
        raise InvalidRequestError("a chat takes messages or one text", "prompt")
    if is_chat:
        return [Prompt(text=str(body.prompt), is_chat=True, **_chat_options(body))]
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


def _chat_options(body: GenerationRoute) -> dict[str, Any]:
    return {"tools": shown_tools(body), "template_options": to_template_options(body)}


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


def _tool_use(body: GenerationRoute, api: Literal["chat", "text"]) -> ToolUse | None:
    use = to_tool_use(body)
    if use is not None and api == "text":
        raise UnsupportedParameterError("tools: only a chat can have tools", "tools")
    return use


def _api(body: GenerationRoute, prompts: list[Prompt]) -> Literal["chat", "text"]:
    """The answer's shape follows the template, not the route: so it was in the original."""
    is_chat = isinstance(body, ChatBody) or prompts[0].is_chat or prompts[0].messages is not None
    return "chat" if is_chat else "text"


def _echo(body: GenerationRoute, prompts: list[Prompt]) -> bool:
    if isinstance(body, ChatBody) or not body.echo:
        return False
    if any(prompt.messages is not None or prompt.is_chat for prompt in prompts):
        raise UnsupportedParameterError("echo: a chat cannot be echoed", "echo")
    if body.logprobs is None and any(prompt.text is None for prompt in prompts):
        raise UnsupportedParameterError("echo: token ids are echoed with logprobs only", "echo")
    return True


def _max_tokens(body: GenerationRoute, defaults: GenerationDefaults) -> int | None:
    given = _same_value(
        max_completion_tokens=body.max_completion_tokens, max_tokens=body.max_tokens
    )
    if given == 0 and not (isinstance(body, CompletionBody) and body.echo):
        raise InvalidRequestError("max_tokens: 0 needs echo", "max_tokens")
    fallback = _COMPLETION_MAX_TOKENS if isinstance(body, CompletionBody) else None
    return _first(given, defaults.max_tokens, fallback)


def _sampling(body: GenerationRoute, defaults: GenerationDefaults) -> Sampling:
    neutral = Sampling()
    repetition_penalty = _same_value(
        repet_penalty=body.repet_penalty,
        repeat_penalty=body.repeat_penalty,
        repetition_penalty=body.repetition_penalty,
    )
    return Sampling(
        seed=_seed(body.seed),
        temperature=_or(_first(body.temperature, defaults.temperature), neutral.temperature),
        top_k=_or(body.top_k, neutral.top_k),
        top_p=_or(_first(body.top_p, defaults.top_p), neutral.top_p),
        min_p=_or(body.min_p, neutral.min_p),
        typical_p=_or(body.typical_p, neutral.typical_p),
        repetition_penalty=_or(
            _first(repetition_penalty, defaults.repetition_penalty), neutral.repetition_penalty
        ),
        repetition_context_size=_or(
            _first(body.repetition_context_size, defaults.repetition_context_size),
            neutral.repetition_context_size,
        ),
        presence_penalty=_or(body.presence_penalty, neutral.presence_penalty),
        frequency_penalty=_or(body.frequency_penalty, neutral.frequency_penalty),
        logit_bias=_first(body.logit_bias, defaults.logit_bias) or {},
        mirostat_mode=_or(body.mirostat_mode, neutral.mirostat_mode),
        mirostat_tau=_or(body.mirostat_tau, neutral.mirostat_tau),
        mirostat_eta=_or(body.mirostat_eta, neutral.mirostat_eta),
        num_logprobs=_num_logprobs(body),
        ignore_eos=bool(body.ignore_eos),
    )


def _seed(given: int | None) -> int:
    return secrets.randbits(32) if given is None else given % (1 << _SEED_BITS)


def _num_logprobs(body: GenerationRoute) -> int | None:
    if isinstance(body, CompletionBody):
        return body.logprobs
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequestError("top_logprobs needs logprobs: true", "top_logprobs")
    return (body.top_logprobs or 0) if body.logprobs else None


def _same_value(**spellings: _T | None) -> _T | None:
    """The value of a parameter that has several names; two that differ are refused."""
    given = {name: value for name, value in spellings.items() if value is not None}
    if len(set(given.values())) > 1:
        listed = " and ".join(given)
        raise InvalidRequestError(f"{listed} are one parameter and differ", next(iter(given)))
    return next(iter(given.values()), None)


def _first(*values: _T | None) -> _T | None:
    return next((value for value in values if value is not None), None)


def _or(value: _T | None, fallback: _T) -> _T:
    return fallback if value is None else value
