"""The tokenizer of a model folder, with the ``tokenizers`` library."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as HfTokenizer

from jobs.catalog.mlx_folder import Json, read_optional_json, read_text
from jobs.contract.errors import ModelLoadError
from workers.engines.base import FimTokens
from workers.engines.fim import find_fim_tokens
from workers.engines.mlx.load.token_bytes import piece_reader

# Vocabulary files that transformers can convert.
_OTHER_SOURCES = ("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "*.tiktoken")
_BAD_TEMPLATES = "the chat_template is neither a text nor a list of named texts"
_TWO_WORDS = "the water"
_BREAK = "\ufdd1"  # a noncharacter


def load_tokenizer(path: Path, config: Json) -> MlxTokenizer:
    """The tokenizer of the model folder ``path`` whose config.json is ``config``."""
    settings = read_optional_json(path / "tokenizer_config.json")
    source = _read_definition(path)
    generation = read_optional_json(path / "generation_config.json")
    ends = [*_end_ids(config, "config.json"), *_end_ids(generation, "generation_config.json")]
    ends += _end_ids(config.get("text_config") or {}, "config.json")
    special = read_optional_json(path / "special_tokens_map.json") | settings
    return MlxTokenizer(
        source,
        bos_token=_token_text(special.get("bos_token")),
        eos_token=_token_text(special.get("eos_token")),
        end_ids=ends,
        chat_templates=_chat_templates(path, settings),
        adds_bos=settings.get("add_bos_token"),
    )


def _read_definition(path: Path) -> str:
    """The text of tokenizer.json; without one, transformers converts the model's other files."""
    file = path / "tokenizer.json"
    if file.is_file():
        return read_text(file)
    return _convert_definition(path)


def _convert_definition(path: Path) -> str:
    if not any(found for pattern in _OTHER_SOURCES for found in path.glob(pattern)):
        # transformers would make a tokenizer without a vocabulary.
        raise ModelLoadError(f"{path.name} has no tokenizer.json")
    # Imported here: few models need it.
    from transformers import AutoTokenizer

    try:
        slow = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        shown = slow.decode(slow.encode(_TWO_WORDS, add_special_tokens=False))
        definition = str(slow.backend_tokenizer.to_str())
    except Exception as error:  # transformers raises anything
        raise ModelLoadError(f"{path.name} has no usable tokenizer: {error}") from error
    if shown.strip() and " " not in shown.strip():
        # By the model's type, transformers may choose a class that reads the file wrongly.
        message = f"{type(slow).__name__} loses the blanks; name the class as tokenizer_class"
        raise ModelLoadError(f"{path.name} has no usable tokenizer: {message}")
    return definition


def _end_ids(settings: Json, where: str) -> list[int]:
    value = settings.get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(token_id) is int for token_id in ids):
        raise ModelLoadError(f"eos_token_id in {where} is not a token id, nor a list of them")
    return ids


def _token_text(value: object) -> str:
    """The text of a token, which is given as a string or as an object with ``content``."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else ""


def _chat_templates(path: Path, settings: Json) -> dict[str, str]:
    """By name, from the first of chat_template.jinja, chat_template.json, tokenizer_config.json.

    Further ones are in ``additional_chat_templates/<name>.jinja``.
    """
    file = path / "chat_template.jinja"
    if file.is_file():
        found: object = read_text(file)
    else:
        found = (read_optional_json(path / "chat_template.json") or settings).get("chat_template")
    templates = _named(found)
    for file in sorted(path.glob("additional_chat_templates/*.jinja")):
        templates.setdefault(file.stem, read_text(file))
    return templates


def _named(found: object) -> dict[str, str]:
    """The templates by name: a single one is the default, several are listed with names."""
    try:
        entries: Any = found or []
        if isinstance(found, str):
            entries = [{"name": "default", "template": found}] if found else []
        named = {entry["name"]: entry["template"] for entry in entries}
    except (TypeError, KeyError) as error:
        raise ModelLoadError(_BAD_TEMPLATES) from error
    if not all(isinstance(part, str) for entry in named.items() for part in entry):
        raise ModelLoadError(_BAD_TEMPLATES)
    return named


@dataclass(frozen=True, slots=True)
class _Encoders:
    """One tokenizer in three settings, so that no thread changes one that another uses."""

    parsing: HfTokenizer
    plain: HfTokenizer  # treats the text of control tokens as plain text
    breaking: HfTokenizer  # as ``parsing``, with ``_BREAK`` as one more token


def _encoders(definition: str) -> _Encoders:
    try:
        parsing = HfTokenizer.from_str(definition)
    except Exception as error:  # the library raises plain Exception
        raise ModelLoadError(f"tokenizer.json cannot be read: {error}") from error
    if parsing.get_vocab_size(with_added_tokens=False) == 0:
        # What transformers makes of a tokenizer.model that is none.
        raise ModelLoadError("no usable tokenizer: the vocabulary of tokenizer.* is empty")
    parsing.no_truncation()
    parsing.no_padding()
    plain, breaking = _share_vocabulary(parsing), _share_vocabulary(parsing)
    if plain.get_added_tokens_decoder() != parsing.get_added_tokens_decoder():
        # The others number added tokens in order, as tokenizer.json does in all known models.
        plain, breaking = HfTokenizer.from_str(definition), HfTokenizer.from_str(definition)
    plain.encode_special_tokens = True
    breaking.add_tokens([AddedToken(_BREAK, normalized=False)])
    return _Encoders(parsing, plain, breaking)


def _share_vocabulary(tokenizer: HfTokenizer) -> HfTokenizer:
    """A second tokenizer on the same vocabulary, which takes 90 MB for 150,000 tokens."""
    second = HfTokenizer(tokenizer.model)
    second.normalizer = tokenizer.normalizer
    second.pre_tokenizer = tokenizer.pre_tokenizer
    second.post_processor = tokenizer.post_processor
    for _, token in sorted(tokenizer.get_added_tokens_decoder().items()):
        add = second.add_special_tokens if token.special else second.add_tokens
        add([token])
    return second


class MlxTokenizer:
    """Implements ``workers.engines.base.Tokenizer``."""

    def __init__(
        self,
        definition: str,
        *,
        bos_token: str,
        eos_token: str,
        end_ids: list[int],
        chat_templates: Mapping[str, str],
        adds_bos: bool | None = None,
    ) -> None:
        self._encoders = _encoders(definition)
        self._bos_token, self._eos_token = bos_token, eos_token
        self._chat_templates = chat_templates
        self._adds_bos = adds_bos
        self._pieces = piece_reader(self._encoders.parsing)
        self._control_texts = {
            token_id: token.content
            for token_id, token in self._encoders.parsing.get_added_tokens_decoder().items()
            if token.special
        }
        eos_id = self._encoders.parsing.token_to_id(eos_token)
        self._end_ids = frozenset(end_ids if eos_id is None else [*end_ids, eos_id])
        self._fim_tokens = find_fim_tokens(self._encoders.parsing.token_to_id)

    @property
    def vocab_size(self) -> int:
        return int(self._encoders.parsing.get_vocab_size(with_added_tokens=True))

    def has_vocabulary_of(self, other: MlxTokenizer) -> bool:
        """Whether both vocabularies have the same tokens with the same ids."""
        ours, theirs = self._encoders.parsing, other._encoders.parsing
        return bool(ours.get_vocab() == theirs.get_vocab())

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end a generation, collected from all of the model's files."""
        return self._end_ids

    @property
    def bos_token(self) -> str:
        return self._bos_token

    @property
    def eos_token(self) -> str:
        return self._eos_token

    @property
    def chat_templates(self) -> Mapping[str, str]:
        return self._chat_templates

    @property
    def fim_tokens(self) -> FimTokens | None:
        return self._fim_tokens

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """See ``base.Tokenizer``."""
        encoder = self._encoders.parsing if parse_special else self._encoders.plain
        # add_bos_token of tokenizer_config.json overrides tokenizer.json.
        is_wrapped = add_special and self._adds_bos is not False
        # The fast variant leaves out offsets, which take a quarter of the time.
        found = encoder.encode_batch_fast([text], add_special_tokens=is_wrapped)
        ids: list[int] = found[0].ids
        if not parse_special and self._text_tokens.intersection(ids):
            ids = self._encode_split(text, is_wrapped)
        bos_id = self._bos_id
        if add_special and self._adds_bos and bos_id is not None and ids[:1] != [bos_id]:
            return [bos_id, *ids]
        return ids

    def encode_broken(self, parts: Sequence[str]) -> list[int] | None:
        """Token ids of the joined parts, without a control token across two of them.

        ``None`` if the tokenizer adds a space after a break, or if a part contains the break.
        """
        if self._adds_space_after_break or any(_BREAK in part for part in parts):
            return None
        return self._ids_around_breaks(_BREAK.join(parts))

    def _ids_around_breaks(self, text: str) -> list[int]:
        found = self._encoders.breaking.encode_batch_fast([text], add_special_tokens=False)
        break_id = self._encoders.breaking.token_to_id(_BREAK)
        return [token_id for token_id in found[0].ids if token_id != break_id]

    @cached_property
    def _adds_space_after_break(self) -> bool:
        whole, broken = (
            b"".join(map(self.piece, self._ids_around_breaks(text)))
            for text in ("aa", f"a{_BREAK}a")
        )
        return whole != broken

    @cached_property
    def _text_tokens(self) -> set[int]:
        """Control tokens that the model also makes from plain text: a unigram model uses each entry
        of its vocabulary, and some vocabularies contain the control tokens."""
        plain = self._encoders.plain
        return {
            token_id
            for token_id, text in self._control_texts.items()
            if token_id in plain.encode(text, add_special_tokens=False).ids
        }

    def _encode_split(self, text: str, is_wrapped: bool) -> list[int]:
        """Token ids of a text without control tokens: the text is split inside each of them."""
        texts = (self._control_texts[token_id] for token_id in self._text_tokens)
        cuts = (f"(?<={re.escape(t[0])})(?={re.escape(t[1:])})" for t in texts if len(t) > 1)
        ids: list[int] = []
        for place, part in enumerate(re.split("|".join(cuts), text)):
            is_first = is_wrapped and place == 0
            ids += self._encoders.plain.encode(part, add_special_tokens=is_first).ids
        return ids

    @cached_property
    def _bos_id(self) -> int | None:
        return self._encoders.parsing.token_to_id(self._bos_token)

    def piece(self, token_id: int) -> bytes:
        """See ``base.Tokenizer``; b"" also for ids without a token."""
        return self._pieces(token_id)

    def control_text(self, token_id: int) -> str:
        """See ``base.Tokenizer``."""
        return self._control_texts.get(token_id, "")
