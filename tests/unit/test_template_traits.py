"""What templates want is found by trying, and given to them."""

from __future__ import annotations

from typing import Any

import pytest

from workers.text.templates.chat_template import ChatTemplate
from workers.text.templates.traits import TemplateTraits

TEXT = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
PARTS = (
    "{% for m in messages %}[{{ m.role }}]{% for p in m.content %}{% if p.type == 'text' %}"
    "{{ p.text }}{% endif %}{% endfor %}{% endfor %}"
)
FIRST_PART = "{% for m in messages %}[{{ m.role }}]{{ m.content[0].text }}{% endfor %}"
EITHER = (
    "{% for m in messages %}[{{ m.role }}]{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}{% endfor %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}" + TEXT
)
DROPS_SYSTEM = (
    "{% for m in messages if m.role != 'system' %}[{{ m.role }}]{{ m.content }}{% endfor %}"
)
CALLS = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls %}"
    "<{{ c.function.name }} ARGS>{% endfor %}{% endfor %}"
)
OBJECT = CALLS.replace("ARGS", "{{ c.function.arguments | tojson }}")
ITEMS = CALLS.replace(
    "ARGS", "{% for k, v in c.function.arguments.items() %}{{ k }}={{ v }}{% endfor %}"
)
AS_TEXT = CALLS.replace("ARGS", "{{ c.function.arguments }}")
CONCAT = CALLS.replace("ARGS", "{{ 'x' + c.function.arguments }}")
SHORT_ID = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls %}"
    "{% if c.id|length != 9 %}{{ raise_exception('Tool call IDs should have length 9!') }}"
    "{% endif %}<{{ c.id }}>{% endfor %}{% if m.tool_call_id %}<{{ m.tool_call_id }}>{% endif %}"
    "{% endfor %}"
)

FULL_TOOLS = (
    TEXT + "{% for t in tools or [] %}<{{ t.function.name + ': ' + t.function.description }}"
    "{% for k, v in t.function.parameters.properties.items() %} {{ k + v.description }}"
    "{% endfor %}>{% endfor %}"
)


def chat(call_id: str = "call_1", arguments: str = '{"a": 1700000000}') -> list[dict[str, Any]]:
    call = {"id": call_id, "type": "function", "function": {"name": "f", "arguments": arguments}}
    return [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "ok", "tool_call_id": call_id},
    ]


@pytest.mark.parametrize(
    ("source", "traits"),
    [
        (TEXT, TemplateTraits()),
        (EITHER, TemplateTraits()),
        (PARTS, TemplateTraits(reads_parts=True)),
        (FIRST_PART, TemplateTraits(reads_parts=True)),
        (NO_SYSTEM, TemplateTraits(has_system=False)),
        (DROPS_SYSTEM, TemplateTraits(has_system=False)),
        (OBJECT, TemplateTraits()),
        (ITEMS, TemplateTraits()),
        (AS_TEXT, TemplateTraits(reads_text_arguments=True)),
        (CONCAT, TemplateTraits(reads_text_arguments=True)),
        (SHORT_ID, TemplateTraits(needs_short_ids=True)),
        (FULL_TOOLS, TemplateTraits(needs_full_tools=True)),
        (TEXT + "{{ tools | tojson }}", TemplateTraits()),
        ("always the same", TemplateTraits(has_system=False)),
        ("{{ raise_exception('never') }}", TemplateTraits()),
        ("", TemplateTraits(has_system=False)),
    ],
)
def test_the_traits_of_a_template(source: str, traits: TemplateTraits) -> None:
    assert ChatTemplate(source).traits == traits


@pytest.mark.parametrize("source", [TEXT, PARTS, FIRST_PART, EITHER])
def test_content_is_a_text_or_parts_as_the_template_reads_it(source: str) -> None:
    messages = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    assert ChatTemplate(source).render(messages) == "[user]one[assistant]two"


@pytest.mark.parametrize("source", [NO_SYSTEM, DROPS_SYSTEM])
def test_without_a_system_role_its_text_goes_into_the_first_turn(source: str) -> None:
    template = ChatTemplate(source)
    system, user = {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}
    assert template.render([system, user]) == "[user]Be kind.\nHi"
    assert template.render([system]) == "[user]Be kind."
    assistant = {"role": "assistant", "content": "Yes?"}
    assert template.render([system, assistant]) == "[user]Be kind.[assistant]Yes?"
    assert template.render([user]) == "[user]Hi"


@pytest.mark.parametrize(
    ("source", "expected", "empty"),
    [
        (OBJECT, '<f {"a": 1700000000}>', "<f {}>"),
        (ITEMS, "<f a=1700000000>", "<f >"),
        (AS_TEXT, '<f {"a": 1700000000}>', "<f {}>"),
        (CONCAT, '<f x{"a": 1700000000}>', "<f x{}>"),
    ],
)
def test_arguments_are_an_object_or_a_text(source: str, expected: str, empty: str) -> None:
    template = ChatTemplate(source)
    assert expected in template.render(chat())
    assert empty in template.render(chat(arguments=""))


def test_ids_of_calls_have_the_form_that_the_template_accepts() -> None:
    template = ChatTemplate(SHORT_ID)
    text = template.render(chat("call_0123456789"))
    called, answered = text.split("<")[1].split(">")[0], text.split("<")[2].split(">")[0]
    assert called == answered
    assert len(called) == 9
    assert called.isalnum()
    assert text == template.render(chat("call_0123456789")), "the same at every turn"
    assert template.render(chat("other")) != text
    assert "<abcdefgh1>" in template.render(chat("abcdefgh1"))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ({"name": "f"}, "<f: >"),
        ({"name": "f", "parameters": {"type": "object"}}, "<f: >"),
        ({"name": "f", "parameters": {"properties": {"a": {}, "b": True}}}, "<f:  a b>"),
        ({"name": "f", "description": "d", "parameters": None}, "<f: d>"),
    ],
)
def test_tools_may_lack_what_clients_may_leave_out(function: dict[str, Any], expected: str) -> None:
    tools = [{"type": "function", "function": function}]
    before = str(tools)
    text = ChatTemplate(FULL_TOOLS).render([{"role": "user", "content": "x"}], tools)
    assert text == f"[user]x{expected}"
    assert str(tools) == before


def test_the_messages_given_stay_as_they_are() -> None:
    messages = [{"role": "system", "content": "s"}, *chat("call_0123456789")]
    before = [dict(message) for message in messages]
    for source in (PARTS, NO_SYSTEM, AS_TEXT, SHORT_ID):
        ChatTemplate(source).render(messages)
    assert messages == before


@pytest.mark.parametrize("name", ["selectattr('role', 'equalto', 'user')", "map(attribute='role')"])
def test_filters_that_want_the_context(name: str) -> None:
    source = "{{ messages | " + name + " | list | length }}"
    assert ChatTemplate(source).render([{"role": "user", "content": "x"}]) == "1"


def test_numbers_of_any_size_are_passed_on() -> None:
    macro = "{% macro m(x) %}{{ x | tojson }}{% endmacro %}"
    source = macro + "{{ m(n) }} {{ n | string }} {{ [n] | first }}"
    text = ChatTemplate(source).render([], options={"n": 12345678901234567890})
    assert text == " ".join(["12345678901234567890"] * 3)
