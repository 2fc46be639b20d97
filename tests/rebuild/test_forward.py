"""Calls of a module with tensors in the place of its own."""

from __future__ import annotations

import torch
from torch import nn

from surgeon.rebuild.forward import call_with


class Noisy(nn.Module):
    """Starts from a canvas that is drawn anew in every forward pass, as diffusion models do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(x + torch.randn(x.shape))


def test_random_draws_are_the_same_in_every_call_and_nobody_else_notices():
    module, x = Noisy().eval(), torch.ones(2, 4)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = call_with(module, {}, x), call_with(module, {}, x)
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    doubled = call_with(module, {"linear.weight": 2 * module.linear.weight}, x)
    bias = module.linear.bias
    torch.testing.assert_close(doubled - bias, 2 * (first - bias))
