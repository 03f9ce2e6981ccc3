"""Small tokenizers of the five kinds that models have, trained on a few lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

UNKNOWN, BOS, EOS = "<unk>", "<s>", "</s>"
START, END = "<|im_start|>", "<|im_end|>"
CONTROL = [BOS, EOS, START, END]
TOOL_CALL = "<tool_call>"  # an added token that has a text
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_SPACE = "▁"
_DEMO = Path(__file__).parents[3] / "models" / "demo" / "tokenizer.json"
_LINES = [
    "The weather in Rome is fine today, and the sun shines on the hills.",
    "A function returns a value; call it with an argument and read the result.",
    'if value is not None: return {"name": "probe", "arguments": {"city": "Rome"}}',
    "Einige Wörter sind länger als andere, manche sind kürzer, viele häufig.",
    "user assistant system tool function answer question number 0 1 2 3 4 5 6 7 8 9",
    "true false null [ ] { } : ; , . ! ? ( ) < > / = + - * # ' \" _ | \\ & % $ @ ~ ^ `",
    "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ äöüß é",
] * 4  # a pair has to come more than once


def byte_level() -> Tokenizer:
    """As GPT-2's and Qwen's: every byte has a letter."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = Tokenizer.from_file(str(_DEMO)).pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(_LINES, trainer)
    return _with_added(tokenizer)


def tekken() -> Tokenizer:
    """A byte-level vocabulary with the decoder of a SentencePiece model."""
    tokenizer = byte_level()
    tokenizer.decoder = _sentencepiece_decoder()
    return tokenizer


def sentencepiece() -> Tokenizer:
    """As Llama 2's: blanks are ``▁``, and what is not in the vocabulary is spelled in bytes."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(_LINES, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    words = sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__)
    vocab = {word: i for i, word in enumerate([UNKNOWN, *CONTROL, *BYTES, *words])}
    merges = _merges(trained)
    model = models.BPE(
        vocab=vocab, merges=merges, byte_fallback=True, unk_token=UNKNOWN, fuse_unk=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)]
    )
    tokenizer.decoder = _sentencepiece_decoder()
    bos_id = vocab[BOS]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, bos_id)]
    )
    return _with_added(tokenizer)


def metaspace_first() -> Tokenizer:
    """As newer ones of the same family: a blank comes before a text, not after control tokens."""
    tokenizer = sentencepiece()
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return tokenizer


def stripping() -> Tokenizer:
    """As Phi-3's: control tokens take the white space behind them."""
    tokenizer = byte_level()
    tokenizer.add_special_tokens(
        [AddedToken(text, rstrip=True, special=True, normalized=False) for text in (START, END)]
    )
    return tokenizer


def word_piece() -> Tokenizer:
    """As BERT's: lower case, ``##`` before what continues a word."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    trainer = trainers.WordPieceTrainer(
        vocab_size=400, special_tokens=[UNKNOWN, *CONTROL], show_progress=False
    )
    tokenizer.train_from_iterator(_LINES, trainer)
    return _with_added(tokenizer)


def unigram() -> Tokenizer:
    """As T5's: the likeliest split into words that each have a score."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300,
        special_tokens=[UNKNOWN, *CONTROL],
        initial_alphabet=["\n"],  # templates have line breaks
        unk_token=UNKNOWN,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_LINES, trainer)
    return _with_added(tokenizer)


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte_level": byte_level,
    "tekken": tekken,
    "sentencepiece": sentencepiece,
    "metaspace_first": metaspace_first,
    "stripping": stripping,
    "word_piece": word_piece,
    "unigram": unigram,
}


def _with_added(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_special_tokens([UNKNOWN, *CONTROL])
    tokenizer.add_tokens([AddedToken(TOOL_CALL, special=False, normalized=False)])
    return tokenizer


def _merges(trained: Tokenizer) -> list[tuple[str, str]]:
    found = json.loads(trained.to_str())["model"]["merges"]
    return [(left, right) for left, right in found]


def _sentencepiece_decoder() -> decoders.Decoder:
    return decoders.Sequence(
        [
            decoders.Replace(_SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
