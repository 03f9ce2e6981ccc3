"""Models that say one text, token by token, and what a client must get of it."""

from __future__ import annotations

import functools
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer

from scripts.modelfiles.shape import Shape, Weights, tensor_sizes
from tests.helpers.written_calls import Tool, random_call, written
from tests.world.talkers import Talker
from tests.world.tiny_models import make_tokenizer, write_gguf, write_mlx
from tests.world.tokenizers.kinds import END, TOOL_CALL
from workers.engines.fake import FakeTokenizer
from workers.markup.dialects import Dialect

PENALTY = 1.0  # the frequency penalty of all chats: of two next tokens, the one that came less
_SIZE = 512
_LOGIT = 50.0
_MARGIN = 0.25
_STEP = 0.125
_WORDS = [
    "null", "12", '"', "\\", "\n", "é", "😀", "{", "}", "[1]", "'", ",", "the sun", " shines",
    "a b", "<b>", "</p>", "<|other|>", "[OTHER]", "```", "$x$", ":", "wörter",
]  # fmt: skip
_KEYS = ('"name":', '"arguments":', '"parameters":')
_OPENED = ("wide_bars", "toolcall_list")  # their prompts end with the start of the thoughts
_HARMONY_TURN = "<|start|>assistant<|channel|>commentary"


@dataclass(frozen=True, slots=True)
class Said:
    """What the model says, in parts."""

    thought: str
    content: str
    tool: Tool
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Script:
    """A model of ``talker``'s template and kind that says ``said``."""

    talker: Talker
    said: Said
    tokens: tuple[str, ...]
    """The answer's tokens; between markers, the text is cut anywhere."""
    followers: dict[tuple[str, str], float]

    @cached_property
    def added(self) -> list[AddedToken]:
        known = {token.content for token in self.talker.tokens}
        markup = {*known, *self.talker.markup}
        texts = dict.fromkeys(one for one in self.tokens if one not in markup)
        return [
            *self.talker.tokens,
            *(AddedToken(one, special=False, normalized=False) for one in texts),
        ]

    def is_kept_to(self, token_ids: list[int]) -> bool:
        """Whether the model has said the script's own tokens.

        Where a grammar leaves one text only, it asks for the tokenizer's cut of it. A model that
        must follow does not know how to go on.
        """
        tokenizer = make_tokenizer(self.talker.kind, self.added)
        said = [tokenizer.id_to_token(token_id) for token_id in token_ids]
        return said == [*self.tokens, END][: len(said)]

    def write(self, folder: Path, name: str) -> None:
        write = write_gguf if self.talker.is_gguf else write_mlx
        source = self.talker.idiom.source
        write(folder, self.talker.kind, source, name, self.added, make_weights=self._weights)

    def _weights(self, tokenizer: Tokenizer) -> tuple[Shape, Weights]:
        """Each token of the script has a dimension, all others share the first."""
        shape = Shape(_SIZE, 1, 1, 1, 32, 32, tokenizer.get_vocab_size(), 4096)
        ids = tokenizer.get_vocab()
        weights: Weights = {
            name: (np.ones if len(size) == 1 else np.zeros)(size, np.float16)
            for name, size in tensor_sizes(shape).items()
        }
        places = {text: n + 1 for n, text in enumerate(dict.fromkeys((*self.tokens, END)))}
        assert len(places) < shape.hidden_size, len(places)
        embeddings = weights["model.embed_tokens.weight"]
        embeddings[:, 0] = 1
        head = np.zeros_like(embeddings)
        for text, place in places.items():
            embeddings[ids[text], 0], embeddings[ids[text], place] = 0, 1
        scale = shape.hidden_size**-0.5
        head[ids[self.tokens[0]], 0] = _LOGIT * scale
        for (token, follower), more in self.followers.items():
            head[ids[follower], places[token]] = (_LOGIT + more) * scale
        weights["lm_head.weight"] = head
        return shape, weights


def _followers(tokens: tuple[str, ...], markup: set[str]) -> dict[tuple[str, str], float] | None:
    """By pair of tokens that follow each other, how much likelier than others that one is.

    A marker may come several times; each time another token may have to follow. ``None`` if the
    penalty cannot tell which: it may count ``markup`` in the prompt.
    """
    found = dict.fromkeys(itertools.pairwise(tokens), 0.0)
    several = {token for token, num in Counter(token for token, _ in found).items() if num > 1}
    if any(token in several and follower in markup for token, follower in found):
        return None
    for _ in range(300):
        counts: Counter[str] = Counter()
        is_right = True
        for token, right in itertools.pairwise(tokens):
            counts[token] += 1
            for other in [b for a, b in found if a == token and b != right]:
                lead = found[token, right] - found[token, other]
                if lead - PENALTY * (counts[right] - counts[other]) < _MARGIN:
                    found[token, right] += _STEP
                    found[token, other] -= _STEP
                    is_right = False
        if is_right:
            return found
    return None


def make_script(rng: random.Random, talker: Talker, *, is_forced: bool) -> Script:
    """``is_forced``: nothing before the call but the thoughts that the prompt has opened."""
    while True:
        said, text = _answer(rng, talker, is_forced)
        tokens = tuple(_cut(rng, text, talker, talker.idiom.source + json.dumps(said.tool)))
        markup = {*talker.markup, END}
        if (followers := _followers((*tokens, END), markup)) is not None:
            return Script(talker, said, tokens, followers)


def _answer(rng: random.Random, talker: Talker, is_forced: bool) -> tuple[Said, str]:
    """What is said, and the answer's text."""
    dialect = Dialect.of(talker.idiom.source, FakeTokenizer())
    form, thinking = dialect.calls, dialect.thinking
    assert form is not None
    tool, arguments = random_call(rng)
    while (call := written(form, tool, arguments)) is None or not _can_say(talker, tool, arguments):
        tool, arguments = random_call(rng)
    is_opened = thinking is not None and talker.idiom.name in _OPENED
    thinks = thinking is not None and (is_opened or not is_forced)
    said = Said(_text(rng) if thinks else "", "" if is_forced else _text(rng), tool, arguments)
    if form.name == "harmony":
        text = f"<|channel|>analysis<|message|>{said.thought}<|end|>" if thinks else ""
        turn = "<|start|>assistant" if thinks else ""
        text += f"{turn}<|channel|>final<|message|>{said.content}<|end|>" if said.content else ""
        text += _HARMONY_TURN if text else ""
    else:
        start = "" if thinking is None or is_opened else f"{thinking.start}\n"
        text = f"{start}{said.thought}\n{thinking.end}" if thinking and thinks else ""
        text += said.content
    return said, f"{text}{form.start}{call}"


def _can_say(talker: Talker, tool: Tool, arguments: dict[str, Any]) -> bool:
    """Whether no control token is in the arguments, and the grammar leaves a choice everywhere.

    Where it leaves none for long (a constant, a key after another), llguidance wants the
    tokenizer's own tokens; ``_cut`` does not cut keys of the call itself and markers.
    """
    schemas = tool["function"]["parameters"]["properties"].values()
    if any("const" in one or one.get("$ref") == "#/$defs/point" for one in schemas):
        return False
    given = json.dumps(arguments, ensure_ascii=False).replace('\\"', '"')
    return not any(one in given for one in talker.hidden)


def _text(rng: random.Random) -> str:
    """Without blanks around it, which belong to nobody."""
    return "x" + "".join(rng.choices(_WORDS, k=rng.randint(1, 8))) + "."


def _cut(rng: random.Random, text: str, talker: Talker, prompt: str) -> Iterator[str]:
    """Control tokens whole, other markers once; the rest in pieces that occur nowhere else."""
    control, written_too = talker.hidden, [*talker.written, TOOL_CALL]
    known = {*_words(talker)}
    whole = re.compile("|".join(map(re.escape, (*_KEYS, *written_too))))
    while text:
        piece = _beginning(text, control)
        if not piece:
            most = min((n for one in control if (n := text.find(one)) >= 0), default=len(text))
            marker = _beginning(text, written_too)
            size = len(marker) or rng.randint(1, 6)
            while size < most and not (
                text[:size] not in known
                and (marker or text[:size] not in prompt)
                and text[:size].strip()
                and text[size:most].strip()
            ):
                size += 1
            inside = (one.end() for one in whole.finditer(text) if one.start() < size < one.end())
            piece = text[: min(next(inside, size), most)]
        known.add(piece)
        yield piece
        text = text[len(piece) :]


@functools.cache
def _words(talker: Talker) -> frozenset[str]:
    """The tokens that are no markup."""
    return frozenset(talker.tokenizer.get_vocab()) - set(talker.markup)


def _beginning(text: str, markers: list[str]) -> str:
    """The longest of the markers that the text begins with; "" if it begins with none."""
    return max((one for one in markers if text.startswith(one)), key=len, default="")
