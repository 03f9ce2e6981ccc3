"""The tokenizer: byte-level BPE with the qwen2 pre-tokenizer, which llama.cpp supports by name."""

import re
from collections.abc import Iterable, Iterator

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from scripts.demo_model.template import CONTROL_TOKENS, TOOL_TOKENS

VOCAB_SIZE = 768
GGUF_PRE_TOKENIZER = "qwen2"

# The split that llama.cpp applies for "qwen2": contractions, words, single digits, signs, spaces.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """A tokenizer of `VOCAB_SIZE` tokens: 256 bytes, the merges, then the five added ones."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_SPLIT), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(CONTROL_TOKENS) - len(TOOL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_plain(texts), trainer)
    tokenizer.add_special_tokens(CONTROL_TOKENS)
    added = [AddedToken(token, special=False, normalized=False) for token in TOOL_TOKENS]
    tokenizer.add_tokens(added)
    return tokenizer


def _plain(texts: Iterable[str]) -> Iterator[str]:
    """ASCII without the added tokens: emoji must stay several byte tokens, see README.md."""
    marks = re.compile("|".join(map(re.escape, CONTROL_TOKENS + TOOL_TOKENS)))
    for text in texts:
        yield re.sub(r"[^\x00-\x7f]+", " ", marks.sub(" ", text))
