"""Memory: what was measured before needs no run of the model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from surgeon.calibrate.packing import Samples
from surgeon.calibrate.ranks import Ranks
from surgeon.calibrate.results import Statistics
from surgeon.calibrate.statistic import Statistic
from surgeon.calibrate.store import PartialRun, Store, measured_on, statistic_key, tally_key
from surgeon.plan import Plan

__all__ = ["Memory"]

Gathered = Callable[[Sequence[Statistic], PartialRun | None], Statistics]
"""Measures Statistics in one run, which may be an unfinished one that is taken up."""


@dataclass(eq=False)
class Memory:
    """Statistics of one model, kept in a Store.

    `identity` says in words all that makes the model what it is; `device` is where results are wanted;
    `interval` as for `PartialRun`. `runs` counts the runs over its text that were needed.
    """

    store: Store
    identity: Callable[[], str]
    device: str = "cpu"
    interval: float = 20.0
    runs: int = field(default=0, init=False)

    @cached_property
    def model(self) -> str:
        """What the model is, asked once and only when something is measured."""
        return self.identity()

    def measured(
        self,
        keys: Sequence[Statistic],
        samples: Samples,
        plan: Plan,
        gathered: Gathered,
        inputs: str = "dense",
    ) -> Statistics:
        """`keys` under `plan`, those that are not known by `gathered`, whose results are kept."""
        on, ranks = measured_on(self.model, samples, plan, inputs), Ranks.now()
        names = {key: statistic_key(on, key) for key in keys}
        known = {key: found for key, name in names.items() if name and (found := self.store.load(name))}
        lacking = ranks.union([repr(key) for key in keys if key not in known])
        missing = tuple(key for key in keys if repr(key) in lacking)
        parts = [self._read(key, known[key]) for key in keys if key not in missing]
        if missing:
            self.runs += 1
            partial = PartialRun(self.store, _partial_key(on, missing, ranks), self.interval)
            fresh = gathered(missing, partial)
            for key in missing if ranks.first else ():
                if (name := names[key]) is not None:
                    self.store.save(name, _written(key, fresh))
            partial.over()
            parts.append(fresh)
        first = parts[-1]
        results = {key: found for part in parts for key, found in part.results.items()}
        return Statistics(results, first.samples, first.tokens, first.loss)

    def tallied(
        self,
        asked: str,
        plans: Sequence[Plan],
        batches: Sequence[Samples],
        each: object,
        summed: Callable[[], Tensor],
    ) -> Tensor:
        """What was kept of the same sums, or what `summed` gives, which is kept; see `tally`."""
        name, ranks = tally_key(self.model, asked, plans, batches, each), Ranks.now()
        known = None if name is None else self.store.load(name)
        if not ranks.union([asked] if known is None else []) and known is not None:
            return known["sums"]
        self.runs += 1
        found = summed()
        if name is not None and ranks.first:
            self.store.save(name, {"sums": found})
        return found

    def _read(self, key: Statistic, found: dict[str, Tensor]) -> Statistics:
        results = {n.removeprefix("of/"): t.to(self.device) for n, t in found.items() if n.startswith("of/")}
        loss = float(found["loss"])
        known = None if math.isnan(loss) else loss
        return Statistics({key: results}, int(found["samples"]), int(found["tokens"]), known)


def _written(key: Statistic, measured: Statistics) -> dict[str, Tensor]:
    numbers = {
        "samples": torch.tensor(measured.samples),
        "tokens": torch.tensor(measured.tokens),
        "loss": torch.tensor(math.nan if measured.loss is None else measured.loss, dtype=torch.float64),
    }
    return numbers | {f"of/{name}": tensor for name, tensor in measured.get(key).items()}


def _partial_key(on: str, missing: Sequence[Statistic], ranks: Ranks) -> str:
    said = {"unfinished": on, "keys": [repr(key) for key in missing], "rank": [ranks.rank, ranks.size]}
    return json.dumps(said, sort_keys=True)
