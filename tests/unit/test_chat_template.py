from __future__ import annotations

import pytest

from jobs.contract.errors import InvalidRequestError, ModelLoadError
from workers.text.templates.chat_template import MAX_SOURCE, ChatTemplate, ChatTemplates

USER = [{"role": "user", "content": "Hi"}]


def render(source: str, **options: object) -> str:
    return ChatTemplate(source).render(USER, **options)


def refusal(source: str) -> str:
    template = ChatTemplate(source)
    with pytest.raises(InvalidRequestError) as caught:
        template.render(USER)
    assert caught.value.param == "messages"
    return caught.value.message


def test_the_named_format_comes_before_the_models_own_template() -> None:
    own = {"default": "own"}
    assert "[INST]" in ChatTemplates.choose("llama-2", own).default.render(USER)
    assert ChatTemplates.choose(None, own).default.render(USER) == "own"
    assert "<|im_start|>" in ChatTemplates.choose(None, {}).default.render(USER)


def test_a_template_is_chosen_by_its_use() -> None:
    sources = {"default": "d{{ tools }}", "tool_use": "t{{ tools }}", "rag": "r"}
    found = ChatTemplates.choose(None, sources)
    assert found.for_use(has_tools=True, has_documents=True).source.startswith("t")
    assert found.for_use(has_tools=False, has_documents=True).source == "r"
    assert found.for_use(has_tools=False, has_documents=False).source.startswith("d")
    alone = ChatTemplates.choose(None, {"tool_use": "t"})
    assert alone.for_use(has_tools=False, has_documents=False).source == "t"


def test_the_template_sees_what_transformers_gives_it() -> None:
    source = "{{ bos_token }}|{{ eos_token }}|{{ add_generation_prompt }}|{{ tools is none }}"
    template = ChatTemplate(source, "<s>", "</s>")
    assert template.render(USER) == "<s>|</s>|True|True"
    assert template.render(USER, [{"a": 1}], add_generation_prompt=False) == "<s>|</s>|False|False"


def test_blocks_leave_no_blank_lines() -> None:
    assert render("{% for m in messages %}\n  {% if true %}\n{{ m.role }}\n  {% endif %}\n"
                  "{% endfor %}\n") == "user\n"  # fmt: skip


def test_tojson_escapes_nothing_and_takes_an_indent() -> None:
    tools = [{"name": "<é>"}]
    assert render("{{ tools | tojson }}", tools=tools) == '[{"name": "<é>"}]'
    assert render("{{ tools[0] | tojson(indent=2) }}", tools=tools) == '{\n  "name": "<é>"\n}'


def test_loop_controls_and_the_generation_tag_work() -> None:
    source = "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"
    assert render(source) == "01"
    assert render("{% generation %}{{ messages[0].content }}{% endgeneration %}") == "Hi"


def test_loop_facts_stay_right() -> None:
    source = "{% for c in 'abc' %}{{ loop.index }}/{{ loop.length }}{{ loop.last }} {% endfor %}"
    assert render(source) == "1/3False 2/3False 3/3True "


def test_a_macro_and_a_namespace_work() -> None:
    source = (
        "{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}{% set ns = namespace(n=0) %}"
        "{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ twice('a') ~ ns.n }}"
    )
    assert render(source) == "aa1"


def test_the_year_can_be_asked_for() -> None:
    assert render("{{ strftime_now('%Y') }}").isdigit()


def test_what_the_template_raises_reaches_the_client() -> None:
    assert "roles must alternate" in refusal("{{ raise_exception('roles must alternate') }}")


def test_a_template_that_fails_is_a_wrong_request_and_names_the_reason() -> None:
    assert "ZeroDivisionError" in refusal("{{ 1 / 0 }}")
    assert "no element 5" in refusal("{{ messages[5].content }}")


def test_tools_are_found_in_the_source() -> None:
    assert ChatTemplate("{% if tools %}x{% endif %}").has_tools
    assert not ChatTemplate("{{ messages }}").has_tools


@pytest.mark.parametrize(
    "source",
    ["{% if %}", "{{ 'a' | no_such_filter }}", "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
     "{% for a in [1] %}" * 40 + "{% endfor %}" * 40, "x" * (MAX_SOURCE + 1)],
    ids=["syntax", "filter", "parentheses", "loops", "size"],
)  # fmt: skip
def test_a_source_that_does_not_compile_is_a_load_error(source: str) -> None:
    with pytest.raises(ModelLoadError, match="chat template"):
        ChatTemplate(source)


def test_the_opening_of_an_answer_is_what_a_template_adds_for_it() -> None:
    source = "{{ messages[0].content }}{% if add_generation_prompt %}<a>\n<think>{% endif %}"
    assert ChatTemplate(source).opening == "<a>\n<think>"
    assert ChatTemplates.choose(None, {}).default.opening == "<|im_start|>assistant\n"
    assert ChatTemplate("{{ messages[0].content }}").opening == ""


def test_the_opening_is_unknown_where_a_small_chat_is_refused_or_other_text_changes() -> None:
    assert ChatTemplate("{{ raise_exception('no') }}").opening == ""
    assert ChatTemplate("{{ add_generation_prompt }}").opening == ""
