"""Reasons why cases of llama.cpp's server tests cannot pass here, by test function.

To keep the list correct, the run ends with an error if a function without an entry fails, or if
all cases of a function with an entry pass on both engines.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Group(StrEnum):
    """Kinds of reasons; the values are column titles."""

    MODEL = "other model"
    TEMPLATE = "other template"
    FIELD = "llama-server's field"
    DECISION = "decided otherwise"


DESCRIPTIONS = {
    Group.MODEL: "The test looks at the text, the token counts or the abilities of a model that it"
    " downloads; the demo model is another one.",
    Group.TEMPLATE: "The test starts its server with another chat template.",
    Group.FIELD: "A field or setting of llama-server alone.",
    Group.DECISION: "This server decides otherwise, mostly as OpenAI's API does.",
}


class Reason(NamedTuple):
    """``detail`` completes the group's description."""

    group: Group
    detail: str = ""


_MODEL = Reason(Group.MODEL)
_NO_GAP = Reason(Group.MODEL, "the demo model has no tokens for a gap")
_REAL = Reason(Group.MODEL, "needs a real model's calls, answers or reasoning")
_IMAGE = Reason(Group.MODEL, "needs a model with image input, which this server does not support")
_TEMPLATE = Reason(Group.TEMPLATE)
_VERBOSE = Reason(Group.FIELD, "`__verbose` in answers of a server in debug mode")
_PROGRESS = Reason(Group.FIELD, "`return_progress`, `timings_per_token`")
_AFTER_SAMPLING = Reason(Group.FIELD, "`post_sampling_probs`")
_POOLING = Reason(Group.FIELD, "pooling `none`")
_MIXED = Reason(Group.FIELD, "texts, token ids and objects mixed in one prompt or input")
_FIRST_CHUNK = Reason(Group.DECISION, 'a stream begins with `content: ""`')
_ERROR = Reason(
    Group.DECISION, "OpenAI's error: `invalid_request_error`, code `context_length_exceeded`"
)

REASONS = {
    # test_chat_completion
    "test_chat_completion": _MODEL,
    "test_chat_completion_cached_tokens": _MODEL,
    "test_chat_completion_stream": _FIRST_CHUNK,
    "test_chat_completion_with_openai_library": _MODEL,
    "test_chat_template": _VERBOSE,
    "test_chat_template_assistant_prefill": _VERBOSE,
    "test_chat_template_continue_final_message_vllm_compat": _VERBOSE,
    "test_apply_chat_template": _TEMPLATE,
    "test_invalid_chat_completion_req": Reason(
        Group.DECISION, "two assistant messages at the end are left to the chat template"
    ),
    "test_chat_completion_with_timings_per_token": _FIRST_CHUNK,
    "test_logprobs_stream": _FIRST_CHUNK,
    "test_context_size_exceeded": _ERROR,
    "test_context_size_exceeded_stream": _ERROR,
    "test_return_progress": _PROGRESS,
    "test_verbose_debug": _VERBOSE,
    # test_completion
    "test_completion": _MODEL,
    "test_completion_stream": _MODEL,
    "test_completion_with_openai_library": _MODEL,
    "test_completion_stream_with_openai_library": _MODEL,
    "test_completion_stream_with_openai_library_stops": _MODEL,
    "test_completion_with_tokens_input": _MIXED,
    "test_completion_response_fields": _MODEL,
    "test_n_probs_post_sampling": _AFTER_SAMPLING,
    "test_n_probs_post_backend_sampling": _AFTER_SAMPLING,
    "test_logit_bias": Reason(Group.FIELD, "biases of texts instead of token ids"),
    "test_completion_prompt_cache": _MODEL,
    # test_tokenize
    "test_tokenize_with_bos": Reason(Group.MODEL, "the demo model has no BOS token"),
    # test_embedding
    "test_embedding_mixed_input": _MIXED,
    "test_embedding_content_text_same_as_string": _MIXED,
    "test_embedding_pooling_none": _POOLING,
    "test_embedding_pooling_none_oai": _POOLING,
    "test_embedding_usage_single": _MODEL,
    "test_embedding_usage_multiple": _MODEL,
    # test_tool_call
    "test_completion_with_required_tool_real_model": _FIRST_CHUNK,
    "test_completion_without_tool_call_fast": _FIRST_CHUNK,
    "test_completion_without_tool_call_slow": _FIRST_CHUNK,
    "test_weather": _REAL,
    "test_calc_result": _REAL,
    "test_thoughts": _REAL,
    "test_hello_world": _REAL,
    # test_compat_anthropic
    "test_anthropic_tool_result_with_image": _IMAGE,
    "test_anthropic_vision_format_accepted": _IMAGE,
    "test_anthropic_vision_base64_with_multimodal_model": _IMAGE,
    "test_anthropic_empty_messages": Reason(Group.DECISION, "an empty list of messages is a 400"),
    "test_anthropic_thinking_history_in_count_tokens": _TEMPLATE,
    "test_anthropic_thinking_history_in_template": _TEMPLATE,
    "test_anthropic_thinking_with_reasoning_model": _REAL,
    # test_compat_oai_responses
    "test_responses_with_openai_library": _MODEL,
    "test_responses_stream_with_llama_telemetry": _PROGRESS,
    # test_rerank
    "test_rerank_usage": _MODEL,
    # test_infill
    "test_infill_without_input_extra": _NO_GAP,
    "test_infill_with_input_extra": _NO_GAP,
    # test_ignore_eos
    "test_ignore_eos_populates_logit_bias": Reason(
        Group.FIELD, "the biases that it makes of `ignore_eos`"
    ),
}
