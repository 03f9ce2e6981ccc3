"""Muon for the matrices, AdamW for the rest.

Muon (Keller Jordan, 2024, https://kellerjordan.github.io/posts/muon/) replaces each momentum
matrix by the nearest semi-orthogonal one, found by a few Newton-Schulz steps.
"""

from collections import defaultdict

import torch
from torch import Tensor, nn

# Coefficients of the quintic of the source above: five steps bring singular values near 1.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_MATRIX_RATE, _VECTOR_RATE = 0.02, 3e-3
_MOMENTUM, _DECAY = 0.95, 0.02


def orthogonalise(matrices: Tensor) -> Tensor:
    """A stack (count, rows, columns) with rows <= columns to its semi-orthogonal factors."""
    a, b, c = _QUINTIC
    x = matrices.bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.float()


class Optimizer:
    """Updates all parameters of a model; their learning rates follow one schedule."""

    def __init__(self, model: nn.Module) -> None:
        named = list(model.named_parameters())
        matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
        chosen = {id(p) for p in matrices}
        rest = [p for _, p in named if id(p) not in chosen]
        self._adam = torch.optim.AdamW(
            rest, lr=_VECTOR_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True
        )
        self._momentum = {id(p): torch.zeros_like(p) for p in matrices}
        # Matrices of one shape are orthogonalised in one stack.
        self._stacks: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
        for parameter in matrices:
            self._stacks[tuple(sorted(parameter.shape))].append(parameter)

    def step(self, rate: float) -> None:
        """One step with every learning rate multiplied by `rate`; gradients are zeroed."""
        for group in self._adam.param_groups:
            group["lr"] = _VECTOR_RATE * rate
        self._adam.step()
        self._adam.zero_grad(set_to_none=False)
        with torch.no_grad():
            for stack in self._stacks.values():
                self._step_stack(stack, _MATRIX_RATE * rate)

    def _step_stack(self, stack: list[nn.Parameter], rate: float) -> None:
        wide = torch.stack([_as_wide(self._nesterov(parameter)) for parameter in stack])
        for parameter, update in zip(stack, orthogonalise(wide), strict=True):
            rows, columns = parameter.shape
            update = update if rows <= columns else update.T
            parameter.mul_(1 - rate * _DECAY)
            parameter.add_(update, alpha=-rate * max(1.0, rows / columns) ** 0.5)
            assert parameter.grad is not None
            parameter.grad.zero_()

    def _nesterov(self, parameter: nn.Parameter) -> Tensor:
        assert parameter.grad is not None
        momentum = self._momentum[id(parameter)]
        momentum.lerp_(parameter.grad, 1 - _MOMENTUM)
        return parameter.grad.lerp(momentum, _MOMENTUM)


def _as_wide(matrix: Tensor) -> Tensor:
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T


def schedule(step: int, steps: int) -> float:
    """40 steps of warm-up, constant to 40 % of the steps, then linear to zero."""
    warm_up = min(1.0, (step + 1) / 40)
    return warm_up * min(1.0, (1 - step / steps) / 0.6)
