"""Hostile templates: each ends with a refusal, soon and small."""

from __future__ import annotations

import pytest

from jobs.contract.errors import InvalidRequestError, ModelLoadError
from workers.text.templates import chat_template
from workers.text.templates.chat_template import ChatTemplate

MESSAGES = [{"role": "user", "content": "Hi"}]
GROW = "{% set ns = namespace(x='aaaa') %}{% for i in range(60) %}"
ENDLESS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "literals": "{% for a in '0123456789' %}" * 15 + "{% endfor %}" * 15,
    "macro": "{% macro f(n) %}{% if n %}{{ f(n-1) ~ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
}
HUGE = {
    "concat": GROW + "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "plus": GROW + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "list": GROW + "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "times": "{{ 'a' * 10000000000 }}",
    "reversed times": "{{ 10000000000 * 'a' }}",
    "list times": "{{ (['a' * 4000000] * 4000000) | tojson }}",
    "join": "{{ (['a' * 4000000] * 4000000) | join }}",
    "separator": "{{ range(100000) | list | join('a' * 100000) }}",
    "str.join": "{{ ('a' * 100000).join(range(100000) | map('string') | list) }}",
    "replace": "{{ ('a' * 4000000) | replace('a', 'b' * 1000) }}",
    "str.replace": "{{ ('a' * 4000000).replace('', 'b' * 1000) }}",
    "output": "{% for a in range(100000) %}{{ 'a' * 1000 }}{% endfor %}",
    "percent": "{{ '%1000000000d' % 1 }}",
    "percent list": "{{ ('%s' * 1000) % ('a' * 1000000) }}",
    "format": "{{ '{:1000000000}'.format(1) }}",
    "format filter": "{{ '%1000000000d' | format(1) }}",
    "format list": "{{ ('%s' * 1000) | format('a' * 1000000) }}",
    "date": "{{ strftime_now('%1000000000d') }}",
    "pad": "{{ 'a'.ljust(1000000) }}",
    "indent": "{{ 'a' | indent(10000000000) }}",
    "power": "{{ 10 ** 10 ** 10 }}",
    "product": "{% set ns = namespace(x=99) %}{% for i in range(60) %}"
    "{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "range": "{{ range(10 ** 6 * 10 ** 6) | list }}",
    "recursion": "{% for a in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
}
ESCAPES = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "attr filter": "{{ '' | attr('__class__') }}",
    "globals": "{{ raise_exception.__globals__ }}",
    "format": "{{ '{0.__class__}'.format('') }}",
    "map": "{{ [''] | map(attribute='__class__') | list | tojson }}",
    "method": "{{ messages.append(1) }}",
    "include": "{% include 'secrets.txt' %}",
    "import": "{% import 'os' as os %}",
}


@pytest.fixture
def short_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "MAX_RENDER_S", 0.05)


@pytest.mark.usefixtures("short_time")
@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS)
def test_a_template_that_does_not_end_is_stopped(source: str) -> None:
    with pytest.raises(InvalidRequestError, match="too long to render"):
        ChatTemplate(source).render(MESSAGES)


@pytest.mark.parametrize("source", HUGE.values(), ids=HUGE)
def test_a_template_that_builds_something_huge_is_stopped(source: str) -> None:
    with pytest.raises(InvalidRequestError, match="chat template"):
        ChatTemplate(source).render(MESSAGES)


@pytest.mark.parametrize("source", ESCAPES.values(), ids=ESCAPES)
def test_a_template_does_not_reach_out(source: str) -> None:
    try:
        text = ChatTemplate(source).render(MESSAGES)
    except (InvalidRequestError, ModelLoadError):
        return
    assert "class" not in text


@pytest.mark.parametrize(
    "name", ["center", "wordwrap", "slice", "xmlattr", "batch", "pprint", "random"]
)
def test_filters_that_no_chat_template_needs_are_refused_where_they_are_used(name: str) -> None:
    template = ChatTemplate("{% if tools %}{{ 'a' | " + name + "(3) }}{% endif %}")
    assert template.render(MESSAGES) == "", "the model loads"
    with pytest.raises(InvalidRequestError, match=name):
        template.render(MESSAGES, [{"name": "f"}])


def test_a_long_conversation_is_within_the_limits() -> None:
    messages = [{"role": "user", "content": "word " * 1000}] * 500
    text = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}").render(messages)
    assert len(text) == 500 * 5000
