"""A narrowed block, run with one set of numbers after another until one is found with which it runs.

Code that reshapes to the width of its input, where its own width is meant, runs with no number: it is run
once more with reshapes to the widths that its tensors now have. Not here: which numbers make sense
(`per_layer_parts`), and the class that reshapes (`per_layer_model`).
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn
from transformers import PreTrainedModel

from surgeon.errors import InfeasibleError
from surgeon.rebuild.per_layer_absent import runs
from surgeon.rebuild.per_layer_model import LayerConfig, change, narrow
from surgeon.rebuild.skeleton import skeleton

__all__ = ["Choice", "Reshapes", "Row", "first_that_runs", "readers"]

Row = dict[str, object]
"""What differs in one module: new shapes of tensors, and new attributes."""

Reshapes = dict[str, tuple[tuple[int, int], ...]]
"""For modules, by path below the block: pairs of an old width and the new one."""

TRIES = (64, 512)
"""Combinations of ambiguous values that are run before reshapes are tried, and before it is given up."""


class Choice(NamedTuple):
    """One value to be found: an attribute of modules below the block, or (no paths) a field."""

    paths: tuple[str, ...]
    name: str
    old: int
    values: tuple[int, ...]


def first_that_runs(
    module: PreTrainedModel,
    block: str,
    rows: Mapping[str, Row],
    choices: Sequence[Choice],
    axes: Mapping[str, Collection[tuple[int, int]]],
) -> tuple[tuple[int, ...], Reshapes]:
    """One value for each choice with which the narrowed block runs, and the reshapes that it takes.

    Args:
        module: the model that the block is narrowed in.
        block: its module path; empty for the whole.
        rows: what differs in its modules for certain, by path below it.
        choices: what is not certain, the values that come early most likely.
        axes: for its tensors, by name below it, old and new sizes of the Axes in them.

    Raises:
        InfeasibleError: it runs with none.
    """
    trial = _trial(module, block)
    own = trial.own
    ways = [_reshapes(own, rows, {}), _reshapes(own, rows, axes)]  # axes as well where widths do not do
    for path, row in rows.items():
        change(own, path, row)
    fault: str | None = None
    for tries in TRIES:
        found, fault = trial.first(choices, tries)
        if found is not None:
            return found, {}
        for reshaping in filter(None, ways):
            with _reshaped(own, reshaping):
                found, _ = trial.first(choices, tries)
                if found is not None:
                    return found, {path: reshaping[path] for path in reshaping if trial.needs(path)}
    raise InfeasibleError(
        f"'{block}' cannot be run with the planned shapes, whatever its attributes are: {fault}",
        hint="another count, or fewer kinds in one step",
    )


@dataclass(frozen=True)
class _Trial:
    """A model that is run, and its block `own`.

    `attending`: it runs on the states of an encoder as well. `replaces`: a pass puts new parts in the place
    of old ones, made of the config, so that each pass begins with a copy.
    """

    whole: PreTrainedModel
    own: nn.Module
    read_by: tuple[str, ...]
    attending: bool
    replaces: bool

    def fault(self) -> str | None:
        """Why it does not run, or None."""
        whole = copy.deepcopy(self.whole) if self.replaces else self.whole
        return runs(whole) or (runs(whole, attending=True) if self.attending else None)

    def first(self, choices: Sequence[Choice], tries: int) -> tuple[tuple[int, ...] | None, str | None]:
        """The first values with which it runs, or None and why the last ones do not."""
        fault: str | None = None
        for values in _by_number_of_changes([choice.values for choice in choices], tries):
            fields: Row = {}
            for choice, value in zip(choices, values, strict=True):
                if not choice.paths:
                    fields[choice.name] = value
                for path in choice.paths:
                    setattr(self.own.get_submodule(path), choice.name, value)
            for path in self.read_by:
                part = self.own.get_submodule(path)
                # torch annotates what is set on a module as a tensor or a module; it takes anything.
                part.config = LayerConfig(self.whole.config, fields)  # type: ignore[assignment]
            fault = self.fault()
            if fault is None:
                return values, None
        return None, fault

    def needs(self, path: str) -> bool:
        """Whether it does not run with the module at `path` as it was; where it does, it stays as it was."""
        part = self.own.get_submodule(path)
        changed, part.__class__ = part.__class__, part.__class__.__mro__[2]
        needed = self.fault() is not None
        if needed:
            part.__class__ = changed
        return needed


def _trial(module: PreTrainedModel, block: str) -> _Trial:
    """Before anything narrows: `module`, or where it does not run, a twin that has storage."""
    whole, before = module, _classes(module)
    device = "meta" if runs(whole) is None else "cpu"
    if device == "cpu":
        whole = skeleton(module.config, device=device)
        runs(whole)
    attending = runs(whole, attending=True) is None
    replaces = _classes(whole) != before
    whole = skeleton(module.config, device=device) if replaces else whole
    own = whole.get_submodule(block)
    return _Trial(whole, own, readers(whole, own), attending, replaces)


def _classes(module: nn.Module) -> dict[str, type]:
    return {path: type(part) for path, part in module.named_modules()}


@contextmanager
def _reshaped(own: nn.Module, reshaping: Reshapes) -> Iterator[None]:
    """While open, the modules at these paths reshape to their own widths."""
    stock = {path: type(own.get_submodule(path)) for path in reshaping}
    for path, widths in reshaping.items():
        narrow(own.get_submodule(path), {"reshapes": widths})
    try:
        yield
    finally:
        for path, before in stock.items():
            own.get_submodule(path).__class__ = before


def _reshapes(
    own: nn.Module, rows: Mapping[str, Row], axes: Mapping[str, Collection[tuple[int, int]]]
) -> Reshapes:
    """Modules right above those that narrow; widths of the latter, and sizes in them, with one new size."""
    widths: dict[str, dict[int, set[int]]] = {}
    for path, row in rows.items():
        held = own.get_submodule(path)
        for name, shape in row.items():
            old = getattr(held, name, None)
            if path and isinstance(old, Tensor) and isinstance(shape, list):
                above = widths.setdefault(_above(own, path), {})
                for before, after in (*zip(old.shape, shape, strict=True), *axes.get(f"{path}.{name}", ())):
                    if before != after:
                        above.setdefault(before, set()).add(after)
    return {
        path: tuple((old, sizes.pop()) for old, sizes in found.items() if len(sizes) == 1)
        for path, found in widths.items()
    }


def _above(own: nn.Module, path: str) -> str:
    """The nearest module above `path` that computes anything: lists of modules do not."""
    above = path.rpartition(".")[0]
    while above and type(own.get_submodule(above)).forward is nn.Module.forward:
        above = above.rpartition(".")[0]
    return above


def _by_number_of_changes(lists: Sequence[Sequence[int]], tries: int) -> Iterator[tuple[int, ...]]:
    """One of each list, `tries` ways, those first that take what stands early in the lists."""
    free = [place for place, values in enumerate(lists) if len(values) > 1]
    ranks = itertools.chain.from_iterable(
        itertools.combinations(free, changed) for changed in range(len(free) + 1)
    )
    tried = (
        dict(zip(places, others, strict=True))
        for places in ranks
        for others in itertools.product(*(lists[place][1:] for place in places))
    )
    for other in itertools.islice(tried, tries):
        yield tuple(other.get(place, values[0]) for place, values in enumerate(lists))


def readers(module: PreTrainedModel, own: nn.Module | None = None) -> tuple[str, ...]:
    """Paths below `own` (None: the whole) of parts, themselves no models, that keep the model's config."""
    return tuple(
        path
        for path, part in (own or module).named_modules()
        if vars(part).get("config") is module.config and not isinstance(part, PreTrainedModel)
    )
