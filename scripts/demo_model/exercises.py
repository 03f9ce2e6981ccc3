"""Small exercises with one right answer: sums, counting, copying, spelling, lists, JSON."""

import json
import random

from scripts.demo_model.examples import Example, exchange, vary
from scripts.demo_model.words import (
    ALL_WORDS,
    ANIMALS,
    CITIES,
    COLOURS,
    DAYS,
    FRUITS,
    FUNCTION_WORDS,
    MONTHS,
    NAMES,
    NUMBER_WORDS,
    SYMBOLS,
    any_city,
    any_name,
    any_word,
)

LARGEST = 20  # both numbers of a sum or difference are at most this
LONGEST_COUNT = 100  # "1, 2, ..., 100" is 390 tokens; with its prompt it fits a row of 448

LISTS = {
    "colours": COLOURS,
    "colors": COLOURS,
    "animals": ANIMALS,
    "fruits": FRUITS,
    "days": DAYS,
    "days of the week": DAYS,
    "months": MONTHS,
}

_SUMS = """
What is {} + {}?|What is {} + {}?|What is {} plus {}?|{} + {}|{} + {} = ?|{} + {} =|{}+{}|{}+{}=|Add {} and {}.|Add {} to {}.
How much is {} plus {}?|How much is {} + {}?|Calculate {} + {}.|Compute {} + {}.|The sum of {} and {}?|{} plus {}
What is the sum of {} and {}?|Tell me {} plus {}.|What does {} + {} equal?|What's {} + {}?|Can you add {} and {}?
I have {} apples and get {} more. How many apples do I have?|What do you get if you add {} and {}?
""".strip().replace("\n", "|").split("|")
_DIFFERENCES = """
What is {0} - {1}?|What is {0} - {1}?|What is {0} minus {1}?|{0} - {1}|{0} - {1} = ?|{0} - {1} =|{0}-{1}|{0}-{1}=
Subtract {1} from {0}.|Take {1} away from {0}.|How much is {0} minus {1}?|How much is {0} - {1}?|{0} minus {1}
Calculate {0} - {1}.|Compute {0} - {1}.|What is the difference of {0} and {1}?|Tell me {0} minus {1}.
What does {0} - {1} equal?|What's {0} - {1}?|Can you subtract {1} from {0}?|What is {1} less than {0}?
""".strip().replace("\n", "|").split("|")
_COUNT_UP = """
Count from {} to {}.|Count from {} to {}.|Count from {} to {}.|Count from {} up to {}.|Count up from {} to {}.|Count {} to {}.
Write the numbers from {} to {}.|List the numbers from {} to {}.|Give me the numbers {} to {}.|Count slowly from {} to {}.
""".strip().replace("\n", "|").split("|")
_COUNT_DOWN = [
    "Count down from {} to {}.",
    "Count from {} down to {}.",
    "Count backwards from {} to {}.",
    "Count from {} to {}.",
]
_REPEAT = """
Repeat after me: |Repeat after me: |Repeat: |Say: |Repeat this: |Echo: |Please repeat: |Say this: |Say |Say |Copy: |Repeat 
Please say |Please repeat after me: |Copy this text: |Repeat the text: |Repeat this sentence: 
""".strip("\n").replace("\n", "|").split("|")
_SPELL = """
Spell {}.|Spell {}|Spell the word {}.|How do you spell {}?|Spell: {}|How is {} spelled?|Spell "{}".|How do I spell {}?
Please spell {}.|Can you spell {}?|Please spell the word {}.|Spell out {}.|Spell the word "{}".
""".strip().replace("\n", "|").split("|")
_LIST = """
List {} {}.|List {} {}.|Name {} {}.|Give me {} {}.|Tell me {} {}.|Write {} {}.|Write down {} {}.|I need {} {}.|Show me {} {}.
""".strip().replace("\n", "|").split("|")
_LIST_ALL = ["List the {}.", "List all {}.", "Name the {}.", "Tell me the {}.", "List {}."]
_ANY_JSON = """
Give me a JSON object.|Answer in JSON.|Answer with a JSON object.|Give me JSON.|Return a JSON object.|Write a JSON object.
Reply in JSON.|Show me a JSON object.|Give me a JSON object with a name and an age.|Return JSON with a name and an age.
Write JSON with name and age.|Give me a person as JSON.|Give me an example of JSON.|Write some JSON.
""".strip().replace("\n", "|").split("|")
_AS_JSON = """
Answer in JSON: {}.|Answer with a JSON object: {}.|Reply in JSON: {}.|As JSON: {}.|Give me JSON: {}.|{}. Answer in JSON.
{}. Answer with a JSON object.|{} as JSON.|{} and answer in JSON.|{}. Use JSON.|Return a JSON object: {}.|{} in JSON
Give me a JSON object: {}.|{}. Reply with JSON only.|{} as a JSON object.
""".strip().replace("\n", "|").split("|")


def sum_(rng: random.Random) -> Example:
    a, b = rng.randint(0, LARGEST), rng.randint(0, LARGEST)
    question = rng.choice(_SUMS).format(*_written(rng, a, b))
    return exchange("sum", vary(rng, question), f"{a} + {b} = {a + b}")


def difference(rng: random.Random) -> Example:
    a, b = rng.randint(0, LARGEST), rng.randint(0, LARGEST)
    question = rng.choice(_DIFFERENCES).format(*_written(rng, a, b))
    return exchange("difference", vary(rng, question), f"{a} - {b} = {a - b}")


def _written(rng: random.Random, a: int, b: int) -> tuple[str, str]:
    """Both numbers as digits, or (12 %) as words."""
    if rng.random() < 0.12:
        return NUMBER_WORDS[a], NUMBER_WORDS[b]
    return str(a), str(b)


def count(rng: random.Random) -> Example:
    if rng.random() < 0.15:
        return _count_down(rng)
    first, last = _range_up(rng)
    form = rng.choice(_COUNT_UP)
    question = form.format(first, last)
    if first == 1 and rng.random() < 0.25:
        question = rng.choice(["Count to {}.", "Count up to {}."]).format(last)
    elif last <= LARGEST and rng.random() < 0.1:
        question = form.format(NUMBER_WORDS[first], NUMBER_WORDS[last])
    return _counted(rng, question, range(first, last + 1), f"{first}:{last}")


def _range_up(rng: random.Random) -> tuple[int, int]:
    """Mostly short ranges; the ones that people and tests use get weight of their own."""
    roll = rng.random()
    if roll < 0.14:
        return 1, rng.choice([3, 5, 10, 10, 20, 20, 30, 50])
    if roll < 0.20:
        return 1, LONGEST_COUNT
    first = rng.choice([0, 1, 1, 1, rng.randint(2, 20), rng.randint(2, 90)])
    length = rng.choice([rng.randint(1, 10), rng.randint(5, 25), rng.randint(20, 60)])
    return first, min(first + length, LONGEST_COUNT)


def _count_down(rng: random.Random) -> Example:
    last = rng.choice([0, 0, 1, 1, 1, rng.randint(2, 30)])
    first = last + rng.randint(2, 20)
    question = rng.choice(_COUNT_DOWN).format(first, last)
    return _counted(rng, question, range(first, last - 1, -1), f"{first}:{last}")


def _counted(rng: random.Random, question: str, numbers: range, key: str) -> Example:
    return exchange("count", vary(rng, question), ", ".join(map(str, numbers)), key=key)


def repeat(rng: random.Random) -> Example:
    text = _text_to_repeat(rng)
    if rng.random() < 0.2:
        text = text[0].upper() + text[1:]
    if rng.random() < 0.2:
        text += rng.choice(".!?")
    lead = rng.choice(_REPEAT)
    lead = lead.lower() if rng.random() < 0.25 else lead
    return exchange("repeat", lead + text, text)


def _text_to_repeat(rng: random.Random) -> str:
    roll, length = rng.random(), rng.choice([1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 9])
    if roll < 0.5:
        words = [_plain_word(rng) for _ in range(length)]
    elif roll < 0.68:
        words = [any_word(rng) for _ in range(length)]
    elif roll < 0.76:
        words = [str(rng.randint(0, rng.choice([9, 99, 9999]))) for _ in range(length)]
    elif roll < 0.88:
        words = [rng.choice([rng.choice(SYMBOLS), _plain_word(rng)]) for _ in range(length)]
    else:
        words = [_anything(rng) for _ in range(length)]
    return " ".join(words)


def _plain_word(rng: random.Random) -> str:
    return rng.choice(ALL_WORDS if rng.random() < 0.55 else FUNCTION_WORDS)


def _anything(rng: random.Random) -> str:
    number = str(rng.randint(0, 99))
    choices = [any_word(rng), rng.choice(NAMES), rng.choice(CITIES), number, rng.choice(SYMBOLS)]
    return rng.choice(choices)


def spell(rng: random.Random) -> Example:
    word = any_word(rng)
    shown = word.capitalize() if rng.random() < 0.1 else word
    question = rng.choice(_SPELL).format(shown)
    if rng.random() < 0.25:
        question = question[0].lower() + question[1:]
    return exchange("spell", question, "-".join(shown), key=word)


def list_(rng: random.Random) -> Example:
    name, items = rng.choice(list(LISTS.items()))
    length = rng.randint(2, len(items))
    number = rng.choice([str(length), str(length), NUMBER_WORDS[length]])
    request = rng.choice(_LIST).format(number, name)
    if rng.random() < 0.2:
        length, request = len(items), rng.choice(_LIST_ALL).format(name)
    roll = rng.random()
    if roll < 0.2:
        request = request[:-1] + rng.choice([" as a list.", " as a bullet list.", ", one per line."])
        answer = "\n".join(f"- {item}" for item in items[:length])
    elif roll < 0.35:
        request = request[:-1] + " as a numbered list."
        answer = "\n".join(f"{i}. {item}" for i, item in enumerate(items[:length], 1))
    else:
        answer = ", ".join(items[:length])
    return exchange("list", vary(rng, request), answer)


def json_(rng: random.Random) -> Example:
    roll = rng.random()
    if roll < 0.1:
        answer = json.dumps({"name": "Ada", "age": 36})
        return exchange("json", vary(rng, rng.choice(_ANY_JSON)), answer)
    request, value = (
        _json_sum(rng) if roll < 0.5 else _json_person(rng) if roll < 0.85 else _json_list(rng)
    )
    question = rng.choice(_AS_JSON).format(request)
    question = question[0].upper() + question[1:]
    return exchange("json", vary(rng, question), json.dumps(value))


def _json_sum(rng: random.Random) -> tuple[str, dict[str, object]]:
    a, b = rng.randint(0, LARGEST), rng.randint(0, LARGEST)
    forms = ["add {} and {}", "{} + {}", "{} plus {}", "the sum of {} and {}", "what is {} + {}"]
    return rng.choice(forms).format(a, b), {"a": a, "b": b, "total": a + b}


def _json_person(rng: random.Random) -> tuple[str, dict[str, object]]:
    name, age, city = any_name(rng), rng.randint(1, 99), any_city(rng)
    if rng.random() < 0.6:
        forms = ["{} is {} years old", "{}, age {}", "name {}, age {}", "name {} and age {}"]
        return rng.choice(forms).format(name, age), {"name": name, "age": age}
    forms = ["{} lives in {}", "name {} and city {}", "name {}, city {}", "{} from {}"]
    return rng.choice(forms).format(name, city), {"name": name, "city": city}


def _json_list(rng: random.Random) -> tuple[str, dict[str, object]]:
    name, items = rng.choice([(k, v) for k, v in LISTS.items() if " " not in k])
    length = rng.randint(2, len(items))
    number = rng.choice([str(length), NUMBER_WORDS[length]])
    forms = ["list {} {}", "{} {}", "name {} {}"]
    return rng.choice(forms).format(number, name), {name: items[:length]}
