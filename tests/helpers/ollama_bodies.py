"""What programs send to ollama's routes by default, each with where it is known from.

As in ``editors.py``: texts are shortened; the fields and their values are the programs' own.
"""

from __future__ import annotations

from tests.helpers.editors import DEMO, FAKE, HELLO, READ_TOOL, SYSTEM, Sent

API_CHAT, API_GENERATE = "/api/chat", "/api/generate"
CALLED = {"function": {"name": "read", "arguments": {"path": "a"}}}
TURN_ON = {
    "type": "function",
    "function": {
        "name": "HassTurnOn",
        "description": "Turns on a device",
        "parameters": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "domain": {"type": "array", "items": {"type": "string"}},
            },
            "required": [],
        },
    },
}
WEB_UI = "open-webui/open-webui backend/open_webui/routers/ollama.py, utils/payload.py"
CONTINUE = "continuedev/continue core/llm/llms/Ollama.ts"
LANGCHAIN = "langchain-ai/langchain libs/partners/ollama/langchain_ollama/chat_models.py"

ALL = [
    Sent("ollama run, load", "ollama/ollama cmd/cmd.go", DEMO, API_GENERATE, {
        "model": DEMO, "prompt": "", "suffix": "", "system": "", "template": "", "options": None,
    }),
    Sent("ollama run", "ollama/ollama cmd/cmd.go", DEMO, API_CHAT, {
        "model": DEMO, "messages": [HELLO], "format": "", "options": {},
    }),
    Sent("Open WebUI", WEB_UI, DEMO, API_CHAT, {
        "model": DEMO, "messages": [SYSTEM, HELLO], "stream": True,
        "options": {"temperature": 0.8, "num_ctx": 2048, "stop": ["</s>"], "repeat_last_n": 64,
                    "mirostat": 0, "tfs_z": 1.0, "num_keep": 24, "use_mmap": True},
    }),
    Sent("Open WebUI, title", WEB_UI, DEMO, API_CHAT, {
        "model": DEMO, "messages": [HELLO], "stream": False, "options": {"num_predict": 1000},
    }),
    Sent("Home Assistant", "home-assistant/core homeassistant/components/ollama/entity.py", DEMO,
         API_CHAT, {
        "model": DEMO, "stream": True, "tools": [TURN_ON], "options": {"num_ctx": 8192.0},
        "keep_alive": "-1s", "think": False,
        "messages": [SYSTEM, HELLO, {"role": "assistant", "content": "", "tool_calls": [CALLED]},
                     {"role": "tool", "content": '{"success": true}'}, HELLO],
    }),
    Sent("Continue", CONTINUE, DEMO, API_CHAT, {
        "model": DEMO, "messages": [HELLO], "stream": True, "keep_alive": 1800,
        "options": {"num_predict": 1024, "num_ctx": 8192, "temperature": 0.2, "stop": None},
    }),
    Sent("Continue, autocomplete", CONTINUE, FAKE, API_GENERATE, {
        "model": FAKE, "prompt": "def f(", "suffix": "): pass", "raw": False, "stream": True,
        "keep_alive": 1800,
        "options": {"num_predict": 256, "temperature": 0.01, "stop": ["\n\n", "```"]},
    }),
    Sent("Zed", "zed-industries/zed crates/ollama/src/ollama.rs", DEMO, API_CHAT, {
        "model": DEMO, "stream": True, "keep_alive": -1, "tools": [READ_TOOL], "think": None,
        "options": {"num_ctx": 2048, "stop": [], "temperature": 1.0},
        "messages": [SYSTEM, {**HELLO, "images": None},
                     {"role": "assistant", "content": "", "images": None, "thinking": None,
                      "tool_calls": [{"id": "c1", **CALLED}]},
                     {"role": "tool", "tool_name": "read", "content": "1"}],
    }),
    Sent("LangChain", LANGCHAIN, DEMO, API_CHAT, {
        "model": DEMO, "stream": True, "format": "", "options": {}, "keep_alive": None, "tools": [],
        "think": None,
        "messages": [{**HELLO, "images": []},
                     {"role": "assistant", "content": "", "images": [], "tool_calls": [
                         {"type": "function", "id": "c1", **CALLED}]},
                     {"role": "tool", "tool_call_id": "c1", "content": "1", "images": []}],
    }),
    Sent("LiteLLM", "BerriAI/litellm litellm/llms/ollama/completion/transformation.py", DEMO,
         API_GENERATE, {
        "model": DEMO, "prompt": "### User:\nHello!\n\n", "options": {"num_predict": 64},
        "stream": False, "images": [],
    }),
    Sent("twinny", "twinnydotdev/twinny src/extension/provider-options.ts", DEMO, API_GENERATE, {
        "model": DEMO, "prompt": "Hello!", "stream": True, "keep_alive": "5m",
        "options": {"temperature": 0.2, "num_predict": 512},
    }),
]  # fmt: skip
