"""Small modules whose couplings are known: a residual MLP with one operation in its middle.

Sizes are pairwise different, and none is a batch (5) or a length (19).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from surgeon.rebuild.symmetry import randomised

VOCAB, HIDDEN, WIDTH = 26, 14, 24
IDS = torch.zeros(5, 19, dtype=torch.int64)
Body = Callable[["Toy", Tensor], Tensor]


class Toy(nn.Module):
    """Embedding [26, 14] → h + down(body(up(h))), width 24 → logits [26]."""

    def __init__(self, body: Body, **parts: object) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, HIDDEN)
        self.up = nn.Linear(HIDDEN, WIDTH)
        self.down = nn.Linear(WIDTH, HIDDEN)
        self.out = nn.Linear(HIDDEN, VOCAB)
        self.body = body
        for name, part in parts.items():
            setattr(self, name, part)

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def forward(self, input_ids: Tensor) -> Tensor:
        hidden = self.embed(input_ids)
        return self.out(hidden + self.down(self.body(self, self.up(hidden))))


def toy(body: Body, **parts: Callable[[], object]) -> Toy:
    """A Toy in float64 with random weights and buffers; `parts` are made anew."""
    torch.manual_seed(0)
    module = randomised(Toy(body, **{name: make() for name, make in parts.items()}).eval())
    with torch.no_grad():
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 2.0)
    return module


def through(layout: str, *more: str) -> frozenset[str]:
    """Sites of an axis that runs from `up` through the body into `down`, all in one layout."""
    ends = ("up.weight[0]", "up.bias[0]", "down.weight[1]")
    return frozenset({*(f"{end} {layout}" for end in ends), *more})
