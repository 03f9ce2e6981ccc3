"""What editors, agents and chat front ends send by default, each with where it is known from.

Texts are shortened; the fields and their values are the programs' own. Where a repository is named,
the body is built there.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Sent(NamedTuple):
    """A request of a program. ``model``: which of the tests' models can answer it."""

    program: str
    source: str
    model: str
    path: str
    body: dict[str, Any]


FAKE, DEMO = "fake", "demo.gguf"  # only the fake one fills gaps, only the other knows tools
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
SYSTEM = {"role": "system", "content": "You are an expert coder."}
HELLO = {"role": "user", "content": "Hello!"}
READ = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "limit": {"type": "integer", "maximum": 2**53 - 1}},
    "required": ["path"],
    "additionalProperties": False,
}
READ_TOOL = {
    "type": "function",
    "function": {"name": "read", "description": "", "parameters": READ},
}
CALL = {"id": "c1", "type": "function", "function": {"name": "read", "arguments": '{"path": "a"}'}}
CHUNK = {"text": "int a;\n", "time": 1234.5, "filename": "a.c"}
EDITOR_SAMPLING = {
    "top_k": 40,
    "top_p": 0.99,
    "samplers": ["top_k", "top_p", "infill"],
    "cache_prompt": True,
    "t_max_prompt_ms": 500,
}
LLAMA_VIM = "ggml-org/llama.vim autoload/llama.vim"
LLAMA_VSCODE = "ggml-org/llama.vscode src/llama-server.ts"
CONTINUE = (
    "continuedev/continue core/llm/llms, core/autocomplete/templating/AutocompleteTemplate.ts"
)
GAP = {"input_prefix": "def f(", "input_suffix": "): pass", "input_extra": [CHUNK], "prompt": "  "}
NO_GAP = {"input_prefix": "", "input_suffix": "", "input_extra": [CHUNK], "prompt": ""}
FIM_STOPS = (
    "<|endoftext|> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> <|repo_name|> "
    "<|file_sep|> <|im_start|> <|im_end|>"
).split()

AUTOCOMPLETE = [
    Sent("llama.vim", LLAMA_VIM, FAKE, "/infill", {
        **GAP, **EDITOR_SAMPLING, "n_predict": 256, "n_indent": 2, "stream": False,
        "t_max_predict_ms": 1500,
        "response_fields": ["content", "timings/prompt_n", "timings/prompt_ms", "truncated",
                            "timings/predicted_n", "timings/predicted_ms", "tokens_cached"],
    }),
    Sent("llama.vim, new context", LLAMA_VIM, FAKE, "/infill", {
        **NO_GAP, "n_predict": 0, "temperature": 0.0, "stream": False, "samplers": [],
        "cache_prompt": True, "t_max_prompt_ms": 1, "t_max_predict_ms": 1, "response_fields": [""],
    }),
    Sent("llama.vscode", LLAMA_VSCODE, FAKE, "/infill", {
        **GAP, **EDITOR_SAMPLING, "n_predict": 128, "stream": False, "n_indent": 4,
        "t_max_predict_ms": 2500,
    }),
    Sent("llama.vscode, new context", LLAMA_VSCODE, FAKE, "/infill", {
        **NO_GAP, "n_predict": 0, "samplers": [], "cache_prompt": True, "t_max_prompt_ms": 500,
        "t_max_predict_ms": 1,
    }),
    Sent("Continue, llama.cpp", CONTINUE, FAKE, "/completion", {
        "prompt": "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>", "stream": True, "n_predict": 256,
        "temperature": 0.01, "stop": [*FIM_STOPS, "/src/", "#- coding: utf-8", "```"],
    }),
    Sent("Continue, OpenAI", CONTINUE, FAKE, "/v1/completions", {
        "model": "0", "prompt": "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>", "stream": True,
        "max_tokens": 256, "temperature": 0.01, "stop": [*FIM_STOPS, "\n\n"],
    }),
]  # fmt: skip

CHATS = [
    Sent("llama.vscode, edit", LLAMA_VSCODE, DEMO, CHAT, {
        "messages": [SYSTEM, HELLO], "stream": False, "cache_prompt": True, "samplers": "edkypmxt",
        "temperature": 0.8, "dynatemp_range": 0, "dynatemp_exponent": 1, "top_k": 40, "top_p": 0.95,
        "min_p": 0.05, "typical_p": 1, "xtc_probability": 0, "xtc_threshold": 0.1,
        "repeat_last_n": 64, "repeat_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0,
        "dry_multiplier": 0, "dry_base": 1.75, "dry_allowed_length": 2, "dry_penalty_last_n": -1,
        "max_tokens": -1, "timings_per_token": False,
    }),
    Sent("llama.vscode, new context", LLAMA_VSCODE, DEMO, CHAT, {
        "messages": [SYSTEM, HELLO], "n_predict": 0, "samplers": [], "cache_prompt": True,
        "t_max_prompt_ms": 500, "t_max_predict_ms": 1,
    }),
    Sent("Zed", "zed-industries/zed crates/open_ai/src/open_ai.rs", DEMO, CHAT, {
        "model": "0", "stream": True, "stream_options": {"include_usage": True},
        "max_completion_tokens": 4096, "temperature": 1.0, "parallel_tool_calls": False,
        "tools": [READ_TOOL], "prompt_cache_key": "thread-1", "reasoning_effort": "medium",
        "messages": [SYSTEM, HELLO, {"role": "assistant", "content": None, "tool_calls": [CALL]},
                     {"role": "tool", "content": [], "tool_call_id": "c1"},
                     {"role": "assistant", "content": None, "reasoning_content": "hm"}, HELLO],
    }),
    Sent("Cline", "cline/cline src/core/api/providers/openai.ts", DEMO, CHAT, {
        "model": "0", "temperature": 0, "stream": True, "stream_options": {"include_usage": True},
        "messages": [SYSTEM, {"role": "user", "content": [
            {"type": "text", "text": "<task>\nHello!\n</task>"},
            {"type": "text", "text": "<environment_details>\n</environment_details>"}]}],
    }),
    Sent("opencode", "vercel/ai packages/openai-compatible/src/chat", DEMO, CHAT, {
        "model": "0", "max_tokens": 32000, "stream": True, "tools": [READ_TOOL],
        "tool_choice": "auto", "stream_options": {"include_usage": True},
        "messages": [SYSTEM, HELLO, {"role": "assistant", "content": "", "tool_calls": [CALL]},
                     {"role": "tool", "tool_call_id": "c1", "content": "1: a"}],
    }),
    Sent("Open WebUI, title", "open-webui/open-webui backend/open_webui/routers/tasks.py", DEMO,
         CHAT, {
        "model": "0", "messages": [HELLO], "stream": False, "max_completion_tokens": 1000,
        "metadata": {"task": "title_generation", "task_body": {"messages": [HELLO]},
                     "chat_id": None},
    }),
    Sent("aider", "Aider-AI/aider aider/models.py, through LiteLLM", DEMO, CHAT, {
        "model": "0", "messages": [SYSTEM, HELLO, {"role": "assistant", "content": "Ok."}, HELLO],
        "temperature": 0, "stream": True,
    }),
]  # fmt: skip

TOOLS_OF_AGENTS = [
    {"type": "function", "name": "shell", "description": "", "strict": False, "parameters": READ},
    {"type": "custom", "name": "apply_patch", "description": "",
     "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}},
    {"type": "web_search", "external_web_access": False},
    {"type": "local_shell"},
]  # fmt: skip
MESSAGE = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello!"}]}
CACHED = {"cache_control": {"type": "ephemeral"}}
BILLING = "x-anthropic-billing-header: cc_version=2.1.37.0d9; cc_entrypoint=cli; cch=fa690;"
ASKED = {"role": "user", "content": [{"type": "text", "text": "Hello!", **CACHED}]}

AGENTS = [
    Sent("Codex", "openai/codex codex-rs/codex-api/src/common.rs", DEMO, RESPONSES, {
        "model": "0", "instructions": "You are a coding agent.", "tools": TOOLS_OF_AGENTS,
        "tool_choice": "auto", "parallel_tool_calls": False, "store": False, "stream": True,
        "reasoning": {"effort": "medium", "summary": "auto"}, "text": {"verbosity": "medium"},
        "include": ["reasoning.encrypted_content"], "prompt_cache_key": "thread-1",
        "input": [
            {"type": "message", "role": "developer",
             "content": [{"type": "input_text", "text": "<permissions>"}]}, MESSAGE,
            {"type": "reasoning", "summary": [], "encrypted_content": "x", "content": None},
            {"type": "custom_tool_call", "status": "completed", "call_id": "c1",
             "name": "apply_patch", "input": "*** Begin Patch"},
            {"type": "custom_tool_call_output", "call_id": "c1", "output": "Success."},
            {"type": "web_search_call", "status": "completed",
             "action": {"type": "search", "query": "x"}}, MESSAGE],
    }),
    Sent("Claude Code", "ggml-org/llama.cpp#20623, anthropics/claude-code#63469", DEMO,
         f"{MESSAGES}?beta=true", {
        "model": "0", "max_tokens": 32000, "stream": True, "temperature": 1,
        "system": [{"type": "text", "text": BILLING},
                   {"type": "text", "text": "You help.", **CACHED}],
        "messages": [ASKED, {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "Hi."},
            {"type": "tool_use", "id": "t1", "name": "Read", "input": {"path": "a"}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", **CACHED,
                 "content": [{"type": "text", "text": "1: a"}]}]},
            {"role": "system", "content": "The file has changed."}, ASKED],
        "tools": [{"name": "Read", "description": "", "input_schema": {
            "type": "object", "propertyNames": {"type": "string"}, "additionalProperties": {}}}],
        "metadata": {"user_id": "user_0_account__session_0"}, "thinking": {"type": "adaptive"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "medium"},
    }),
]  # fmt: skip

WRITERS = [
    Sent("SillyTavern", "SillyTavern/SillyTavern public/scripts/textgen-settings.js", FAKE,
         "/completion", {
        "prompt": "Hello", "max_new_tokens": 150, "max_tokens": 150, "n_predict": 150,
        "num_predict": 150, "temperature": 0.7, "top_p": 0.5, "typical_p": 1, "typical": 1,
        "min_p": 0, "top_k": 40, "top_a": 0, "tfs": 1, "tfs_z": 1, "repetition_penalty": 1.2,
        "repeat_penalty": 1.2, "rep_pen": 1.2, "rep_pen_range": 0, "repeat_last_n": 0,
        "repetition_penalty_range": 0, "frequency_penalty": 0, "presence_penalty": 0,
        "min_tokens": 0, "add_bos_token": True, "ban_eos_token": False, "ignore_eos": False,
        "skip_special_tokens": True, "include_reasoning": True, "guidance_scale": 1,
        "smoothing_factor": 0, "dry_allowed_length": 2, "dry_multiplier": 0, "dry_base": 1.75,
        "dry_sequence_breakers": ["\n", ":", '"', "*"], "dry_penalty_last_n": 0, "nsigma": 0,
        "mirostat_mode": 0, "mirostat": 0, "mirostat_tau": 5, "mirostat_eta": 0.1,
        "custom_token_bans": "", "banned_strings": [], "xtc_threshold": 0.1, "xtc_probability": 0,
        "samplers": ["penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc",
                     "temperature", "adaptive_p"],
        "logit_bias": [], "grammar": "", "grammar_string": "", "cache_prompt": True,
        "stop": ["\nUser:"], "stopping_strings": ["\nUser:"], "stream": True,
    }),
]  # fmt: skip

ALL = [*AUTOCOMPLETE, *CHATS, *AGENTS, *WRITERS]
