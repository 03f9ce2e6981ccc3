"""Chat templates by name, for models that come with none or a wrong one.

They follow the formats that the model makers publish. Each format has its place for system
messages: a turn of their own, or the beginning of the first user turn.
"""

from __future__ import annotations

from jobs.contract.errors import InvalidRequestError

CHATML = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""

# Formats without a system role begin with this; it sets ``system`` to the system text.
_SPLIT_SYSTEM = """\
{%- set first = messages[0] if messages else {"role": "user", "content": ""} -%}
{%- set system = first.content if first.role == "system" else "" -%}
{%- set turns = messages[1:] if first.role == "system" else messages -%}
"""

_GEMMA = (
    _SPLIT_SYSTEM
    + """\
{{- bos_token -}}
{%- for message in turns -%}
<start_of_turn>{{ "model" if message.role == "assistant" else message.role }}
{% if loop.first and system %}{{ system }}

{% endif %}
{{- message.content | trim }}<end_of_turn>
{% endfor -%}
{%- if add_generation_prompt -%}
<start_of_turn>model
{% endif -%}
"""
)

_LLAMA_2 = (
    _SPLIT_SYSTEM
    + """\
{%- for message in turns -%}
{%- if message.role == "assistant" -%}
{{- " " ~ (message.content | trim) ~ " " ~ eos_token -}}
{%- else -%}
{{- bos_token ~ "[INST] " -}}
{%- if loop.first and system -%}
{{- "<<SYS>>\n" ~ system ~ "\n<</SYS>>\n\n" -}}
{%- endif -%}
{{- (message.content | trim) ~ " [/INST]" -}}
{%- endif -%}
{%- endfor -%}
"""
)

_LLAMA_3 = """\
{{- bos_token -}}
{%- for message in messages -%}
{{- "<|start_header_id|>" ~ message.role ~ "<|end_header_id|>\n\n" -}}
{{- (message.content | trim) ~ "<|eot_id|>" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- "<|start_header_id|>assistant<|end_header_id|>\n\n" -}}
{%- endif -%}
"""

_MISTRAL_INSTRUCT = (
    _SPLIT_SYSTEM
    + """\
{{- bos_token -}}
{%- for message in turns -%}
{%- if message.role == "assistant" -%}
{{- " " ~ (message.content | trim) ~ eos_token -}}
{%- else -%}
{{- "[INST] " ~ (system ~ "\n\n" if loop.first and system else "") -}}
{{- message.content ~ " [/INST]" -}}
{%- endif -%}
{%- endfor -%}
"""
)

_ZEPHYR = """\
{%- for message in messages -%}
{{- "<|" ~ message.role ~ "|>\n" ~ message.content ~ eos_token ~ "\n" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "<|assistant|>\n" -}}{%- endif -%}
"""

_PHI_3 = """\
{%- for message in messages -%}
{{- "<|" ~ message.role ~ "|>\n" ~ message.content ~ "<|end|>\n" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "<|assistant|>\n" -}}{%- endif -%}
"""

_VICUNA = (
    _SPLIT_SYSTEM
    + """\
{{- bos_token -}}
{{- system or "A chat between a curious user and an artificial intelligence assistant. The \
assistant gives helpful, detailed, and polite answers to the user's questions." -}}
{%- for message in turns -%}
{%- if message.role == "assistant" -%}
{{- " ASSISTANT: " ~ message.content ~ eos_token -}}
{%- else -%}
{{- " USER: " ~ message.content -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- " ASSISTANT:" -}}{%- endif -%}
"""
)

_ALPACA = (
    _SPLIT_SYSTEM
    + """\
{{- bos_token -}}
{{- system or "Below is an instruction that describes a task. Write a response that \
appropriately completes the request." -}}
{%- for message in turns -%}
{%- if message.role == "assistant" -%}
{{- "\n\n### Response:\n" ~ message.content ~ eos_token -}}
{%- else -%}
{{- "\n\n### Instruction:\n" ~ message.content -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "\n\n### Response:\n" -}}{%- endif -%}
"""
)

_FORMATS = {
    "alpaca": _ALPACA,
    "chatml": CHATML,
    "gemma": _GEMMA,
    "llama-2": _LLAMA_2,
    "llama-3": _LLAMA_3,
    "mistral-instruct": _MISTRAL_INSTRUCT,
    "phi-3": _PHI_3,
    "vicuna": _VICUNA,
    "zephyr": _ZEPHYR,
}

_ALIASES = {
    "gemma-2": "gemma",
    "gemma-3": "gemma",
    "gemma2": "gemma",
    "gemma3": "gemma",
    "llama2": "llama-2",
    "llama-3.1": "llama-3",
    "llama-3.2": "llama-3",
    "llama3": "llama-3",
    "mistral": "mistral-instruct",
    "mixtral": "mistral-instruct",
    "phi3": "phi-3",
    "qwen": "chatml",
}


def known_chat_formats() -> list[str]:
    """All names that ``chat_format`` accepts."""
    return sorted({*_FORMATS, *_ALIASES})


def chat_format(name: str) -> str:
    """The Jinja source of the format ``name``; raises ``InvalidRequestError`` if unknown."""
    key = name.strip().lower().replace("_", "-")
    source = _FORMATS.get(_ALIASES.get(key, key))
    if source is None:
        known = ", ".join(known_chat_formats())
        message = f"chat_format: {name!r} is unknown; known formats: {known}"
        raise InvalidRequestError(message, "chat_format")
    return source
