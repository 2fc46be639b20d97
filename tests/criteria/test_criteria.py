from __future__ import annotations

import numpy as np
import pytest
import torch

from surgeon.calibrate import Statistics
from surgeon.criteria import Scores, coupled
from surgeon.criteria.magnitude import Magnitude
from surgeon.criteria.random import Random
from surgeon.criteria.taylor import Taylor
from surgeon.errors import SurgeonError
from surgeon.graph import Axis, Group, Layout, Site
from surgeon.rebuild import ModuleSource


def test_scores_refuse_what_is_not_finite_and_are_read_only():
    with pytest.raises(SurgeonError, match=r"score of 'a.ffn' is nan at index 1 \(2 of 3 are not finite\)"):
        Scores("a.ffn", np.array([1.0, np.nan, np.inf]))
    with pytest.raises(ValueError, match="read-only"):
        Scores("a.ffn", np.zeros(2)).values[0] = 1


def test_random_depends_on_seed_and_axis_and_nothing_else(small_llama):
    weights = ModuleSource(small_llama())
    first, second = (Group(Axis(name, "ffn", 9), ()) for name in ("layers.0.mlp.ffn", "layers.1.mlp.ffn"))

    def score(group, seed=0):
        return Random(seed=seed).score(group, weights, Statistics()).values

    a, b = score(first), score(second)
    np.testing.assert_array_equal(score(second), b)
    np.testing.assert_array_equal(score(first), a)
    assert not np.array_equal(a, b)
    assert not np.array_equal(a, score(first, seed=1))
    assert len(score(first, seed=-1)) == 9


def test_a_group_without_parameters_cannot_be_scored(small_llama):
    with pytest.raises(SurgeonError, match="'lonely' lies in no parameter"):
        Magnitude().score(Group(Axis("lonely", "channel", 4), ()), ModuleSource(small_llama()), Statistics())


def test_taylor_reads_only_declared_statistics(small_llama):
    model = small_llama()
    group = Group(
        Axis("x", "ffn", 40), (Site("model.layers.0.mlp.up_proj.weight", 0, Layout.plain(40), "producer"),)
    )
    with pytest.raises(SurgeonError, match=r"Gradient.* was not measured"):
        Taylor().score(group, ModuleSource(model), Statistics())
    assert {len(Taylor(order=order).needs()) for order in ("vectorize", "param_first", "param_second")} == {1}
    assert len(Taylor(order="param_mix").needs()) == 2


def test_a_member_without_a_say_is_left_out_of_a_product_only():
    group = Group(
        Axis("x", "channel", 3),
        (Site("w", 0, Layout.plain(3), "producer"), Site("b", 0, Layout.plain(3), "pointwise")),
    )
    values = {"w": torch.tensor([2.0, 3.0, 0.0]), "b": torch.zeros(3)}

    def by(reduce):
        return coupled(group, lambda param, dim: values[param].double(), reduce).values.tolist()

    assert by("prod") == [2, 3, 0]
    assert by("mean") == [1, 1.5, 0]
    assert by("first") == by("max") == by("sum") == [2, 3, 0]
