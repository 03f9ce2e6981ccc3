"""Tiny random models of several call dialects, each with its markers in the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from tests.world.catalog import IDIOMS, Idiom
from tests.world.tiny_models import make_tokenizer, write_gguf, write_mlx
from tests.world.tokenizers.kinds import BOS, CONTROL, EOS, TOOL_CALL


@dataclass(frozen=True, slots=True)
class Talker:
    """A model: the template of ``idiom``, and the tokenizer ``kind``.

    ``written``: markers that are tokens with a text. ``control``: those without one, beside the
    template's. ``is_gguf``: for llama.cpp; for MLX otherwise.
    """

    idiom: Idiom
    kind: str
    is_gguf: bool
    written: tuple[str, ...] = ()
    control: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """In the models folder."""
        return f"{self.idiom.name}-{self.kind}" + (".gguf" if self.is_gguf else "")

    @property
    def tokens(self) -> list[AddedToken]:
        known = {BOS, EOS, TOOL_CALL, *CONTROL}
        control = sorted({*self.idiom.control_tokens, *self.control} - known)
        return [
            *(AddedToken(text, special=True, normalized=False) for text in control),
            *(AddedToken(text, special=False, normalized=False) for text in self.written),
        ]

    @property
    def tokenizer(self) -> Tokenizer:
        return make_tokenizer(self.kind, self.tokens)

    @property
    def hidden(self) -> list[str]:
        """Control tokens, which have no text for clients."""
        return [*self.idiom.control_tokens, *self.control, *CONTROL]

    @property
    def starts(self) -> list[str]:
        """Tokens with a text that always start a call where content may be."""
        return [one for one in (TOOL_CALL, "<TOOLCALL>") if one in self.idiom.source]

    @property
    def markup(self) -> list[str]:
        return [*self.hidden, *self.written, TOOL_CALL]

    def write(self, folder: Path) -> None:
        """Unless it is there."""
        if not (folder / self.name).exists():
            write = write_gguf if self.is_gguf else write_mlx
            name = self.name.removesuffix(".gguf")
            write(folder, self.kind, self.idiom.source, name, self.tokens)


_THINK = ("<think>", "</think>")
_ARGUMENTS = ("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")


def _talkers(
    idiom: str, mlx: str, gguf: str, written: tuple[str, ...] = (), control: tuple[str, ...] = ()
) -> tuple[Talker, Talker]:
    def make(kind: str, *, is_gguf: bool) -> Talker:
        return Talker(IDIOMS[idiom], kind, is_gguf, written, control)

    return make(mlx, is_gguf=False), make(gguf, is_gguf=True)


_DIALECTS = [
    # JSON in tags, XML-like tags with and without names, a list of JSON after a control token
    _talkers("chatml_thoughts", "byte_level", "byte_level", ("</tool_call>", *_THINK)),
    _talkers("xml_tools", "tekken", "byte_level", ("</tool_call>",)),
    _talkers(
        "arg_keys", "metaspace_first", "sentencepiece", ("</tool_call>", *_ARGUMENTS, *_THINK)
    ),
    _talkers("inst_call_ids", "sentencepiece", "sentencepiece"),
    # channels, bare keys, JSON behind a name between control tokens, Python
    _talkers(
        "typescript_macros", "stripping", "byte_level", control=("<|constrain|>", "<|return|>")
    ),
    _talkers("bare_keys", "sentencepiece", "sentencepiece"),
    _talkers("wide_bars", "byte_level", "byte_level", _THINK),
    _talkers("list_of_calls", "byte_level", "byte_level"),
    _talkers("toolcall_list", "tekken", "unigram", ("<TOOLCALL>", "</TOOLCALL>", *_THINK)),
]
# The first ones are of different dialects, on both engines by turns; then the other engine's.
TALKERS = [pair[n % 2] for n, pair in enumerate(_DIALECTS)] + [
    pair[1 - n % 2] for n, pair in enumerate(_DIALECTS)
]
