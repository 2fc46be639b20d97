"""Formula: function calls over a closed list of symbols, parsed to a tree; nothing is ever evaluated as code.

Leaves are ``W``, ``G`` and ``X``. Of one argument: ``abs neg sqr sqrt log exp tanh skip minmax zscore``,
with ``sqrt(abs(x))``, ``log(abs(x) + 1e-3)`` and an ``exp`` that is clamped, so that no formula leaves the
reals; ``minmax`` and ``zscore`` run over the whole tensor. Of two: ``add sub mul div``, where ``div`` divides
by the Frobenius norm of its second argument, as in Pruner-Zero (Dong et al. 2024, arXiv 2406.02924).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from surgeon.registry import nearest

__all__ = ["LEAVES", "Node", "parse"]

LEAVES = ("W", "G", "X")

_TINY = 1e-9
_LARGEST_EXPONENT = 80.0
_DEEPEST = 64

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "neg": torch.neg,
    "sqr": torch.square,
    "sqrt": lambda x: x.abs().sqrt(),
    "log": lambda x: (x.abs() + 1e-3).log(),
    "exp": lambda x: x.clamp(max=_LARGEST_EXPONENT).exp(),
    "tanh": torch.tanh,
    "skip": lambda x: x,
    "minmax": lambda x: (x - x.min()) / (x.max() - x.min() + _TINY),
    "zscore": lambda x: (x - x.mean()) / (x.std(correction=0) + _TINY),
}
_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": lambda x, y: x / (y.norm() + _TINY),
}
_SYMBOLS = (*LEAVES, *_UNARY, *_BINARY)
_TOKEN = re.compile(r"\s*(?:([A-Za-z_]\w*)|([(),]))")


@dataclass(frozen=True)
class Node:
    """A symbol and what it is applied to."""

    symbol: str
    inputs: tuple[Node, ...] = ()

    def leaves(self) -> frozenset[str]:
        """The leaves that occur."""
        if not self.inputs:
            return frozenset({self.symbol})
        return frozenset().union(*(node.leaves() for node in self.inputs))

    def value(self, leaves: Mapping[str, Tensor]) -> Tensor:
        """The formula of `leaves`, by name."""
        found = [node.value(leaves) for node in self.inputs]
        if not found:
            return leaves[self.symbol]
        return _UNARY[self.symbol](found[0]) if len(found) == 1 else _BINARY[self.symbol](*found)


def parse(text: str) -> Node:
    """The tree of `text`.

    Raises:
        ValueError: says at which character it goes wrong, and what may stand there.
    """
    reader = _Reader(text)
    tree = reader.node(0)
    if reader.peek() is not None:
        raise ValueError(f"formula, character {reader.at + 1}: expected the end, got '{reader.peek()}'")
    return tree


class _Reader:
    """Reads tokens from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text.rstrip()
        self.at = 0

    def peek(self) -> str | None:
        if self.at >= len(self.text):
            return None
        match = _TOKEN.match(self.text, self.at)
        if match is None:
            wrong = self.text[self.at :].lstrip()[0]
            raise ValueError(f"formula, character {self._place()}: '{wrong}' is no part of a formula")
        return match.group(1) or match.group(2)

    def take(self, expected: str | None = None) -> str:
        token = self.peek()
        if token is None or expected not in (None, token):
            wanted = f"'{expected}'" if expected else "a symbol"
            got = "the end" if token is None else f"'{token}'"
            raise ValueError(f"formula, character {self._place()}: expected {wanted}, got {got}")
        match = _TOKEN.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return token

    def node(self, depth: int) -> Node:
        place = self._place()
        if depth > _DEEPEST:
            raise ValueError(f"formula, character {place}: more than {_DEEPEST} calls within each other")
        symbol = self.take()
        if symbol not in _SYMBOLS:
            raise ValueError(
                f"formula, character {place}: no symbol '{symbol}'; try {nearest(symbol, _SYMBOLS)}"
            )
        if symbol in LEAVES:
            return Node(symbol)
        self.take("(")
        inputs = [self.node(depth + 1)]
        if symbol in _BINARY:
            self.take(",")
            inputs.append(self.node(depth + 1))
        self.take(")")
        return Node(symbol, tuple(inputs))

    def _place(self) -> int:
        """The character that comes next, counted from 1."""
        rest = self.text[self.at :]
        return self.at + len(rest) - len(rest.lstrip()) + 1
