from __future__ import annotations

import pytest

from jobs.contract.errors import InvalidRequestError
from workers.text.templates.chat_formats import chat_format, known_chat_formats
from workers.text.templates.chat_template import ChatTemplate

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Bye"},
]
VICUNA = "A chat between a curious user and an artificial intelligence assistant. "
EXPECTED = {
    "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
    "<|im_start|>assistant\n",
    "gemma": "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n"
    "<start_of_turn>model\nHello!<end_of_turn>\n"
    "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n",
    "llama-2": "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello! </s>"
    "<s>[INST] Bye [/INST]",
    "llama-3": "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral-instruct": "<s>[INST] Be brief.\n\nHi [/INST] Hello!</s>[INST] Bye [/INST]",
    "phi-3": "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n"
    "<|assistant|>\nHello!<|end|>\n<|user|>\nBye<|end|>\n<|assistant|>\n",
    "vicuna": "<s>Be brief. USER: Hi ASSISTANT: Hello!</s> USER: Bye ASSISTANT:",
    "zephyr": "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n"
    "<|assistant|>\nHello!</s>\n<|user|>\nBye</s>\n<|assistant|>\n",
    "alpaca": "<s>Be brief.\n\n### Instruction:\nHi\n\n### Response:\nHello!</s>"
    "\n\n### Instruction:\nBye\n\n### Response:\n",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_conversation_has_the_published_form(name: str) -> None:
    assert ChatTemplate(chat_format(name), "<s>", "</s>").render(MESSAGES) == EXPECTED[name]


@pytest.mark.parametrize("name", known_chat_formats())
def test_every_format_takes_one_user_message_and_no_system(name: str) -> None:
    text = ChatTemplate(chat_format(name)).render([{"role": "user", "content": "Hi there"}])
    assert text.count("Hi there") == 1
    assert "Be brief." not in text


@pytest.mark.parametrize("name", known_chat_formats())
def test_without_a_generation_prompt_the_text_is_a_beginning_of_the_prompt(name: str) -> None:
    template = ChatTemplate(chat_format(name), "<s>", "</s>")
    history = template.render(MESSAGES, add_generation_prompt=False)
    assert template.render(MESSAGES).startswith(history)


def test_names_are_read_without_case_and_with_either_dash() -> None:
    assert chat_format(" Llama_3 ") == chat_format("llama3") == chat_format("llama-3")


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        chat_format("nonsense")
    assert caught.value.param == "chat_format"
    assert "'nonsense'" in caught.value.message
    assert "chatml" in caught.value.message
