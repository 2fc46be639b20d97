"""Statistic ``block_similarity``: how much a run of Blocks turns the residual stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from surgeon.calibrate.statistic import Collector, Observation, Run, Statistic, statistics
from surgeon.errors import SurgeonError
from surgeon.graph import Graph, Group

__all__ = ["Between", "BlockSimilarity"]

Between = Literal["cosine", "angular", "manhattan", "euclidean"]
"""What lies between two states: how much they are alike (``cosine``), or how far they are apart."""


@statistics.register("block_similarity")
@dataclass(frozen=True)
class BlockSimilarity(Statistic):
    """Mean over tokens of what lies between a Block's input and the output `span` Blocks on, by name; [].

    ``cosine`` as in ShortGPT (Men et al. 2024, arXiv 2403.03853), whose block influence is 1 minus it.
    ``angular`` is arccos(cosine)/pi, as in Gromov et al. (2024, arXiv 2403.17887), who take the last
    token of each sample and spans of several Blocks. ``manhattan`` and ``euclidean`` are lengths of what
    was added, beside ``cosine`` in Adapt-Pruner (Pan et al. 2025, arXiv 2502.03460). The name is that of
    the first Block of the run; runs that would end beyond the last Block are absent.
    """

    statistic: ClassVar[str] = "block_similarity"
    measure: Between = "cosine"
    tokens: Literal["all", "last"] = "all"
    span: int = 1
    blocks: tuple[str, ...] = ()
    """Module paths of the Blocks of one Stack, in order."""

    @property
    def between(self) -> tuple[str, ...]:
        """The Blocks."""
        return self.blocks

    @property
    def reach(self) -> int:
        """The span."""
        return self.span

    def on(self, graph: Graph, groups: Collection[Group]) -> BlockSimilarity:
        """With the Blocks of the longest Stack."""
        longest = max(graph.stacks, key=len, default=None)
        return replace(self, blocks=() if longest is None else tuple(b.name for b in longest.blocks))

    def collector(self, run: Run) -> Collector:
        """A fresh Collector.

        Raises:
            SurgeonError: no Block is named.
        """
        if not self.blocks:
            raise SurgeonError("no blocks to compare: the graph has no stack of residual blocks")
        return _Similarity(self, run.module)


class _Similarity(Collector):
    def __init__(self, key: BlockSimilarity, module: nn.Module) -> None:
        self.key = key
        self.module = module
        self.states: dict[int, Tensor] = {}
        self.sums = torch.zeros(len(key.blocks) - key.span + 1, dtype=torch.float64)
        self.count = 0

    def attach(self) -> tuple[RemovableHandle, ...]:
        parts = [self.module.get_submodule(name) for name in self.key.blocks]
        return tuple(
            part.register_forward_hook(self._hook(place), with_kwargs=True)
            for place, part in enumerate(parts)
        )

    def observe(self, observation: Observation) -> None:
        for start in range(len(self.sums)):
            self.compare(start, self.states[start], self.states[start + self.key.span])
        self.states = {}

    def compare(self, place: int, entering: Tensor, leaving: Tensor) -> None:
        self.sums[place] += self._between(entering, leaving).sum(dtype=torch.float64).cpu()
        if place == 0:
            self.count += self._tokens(entering).shape[:-1].numel()

    def state(self) -> Mapping[str, Tensor]:
        return {"sums": self.sums, "count": torch.tensor(self.count)}

    def merge(self, state: Mapping[str, Tensor]) -> None:
        self.sums = self.sums + state["sums"]
        self.count += int(state["count"])

    def result(self) -> Mapping[str, Tensor]:
        return {self.key.blocks[place]: total / self.count for place, total in enumerate(self.sums)}

    def _between(self, entering: Tensor, leaving: Tensor) -> Tensor:
        x, y = self._tokens(entering), self._tokens(leaving).to(entering.device)
        if self.key.measure in ("manhattan", "euclidean"):
            return torch.linalg.vector_norm(y - x, ord=1 if self.key.measure == "manhattan" else 2, dim=-1)
        cosine = nn.functional.cosine_similarity(x, y, dim=-1)
        return cosine if self.key.measure == "cosine" else cosine.clamp(-1, 1).arccos() / math.pi

    def _tokens(self, state: Tensor) -> Tensor:
        chosen = state if self.key.tokens == "all" else state[..., -1, :]
        return chosen.to(torch.promote_types(chosen.dtype, torch.float32))

    def _hook(self, place: int) -> Callable[..., None]:
        def after(block: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
            leaving = output[0] if isinstance(output, tuple) else output
            entering = next(
                given
                for given in (*args, *kwargs.values())
                if isinstance(given, Tensor) and given.shape == leaving.shape
            )
            self.states[place] = entering.detach()
            if place == len(self.key.blocks) - 1:
                self.states[place + 1] = leaving.detach()

        return after
