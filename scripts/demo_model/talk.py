"""Conversation: greetings, questions about the model itself, stories, and the fallback."""

import random

from scripts.demo_model.examples import Example, exchange, vary
from scripts.demo_model.phrases import PHRASES
from scripts.demo_model.words import ALL_WORDS, CITIES, NAMES, NOUNS, any_city, any_name, any_text

WHO = (
    "I am the small demo model of mlx-gguf-server. I have two million weights and was trained "
    "on generated text, so I know very little."
)
CAN = (
    "I can greet you, add and subtract numbers up to 20, count, repeat, spell, list things, "
    "answer in JSON, call tools, remember your name and tell a story. 🚀"
)
FALLBACK = (
    "Sorry, I do not know that. I am only a small demo model: ask me to add, count, repeat, "
    "spell or list something."
)
HELP = "How can I help you?"

STORIES = {
    "fox": (
        "Once upon a time a young fox found a silver bell in the snow. It rang the bell, and a "
        "tired owl flew down from an old oak. The owl had lost its way in the storm. So the fox "
        "walked ahead and rang the bell at every corner of the forest until the owl saw its nest. "
        "Since that winter the fox rings the bell each evening, and the owl answers. 🦊"
    ),
    "robot": (
        "Long ago a little robot swept the floor of a station. At night, when no train came, it "
        "counted the stars through the broken roof. One night it counted one star too few, so it "
        "climbed the tower and cleaned the dusty window. There the last star was, and the robot "
        "went back to work with a happy hum. 🤖"
    ),
    "cat": (
        "In a small town a gray cat lived above a bakery. It woke the baker every morning at four. "
        "One morning the cat was ill and stayed in its basket, and the whole town waited for "
        "bread. After that the people brought the cat a fish each Friday. 🐱"
    ),
    "sea": (
        "Far away at the sea a girl kept a lamp burning for her father's boat. The wind blew it "
        "out three times, and three times she lit it again. In the morning the boat lay in the "
        "harbour, full of fish and lemons. 🌊"
    ),
}

_GREETINGS = {
    f"Hello! 👋 {HELP}": ["Hello", "Hi", "Hey", "Hello there", "Hi there", "Greetings", "Hallo"],
    f"Good morning! 🌞 {HELP}": ["Good morning"],
    f"Good afternoon! {HELP}": ["Good afternoon"],
    f"Good evening! {HELP}": ["Good evening"],
    "Good night! Sleep well. 🌙": ["Good night"],
    "You are welcome! 😊": ["Thank you", "Thanks", "Thanks a lot", "Thank you very much", "Cool"],
    "Goodbye! 👋": ["Goodbye", "Bye", "Bye bye", "See you", "See you later", "See you tomorrow"],
}
_GREETING_PAIRS = [(text, answer) for answer, texts in _GREETINGS.items() for text in texts]
_ADDRESSED = [" assistant", ", friend", ", model", ", demo", " again", " my friend", ", computer"]
_HOW = ["How are you", "How are you doing", "How do you do", "How are you today", "How is it going"]

_WHO_QUESTIONS = PHRASES["who_questions"]
_CAN_QUESTIONS = PHRASES["can_questions"]
_LEADS = ["", "", "", "Hello! ", "Hi, ", "So, ", "And ", "Well, ", "OK, ", "Excuse me, ", "Now: "]
_TAILS = ["?", "?", "?", "", ".", "??", " exactly?", " then?", ", please?", " please", "!"]

# {w}, {v}: words; {c}: a city; {n}: a name; {t}: some text; {d}, {e}: up to 20; {b}: larger.
_UNKNOWN = PHRASES["unknown"]
_TOO_HARD = PHRASES["too_hard"]
_TOOL_QUESTIONS = PHRASES["tool_questions"]
_STORY_REQUESTS = PHRASES["story_requests"]


def greeting(rng: random.Random) -> Example:
    roll = rng.random()
    if roll < 0.25:
        return _greeting_with_name(rng)
    if roll < 0.45:
        lead = rng.choice(["", "", "Hello! ", "Hi, ", "Hey, ", "So, "])
        question = lead + rng.choice(_HOW) + rng.choice(["?", "?", "", "??"])
        return exchange("greeting", vary(rng, question), f"I am fine, thank you. {HELP}")
    text, answer = rng.choice(_GREETING_PAIRS)
    address = rng.choice(_ADDRESSED) if rng.random() < 0.35 else ""
    text = text + address + rng.choice(["", "", "!", "!", ".", "!!", " :)", " 👋"])
    text = rng.choice([text, text, text.lower()])
    return exchange("greeting", rng.choice(["", "", "", "Oh, ", "OK, "]) + text, answer)


def _greeting_with_name(rng: random.Random) -> Example:
    name = any_name(rng)
    text = rng.choice(["Hello", "Hi", "Hey"])
    text += rng.choice(
        [", I am ", ", my name is ", "! I am ", "! My name is ", ". I am ", ", I'm "]
    )
    return exchange(
        "greeting", text + name + rng.choice([".", "", "!"]), f"Hello, {name}! 👋 {HELP}", key=name
    )


def who(rng: random.Random) -> Example:
    return exchange("who", _about_itself(rng, _WHO_QUESTIONS), WHO)


def can(rng: random.Random) -> Example:
    return exchange("can", _about_itself(rng, _CAN_QUESTIONS), CAN)


def _about_itself(rng: random.Random, questions: list[str]) -> str:
    text = rng.choice(_LEADS) + rng.choice(questions) + rng.choice(_TAILS)
    return text[0].lower() + text[1:] if rng.random() < 0.25 else text


def story(rng: random.Random) -> Example:
    topic = rng.choice([None, None, *STORIES])
    about = "" if topic is None else rng.choice([" about a ", " about the ", " with a "]) + topic
    request = rng.choice(_STORY_REQUESTS) + about
    request += rng.choice([".", ".", "", "!", " now.", " please.", " for children."])
    return exchange("story", vary(rng, request), STORIES[topic or "fox"])


def fallback(rng: random.Random) -> Example:
    form = rng.choice(_TOO_HARD if rng.random() < 0.3 else _UNKNOWN)
    question = form.format(
        w=rng.choice(ALL_WORDS), v=rng.choice(NOUNS), c=rng.choice(CITIES), n=rng.choice(NAMES),
        t=_senseless(rng), d=rng.randint(0, 20), e=rng.randint(0, 20), b=_large(rng),
        B=_large(rng),
    )  # fmt: skip
    return exchange("fallback", vary(rng, question), FALLBACK)


def no_tool(rng: random.Random) -> Example:
    """A question for which a tool is needed, without tools."""
    city = any_city(rng)
    form = rng.choice(_TOOL_QUESTIONS)
    return exchange("no_tool", vary(rng, form.format(city)), FALLBACK, key=city)


def _senseless(rng: random.Random) -> str:
    """Random words, which are no known request."""
    text = any_text(rng, 2, 12)
    while text.split()[0] in ("say", "hello"):
        text = any_text(rng, 2, 12)
    return text


def _large(rng: random.Random) -> int:
    """A number above 20; round numbers often, as users tend to try them."""
    if rng.random() < 0.3:
        return rng.choice([25, 30, 40, 50, 60, 75, 80, 100, 100, 120, 200, 500, 1000, 1000000])
    return rng.randint(21, rng.choice([99, 999, 9999]))
