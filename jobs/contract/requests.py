"""The requests of jobs: frozen, versioned values, stored as JSON under ``mgs:req:<job id>``.

RQ carries only the job's id and the task's name. Workers never import that name. They look it up
in ``Task``, which is their allow-list.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import msgspec

from jobs.contract.errors import ContractError
from jobs.contract.grammars import Grammar
from jobs.contract.pulls import PullRequest
from jobs.contract.rerank import Rerank
from jobs.contract.sampling import Sampling

VERSION = 1

OnWorkerLoss = Literal["resume", "fail"]


class Task(StrEnum):
    """The kinds of jobs. The values are what RQ stores as the function's name."""

    GENERATE = "mgs.generate"
    EMBED = "mgs.embed"
    TOKEN_COUNT = "mgs.token_count"
    TOKENIZE = "mgs.tokenize"
    DETOKENIZE = "mgs.detokenize"
    APPLY_TEMPLATE = "mgs.apply_template"
    CACHE_LIMIT = "mgs.cache_limit"
    LOAD = "mgs.load"
    UNLOAD = "mgs.unload"
    PULL = "mgs.pull"


class FunctionCall(msgspec.Struct, frozen=True):
    """The function part of a tool call. ``arguments`` is JSON text as the client sent it."""

    name: str
    arguments: str = "{}"


class ToolCall(msgspec.Struct, frozen=True):
    """A tool call in an assistant's message."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of a chat. The API joins content parts to one text."""

    role: str
    content: str | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None


class Prompt(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the model continues: exactly one of text, token ids or messages.

    ``text`` is used as it is, or as a user message when ``is_chat``. With a ``suffix`` the model
    fills the gap between the text or token ids and the suffix. ``tools`` are OpenAI tool objects.
    ``template_options`` are further variables of the chat template. With ``is_continued`` the
    answer continues the last message, which is an assistant's.
    """

    text: str | None = None
    token_ids: list[int] | None = None
    messages: list[Message] | None = None
    tools: list[dict[str, Any]] | None = None
    template_options: dict[str, Any] | None = None
    is_chat: bool = False
    suffix: str | None = None
    is_continued: bool = False


class ToolUse(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the model may use the prompt's tools. With ``name`` it may call only that tool."""

    is_required: bool = False
    is_single: bool = False
    name: str | None = None


class View(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the API shows a job; workers ignore it. ``shape`` is a ``Shape`` of the API.

    ``is_thinking_shown`` is for Anthropic's API, ``has_tokens`` and ``fields`` for llama-server's.
    """

    shape: str = ""
    is_thinking_shown: bool = True
    has_tokens: bool = False
    fields: list[str] = []


class GenerateRequest(msgspec.Struct, frozen=True, omit_defaults=True, tag="generate"):
    """Continue each of ``prompts`` ``num_choices`` times; choice = prompt * num_choices + k.

    ``max_tokens``: ``None`` allows the rest of the context, 0 only echoes the prompts. ``grammar``
    constrains each choice. A token of ``stop_token_ids`` ends a choice and has no text. Before
    ``min_tokens`` nothing ends it. ``predict_limit_ms``, from the first token on, ends one that has
    a line break; so does a new line with an indentation below ``min_indent``. Of each prompt the
    last ``truncate_prompt_tokens`` are read. ``tool_use`` makes the worker parse tool calls out of
    the text, ``is_reasoning_split`` the model's reasoning. Reasoning takes at most
    ``reasoning_budget`` tokens. Fields after ``on_worker_loss`` are for the API, not for workers.
    """

    prompts: list[Prompt]
    sampling: Sampling
    max_tokens: int | None = None
    num_choices: int = 1
    stop: list[str] = []
    stop_token_ids: list[int] = []
    min_tokens: int = 0
    predict_limit_ms: float | None = None
    min_indent: int = 0
    truncate_prompt_tokens: int | None = None
    echo: bool = False
    adapter: str | None = None
    grammar: Grammar | None = None
    tool_use: ToolUse | None = None
    is_reasoning_split: bool = False
    reasoning_budget: int | None = None
    on_worker_loss: OnWorkerLoss = "resume"
    api: Literal["chat", "text"] = "text"
    model: str = ""
    stream: bool = False
    include_usage: bool = False
    complete_text: bool = False
    view: View = View()
    v: int = VERSION

    @property
    def is_prompt_scored(self) -> bool:
        """True if the worker echoes the prompts (with log-probabilities), not the API."""
        return self.echo and self.sampling.num_logprobs is not None


class TokenCountRequest(msgspec.Struct, frozen=True, omit_defaults=True, tag="token_count"):
    """Count the prompt's tokens for this model."""

    prompt: Prompt
    view: View = View()
    v: int = VERSION


class TokenizeRequest(msgspec.Struct, frozen=True, omit_defaults=True, tag="tokenize"):
    """Convert ``text`` to token ids. ``Tokenizer.encode`` explains the flags.

    ``has_pieces`` asks for each token's bytes too. The API also reads it to shape the answer.
    """

    text: str
    add_special: bool = False
    parse_special: bool = True
    has_pieces: bool = False
    v: int = VERSION


class DetokenizeRequest(msgspec.Struct, frozen=True, omit_defaults=True, tag="detokenize"):
    """Convert token ids to text. Control tokens are written by name."""

    token_ids: list[int]
    view: View = View()
    v: int = VERSION


class ApplyTemplateRequest(msgspec.Struct, frozen=True, omit_defaults=True, tag="apply_template"):
    """Render the prompt's messages with the model's chat template."""

    prompt: Prompt
    add_generation_prompt: bool = True
    v: int = VERSION


class CacheLimitRequest(msgspec.Struct, frozen=True, omit_defaults=True, tag="cache_limit"):
    """Set how many bytes the backend may keep allocated for reuse."""

    num_bytes: int
    v: int = VERSION


class EmbedRequest(msgspec.Struct, frozen=True, omit_defaults=True, tag="embed"):
    """Compute one vector per input. ``dimensions``: cut to this size, again of length 1.

    ``input_type`` and ``prompt_name`` choose the model's own text before each input. Of inputs
    longer than the context, the first tokens are read if ``is_truncated``. The fields from
    ``model`` on say how the API shows the job. ``is_shown_twice`` adds the fields of the original
    server's answer to OpenAI's.
    """

    inputs: list[Prompt]
    dimensions: int | None = None
    input_type: Literal["query", "document"] | None = None
    prompt_name: str | None = None
    is_truncated: bool = False
    model: str = ""
    encoding_format: Literal["float", "base64"] = "float"
    is_shown_twice: bool = False
    rerank: Rerank | None = None
    v: int = VERSION


class GenerationDefaults(msgspec.Struct, frozen=True, omit_defaults=True):
    """Defaults given at load, for requests that do not set these values."""

    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    repetition_context_size: int | None = None
    logit_bias: dict[int, float] | None = None


KvLayout = Literal["unified", "per_slot"]


class LoadRequest(msgspec.Struct, frozen=True, omit_defaults=True, tag="load"):
    """Load a model with these options. ``None`` leaves the choice to the engine."""

    model_name: str
    backend: str
    chat_format: str | None = None
    context_length: int | None = None
    slots: int | None = None
    threads: int | None = None
    gpu_layers: int | None = None
    trust_remote_code: bool = False
    adapter: str | None = None
    kv_bits: int | None = None
    kv_layout: KvLayout | None = None
    draft_model: str | None = None
    num_draft_tokens: int | None = None
    prompt_cache_bytes: int | None = None
    defaults: GenerationDefaults = GenerationDefaults()
    v: int = VERSION


class UnloadRequest(msgspec.Struct, frozen=True, omit_defaults=True, tag="unload"):
    """Unload the model and end the worker."""

    v: int = VERSION


_TextRequest = TokenCountRequest | TokenizeRequest | DetokenizeRequest | ApplyTemplateRequest
_ModelRequest = LoadRequest | UnloadRequest | PullRequest | CacheLimitRequest
Request = GenerateRequest | EmbedRequest | _TextRequest | _ModelRequest

TASKS: dict[type[Request], Task] = {
    GenerateRequest: Task.GENERATE,
    EmbedRequest: Task.EMBED,
    TokenCountRequest: Task.TOKEN_COUNT,
    TokenizeRequest: Task.TOKENIZE,
    DetokenizeRequest: Task.DETOKENIZE,
    ApplyTemplateRequest: Task.APPLY_TEMPLATE,
    CacheLimitRequest: Task.CACHE_LIMIT,
    LoadRequest: Task.LOAD,
    UnloadRequest: Task.UNLOAD,
    PullRequest: Task.PULL,
}

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)


def encode_request(request: Request) -> bytes:
    """The request as JSON."""
    return _encoder.encode(request)


def decode_request(data: bytes) -> Request:
    """Decode a request. Raises ``ContractError`` for anything else, also for another version."""
    try:
        request = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(f"the stored request cannot be read: {error}") from error
    if request.v != VERSION:
        raise ContractError(f"request version {request.v} is not {VERSION}")
    return request
