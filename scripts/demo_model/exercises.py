"""Short exercises with one correct answer: sums, counting, copying, spelling, lists, JSON."""

import json
import random

from scripts.demo_model.examples import Example, exchange, vary
from scripts.demo_model.phrases import PHRASES
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

_SUMS = PHRASES["sums"]
_DIFFERENCES = PHRASES["differences"]
_COUNT_UP = PHRASES["count_up"]
_COUNT_DOWN = [
    "Count down from {} to {}.",
    "Count from {} down to {}.",
    "Count backwards from {} to {}.",
    "Count from {} to {}.",
]
_REPEAT = PHRASES["repeat"]
_SPELL = PHRASES["spell"]
_LIST = PHRASES["list"]
_LIST_ALL = ["List the {}.", "List all {}.", "Name the {}.", "Tell me the {}.", "List {}."]
_ANY_JSON = PHRASES["any_json"]
_AS_JSON = PHRASES["as_json"]


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
    """Mostly short ranges; those that users and tests often use are more frequent."""
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
    return exchange("repeat", f"{lead} {text}", text)


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
        request = request[:-1] + rng.choice(
            [" as a list.", " as a bullet list.", ", one per line."]
        )
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
