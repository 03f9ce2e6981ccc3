"""The tokenizer of the demo model, padded to any size, for both formats."""

import copy
import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

GGUF_PRE_TOKENIZER = "qwen2"  # llama.cpp's name for the split that the tokenizer uses
END_OF_TURN, END_OF_TEXT = "<|im_end|>", "<|endoftext|>"


class TokenKind(Enum):
    NORMAL = "normal"
    CONTROL = "control"
    USER_DEFINED = "user_defined"


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id (as text in the byte-level alphabet), merges, and the chat template."""

    tokens: list[str]
    kinds: list[TokenKind]
    merges: list[str]
    chat_template: str
    tokenizer_json: dict[str, Any]

    def id_of(self, token: str) -> int:
        return self.tokens.index(token)

    @property
    def end_ids(self) -> list[int]:
        """Tokens at which generation ends; the end of a turn comes first."""
        return [self.id_of(END_OF_TURN), self.id_of(END_OF_TEXT)]

    def padded(self, size: int) -> "Vocabulary":
        """The same tokenizer with further tokens: words that no text is ever split into."""
        if size < len(self.tokens):
            raise ValueError(f"the vocabulary has {len(self.tokens)} tokens, {size} are too few")
        # Ġ is the space of the byte-level alphabet, so generated text reads " w900 w1023".
        further = {f"Ġw{i}": i for i in range(len(self.tokens), size)}
        tokenizer_json = copy.deepcopy(self.tokenizer_json)
        # Added tokens keep their ids only if the vocabulary holds them when ids follow after them.
        added = {token["content"]: token["id"] for token in tokenizer_json["added_tokens"]}
        tokenizer_json["model"]["vocab"] |= {**added, **further}
        kinds = [*self.kinds, *([TokenKind.NORMAL] * len(further))]
        tokens = [*self.tokens, *further]
        return Vocabulary(tokens, kinds, self.merges, self.chat_template, tokenizer_json)


def read_vocabulary(tokenizer_file: Path, chat_template: str) -> Vocabulary:
    """From a byte-level BPE tokenizer.json whose ids have no gaps."""
    tokenizer_json = json.loads(tokenizer_file.read_text(encoding="utf-8"))
    added = {token["id"]: token for token in tokenizer_json["added_tokens"]}
    by_id = {i: text for text, i in tokenizer_json["model"]["vocab"].items()}
    by_id |= {i: token["content"] for i, token in added.items()}
    if sorted(by_id) != list(range(len(by_id))):
        raise ValueError(f"{tokenizer_file}: the token ids have gaps")
    kinds = [_kind(added.get(i)) for i in range(len(by_id))]
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer_json["model"]["merges"]]
    tokens = [by_id[i] for i in range(len(by_id))]
    return Vocabulary(tokens, kinds, merges, chat_template, tokenizer_json)


def read_model_vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary of an MLX model folder, with its chat template."""
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    return read_vocabulary(folder / "tokenizer.json", config["chat_template"])


def _kind(added: dict[str, Any] | None) -> TokenKind:
    if added is None:
        return TokenKind.NORMAL
    return TokenKind.CONTROL if added["special"] else TokenKind.USER_DEFINED
