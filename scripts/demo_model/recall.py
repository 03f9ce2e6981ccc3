"""Facts of one turn, and questions for them in a later one: a wrong prompt cache shows there."""

import random

from scripts.demo_model import exercises
from scripts.demo_model.examples import Example, Message, assistant, user, vary
from scripts.demo_model.talk import FALLBACK, HELP
from scripts.demo_model.words import any_name, any_word

_FILLERS = [
    exercises.sum_,
    exercises.difference,
    exercises.spell,
    exercises.list_,
    exercises.repeat,
]
_NAME_TOLD = [
    "My name is {}.",
    "I am {}.",
    "Call me {}.",
    "Remember that my name is {}.",
    "I'm {}.",
]
_NAME_ASKED = ["What is my name?", "Who am I?", "Do you know my name?", "What's my name?"]
_WORD_TOLD = ["Remember the word {}.", "The secret word is {}.", "Keep in mind the word {}."]
_WORD_ASKED = ["What is the word?", "What was the word?", "Tell me the word."]
_WORD_ASKED_LONG = ["Which word did you remember?", "What is the secret word?"]
_NUMBER_TOLD = [
    "Remember the number {}.",
    "The secret number is {}.",
    "Keep in mind the number {}.",
]
_NUMBER_ASKED = ["What is the number?", "What was the number?", "What is the secret number?"]
_ASKED = [*_NAME_ASKED, *_WORD_ASKED, *_WORD_ASKED_LONG, *_NUMBER_ASKED]


def recall(rng: random.Random) -> Example:
    """A fact, up to three other exchanges, and the question for the fact."""
    roll = rng.random()
    key, opening, question = (
        _name(rng) if roll < 0.45 else _word(rng) if roll < 0.8 else _number(rng)
    )
    return Example("recall", f"recall:{key}", [*opening, *_small_talk(rng), *question])


def nothing_to_recall(rng: random.Random) -> Example:
    """The question for a fact that is in no earlier turn."""
    question = vary(rng, rng.choice(_ASKED))
    between = _small_talk(rng)
    # The question alone must stay in training, so the key includes the earlier turns.
    before = between[0]["content"] if between else "nothing"
    key = f"nothing:{before}:{question}"
    return Example("nothing_to_recall", key, [*between, user(question), assistant(FALLBACK)])


def _name(rng: random.Random) -> tuple[str, list[Message], list[Message]]:
    name = any_name(rng)
    told, reply = vary(rng, rng.choice(_NAME_TOLD)).format(name), f"Nice to meet you, {name}! 😊"
    if rng.random() < 0.3:
        told = f"{rng.choice(['Hello', 'Hi', 'Hey'])}, {rng.choice(['I am', 'my name is'])} {name}."
        reply = f"Hello, {name}! 👋 {HELP}"
    answer = f"Your name is {name}."
    return name, *_told_and_asked(told, reply, vary(rng, rng.choice(_NAME_ASKED)), answer)


def _word(rng: random.Random) -> tuple[str, list[Message], list[Message]]:
    word = any_word(rng)
    told = vary(rng, rng.choice(_WORD_TOLD)).format(word)
    question = vary(rng, rng.choice([*_WORD_ASKED, *_WORD_ASKED_LONG]))
    reply = f"I will remember the word {word}."
    return word, *_told_and_asked(told, reply, question, f"The word is {word}.")


def _number(rng: random.Random) -> tuple[str, list[Message], list[Message]]:
    number = str(rng.randint(0, rng.choice([99, 999, 9999])))
    told = vary(rng, rng.choice(_NUMBER_TOLD)).format(number)
    reply = f"I will remember the number {number}."
    question = vary(rng, rng.choice(_NUMBER_ASKED))
    return number, *_told_and_asked(told, reply, question, f"The number is {number}.")


def _told_and_asked(
    told: str, reply: str, question: str, answer: str
) -> tuple[list[Message], list[Message]]:
    return [user(told), assistant(reply)], [user(question), assistant(answer)]


def _small_talk(rng: random.Random) -> list[Message]:
    count = rng.choice([0, 0, 1, 1, 2, 3])
    return [message for _ in range(count) for message in rng.choice(_FILLERS)(rng).messages]
