"""Unfinished: what a run that goes Block by Block has, put aside so that the next one goes on at its Block.

Each piece (the states before a Block, what was measured in one, what flows back) is saved once, under a key
of its own, and only then the record that names them all. A piece that lacks, as where a cache was tidied,
means starting over. Not here: where they lie (`store`), and the run itself (`streamed`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from surgeon.calibrate.pace import Pace
from surgeon.calibrate.ranks import Ranks
from surgeon.calibrate.store import Store

__all__ = ["Unfinished"]

Named = Mapping[str, Tensor]


@dataclass(eq=False)
class Unfinished:
    """The pieces of one run in `store`, under `key`; of `ranks` that run together each has its own.

    Saved `interval` seconds after the last time, and later where saving takes long.
    """

    store: Store
    key: str
    interval: float
    ranks: Ranks = field(default_factory=Ranks)
    saved: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._pace = Pace(self.interval)

    def resume(self, keep: Callable[[Tensor], Tensor]) -> dict[str, dict[str, Tensor]]:
        """All pieces by name; empty where there are none, or not all, or ranks are not at one place."""
        found = self._found(keep)
        if len(self.ranks.union([json.dumps(sorted(found))])) > 1:
            return {}
        self.saved = set(found)
        return found

    def _found(self, keep: Callable[[Tensor], Tensor]) -> dict[str, dict[str, Tensor]]:
        record = self.store.load(self._under("record"))
        if record is None:
            return {}
        found: dict[str, dict[str, Tensor]] = {}
        for piece in record:
            tensors = self.store.load(self._under(piece))
            if tensors is None:
                return {}
            found[piece] = {name: keep(tensor) for name, tensor in tensors.items()}
        return found

    def put_aside(self, pieces: Mapping[str, Named]) -> None:
        """Where it is time, save those of `pieces` that are not saved yet, and forget all others."""
        if self.ranks.union(["due"] if self._pace.due() else []):
            self._save(pieces)

    def through(self, pieces: Mapping[str, Named]) -> None:
        """The run is through: save `pieces`, which a run of the same key finds, and forget all others."""
        self._save(pieces)

    def _save(self, pieces: Mapping[str, Named]) -> None:
        with self._pace.saving():
            for piece, tensors in pieces.items():
                if piece not in self.saved:
                    self.store.save(self._under(piece), tensors)
            self.store.save(self._under("record"), {piece: torch.zeros(1) for piece in pieces})
            for piece in self.saved - set(pieces):
                self.store.remove(self._under(piece))
            self.saved = set(pieces)

    def over(self) -> None:
        """The run is through; what was put aside is of no more use."""
        for piece in ("record", *sorted(self.saved)):
            self.store.remove(self._under(piece))

    def _under(self, piece: str) -> str:
        return json.dumps({"run": self.key, "piece": piece})
