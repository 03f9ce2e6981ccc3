"""Kinds of models that users of such servers report faults with, over HTTP.

The same models without HTTP: tests/architectures.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from scripts.modelfiles.architectures import write_architecture
from tests.architectures import mlx_reference
from tests.architectures.gguf_reference import vocabulary
from tests.helpers.server import Server, make_server

pytestmark = [pytest.mark.timeout(300), pytest.mark.real_engine]

CHAT = "/v1/chat/completions"
SYSTEM = {"role": "system", "content": "You are a helper. You answer in one short sentence."}
NUM_CHATS = 6


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    server = make_server()
    try:
        server.start_all()
        yield server
    finally:
        server.stop()


def use_gguf(server: Server, name: str) -> str:
    """Load a tiny file of this architecture; its model_id."""
    write_architecture(server.folder / "models" / f"{name}.gguf", name, vocabulary())
    server.load(f"{name}.gguf", name)
    return name


def use_mlx(server: Server, name: str) -> str:
    """Load a tiny folder of this architecture; its model_id."""
    (server.folder / "models" / f"mlx-{name}").symlink_to(mlx_reference.folder_of(name))
    server.load(f"mlx-{name}", f"mlx-{name}")
    return f"mlx-{name}"


def answered(server: Server, model: str, path: str, **body: Any) -> Any:
    answer = server.post(path, body, model)
    assert answer.status_code == 200, answer.text
    return answer.json()


def said(server: Server, model: str, prompt: str) -> str:
    body = {"prompt": prompt, "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    return str(answered(server, model, "/v1/completions", **body)["choices"][0]["text"])


@pytest.mark.parametrize("name", ["mamba", "lfm2"])
def test_chats_that_begin_alike_are_at_once_what_each_is_alone(running: Server, name: str) -> None:
    model = use_gguf(running, name)
    questions = [f"{'What about this? ' * n}How is {n}?" for n in range(NUM_CHATS)]
    start = threading.Barrier(NUM_CHATS)

    def ask(question: str, *, is_alone: bool) -> str:
        if not is_alone:
            start.wait()
        messages = [SYSTEM, {"role": "user", "content": question}]
        body = {"messages": messages, "temperature": 0, "max_tokens": 12, "ignore_eos": True}
        return str(answered(running, model, CHAT, **body)["choices"][0]["message"]["content"])

    with ThreadPoolExecutor(NUM_CHATS) as threads:
        for _ in range(2):  # the second time they begin in the prompt cache
            at_once = list(threads.map(lambda one: ask(one, is_alone=False), questions))
            assert at_once == [ask(one, is_alone=True) for one in questions]
    running.unload(model)


def test_a_chat_sent_to_an_encoder_is_refused_by_name_and_its_worker_lives(running: Server) -> None:
    model = use_gguf(running, "bert")
    worker = running.processes_by_id()[model]["process_id"]
    hello = [{"role": "user", "content": "Hello!"}]
    for path, body in (
        (CHAT, {"messages": hello}),
        (CHAT, {"messages": hello, "stream": True}),
        ("/v1/completions", {"prompt": "Hello!"}),
        ("/v1/responses", {"input": "Hello!"}),
        ("/v1/messages", {"messages": hello, "max_tokens": 4}),
        ("/completion", {"prompt": "Hello!"}),
    ):
        refused = running.post(path, body, model)
        assert refused.status_code == 400, path
        assert "is an encoder (bert)" in refused.json()["error"]["message"], path
    vectors = answered(running, model, "/v1/embeddings", input=["Hello!"])["data"]
    assert len(vectors) == 1
    assert running.processes_by_id()[model]["process_id"] == worker
    running.unload(model)


def test_lists_of_caches_serve_the_same_prompt_again_and_the_next_turn(running: Server) -> None:
    model = use_mlx(running, "deepseek_v32")
    first = said(running, model, "Once upon a time")
    assert said(running, model, "Once upon a time") == first
    assert said(running, model, f"Once upon a time{first} and then")
    running.unload(model)


def test_a_model_that_cannot_batch_answers_two_at_once_one_by_one(running: Server) -> None:
    model = use_mlx(running, "gpt_bigcode")
    prompts = ["Once upon a time", "def f(x):"]
    with ThreadPoolExecutor(2) as threads:
        at_once = list(threads.map(lambda prompt: said(running, model, prompt), prompts))
    assert at_once == [said(running, model, prompt) for prompt in prompts]
    running.unload(model)


def test_a_model_inside_a_wrapper_has_vectors(running: Server) -> None:
    model = use_mlx(running, "gemma3")
    found = answered(running, model, "/v1/embeddings", input=["Hello!"])["data"][0]["embedding"]
    assert abs(sum(value * value for value in found) - 1) < 1e-3
    running.unload(model)
