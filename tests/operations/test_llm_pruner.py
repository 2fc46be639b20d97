"""`remove` against LLM-Pruner: the sets of its dumps, and its formulas for what was not dumped."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from surgeon.calibrate import gather, rows
from surgeon.calibrate.gradient import Gradient
from surgeon.calibrate.squared_gradient import SquaredGradient
from surgeon.operations import State
from surgeon.operations.remove import Remove
from surgeon.plan import Plan
from surgeon.rebuild import ModuleSource, rebuild
from tests.criteria import original
from tests.handmade import llama_graph

BOTH = frozenset({Gradient(), SquaredGradient()})
TAYLOR = {"criterion": "taylor", "order": "param_first"}


@pytest.fixture(scope="module")
def reference(shared_data):
    folder = shared_data / "reference"
    model = AutoModelForCausalLM.from_pretrained(folder / "tiny-llama", dtype=torch.float32)
    ids = load_file(folder / "ids-llm_pruner.safetensors")["input_ids"]
    statistics = gather(model, rows(ids.tolist()), BOTH, batch_size=10)
    graph = llama_graph(model.config)
    state = State(graph, Plan("llama"), source=ModuleSource(model), measure=lambda plan, keys: statistics)
    return folder, model, state, statistics


def run(state, criterion, fraction, allocation):
    step = Remove.model_validate(
        {
            "op": "remove",
            "select": {"kind": ["kv_group", "ffn"], "blocks": "1:7"},
            "keep": {"fraction": fraction},
            "criterion": criterion,
            "allocation": allocation,
        }
    )
    after, _ = step.run(state)
    return after.plan


def removed(plan, graph):
    kept = plan.kept()
    return {name: sorted(set(range(graph.group(name).size)) - set(kept[name])) for name in kept}


@pytest.mark.parametrize(
    ("name", "criterion", "allocation"),
    [
        ("llmpruner_tiny_l2_r0.25", "magnitude", "uniform"),
        ("llmpruner_tiny_l2_global_r0.25", "magnitude", {"allocation": "global", "per": "unit"}),
        ("llmpruner_tiny_taylor_param_first_r0.25", TAYLOR, "uniform"),
    ],
)
def test_pruned_sets_and_weights_equal_the_dumps(reference, name, criterion, allocation):
    folder, model, state, _ = reference
    record = json.loads((folder / f"{name}.json").read_text())
    plan = run(state, criterion, 1 - record["ratio"], allocation)
    ours = removed(plan, state.graph)
    theirs = {}
    for root, channels in record["pruned_channels"].items():
        layer = root.split(".")[2]
        if root.endswith("gate_proj"):
            theirs[f"layers.{layer}.mlp.ffn"] = channels
        else:
            theirs[f"layers.{layer}.attn.kv_group"] = sorted({c // 16 for c in channels})
    assert ours == theirs
    small = dict(rebuild(ModuleSource(model), plan, state.graph))
    for param, expected in record["pruned_weights"].items():
        digest = hashlib.sha256(small[param].float().numpy().tobytes()).hexdigest()
        assert digest == expected["sha256_f32"], param


KINDS = {
    "l1": ({"criterion": "magnitude", "norm": "l1"}, "mean"),
    "l2": ({"criterion": "magnitude", "norm": "l2"}, "mean"),
    **{
        order: ({"criterion": "taylor", "order": order}, "sum")
        for order in ("vectorize", "param_first", "param_second", "param_mix")
    },
}


@pytest.mark.parametrize("ratio", [0.2, 0.25, 0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_sets_equal_the_formulas_local_and_global(reference, kind, ratio):
    _, model, state, statistics = reference
    criterion, reduce = KINDS[kind]
    tensors = {
        name: tuple(
            t.detach().double().numpy()
            for t in (p, *(statistics.get(k)[name] for k in (Gradient(), SquaredGradient())))
        )
        for name, p in model.named_parameters()
    }
    local, units = {}, {}
    for layer in range(1, 7):
        heads = original.group_score(kind, reduce, original.head_members(layer, 4, 1, 16), tensors)
        ffn = original.group_score(kind, reduce, original.ffn_members(layer), tensors)
        local[f"layers.{layer}.attn.kv_group"] = original.local_pruned(heads, ratio, 16)
        local[f"layers.{layer}.mlp.ffn"] = original.local_pruned(ffn, ratio)
        units[f"layers.{layer}.attn.kv_group"] = heads.reshape(-1, 16).sum(1)
        units[f"layers.{layer}.mlp.ffn"] = ffn
    everywhere = original.global_pruned(units, ratio)
    for expected, allocation in ((local, "uniform"), (everywhere, {"allocation": "global", "per": "unit"})):
        ours = removed(run(state, criterion, 1 - ratio, allocation), state.graph)
        assert ours == {name: found.tolist() for name, found in expected.items() if len(found)}


def test_calibration_is_the_mean_over_all_tokens(reference):
    """The dump's loss was printed by the original."""
    folder, _, _, statistics = reference
    record = json.loads((folder / "llmpruner_tiny_taylor_param_first_r0.25.json").read_text())
    assert statistics.loss == pytest.approx(record["loss"], abs=1e-5)
    assert statistics.tokens == 10 * 63
    assert np.isfinite(statistics.loss)
