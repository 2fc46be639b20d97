"""Our groups as torch_pruning's: its own DependencyGraph on the same module gives the same scores."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import torch_pruning as tp
from pydantic import ValidationError
from torch import nn

from surgeon.calibrate import Statistics, gather, rows
from surgeon.calibrate.gradient import Gradient
from surgeon.calibrate.input_moment import InputMoment
from surgeon.calibrate.squared_gradient import SquaredGradient
from surgeon.criteria import trainable
from surgeon.criteria.torch_pruning import TorchPruning
from surgeon.errors import InputError, SurgeonError
from surgeon.graph import Axis, Group, Layout, Site
from surgeon.interop.torch_pruning import importance_names, make_importance, reads
from surgeon.rebuild import ModuleSource
from tests.handmade import llama_graph

WIDTH = 7


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(5, WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4)

    def forward(self, x):
        return self.second(torch.relu(self.norm(self.first(x))))


def plain(param, dim, role):
    return Site(param, dim, Layout.plain(WIDTH), role)


GROUP = Group(
    Axis("x", "channel", WIDTH),
    (
        plain("first.weight", 0, "producer"),
        plain("first.bias", 0, "pointwise"),
        plain("norm.weight", 0, "pointwise"),
        plain("norm.bias", 0, "pointwise"),
        plain("second.weight", 1, "consumer"),
    ),
)


@pytest.fixture
def mlp():
    torch.manual_seed(0)
    model = Mlp()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(6, 5)
    model(x).square().mean().backward()
    return model, x


def theirs(model, x, importance):
    graph = tp.DependencyGraph().build_dependency(model, example_inputs=x)
    group = graph.get_pruning_group(model.first, tp.prune_linear_out_channels, idxs=list(range(WIDTH)))
    return importance(group)


def measured(model, x):
    grads = {name: p.grad.clone() for name, p in model.named_parameters()}
    seen = model.norm(model.first(x)).relu().abs().sum(0).detach()
    return Statistics(
        {
            Gradient(): grads,
            SquaredGradient(): {name: g.square() for name, g in grads.items()},
            InputMoment("mean_abs"): {"second.weight": seen},
        }
    )


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("reduction", ["sum", "mean", "max", "prod", "first"])
@pytest.mark.parametrize(
    "name", ["MagnitudeImportance", "TaylorImportance", "LAMPImportance", "FPGMImportance"]
)
def test_scores_equal_those_on_its_own_graph(mlp, name, reduction, bias):
    model, x = mlp
    args = {"group_reduction": reduction, "bias": bias}
    expected = theirs(model, x, make_importance(name, args))
    got = TorchPruning(importance=name, args=args).score(GROUP, ModuleSource(model), measured(model, x))
    np.testing.assert_allclose(got.values, expected, rtol=1e-5)


def test_hessian_reads_mean_squared_gradients(mlp):
    model, x = mlp
    for parameter in model.parameters():
        parameter.grad = parameter.grad.square()
    expected = theirs(model, x, make_importance("HessianImportance", {}))
    for parameter in model.parameters():
        parameter.grad = parameter.grad.sqrt()
    got = TorchPruning(importance="HessianImportance").score(GROUP, ModuleSource(model), measured(model, x))
    np.testing.assert_allclose(got.values, expected, rtol=1e-4)


def test_obdc_by_its_formula(mlp):
    model, x = mlp
    statistics = measured(model, x)
    fisher = statistics.get(SquaredGradient())["first.weight"] + 1e-10
    expected = (model.first.weight.detach().square() * fisher).sum(1)
    criterion = TorchPruning(importance="OBDCImportance")
    got = criterion.score(GROUP, ModuleSource(model), statistics)
    np.testing.assert_allclose(got.values, expected / expected.mean(), rtol=1e-5)


def test_activation_by_its_own_hooks(mlp):
    model, x = mlp
    importance = make_importance("ActivationImportance", {"group_reduction": "sum"})
    with importance.compute_importance(model):
        model(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs(model, x, importance)
    got = TorchPruning(importance="ActivationImportance", args={"group_reduction": "sum"})
    np.testing.assert_allclose(
        got.score(GROUP, ModuleSource(model), measured(model, x)).values, expected, rtol=1e-5
    )


def test_every_importance_scores_a_grouped_query_llama(small_llama):
    """Sizes, determinism, and no trace left in torch's random numbers; batch norms exist nowhere here."""
    model = small_llama()
    graph, weights = llama_graph(model.config), ModuleSource(model)
    ids = torch.randint(3, 53, (3, 9), generator=torch.Generator().manual_seed(0))
    names = importance_names()
    assert {"MagnitudeImportance", "OBDCImportance", "RandomImportance"} < set(names)
    needs = {key for name in names for key in TorchPruning(importance=name).needs()}
    assert needs == {Gradient(), SquaredGradient(), InputMoment("mean_abs")}
    statistics = gather(model, rows(ids.tolist()), needs)
    for name in names:
        criterion = TorchPruning(importance=name)
        for axis in ("layers.1.mlp.ffn", "layers.1.attn.kv_group", "layers.1.attn.q_per_kv", "hidden"):
            group = trainable(graph.group(axis), graph)
            if name == "BNScaleImportance":
                with pytest.raises(SurgeonError, match=f"BNScaleImportance scores nothing in '{axis}'"):
                    criterion.score(group, weights, statistics)
                continue
            state = torch.random.get_rng_state()
            got = criterion.score(group, weights, statistics).values
            assert torch.equal(torch.random.get_rng_state(), state)
            assert len(got) == group.size
            assert len(set(got.tolist())) > 1
            np.testing.assert_array_equal(criterion.score(group, weights, statistics).values, got)


def test_query_heads_of_one_kv_group_lie_in_one_row(small_llama):
    model = small_llama()
    graph = llama_graph(model.config)
    group = graph.group("layers.0.attn.kv_group")
    args = {"group_reduction": "sum", "normalizer": None}
    got = TorchPruning(args=args).score(group, ModuleSource(model), Statistics()).values
    at = model.model.layers[0].self_attn
    by_hand = [
        at.q_proj.weight.view(3, -1).square().sum(1),
        at.k_proj.weight.view(3, -1).square().sum(1),
        at.v_proj.weight.view(3, -1).square().sum(1),
        at.o_proj.weight.T.reshape(3, -1).square().sum(1),
    ]
    np.testing.assert_allclose(got, sum(by_hand).detach(), rtol=1e-5)


def test_wrong_names_and_options_say_what_there_is():
    with pytest.raises(InputError, match="no importance 'TaylorImportanc'") as e:
        make_importance("TaylorImportanc", {})
    assert "TaylorImportance" in str(e.value.hint)
    with pytest.raises(InputError, match="MagnitudeImportance has no option 'q'"):
        make_importance("MagnitudeImportance", {"q": 1})
    with pytest.raises(InputError, match="LAMPImportance refuses the options"):
        make_importance("LAMPImportance", {"normalizer": "max"})
    with pytest.raises(ValidationError, match="no importance 'Nope'"):
        TorchPruning(importance="Nope")
    assert reads(make_importance("RandomImportance", {})) is None


def test_an_importance_that_fails_says_on_what(mlp):
    model, _ = mlp
    criterion = TorchPruning(args={"group_reduction": "median"})
    with pytest.raises(SurgeonError, match="MagnitudeImportance fails on 'x': NotImplementedError"):
        criterion.score(GROUP, ModuleSource(model), Statistics())
