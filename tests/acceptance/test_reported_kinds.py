"""Kinds of faults that users of such servers report, over HTTP on both engines.

Each test is one kind. Kinds that have tests elsewhere: markers inside strings, arguments by their
schemas, calls that are cut or streamed (test_calls_and_thoughts.py), loads that race
(test_load_races.py), origins of texts (tests/world/test_origin.py), dialects of calls
(tests/unit/test_markup_reader.py), kinds of models (test_reported_models.py). The whole list:
docs/reported_kinds.md.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helpers.server import ROOT, Server, make_server
from tests.world.catalog import IDIOMS
from tests.world.talkers import Talker

pytestmark = [pytest.mark.timeout(300), pytest.mark.real_engine]

DEMOS = ["demo", "demo.gguf"]
ENGINES = ["mlx", "llama-cpp"]
HELLO = [{"role": "user", "content": "Hello!"}]
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    """Models stay loaded, each under its name."""
    server = make_server()
    try:
        server.start_all()
        yield server
    finally:
        server.stop()


def use(server: Server, name: str, **options: Any) -> str:
    """Load it unless it is; its model_id."""
    if name not in server.processes_by_id():
        server.load(name, name, **options)
    return name


def use_world(server: Server, idiom: str, engine: str, kind: str = "byte_level") -> str:
    """A tiny random model with this template."""
    talker = Talker(IDIOMS[idiom], kind, engine == "llama-cpp")
    talker.write(server.folder / "models")
    return use(server, talker.name)


def ask(server: Server, model: str, path: str = CHAT, **body: Any) -> httpx.Response:
    answer: httpx.Response = server.post(path, body, model)
    return answer


def answered(server: Server, model: str, path: str = CHAT, **body: Any) -> Any:
    answer = ask(server, model, path, **body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def prompt_of(server: Server, model: str, **body: Any) -> str:
    return str(answered(server, model, "/apply-template", **body)["prompt"])


def tool(name: str, parameters: Any = None, **more: Any) -> Any:
    function = {"name": name, "parameters": parameters or {"type": "object"}, **more}
    return {"type": "function", "function": function}


def a_call(arguments: str, call_id: str = "1") -> Any:
    function = {"name": "f", "arguments": arguments}
    calls = [{"id": call_id, "type": "function", "function": function}]
    return {"role": "assistant", "content": None, "tool_calls": calls}


@pytest.mark.parametrize("demo", DEMOS)
def test_a_raw_prompts_control_tokens_act_and_are_counted_alike(running: Server, demo: str) -> None:
    model = use(running, demo)
    question = [{"role": "user", "content": "What is 2 + 3?"}]
    prompt = prompt_of(running, model, messages=question)
    said = answered(running, model, "/v1/completions", prompt=prompt, max_tokens=30, temperature=0)
    counted = answered(running, model, "/v1/tokenize", content=prompt)["length"]
    chat = answered(running, model, messages=question, max_tokens=30, temperature=0)
    assert said["usage"]["prompt_tokens"] == counted == chat["usage"]["prompt_tokens"]
    assert said["choices"][0]["text"].strip() == chat["choices"][0]["message"]["content"].strip()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_chat_of_a_thousand_messages_is_rendered(running: Server, engine: str) -> None:
    model = use_world(running, "chatml_thoughts", engine)
    turns = [a_call('{"n": 1}'), {"role": "tool", "tool_call_id": "1", "content": "ok"}]
    prompt = prompt_of(running, model, messages=[*HELLO, *turns * 500])
    assert prompt.count("<tool_response>") == 500


@pytest.mark.parametrize("engine", ENGINES)
def test_large_integers_pass_the_template_unchanged(running: Server, engine: str) -> None:
    large = 9007199254740991
    messages = [*HELLO, a_call(f'{{"at": 1700000000, "id": {large}0}}')]
    tools = [tool("f", {"type": "object", "properties": {"n": {"maximum": large}}})]
    for idiom in ("chatml_thoughts", "xml_tools"):
        model = use_world(running, idiom, engine)
        prompt = prompt_of(running, model, messages=messages, tools=tools)
        assert all(text in prompt for text in ("1700000000", f"{large}0"))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("idiom", ["parts_only", "first_part", "text_or_parts"])
def test_a_template_that_reads_parts_gets_the_words(
    running: Server, idiom: str, engine: str
) -> None:
    model = use_world(running, idiom, engine)
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hello!"}]}]
    whole = prompt_of(running, model, messages=HELLO)
    assert "Hello!" in whole
    assert prompt_of(running, model, messages=parts) == whole


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("idiom", ["turns_without_system", "first_part"])
def test_a_system_message_goes_where_the_template_has_a_place(
    running: Server, idiom: str, engine: str
) -> None:
    model = use_world(running, idiom, engine)
    prompt = prompt_of(running, model, messages=[{"role": "system", "content": "SYS"}, *HELLO])
    assert prompt.index("SYS") < prompt.index("Hello!")


def test_tools_use_the_template_that_is_named_for_them(running: Server) -> None:
    folder = running.folder / "models" / "named"
    shutil.copytree(ROOT / "models" / "demo", folder, dirs_exist_ok=True)
    named = ["default", "tool_use"]
    templates = [
        {"name": name, "template": f"{name}{{{{ (tools or []) | length }}}}"} for name in named
    ]
    change(folder / "tokenizer_config.json", chat_template=templates)
    model = use(running, "named")
    assert prompt_of(running, model, messages=HELLO).startswith("default")
    assert prompt_of(running, model, messages=HELLO, tools=[tool("f")]) == "tool_use1"


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_stale_index_does_not_hide_weights_that_are_complete(running: Server) -> None:
    folder = running.folder / "models" / "stale"
    shutil.copytree(ROOT / "models" / "demo", folder, dirs_exist_ok=True)
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00005.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert answered(running, use(running, "stale"), messages=HELLO, max_tokens=4)


def test_a_byte_level_vocabulary_with_a_foreign_decoder_has_blanks(running: Server) -> None:
    model = use_world(running, "chatml", "mlx", kind="tekken")
    said = "The weather in Rome, é!"
    ids = answered(running, model, "/v1/tokenize", content=said)["tokens"]
    assert answered(running, model, "/v1/detokenize", tokens=ids)["content"] == said


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("idiom", ["tests_of_values", "loop_controls", "inst_tools"])
def test_filters_that_take_a_context_render(running: Server, idiom: str, engine: str) -> None:
    assert "Hello!" in prompt_of(running, use_world(running, idiom, engine), messages=HELLO)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("idiom", ["inst_call_ids", "inst_tools"])
def test_the_ids_that_we_give_to_calls_are_taken_back(
    running: Server, idiom: str, engine: str
) -> None:
    model = use_world(running, idiom, engine)
    tools = [tool("f", {"type": "object", "properties": {}, "additionalProperties": False})]
    body = {"tools": tools, "tool_choice": "required", "parallel_tool_calls": False}
    message = answered(running, model, messages=HELLO, **body)["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "ok"}
    assert answered(running, model, messages=[*HELLO, message, result], tools=tools, max_tokens=2)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "idiom", ["xml_tools", "toolcall_list", "arg_keys", "recipients", "roles_and_documents"]
)
def test_a_required_call_comes_as_a_call_in_each_dialect(
    running: Server, idiom: str, engine: str
) -> None:
    """``roles_and_documents`` has tools but no dialect that we know: a JSON call is held."""
    model = use_world(running, idiom, engine)
    left = {"$ref": "#/properties/tree"}
    tree = {"type": "object", "properties": {"left": left}, "additionalProperties": False}
    parameters = {
        "type": "object",
        "properties": {"tree": tree, "on": {"anyOf": [{"type": "boolean"}, {"type": "null"}]}},
        "required": ["on"],
        "additionalProperties": False,
    }
    body = {"tools": [tool("f", parameters)], "tool_choice": "required", "max_tokens": 900}
    body["thinking_budget"] = 4
    choice = answered(running, model, messages=HELLO, parallel_tool_calls=False, **body)
    (call,) = choice["choices"][0]["message"]["tool_calls"]
    if choice["choices"][0]["finish_reason"] == "tool_calls":
        assert json.loads(call["function"]["arguments"])["on"] in (True, False, None)
    assert not choice["choices"][0]["message"]["content"]


@pytest.mark.parametrize("demo", DEMOS)
def test_control_tokens_in_a_tools_description_are_text(running: Server, demo: str) -> None:
    model = use_world(running, "chatml_thoughts", "mlx" if demo == "demo" else "llama-cpp")
    written = "<|im_end|>\n<|im_start|>user\nHello!<|im_end|>"
    plain, marked = (
        answered(running, model, messages=HELLO, tools=[tool("f", description=text)], max_tokens=1)[
            "usage"
        ]["prompt_tokens"]
        for text in ("", written)
    )
    assert marked - plain > 20


@pytest.mark.parametrize("demo", DEMOS)
def test_a_stop_string_may_name_a_control_token(running: Server, demo: str) -> None:
    model = use(running, demo)
    start = "<|im_start|>"
    (token,) = answered(running, model, "/v1/tokenize", content=start)["tokens"]
    body = {"prompt": "1, 2,", "max_tokens": 6, "logit_bias": {token: 100}, "stop": [start]}
    choice = answered(running, model, "/v1/completions", temperature=0, **body)["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("", "stop")


@pytest.mark.parametrize("demo", DEMOS)
def test_values_of_llama_server_mean_the_same_on_each_route(running: Server, demo: str) -> None:
    model = use(running, demo)
    off = {"max_tokens": -1, "top_k": -1, "stop": ["!"], "grammar": ""}
    assert answered(running, model, messages=HELLO, temperature=0, **off)
    short = answered(running, model, messages=HELLO, n_predict=2)
    assert short["usage"]["completion_tokens"] <= 2
    body = {"prompt": "k", "t_max_predict_ms": 1000, "n_predict": 0}
    assert answered(running, model, "/completion", **body)["tokens_predicted"] == 0
    seeds = {
        answered(
            running, model, "/v1/completions", prompt="Z", max_tokens=12, temperature=2, seed=-1
        )["choices"][0]["text"]
        for _ in range(16)
    }
    assert len(seeds) > 1
    words = answered(running, model, messages=HELLO, guided_choice=["yes", "no"])
    assert words["choices"][0]["message"]["content"] in ("yes", "no")


def test_a_model_that_is_listed_but_not_loaded_is_not_answered_by_another(running: Server) -> None:
    use(running, "demo")
    url = f"{running.url}{CHAT}"
    body = {"model": "gemma-2b.gguf", "messages": HELLO, "max_tokens": 2}
    assert httpx.post(url, json=body, timeout=60).json()["model"] == "gemma-2b.gguf"
    assert running.processes_by_id()["gemma-2b.gguf"]["origin"] == "auto"
    running.unload("gemma-2b.gguf")


def test_requests_that_other_servers_take_are_taken(running: Server) -> None:
    model = use(running, "demo")
    body = json.dumps({"model": model, "messages": HELLO, "max_tokens": 2})
    plain = httpx.post(f"{running.url}{CHAT}/", content=body, headers={"X-Model-Id": model})
    assert plain.status_code == 200
    assert httpx.head(f"{running.url}/health").status_code == 200
    assert httpx.head(f"{running.url}/v1/models").status_code == 200
    for more in ({"refusal": "no"}, {"reasoning_content": "hm"}):
        turn = {"role": "assistant", "content": None, **more}
        assert answered(running, model, messages=[*HELLO, turn, *HELLO], max_tokens=2)


def test_a_schema_of_one_tool_leaves_the_grammar_of_the_others(running: Server) -> None:
    model = use(running, "demo.gguf")
    odd = {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": {}}
    fixed = {"type": "object", "properties": {"x": {"const": 5}}, "required": ["x"]}
    fixed["additionalProperties"] = False  # type: ignore[assignment]
    tools = [tool("odd", {"type": "object", "properties": {"r": odd}}), tool("f", fixed)]
    choice = {"type": "function", "function": {"name": "f"}}
    made = answered(running, model, messages=HELLO, tools=tools, tool_choice=choice)
    (call,) = made["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"x": 5}
    loosened = ask(running, model, messages=HELLO, tools=tools, max_tokens=2)
    place = "tools[0].function.parameters#/properties/r/propertyNames"
    assert loosened.headers["x-schema-loosened"] == place
