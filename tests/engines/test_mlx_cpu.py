"""What is computed in other ways on a CPU is what MLX computes."""

from __future__ import annotations

from itertools import product
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.activations import swiglu as mlx_swiglu
from mlx_lm.models.base import create_causal_mask
from mlx_lm.models.base import scaled_dot_product_attention as mlx_attention

from workers.engines.mlx.cpu import functions, layers, modules

VOCAB = 96


def close(one: mx.array, other: mx.array) -> bool:
    return one.shape == other.shape and bool(mx.allclose(one, other, atol=1e-4, rtol=1e-4))


class Layers(nn.Module):  # type: ignore[misc, unused-ignore]
    def __init__(self, *, has_bias: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, 64)
        self.up = nn.Linear(64, 128, bias=has_bias)
        self.head = nn.Linear(128, VOCAB, bias=False)


def installed(*, is_quantized: bool, has_bias: bool = True, **options: Any) -> tuple[Layers, ...]:
    """The same layers as MLX's and with NumPy's products."""
    plain, ours = Layers(has_bias=has_bias), Layers(has_bias=has_bias)
    ours.update(plain.parameters())
    if is_quantized:
        nn.quantize(plain, 32, 4)
        nn.quantize(ours, 32, 4)
    layers.install(ours, VOCAB, **options)
    return plain, ours


@pytest.mark.parametrize("num_rows", [1, 2, 3, 8, 70])
@pytest.mark.parametrize(
    ("is_quantized", "kept_bytes", "has_bias"),
    list(product([False, True], [0, 1 << 20], [False, True])),
)
def test_layers(num_rows: int, is_quantized: bool, kept_bytes: int, has_bias: bool) -> None:
    plain, ours = installed(is_quantized=is_quantized, kept_bytes=kept_bytes, has_bias=has_bias)
    x = mx.random.normal((1, num_rows, 64))
    assert close(ours.up(x), plain.up(x))
    rows = x.swapaxes(0, 1)
    assert close(ours.head(ours.up(rows)), plain.head(plain.up(rows)))
    assert close(ours.embed.as_linear(rows), plain.embed.as_linear(rows))


def test_kept_weights_stay_within_their_bound() -> None:
    _, ours = installed(is_quantized=True, kept_bytes=64 * 128 * 4)
    ours.head(ours.up(mx.zeros((70, 1, 64))))
    ours.embed.as_linear(mx.zeros((70, 1, 64)))
    kept = [layer.expanded for layer in (ours.embed, ours.up, ours.head)]
    sizes = [weights.nbytes for weights in kept if weights is not None]
    assert 0 < sum(sizes) <= 64 * 128 * 4


def test_the_head_is_not_computed_of_a_whole_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    _, ours = installed(is_quantized=False)
    taken: list[Any] = []
    monkeypatch.setattr(layers, "_product", lambda *what: taken.append(what))
    ours.head(mx.zeros((1, 50, 128)))
    assert not taken
    ours.head(mx.zeros((50, 1, 128)))
    assert len(taken) == 1


def test_half_precision_is_left_to_mlx() -> None:
    plain, ours = installed(is_quantized=False)
    for mine in (plain, ours):
        mine.set_dtype(mx.float16)
    x = mx.random.normal((1, 9, 64)).astype(mx.float16)
    assert ours.up(x).dtype == mx.float16
    assert close(ours.up(x), plain.up(x))


def heads(num: int, batch: int, rows: int) -> mx.array:
    """As a layer has them: transposed, not in one piece."""
    return mx.random.normal((batch, rows, num, 16)).swapaxes(1, 2)


@pytest.mark.parametrize("block_bytes", [1, 5000, 1 << 24])
@pytest.mark.parametrize(
    ("batch", "rows", "tokens"),
    # The last: a single row with many scores, few rows with many tokens, more rows than a block.
    [(1, 7, 7), (1, 5, 40), (3, 1, 20), (2, 4, 9), (1, 1, 1100), (2, 2, 600), (1, 150, 170)],
)
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("kind", ["none", "causal", "padded", "window", "added"])
def test_attention(
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    kv_heads: int,
    batch: int,
    rows: int,
    tokens: int,
    block_bytes: int,
) -> None:
    monkeypatch.setattr(functions, "_BLOCK_BYTES", block_bytes)
    offset = tokens - rows
    padding = mx.arange(batch) % (offset + 1)
    causal = create_causal_mask(rows, offset)
    masks: dict[str, Any] = {
        "none": None,
        "causal": "causal",
        "padded": create_causal_mask(rows, offset, left_padding=padding),
        "window": create_causal_mask(rows, offset, window_size=3),
        "added": mx.where(causal, mx.random.normal(causal.shape), -mx.inf),
    }
    arrays = heads(4, batch, rows), heads(kv_heads, batch, tokens), heads(kv_heads, batch, tokens)
    expected = mlx_attention(*arrays, None, 0.3, masks[kind])
    assert close(functions.attention(*arrays, None, 0.3, masks[kind]), expected)


def test_a_row_that_sees_nothing_has_no_nan() -> None:
    arrays = heads(2, 1, 3), heads(2, 1, 3), heads(2, 1, 3)
    mask = mx.zeros((1, 1, 3, 3), dtype=mx.bool_)
    assert np.isfinite(np.asarray(functions.attention(*arrays, None, 1.0, mask))).all()


def test_what_else_attention_can_do_is_left_to_mlx() -> None:
    arrays = heads(2, 1, 3), heads(2, 1, 3), heads(2, 1, 3)
    sinks = mx.random.normal((2,))
    expected = mlx_attention(*arrays, None, 1.0, "causal", sinks)
    assert close(functions.attention(*arrays, None, 1.0, "causal", sinks), expected)


def test_swiglu() -> None:
    gate, x = 40 * mx.random.normal((2, 6, 32)), mx.random.normal((2, 6, 32))
    gate[0, 0, 0] = -1000.0
    assert close(functions.swiglu(gate, x), mlx_swiglu(gate, x))


def test_a_model_uses_them() -> None:
    """The names are where mlx_lm's models look for them; fails when mlx_lm moves them."""
    from mlx_lm.models import qwen3

    arguments = qwen3.ModelArgs.from_dict(
        {
            "model_type": "qwen3",
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "intermediate_size": 96,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "rms_norm_eps": 1e-6,
            "vocab_size": VOCAB,
            "max_position_embeddings": 512,
            "rope_theta": 10000.0,
            "tie_word_embeddings": True,
        }
    )
    model = qwen3.Model(arguments)
    tokens = mx.arange(30)[None] % VOCAB
    expected = model(tokens)
    mx.eval(expected)
    before = qwen3.scaled_dot_product_attention, qwen3.swiglu
    try:
        layers.install(model, VOCAB)
        functions.install(model)
        assert qwen3.scaled_dot_product_attention is functions.attention
        assert qwen3.swiglu is functions.swiglu
        assert close(model(tokens), expected)
    finally:
        qwen3.scaled_dot_product_attention, qwen3.swiglu = before


class Places(nn.Module):  # type: ignore[misc, unused-ignore]
    """A norm and rotary positions, as a layer of a model has them."""

    def __init__(self, *, dims: int = 32, is_traditional: bool = False, scale: float = 1.0) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(32, eps=1e-6)
        self.norm.weight = mx.random.uniform(0.5, 2.0, (32,))
        self.rope = nn.RoPE(dims, traditional=is_traditional, base=5000.0, scale=scale)

    def __call__(self, x: mx.array, offset: int | mx.array) -> mx.array:
        return self.rope(self.norm(x), offset=offset)


def placed(**options: Any) -> tuple[Places, Places]:
    """The same layer as MLX's and with what is installed on a CPU."""
    plain, ours = Places(**options), Places(**options)
    ours.update(plain.parameters())
    modules.install(ours)
    return plain, ours


@pytest.mark.parametrize("num_rows", [1, 7, 300])
@pytest.mark.parametrize("first", [0, 1, 4095])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_norms_and_positions(num_rows: int, first: int, scale: float) -> None:
    plain, ours = placed(scale=scale)
    for factor in (1e-4, 1.0, 100.0):
        x = factor * mx.random.normal((2, 3, num_rows, 32))
        assert np.allclose(ours(x, first), plain(x, first), atol=2e-3, rtol=1e-3)
        assert close(ours.norm(x), plain.norm(x))


def test_each_row_of_a_batch_has_its_own_position() -> None:
    plain, ours = placed()
    x, first = mx.random.normal((3, 4, 1, 32)), mx.array([0, 5, 900])
    for _ in range(3):
        # The angles of position 900 are exact to 5e-5.
        assert np.allclose(ours(x, first), plain(x, first), atol=2e-3, rtol=1e-3)
        first += 1  # in place, as the caches of a batch do it
    for row, position in enumerate(first.tolist()):
        alone = ours(x[row : row + 1], position)
        assert np.allclose(ours(x, first)[row : row + 1], alone, atol=2e-3, rtol=1e-3)


def test_positions_follow_each_other() -> None:
    _, ours = placed()
    x = mx.random.normal((1, 2, 50, 32))
    whole = ours.rope(x, offset=10)
    parts = [ours.rope(x[:, :, :20], offset=10), ours.rope(x[:, :, 20:], offset=30)]
    assert close(mx.concatenate(parts, axis=2), whole)


@pytest.mark.parametrize("options", [{"dims": 16}, {"is_traditional": True}])
def test_other_positions_are_left_to_mlx(options: dict[str, Any]) -> None:
    plain, ours = placed(**options)
    x = mx.random.normal((1, 2, 5, 32))
    assert bool(mx.array_equal(ours.rope(x, offset=3), plain.rope(x, offset=3)))


def test_halves_are_left_to_mlx() -> None:
    plain, ours = placed()
    x = mx.random.normal((1, 2, 5, 32)).astype(mx.float16)
    assert bool(mx.array_equal(ours.norm(x), plain.norm(x)))
    assert bool(mx.array_equal(ours.rope(x, offset=3), plain.rope(x, offset=3)))


def test_what_is_installed_adds_no_parameters() -> None:
    plain, ours = placed()
    names = [[name for name, _ in tree_flatten(one.parameters())] for one in (plain, ours)]
    assert names[0] == names[1]
