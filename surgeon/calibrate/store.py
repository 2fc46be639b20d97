"""Store: where measurements outlive a process, under keys that say all that they depend on.

A key is text. What lies under another key is never returned, so a changed model, text, length, seed, dtype,
Plan, Statistic or release of this package finds nothing. Not here: files (`surgeon.io` has a Store of them).
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor

from surgeon.calibrate.pace import Pace
from surgeon.calibrate.packing import Samples
from surgeon.calibrate.statistic import Collector, Statistic
from surgeon.plan import Plan

__all__ = ["PartialRun", "Store", "code_of", "digest", "measured_on", "statistic_key", "tally_key"]


class Store(Protocol):
    """Named tensors by a key of any length."""

    def load(self, key: str) -> dict[str, Tensor] | None:
        """What was saved under this very key, on the CPU; None where there is nothing whole."""
        ...

    def save(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Put `tensors` there, whole or not at all."""
        ...

    def remove(self, key: str) -> None:
        """Take away what lies there, if anything does."""
        ...


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors with their names, types and shapes."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def measured_on(model: str, samples: Samples, plan: Plan, inputs: str) -> str:
    """What any Statistic depends on: the model, its text in tokens, what is cut of it, and how it is run."""
    values = {name: value for name, value in plan.values.items() if isinstance(value, Tensor)}
    said = {
        "model": model,
        "samples": digest({"ids": samples.ids, "mask": samples.mask}),
        "domains": samples.domains,
        "edits": [repr(edit) for edit in plan.edits],
        "values": digest(values),
        "inputs": inputs,
    }
    return json.dumps(said, sort_keys=True)


def statistic_key(on: str, statistic: Statistic) -> str | None:
    """The key of one Statistic: its name, its parameters and its code, on what is measured.

    None where its code cannot be read, as of a class typed at a prompt: then nothing says what it measures.
    """
    code = code_of(type(statistic))
    if code is None:
        return None
    said = {"on": on, "statistic": statistic.statistic, "key": repr(statistic), "code": code}
    return json.dumps(said, sort_keys=True)


def tally_key(
    model: str, asked: str, plans: Sequence[Plan], batches: Sequence[Samples], code: object
) -> str | None:
    """The key of sums over `batches`: what is added up, by which code, on which model under which Plans."""
    written = code_of(code)
    if written is None:
        return None
    tensors = {id(v): v for plan in plans for v in plan.values.values() if isinstance(v, Tensor)}
    digests = {number: digest({"": tensor}) for number, tensor in tensors.items()}
    said = {
        "model": model,
        "tally": asked,
        "code": written,
        "batches": digest({f"{place}": batch.ids for place, batch in enumerate(batches)}),
        "masks": digest({f"{place}": batch.mask for place, batch in enumerate(batches)}),
        "edits": [[repr(edit) for edit in plan.edits] for plan in plans],
        "values": [{name: digests.get(id(v), "") for name, v in plan.values.items()} for plan in plans],
    }
    return json.dumps(said, sort_keys=True)


def code_of(kind: object) -> str | None:
    """SHA-256 of the file that defines a class or function, when first asked for; None where it has none."""
    module = inspect.getmodule(kind)
    return _digest(kind) if module is None else _digest_of(module)


@cache
def _digest_of(module: ModuleType) -> str | None:
    return _digest(module)


def _digest(kind: object) -> str | None:
    try:
        source = inspect.getsource(kind)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return None
    return hashlib.sha256(source.encode()).hexdigest()


@dataclass(eq=False)
class PartialRun:
    """What an unfinished run has accumulated, put aside from time to time, so that the next one goes on.

    Saved `interval` seconds after the last time, and later where saving takes long.
    """

    store: Store
    key: str
    interval: float = 20.0

    def __post_init__(self) -> None:
        self._pace = Pace(self.interval)

    def resume(self, collectors: Sequence[Collector]) -> tuple[int, float]:
        """Give fresh Collectors what was put aside; how many batches that were, and their loss."""
        found = self.store.load(self.key)
        if found is None:
            return 0, 0.0
        for place, collector in enumerate(collectors):
            mark = f"{place}/"
            collector.merge(
                {name.removeprefix(mark): t for name, t in found.items() if name.startswith(mark)}
            )
        return int(found["batches"]), float(found["loss"])

    def put_aside(self, collectors: Sequence[Collector], batches: int, loss: float) -> None:
        """Save, if it is time."""
        if not self._pace.due():
            return
        with self._pace.saving():
            tensors = {
                f"{place}/{name}": tensor
                for place, collector in enumerate(collectors)
                for name, tensor in (collector.state() or {}).items()
            }
            tensors |= {"batches": torch.tensor(batches), "loss": torch.tensor(loss, dtype=torch.float64)}
            self.store.save(self.key, tensors)

    def over(self) -> None:
        """The run is through; what was put aside is of no more use."""
        self.store.remove(self.key)
