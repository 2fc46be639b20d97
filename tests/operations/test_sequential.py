"""Inputs that are sequential, against really cutting the earlier layers one by one, in numpy."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from surgeon.calibrate import Bench, Samples, rows
from surgeon.errors import SurgeonError
from surgeon.operations import State
from surgeon.operations.remove import Remove
from surgeon.plan import DropBlock, Plan
from surgeon.rebuild import ModuleSource
from surgeon.trace import trace_module
from tests.handmade import llama_graph

KEPT = 12


@pytest.fixture
def samples() -> Samples:
    return rows(torch.randint(3, 53, (6, 9), generator=torch.Generator().manual_seed(2)).tolist())


@pytest.fixture
def model(small_llama):
    built = small_llama(mlp_bias=True).double()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.mul_(3)  # so that a cut is felt behind it
    return built


def state_of(model, samples, plan=None, graph=None) -> State:
    graph = graph or llama_graph(model.config)
    bench = Bench(graph, lambda: model, lambda: samples, lambda *told: None)
    return State(graph, plan or Plan("llama"), source=ModuleSource(model), measure=bench.measure, bench=bench)


def step(**fields) -> Remove:
    said = {"select": {"kind": "ffn"}, "keep": {"count": KEPT}, "criterion": "activation", **fields}
    return Remove.model_validate({"op": "remove", **said})


def entering(model, samples, layer) -> np.ndarray:
    """What enters the last projection of a layer's MLP, [tokens, channels]."""
    seen = []
    down = model.model.layers[layer].mlp.down_proj
    handle = down.register_forward_pre_hook(lambda part, args: seen.append(args[0].detach().numpy()))
    model(input_ids=samples.ids)
    handle.remove()
    return seen[0].reshape(-1, seen[0].shape[-1])


def cut_one_by_one(model, samples, layers):
    """Kept channels of each layer, and the mean of what enters it, each behind the layers cut before it."""
    kept, means, left = {}, {}, copy.deepcopy(model)
    for layer in layers:
        x = entering(left, samples, layer)
        scores, means[layer] = np.sqrt((x**2).mean(0)), x.mean(0)
        kept[layer] = sorted(np.argsort(scores, kind="stable")[-KEPT:].tolist())
        gone = [channel for channel in range(x.shape[1]) if channel not in kept[layer]]
        with torch.no_grad():
            left.model.layers[layer].mlp.down_proj.weight[:, gone] = 0
    return kept, means


def cut_at_once(model, samples):
    kept = {}
    for layer in range(3):
        scores = np.sqrt((entering(model, samples, layer) ** 2).mean(0))
        kept[layer] = sorted(np.argsort(scores, kind="stable")[-KEPT:].tolist())
    return kept


def kept_by(step, state) -> dict[int, list[int]]:
    plan = step.run(state)[0].plan
    return {int(axis.split(".")[1]): list(indices) for axis, indices in plan.kept().items()}


def test_each_block_is_scored_behind_the_cut_ones(model, samples):
    expected, _ = cut_one_by_one(model, samples, range(3))
    dense = cut_at_once(model, samples)
    assert dense != expected
    assert kept_by(step(inputs="sequential"), state_of(model, samples)) == expected
    assert kept_by(step(), state_of(model, samples)) == dense


def test_a_repair_means_what_the_cut_blocks_give(model, samples):
    kept, means = cut_one_by_one(model, samples, range(3))
    state = state_of(model, samples, graph=trace_module(model))
    after = step(inputs="sequential", repair="bias").run(state)[0].plan
    for layer, mean in means.items():
        down = model.model.layers[layer].mlp.down_proj
        gone = [channel for channel in range(len(mean)) if channel not in kept[layer]]
        expected = down.bias.detach().numpy() + down.weight.detach().numpy()[:, gone] @ mean[gone]
        found = after.values[f"model.layers.{layer}.mlp.down_proj.bias"].numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)


def test_a_dropped_block_is_passed_over(model, samples):
    short = copy.deepcopy(model)
    del short.model.layers[1]
    short.model.layers[1].self_attn.layer_idx = 1
    short.config.num_hidden_layers = 2
    expected, _ = cut_one_by_one(short, samples, range(2))
    state = state_of(model, samples, Plan("llama").add([DropBlock("model.layers.1", 0)]))
    found = kept_by(step(inputs="sequential", select={"kind": "ffn", "except": "layers.1.mlp.ffn"}), state)
    assert [found[0], found[2]] == [expected[0], expected[1]]


def test_gradients_are_refused(model, samples):
    with pytest.raises(SurgeonError, match="'gradient' is not measured block by block") as error:
        step(inputs="sequential", criterion="taylor").run(state_of(model, samples))
    assert error.value.hint == "inputs: dense"
