"""Why a case of llama.cpp's server tests cannot pass here, by test function.

A function that fails without an entry, or an entry whose function passes wholly on both engines,
ends the run with an error: the list stays true.
"""

OTHER_MODEL = "text or token counts of the model that the tests download"
OTHER_TEMPLATE = "the test starts its server with another chat template"
NATIVE = "a field or setting of llama-server alone: "
DECIDED = "this server decides otherwise: "

REASONS = {
    # test_chat_completion
    "test_chat_completion": OTHER_MODEL,
    "test_chat_completion_cached_tokens": OTHER_MODEL,
    "test_chat_completion_stream": DECIDED
    + "the first chunk has `content: \"\"`, as OpenAI's; and its model's text",
    "test_chat_completion_with_openai_library": OTHER_MODEL,
    "test_chat_template": NATIVE + "`__verbose` in answers of a server in debug mode",
    "test_chat_template_assistant_prefill": NATIVE
    + "`__verbose`; a last assistant message is gone on with when `continue_final_message` says so",
    "test_chat_template_continue_final_message_vllm_compat": NATIVE
    + "`__verbose`; `continue_final_message` itself works",
    "test_apply_chat_template": OTHER_TEMPLATE,
    "test_invalid_chat_completion_req": DECIDED
    + "two assistant messages at the end are the chat template's business",
    "test_chat_completion_with_timings_per_token": DECIDED
    + 'the first chunk has `content: ""`; timings come at the end only',
    "test_logprobs_stream": DECIDED + 'the first chunk has `content: ""`, as OpenAI\'s',
    "test_context_size_exceeded": DECIDED
    + "OpenAI's error: type `invalid_request_error`, code `context_length_exceeded`",
    "test_context_size_exceeded_stream": DECIDED
    + "OpenAI's error: type `invalid_request_error`, code `context_length_exceeded`",
    "test_return_progress": NATIVE + "`return_progress`",
    "test_verbose_debug": NATIVE + "`__verbose`",
    # test_completion
    "test_completion": OTHER_MODEL,
    "test_completion_stream": OTHER_MODEL,
    "test_completion_with_openai_library": OTHER_MODEL,
    "test_completion_stream_with_openai_library": OTHER_MODEL,
    "test_completion_stream_with_openai_library_stops": OTHER_MODEL,
    "test_completion_with_tokens_input": NATIVE + "texts and token ids mixed in one prompt",
    "test_completion_response_fields": OTHER_MODEL + ": its prompts begin with `<s>`",
    "test_n_probs_post_sampling": NATIVE + "`post_sampling_probs`",
    "test_n_probs_post_backend_sampling": NATIVE + "`post_sampling_probs`",
    "test_logit_bias": NATIVE + "texts instead of token ids",
    "test_completion_prompt_cache": OTHER_MODEL,
    # test_tokenize
    "test_tokenize_with_bos": OTHER_MODEL + ": the demo model has no BOS token",
    # test_embedding
    "test_embedding_mixed_input": NATIVE
    + "texts and token ids mixed in one input, objects, and an empty text",
    "test_embedding_content_text_same_as_string": NATIVE + "objects as input",
    "test_embedding_pooling_none": NATIVE + "pooling `none`",
    "test_embedding_pooling_none_oai": NATIVE + "pooling `none`",
    "test_embedding_usage_single": OTHER_MODEL,
    "test_embedding_usage_multiple": OTHER_MODEL,
    # test_tool_call
    "test_completion_with_required_tool_real_model": DECIDED
    + 'streams begin with `content: ""`, which the tests forbid',
    "test_completion_without_tool_call_fast": DECIDED
    + 'streams begin with `content: ""`, which the tests forbid',
    "test_completion_without_tool_call_slow": DECIDED
    + 'streams begin with `content: ""`, which the tests forbid',
    "test_weather": 'wants a real model\'s calls; streams begin with `content: ""`',
    "test_calc_result": 'wants a real model\'s answers; streams begin with `content: ""`',
    "test_thoughts": 'wants a real model\'s thoughts; streams begin with `content: ""`',
    "test_hello_world": 'wants a real model\'s calls; streams begin with `content: ""`',
    # test_compat_anthropic
    "test_anthropic_tool_result_with_image": "images: not supported",
    "test_anthropic_vision_format_accepted": "images: not supported",
    "test_anthropic_vision_base64_with_multimodal_model": "downloads an image and a vision model",
    "test_anthropic_empty_messages": DECIDED + "no messages are a 400",
    "test_anthropic_thinking_history_in_count_tokens": OTHER_TEMPLATE,
    "test_anthropic_thinking_history_in_template": OTHER_TEMPLATE,
    "test_anthropic_thinking_with_reasoning_model": "downloads a model that thinks",
    # test_compat_oai_responses
    "test_responses_with_openai_library": OTHER_MODEL,
    "test_responses_stream_with_llama_telemetry": NATIVE + "`return_progress`, `timings_per_token`",
    # test_rerank
    "test_rerank_usage": OTHER_MODEL,
    # test_infill
    "test_infill_without_input_extra": "the demo model has no tokens for a gap",
    "test_infill_with_input_extra": "the demo model has no tokens for a gap",
    # test_ignore_eos
    "test_ignore_eos_populates_logit_bias": NATIVE + "the biases that it makes of `ignore_eos`",
}
