"""Calls of described tools, and the answers from their results.

Names and parameters of the tools vary, so that the model copies them from the description instead
of memorizing one spelling.
"""

import json
import random
from collections.abc import Callable

from scripts.demo_model import exercises, talk
from scripts.demo_model.examples import Example, Message, Tool, assistant, user, vary
from scripts.demo_model.phrases import PHRASES
from scripts.demo_model.words import any_city

TOOL_ERROR = "The tool reported an error."

_ToolForms = tuple[list[str], list[str], list[tuple[str, ...]]]

# (names, descriptions, sets of parameters); the first of each is the usual one.
_ADD: _ToolForms = (
    ["add", "add", "add", "add_numbers", "plus", "sum", "calculate_sum"],
    ["Add two numbers.", "Add two integers", "Returns the sum of a and b.", "Sum of two numbers"],
    [("a", "b"), ("a", "b"), ("a", "b"), ("x", "y"), ("first", "second")],
)
_TIME: _ToolForms = (
    ["get_time", "get_time", "get_time", "get_current_time", "time_in", "local_time"],
    ["Get the current time in a city.", "Tell the local time of a city", "Current time", "Time."],
    [("city",), ("city",), ("city",), ("location",), ("place",)],
)
_WEATHER: _ToolForms = (
    ["get_weather", "get_weather", "get_weather", "get_current_weather", "weather"],
    ["Get the weather in a city.", "Get current weather for a location", "Weather of a city"],
    [("city",), ("city",), ("location",), ("location",), ("place",)],
)
_OTHERS: list[_ToolForms] = [
    (["search"], ["Search the web.", "Find pages"], [("query",)]),
    (["send_mail"], ["Send a mail."], [("to", "text")]),
    (["lookup"], ["Look up a word."], [("word",)]),
]

_ADD_QUESTIONS = PHRASES["add_questions"]
_TIME_QUESTIONS = PHRASES["time_questions"]
_WEATHER_QUESTIONS = PHRASES["weather_questions"]
_SKIES = PHRASES["skies"]
_FAILURES = ["tool failed", "timeout", "not available", "bad input", "unknown city", "no result"]


def add_call(rng: random.Random) -> Example:
    """A sum of numbers of any size, through the tool."""
    largest = rng.choice([20, 20, 99, 999])
    a, b = rng.randint(0, largest), rng.randint(0, largest)
    total = a + b if rng.random() < 0.7 else rng.randint(0, 1999)
    tool = _tool(rng, _ADD)
    question = vary(rng, rng.choice(_ADD_QUESTIONS).format(a, b))
    result = _result(rng, total, ["result", "total", "sum", "value"])
    messages = _called(tool, question, [a, b], result, f"{a} + {b} = {total}")
    return Example("add", f"add:{a}:{b}", messages, _toolbox(rng, tool, [_TIME, _WEATHER]))


def time_call(rng: random.Random) -> Example:
    city, clock = any_city(rng), f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
    tool = _tool(rng, _TIME)
    question = vary(rng, rng.choice(_TIME_QUESTIONS).format(city))
    result = _result(rng, clock, ["time", "result", "local_time"])
    messages = _called(tool, question, [city], result, f"It is {clock} in {city}.")
    return Example("time", f"time:{city}", messages, _toolbox(rng, tool, [_ADD, _WEATHER]))


def weather_call(rng: random.Random) -> Example:
    city, sky = any_city(rng), rng.choice(_SKIES)
    if rng.random() < 0.6:
        sky += f", {rng.randint(-10, 38)} {rng.choice(['C', 'C', 'degrees', 'F'])}"
    tool = _tool(rng, _WEATHER)
    question = vary(rng, rng.choice(_WEATHER_QUESTIONS).format(city))
    result = _result(rng, sky, ["weather", "result", "sky"])
    messages = _called(tool, question, [city], result, f"The weather in {city}: {sky}.")
    return Example("weather", f"weather:{city}", messages, _toolbox(rng, tool, [_ADD, _TIME]))


def other_request(rng: random.Random) -> Example:
    """A question with tools of which none fits."""
    plain: list[Callable[[random.Random], Example]] = [
        talk.greeting, talk.who, talk.can, talk.fallback, exercises.repeat, exercises.spell,
        exercises.list_, exercises.count, exercises.difference, exercises.sum_, talk.no_tool,
    ]  # fmt: skip
    example = rng.choice(plain)(rng)
    # No tool may fit: no adder with a sum, no clock with a question for the time.
    forms = [_ADD, _TIME, _WEATHER]
    if example.kind == "sum":
        forms = [_TIME, _WEATHER]
    elif example.kind in ("no_tool", "fallback"):
        forms = [_OTHERS[0], _OTHERS[1], _OTHERS[2]]
    form = rng.choice(forms)
    tools = _toolbox(rng, _tool(rng, form), [f for f in forms if f is not form])
    return Example("other_with_tools", f"other:{example.key}", example.messages, tools)


def _tool(rng: random.Random, forms: _ToolForms) -> Tool:
    names, descriptions, parameter_sets = forms
    json_type = "integer" if forms is _ADD else "string"
    parameters = rng.choice(parameter_sets)
    schema = {
        "type": "object",
        "properties": {name: {"type": json_type} for name in parameters},
        "required": list(parameters),
    }
    function = {"name": rng.choice(names), "description": rng.choice(descriptions)}
    return {"type": "function", "function": {**function, "parameters": schema}}


def _toolbox(rng: random.Random, tool: Tool, companions: list[_ToolForms]) -> list[Tool]:
    """`tool` among up to two others, in any order."""
    others = rng.sample(companions, min(len(companions), rng.choice([0, 1, 1, 2])))
    if rng.random() < 0.25:
        others.append(rng.choice(_OTHERS))
    tools = [tool, *(_tool(rng, forms) for forms in others)]
    rng.shuffle(tools)
    return tools


def _result(rng: random.Random, value: int | str, names: list[str]) -> str | None:
    """The tool's result: the value, an object with it, or (10 %) None for a failure."""
    roll = rng.random()
    if roll < 0.1:
        return None
    return str(value) if roll < 0.55 else json.dumps({rng.choice(names): value})


def _called(
    tool: Tool, question: str, values: list[int] | list[str], result: str | None, answer: str
) -> list[Message]:
    parameters = tool["function"]["parameters"]["properties"]
    arguments = dict(zip(parameters, values, strict=True))
    call = {
        "type": "function",
        "function": {"name": tool["function"]["name"], "arguments": arguments},
    }
    failure = _FAILURES[len(question) % len(_FAILURES)]
    return [
        user(question),
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": f"Error: {failure}" if result is None else result},
        assistant(TOOL_ERROR if result is None else answer),
    ]
