"""Windows: how a text becomes scored positions. A perplexity means nothing without this protocol.

Not here: tokenisation (`calibrate`), what is computed from the windows (one metric a file).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from surgeon.errors import InputError

__all__ = ["Window", "Windowing", "windows"]


@dataclass(frozen=True, slots=True)
class Windowing:
    """Text is cut into windows of `window` tokens, one every `stride`; each token is scored once.

    The first token of a window has no context and is not scored, unless `bos` (a token id) is put in
    front of every window. Where windows overlap, a token is scored in the first window that holds it.
    A last, shorter window is kept.
    """

    window: int = 512
    stride: int | None = None
    bos: int | None = None

    def __post_init__(self) -> None:
        if self.window < 2:
            raise InputError(f"a window of {self.window} tokens predicts nothing", hint="window: 2 or more")
        if not 1 <= self.step <= self.window:
            raise InputError(
                f"stride {self.stride} does not fit a window of {self.window} tokens",
                hint=f"a stride from 1 to {self.window}",
            )

    @property
    def step(self) -> int:
        """Distance between the starts of two windows."""
        return self.window if self.stride is None else self.stride

    def __str__(self) -> str:
        start = "no start token" if self.bos is None else f"start token {self.bos}"
        return f"window {self.window}, stride {self.step}, {start}"


@dataclass(frozen=True, slots=True)
class Window:
    """`tokens` [1, length]; `first` is the first position whose next token is scored."""

    tokens: Tensor
    first: int

    @property
    def targets(self) -> Tensor:
        """The scored tokens, [scored]."""
        return self.tokens[0, self.first + 1 :]

    def predictions(self, logits: Tensor) -> Tensor:
        """The rows of `logits` [1, length, vocab] that predict `targets`, as float32 [scored, vocab]."""
        return logits[0, self.first : -1].float()


def windows(ids: Tensor, protocol: Windowing) -> Iterator[Window]:
    """Cut token ids [n] by the protocol.

    Raises:
        InputError: there is no position to score.
    """
    shortest = 2 if protocol.bos is None else 1
    if ids.ndim != 1 or ids.numel() < shortest:
        raise InputError(
            f"the text has {ids.numel()} tokens, at least {shortest} are needed", hint="give a longer text"
        )
    begin = torch.tensor([] if protocol.bos is None else [protocol.bos], dtype=ids.dtype, device=ids.device)
    seen = 0
    for start in range(0, ids.numel(), protocol.step):
        end = min(start + protocol.window, ids.numel())
        tokens = torch.cat([begin, ids[start:end]])
        first = max(seen - start, 1 - begin.numel()) + begin.numel() - 1
        if first < tokens.numel() - 1:
            yield Window(tokens[None], first)
        seen = end
        if end == ids.numel():
            return
