"""Templates, tokenizers and engines together, on random models: what a worker makes of jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from jobs.contract.events import Event
from jobs.contract.grammars import Grammar, GrammarKind
from jobs.contract.requests import GenerateRequest, Message, Prompt, ToolUse
from jobs.contract.sampling import Sampling
from tests.helpers.driver import assert_whole, text, token_ids
from tests.helpers.loop_rig import LoopRig
from tests.world.catalog import IDIOMS
from tests.world.shapes import SHAPES, TOOLS, Shape
from tests.world.tiny_models import open_tiny
from workers.generation.preparation import logged_choices
from workers.generation.prompts import PromptEncoder

# Template, and tokenizer with engine.
CASES = [
    ("chatml_thoughts", "byte_level-mlx"),
    ("chatml_thoughts", "byte_level-llama-cpp"),
    ("xml_tools", "tekken-mlx"),
    ("inst_tools", "sentencepiece-mlx"),
    ("inst_tools", "sentencepiece-llama-cpp"),
    ("toolcall_list", "unigram-llama-cpp"),
    ("argument_items", "byte_level-mlx"),
]
TOOL: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "now",
            "description": "The time.",
            "parameters": {
                "type": "object",
                "properties": {"zone": {"enum": ["UTC", "CET"]}},
                "required": ["zone"],
                "additionalProperties": False,
            },
        },
    }
]
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "kind": {"enum": ["sun", "<think>"]}},
    "required": ["ok", "kind"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def rig(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LoopRig]:
    """A loop over the engine, both in one thread: MLX knows its streams by thread."""
    name, case = request.param
    folder = tmp_path_factory.mktemp("models")
    options = {"num_slots": 2, "context_length": 2048}
    with ThreadPoolExecutor(1) as thread:
        engine = thread.submit(open_tiny, folder, case, IDIOMS[name].source, **options).result()
        found = LoopRig(engine)
        found.publisher.start()
        running = thread.submit(found.loop.run)
        yield found
        assert not running.done(), "the loop has ended"
        found.loop.stop()
        running.result(20)
        found.publisher.stop(20)
        thread.submit(engine.close).result()


def to_prompt(shape: Shape, **fields: Any) -> Prompt:
    messages = msgspec.convert(shape.messages, list[Message])
    return Prompt(messages=messages, tools=shape.tools, **fields)


def ask(shape: Shape, max_tokens: int = 16, **fields: Any) -> GenerateRequest:
    sampling = Sampling(temperature=1.0, seed=3, ignore_eos="grammar" not in fields)
    return GenerateRequest(
        prompts=[to_prompt(shape)], sampling=sampling, max_tokens=max_tokens, **fields
    )


def run(rig: LoopRig, request: GenerateRequest) -> list[Event]:
    found = rig.wait_ended(rig.start(request))
    assert_whole(found)
    assert found[-1].error is None
    return found


def reason(events: list[Event]) -> str | None:
    return next((event.finish_reason for event in events if event.finish_reason), None)


@pytest.mark.parametrize("shape", ["turns", "system", "after_result", "non_ascii"])
def test_a_chat_is_answered_and_its_tokens_are_counted(rig: LoopRig, shape: str) -> None:
    chat = SHAPES[shape]
    if shape == "non_ascii" and rig.engine.tokenizer.vocab_size < 200:
        pytest.skip("this vocabulary has no such letters")
    found = run(rig, ask(chat))
    counted = len(PromptEncoder(rig.engine.tokenizer, None).encode(to_prompt(chat)))
    assert found[-1].usage.prompt_tokens == counted
    assert len(token_ids(found)) == found[-1].usage.completion_tokens == 16
    assert reason(found) == "length"


def test_the_text_of_the_events_is_that_of_the_tokens(rig: LoopRig) -> None:
    found = run(rig, ask(SHAPES["turns"], 40))
    said = b"".join(map(rig.engine.tokenizer.piece, token_ids(found)))
    assert text(found) == said.decode(errors="replace")


@pytest.mark.parametrize("choice", [True, False], ids=["required", "may"])
def test_a_tool_is_called_by_its_schema(rig: LoopRig, choice: bool) -> None:
    shape = Shape(SHAPES["tools"].messages, TOOL)
    request = ask(shape, 400, tool_use=ToolUse(is_required=choice, is_single=True))
    found = run(rig, request)
    if not choice and reason(found) == "length":  # the last call may be cut
        return
    made = called(found)
    assert made or not choice
    for name, arguments in made:
        assert name == "now"
        assert json.loads(arguments)["zone"] in ("UTC", "CET")
    assert reason(found) == ("tool_calls" if made else "stop")


def called(events: list[Event]) -> list[tuple[str, str]]:
    """Name and arguments of each call, put together."""
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for part in (part for event in events for part in event.tool_calls):
        names[part.index] = names.get(part.index, "") + part.name
        arguments[part.index] = arguments.get(part.index, "") + part.arguments
    return [(names[i], arguments[i]) for i in sorted(names)]


def schema_request(**fields: Any) -> GenerateRequest:
    grammar = Grammar(GrammarKind.JSON_SCHEMA, json.dumps(SCHEMA))
    return ask(SHAPES["turns"], 400, grammar=grammar, **fields)


def test_a_schema_is_kept_to(rig: LoopRig) -> None:
    found = run(rig, schema_request())
    said = json.loads(text(found))
    assert said["kind"] in ("sun", "<think>")
    assert said["ok"] in (True, False)


def test_thoughts_come_beside_the_answer(rig: LoopRig) -> None:
    found = run(rig, schema_request(is_reasoning_split=True, reasoning_budget=8))
    assert set(json.loads(text(found))) == {"ok", "kind"}


def test_a_cut_stream_goes_on_where_it_ended(rig: LoopRig) -> None:
    for request in (ask(SHAPES["turns"], 24), schema_request()):
        whole = run(rig, request)
        half = len(whole) // 2
        logged = logged_choices(whole[:half])
        rest = rig.wait_ended(rig.start(request, logged=logged))
        assert text(whole[:half]) + text(rest) == text(whole)
        assert token_ids(whole[:half]) + token_ids(rest) == token_ids(whole)


def test_a_message_goes_on(rig: LoopRig) -> None:
    shape = SHAPES["continued"]
    prompt = to_prompt(shape, is_continued=True)
    ids = PromptEncoder(rig.engine.tokenizer, None).encode(prompt)
    assert ids
    request = GenerateRequest(
        prompts=[prompt], sampling=Sampling(temperature=0.0, ignore_eos=True), max_tokens=4
    )
    assert run(rig, request)[-1].usage.prompt_tokens == len(ids)


def test_a_chat_with_tools_has_the_prompt_of_its_template(rig: LoopRig) -> None:
    shape = Shape(SHAPES["single"].messages, TOOLS)
    prompt = PromptEncoder(rig.engine.tokenizer, None).render(to_prompt(shape))
    assert "get_weather" in prompt
