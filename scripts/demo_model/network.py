"""The network in PyTorch: a small qwen3 (RMS norm, rotary positions, grouped heads, SwiGLU)."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Architecture:
    """Sizes in the names that a qwen3 config.json uses."""

    vocab_size: int = 768
    hidden_size: int = 192
    num_hidden_layers: int = 5
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 32
    intermediate_size: int = 512
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


def rotary_angles(length: int, arch: Architecture) -> tuple[Tensor, Tensor]:
    """Cosines and sines of shape (length, head_dim), both halves of a head alike."""
    exponents = torch.arange(0, arch.head_dim, 2) / arch.head_dim
    angles = torch.outer(torch.arange(length).float(), arch.rope_theta**-exponents)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = angles
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        size, head = arch.hidden_size, arch.head_dim
        self.q_proj = nn.Linear(size, arch.num_attention_heads * head, bias=False)
        self.k_proj = nn.Linear(size, arch.num_key_value_heads * head, bias=False)
        self.v_proj = nn.Linear(size, arch.num_key_value_heads * head, bias=False)
        self.o_proj = nn.Linear(arch.num_attention_heads * head, size, bias=False)
        self.q_norm = RMSNorm(head, arch.rms_norm_eps)
        self.k_norm = RMSNorm(head, arch.rms_norm_eps)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        """(batch, length, hidden) to the same shape; causal attention."""
        batch, length, _ = x.shape
        split = (batch, length, -1, self.arch.head_dim)
        q = rotate(self.q_norm(self.q_proj(x).view(split)).transpose(1, 2), angles)
        k = rotate(self.k_norm(self.k_proj(x).view(split)).transpose(1, 2), angles)
        v = self.v_proj(x).view(split).transpose(1, 2)
        group = self.arch.num_attention_heads // self.arch.num_key_value_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(batch, length, -1))


class FeedForward(nn.Module):
    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(arch.hidden_size, arch.intermediate_size, bias=False)
        self.up_proj = nn.Linear(arch.hidden_size, arch.intermediate_size, bias=False)
        self.down_proj = nn.Linear(arch.intermediate_size, arch.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.self_attn = Attention(arch)
        self.mlp = FeedForward(arch)
        self.input_layernorm = RMSNorm(arch.hidden_size, arch.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(arch.hidden_size, arch.rms_norm_eps)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), angles)
        return x + self.mlp(self.post_attention_layernorm(x))


class LanguageModel(nn.Module):
    """Tied embeddings; parameter names are those of a qwen3 checkpoint without `model.`."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        self.embed_tokens = nn.Embedding(arch.vocab_size, arch.hidden_size)
        self.layers = nn.ModuleList(Block(arch) for _ in range(arch.num_hidden_layers))
        self.norm = RMSNorm(arch.hidden_size, arch.rms_norm_eps)
        for name, parameter in self.named_parameters():
            _initialise(name, parameter)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (batch, length) to logits (batch, length, vocab)."""
        x = self.embed_tokens(ids)
        cos, sin = rotary_angles(ids.shape[1], self.arch)
        for layer in self.layers:
            x = layer(x, (cos.to(x.dtype), sin.to(x.dtype)))
        return functional.linear(self.norm(x), self.embed_tokens.weight)


def _initialise(name: str, parameter: Tensor) -> None:
    """Fan-in scaling; half of it for a block's outputs, for a small initial residual update."""
    if parameter.ndim < 2:
        return
    if name.startswith("embed_tokens"):
        nn.init.normal_(parameter, std=0.02)
        return
    scale = 0.5 if "o_proj" in name or "down_proj" in name else 1.0
    nn.init.normal_(parameter, std=scale * parameter.shape[1] ** -0.5)
