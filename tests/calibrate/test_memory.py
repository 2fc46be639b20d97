"""A measurement is found again under exactly what it was made of, and under nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from surgeon.calibrate import Memory, Samples, Statistics
from surgeon.calibrate.gram import Gram
from surgeon.calibrate.input_moment import InputMoment
from surgeon.calibrate.statistic import Statistic
from surgeon.calibrate.store import measured_on, statistic_key
from surgeon.plan import Assign, Keep, Plan
from tests.calibrate.test_states import Shelf


def some(ids=((1, 2, 3), (4, 5, 6))) -> Samples:
    tensor = torch.tensor(ids)
    return Samples(tensor, torch.ones_like(tensor, dtype=torch.bool))


PLAN = Plan("llama").add([Keep("layers.0.mlp.ffn", (0, 2), 0)])
FIXED = PLAN.add([Assign("w", "repair.bias", {}, 0)], {"w": torch.ones(3)})


class Model:
    """Stands for a run: gives what is asked for, and counts."""

    def __init__(self):
        self.asked: list[tuple[Statistic, ...]] = []

    def __call__(self, keys, partial):
        self.asked.append(tuple(keys))
        return Statistics({key: {"w": torch.full((2,), float(len(self.asked)))} for key in keys}, 2, 4, 1.5)


def test_what_was_measured_is_not_measured_again():
    shelf, model = Shelf(), Model()
    first = Memory(shelf, lambda: "m").measured([Gram()], some(), PLAN, model)
    both = Memory(shelf, lambda: "m").measured([Gram(), InputMoment()], some(), PLAN, model)
    again = Memory(shelf, lambda: "m").measured([Gram(), InputMoment()], some(), PLAN, model)
    assert model.asked == [(Gram(),), (InputMoment(),)]
    for found in (both, again):
        assert torch.equal(found.get(Gram())["w"], first.get(Gram())["w"])
        assert (found.samples, found.tokens, found.loss) == (2, 4, 1.5)
    assert torch.equal(again.get(InputMoment())["w"], torch.full((2,), 2.0))


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"samples": some(((1, 2, 3), (4, 5, 7)))},
        {"samples": some(((4, 5, 6), (1, 2, 3)))},
        {"samples": some(((1, 2, 3),))},
        {"samples": some(((1, 2, 3, 4, 5, 6),))},
        {"samples": Samples(some().ids, torch.tensor([[True, True, True], [True, True, False]]))},
        {"plan": Plan("llama")},
        {"plan": Plan("llama").add([Keep("layers.0.mlp.ffn", (0, 1), 0)])},
        {"plan": FIXED},
        {"inputs": "sequential"},
        {"key": InputMoment("variance")},
        {"key": InputMoment("mean", ("w",))},
        {"key": Gram()},
    ],
    ids=lambda change: next(iter(change)),
)
def test_anything_else_is_another_measurement(change):
    shelf, model = Shelf(), Model()
    asked = {"model": "m", "samples": some(), "plan": PLAN, "inputs": "dense", "key": InputMoment()}
    for said in (asked, {**asked, **change}, asked):
        memory = Memory(shelf, lambda said=said: said["model"])
        memory.measured([said["key"]], said["samples"], said["plan"], model, said["inputs"])
    assert len(model.asked) == 2


def test_assigned_values_count():
    other = replace(FIXED, values={"w": torch.zeros(3)})
    assert measured_on("m", some(), FIXED, "dense") != measured_on("m", some(), other, "dense")
    assert measured_on("m", some(), FIXED, "dense") == measured_on("m", some(), replace(FIXED), "dense")


def test_a_statistic_without_readable_code_is_measured_each_time():
    space: dict[str, object] = {"__name__": "nowhere", "Statistic": Statistic, "ClassVar": ClassVar}
    exec("class Typed(Statistic):\n    statistic = 'typed'\n    def collector(self, run): ...", space)
    typed = dataclass(frozen=True)(space["Typed"])()
    assert statistic_key("on", typed) is None
    shelf, model = Shelf(), Model()
    for _ in range(2):
        Memory(shelf, lambda: "m").measured([typed], some(), PLAN, model)
    assert len(model.asked) == 2
    assert not shelf.held
