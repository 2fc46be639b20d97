"""Which of several configs with the planned shapes is meant: shapes alone do not tell.

Half the head size builds the same matrices as half the heads. What tells them apart is measured too:
constants that the model computes from its config must not change (else the rebuilt model is another
function of the same weights), and counts that modules keep must be what the planned Axis sizes say.
Not here: finding such configs (`config_search`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from torch import Tensor

from surgeon.rebuild.config_probe import ConfigSpace, Field
from surgeon.rebuild.config_target import Target, Width
from surgeon.rebuild.config_tree import Path
from surgeon.rebuild.signature import Number, Signature, measure

__all__ = [
    "changed_constants",
    "changed_numbers",
    "expected_values",
    "odd_fields",
    "odd_numbers",
    "same_number",
]

ROUNDING = 1e-12
"""Two numbers of a config that are closer than this share of them are one."""


def expected_values(value: int, widths: Iterable[Width]) -> frozenset[int]:
    """What `value` becomes where it is a product of Axis sizes, for every way to see it as one.

    Empty where it is no such product: then nothing is known about it.
    """
    ways: dict[int, set[int]] = {1: {1}}
    for old, new in {(w.kind, w.old, w.new): (w.old, w.new) for w in widths if w.old > 1}.values():
        for product, results in list(ways.items()):
            if value % (product * old) == 0:
                ways.setdefault(product * old, set()).update(result * new for result in results)
    return frozenset(ways.get(value, ())) if value > 1 else frozenset()


def odd_fields(fields: Iterable[Field], target: Target, changes: Mapping[Path, object]) -> tuple[Field, ...]:
    """Fields whose value is a product of Axis sizes before but not after."""
    odd: list[Field] = []
    for f in fields:
        if type(f.stands_for) is not int or (f.implicit and f.path not in changes):
            continue
        expected = expected_values(f.stands_for, target.widths)
        if expected and changes.get(f.path, f.stands_for) not in expected:
            odd.append(f)
    return tuple(odd)


def odd_numbers(
    fields: Sequence[Field], target: Target, base: Signature, other: Signature
) -> tuple[Number, ...]:
    """Counts, among those that `fields` move, that are products of Axis sizes before but not after.

    A count of one, the empty product, stays one: the ratio of two equal counts.
    """
    odd: list[Number] = []
    for number in sorted({number for f in fields for number in f.numbers}):
        before, after = base.numbers.get(number), other.numbers.get(number)
        if type(before) is not int:
            continue
        near = [w for w in target.widths if w.block is None or f"{number[0]}.".startswith(f"{w.block}.")]
        expected = frozenset({1}) if before == 1 else expected_values(before, near)
        if expected and after not in expected:
            odd.append(number)
    return tuple(odd)


def changed_numbers(
    before: Mapping[Number, int | float], after: Mapping[Number, int | float]
) -> tuple[str, ...]:
    """Scales, epsilons and other fractions that differ, in words."""
    faults: list[str] = []
    for (path, attribute), value in before.items():
        now = after.get((path, attribute))
        if isinstance(value, float) and now is not None and not same_number(now, value):
            where = f"{path}.{attribute}" if path else attribute
            faults.append(f"{where} {value:.6g} → {now:.6g}")
    return tuple(faults)


def same_number(one: float, other: float) -> bool:
    """Whether two fractions are equal up to rounding; neither is where one is not a number."""
    return one == other or math.isclose(one, other, rel_tol=ROUNDING)


def changed_constants(space: ConfigSpace, target: Target, changes: Mapping[Path, object]) -> tuple[str, ...]:
    """Everything that the model computes from its config and that the plan does not change, in words."""
    before = space.computed
    after = measure(space.configured(changes), values=True)
    kept = {key: n for key, n in before.numbers.items() if not f"{key[0]}.".startswith(target.absent)}
    faults = list(changed_numbers(kept, after.numbers))
    for name, tensor in before.constants.items():
        if name.startswith(target.absent):
            continue
        planned = _array(tensor)
        for dim, kept in target.cuts.get(name, {}).items():
            planned = planned.take(kept, axis=dim)
        now = _array(after.constants[name]) if name in after.constants else None
        if now is None or now.shape != planned.shape or not np.array_equal(now, planned, equal_nan=True):
            faults.append(f"{name} {_sample(planned)} → {'absent' if now is None else _sample(now)}")
    return tuple(faults)


def _array(tensor: Tensor) -> np.ndarray:
    """Any float as float64: numpy knows no bfloat16, and no value changes."""
    return (tensor.double() if tensor.is_floating_point() else tensor).numpy()


def _sample(values: np.ndarray) -> str:
    return f"{values.reshape(-1)[-1]:.6g}" if values.size else "empty"
