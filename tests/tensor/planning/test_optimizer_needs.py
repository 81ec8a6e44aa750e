"""The planned states of each optimizer beside those that it makes."""

from __future__ import annotations

import pytest
import torch

from sdft.events import ignore
from sdft.planning.optimizers import NEEDS
from sdft.train.optim import OPTIMIZERS, build_optimizer

SHAPES = ((96, 64, 3, 3), (128, 64), (512,))
TABLES = ("qmap1", "qmap2")
"""Of 8-bit states; one for all weights."""


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    total = 0
    for states in optimizer.state.values():
        for name, one in states.items():
            if isinstance(one, torch.Tensor) and one.numel() > 1 and name not in TABLES:
                total += one.numel() * one.element_size()
    return total


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", NEEDS)
def test_the_states_are_as_large_as_planned(name, dtype):
    weights = [torch.nn.Parameter(torch.randn(shape).to(dtype)) for shape in SHAPES]
    group = {"params": weights, "lr": 1e-3, "base_lr": 1e-3}
    optimizer = build_optimizer(name, [group], lr=1e-3, arguments={}, emit=ignore)
    for _ in range(2):
        for weight in weights:
            weight.grad = torch.randn_like(weight) * 0.01
        optimizer.step()
    needs = NEEDS[name]
    planned = sum(map(needs.state_bytes, SHAPES))
    # Paged ones are replaced on a CPU, the others are of their own classes.
    follows = needs.follows_weights and dtype == torch.bfloat16
    assert state_bytes(optimizer) == pytest.approx(planned / (2 if follows else 1), rel=0.02)


def test_every_optimizer_has_a_plan():
    assert NEEDS.keys() == set(OPTIMIZERS)
