"""FLAP against the dumps of its released code, kept sets and biases included; and the paper's formulas."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from surgeon.calibrate import Bench, Samples, gather, rows
from surgeon.calibrate.fluctuation import Fluctuation
from surgeon.criteria import trainable
from surgeon.criteria.activation import Activation
from surgeon.criteria.expression import Expression
from surgeon.criteria.flap import Flap
from surgeon.criteria.gblm import Gblm
from surgeon.criteria.wanda import Wanda
from surgeon.errors import SurgeonError
from surgeon.graph import Axis, Group, Layout, Site
from surgeon.operations import State
from surgeon.operations.remove import Remove
from surgeon.plan import Plan
from surgeon.rebuild import ModuleSource, masked
from surgeon.repair import cuts_made
from surgeon.repair.bias import Bias
from tests.handmade import llama_graph

DUMPS = {
    "flap_tiny_WIFV_AL-AM_r0.2": ("wifv", "al_am"),
    "flap_tiny_WIFN_AL-AM_r0.2": ("wifn", "al_am"),
    "flap_tiny_WIFV_UL-UM_r0.2": ("wifv", "ul_um"),
}
OVERLAP = {
    "flap_tiny_WIFV_AL-AM_r0.2": 0.96,
    "flap_tiny_WIFN_AL-AM_r0.2": 0.99,
    "flap_tiny_WIFV_UL-UM_r0.2": 0.98,
}
"""Least Jaccard overlap of the kept neurons by the paper's formulas with those of the released code."""


@pytest.fixture(scope="module")
def reference(shared_data):
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    folder = shared_data / "reference"
    model = AutoModelForCausalLM.from_pretrained(folder / "tiny-llama", dtype=torch.float32).eval()
    samples = rows(load_file(folder / "ids-flap.safetensors")["input_ids"].tolist())
    dumps = {
        n: (json.loads((folder / f"{n}.json").read_text()), load_file(folder / f"{n}.safetensors"))
        for n in DUMPS
    }
    return model, samples, dumps


def state_of(model, samples: Samples) -> State:
    graph = llama_graph(model.config)
    bench = Bench(graph, lambda: model, lambda: samples, lambda *told: None)
    return State(
        graph=graph,
        plan=Plan(graph.model_type),
        source=ModuleSource(model),
        measure=lambda plan, keys: gather(
            model, samples, keys, view=masked(model, plan, graph), batch_size=4
        ),
        bench=bench,
    )


def flap(state, metric, structure, variant):
    step = Remove(
        select={"kind": ["kv_group", "ffn"]},
        keep={"fraction": 0.8},
        criterion={"criterion": "flap", "metric": metric, "variant": variant},
        allocation={"allocation": "adaptive", "structure": structure, "variant": variant},
    )
    after, _ = step.run(state)
    kept = after.plan.kept()
    layers = range(len(state.graph.blocks))
    heads = [list(kept.get(f"layers.{i}.attn.kv_group", range(4))) for i in layers]
    return after, heads, [list(kept.get(f"layers.{i}.mlp.ffn", range(160))) for i in layers]


def test_released_statistics_equal_the_dumps(reference):
    model, samples, dumps = reference
    parts = {"baseline": "baseline", "fluc": "fluctuation", "scaler": "scaler"}
    got = gather(model, samples, [Fluctuation(part) for part in parts.values()])
    checked = 0
    for _, tensors in dumps.values():
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind != "stat" or name.rpartition(".")[2] not in parts:
                continue
            layer, leaf, part = rest.split(".")
            owner = "self_attn" if leaf == "o_proj" else "mlp"
            found = got.get(Fluctuation(parts[part]))[f"model.layers.{layer}.{owner}.{leaf}.weight"]
            torch.testing.assert_close(found.float(), value, rtol=1e-4, atol=1e-7)
            checked += 1
    assert checked == 3 * 8 * 2 * 2


@pytest.mark.parametrize("name", DUMPS)
def test_released_kept_sets_and_biases_equal_the_dumps(reference, name):
    model, samples, dumps = reference
    described, tensors = dumps[name]
    state = state_of(model, samples)
    after, heads, neurons = flap(state, *DUMPS[name], "released")
    assert heads == described["kept"]["heads"]
    assert neurons == described["kept"]["neurons"]
    cuts = cuts_made(state.plan, after.plan, state.graph)
    biases = _biases(state, cuts)
    for layer in range(8):
        for owner, leaf in (("self_attn", "o_proj"), ("mlp", "down_proj")):
            want = tensors[f"bias.{layer}.{leaf}.bias"]
            got = biases.get(f"model.layers.{layer}.{owner}.{leaf}.bias", torch.zeros(64))
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def _biases(state, cuts):
    """What `Bias` assigns where every projection has a bias of zero."""
    from dataclasses import replace

    class Evidence:
        def tensor(self, name):
            return torch.zeros(64) if name.endswith("bias") else state.weights.get(name)

        def means(self, cuts):
            from surgeon.calibrate.input_moment import InputMoment

            return state.statistics({InputMoment("mean")}).get(InputMoment("mean"))

    with_slots = [replace(cut, bias=cut.param.removesuffix("weight") + "bias") for cut in cuts]
    return Bias().mend(with_slots, Evidence()).values


@pytest.mark.parametrize("name", DUMPS)
def test_the_paper_s_formulas_keep_nearly_the_same(reference, name):
    model, samples, dumps = reference
    _, heads, neurons = flap(state_of(model, samples), *DUMPS[name], "paper")
    described = dumps[name][0]["kept"]
    assert heads == described["heads"]
    pairs = [(set(a), set(b)) for a, b in zip(neurons, described["neurons"], strict=True)]
    overlap = sum(len(a & b) for a, b in pairs) / sum(len(a | b) for a, b in pairs)
    assert overlap >= OVERLAP[name]


@pytest.fixture(scope="module")
def small():
    from transformers import LlamaForCausalLM

    from tests.conftest import llama_config

    torch.manual_seed(0)
    model = LlamaForCausalLM(llama_config()).double().eval()
    ids = torch.randint(3, 53, (4, 9), generator=torch.Generator().manual_seed(1))
    return model, rows(ids.tolist())


def entering(model, samples, path):
    seen = []
    handle = model.get_submodule(path).register_forward_pre_hook(lambda m, x: seen.append(x[0].detach()))
    model(input_ids=samples.ids)
    handle.remove()
    return seen[0].numpy()


GROUPS = {
    "layers.1.mlp.ffn": ("model.layers.1.mlp.down_proj", 1),
    "layers.1.attn.kv_group": ("model.layers.1.self_attn.o_proj", 16),
}


@pytest.mark.parametrize("axis", GROUPS)
def test_scores_equal_numpy(small, axis):
    model, samples = small
    graph = llama_graph(model.config)
    group = trainable(graph.group(axis), graph)
    path, width = GROUPS[axis]
    x = entering(model, samples, path)
    flat = x.reshape(-1, x.shape[-1])
    w = model.get_submodule(path).weight.detach().numpy()
    grads = []
    for row in samples.ids:
        model.zero_grad()
        logits = model(input_ids=row[None]).logits[0, :-1]
        torch.nn.functional.cross_entropy(logits, row[1:]).backward()
        grads.append(model.get_submodule(path).weight.grad.numpy().copy())
    norms = np.sqrt((x**2).sum(1).mean(0))
    l1, l2 = np.abs(grads).sum(0), np.sqrt(np.square(grads).sum(0))
    minmax = (l1 - l1.min()) / (l1.max() - l1.min() + 1e-9)
    second = (flat**2).mean(0)
    cases = [
        (Flap(metric="ifv"), flat.var(0), np.mean),
        (Flap(metric="wifv"), flat.var(0) * (w**2).sum(0), np.mean),
        (Flap(metric="wifn"), (np.abs(w) * np.sqrt(second)).mean(0), np.mean),
        (Wanda(), (np.abs(w) * norms).mean(0), np.sum),
        (Gblm(), (np.abs(w) * norms + np.abs(w) * 100 * l2).mean(0), np.sum),
        (Gblm(norm="l1", alpha=3), (np.abs(w) * norms + np.abs(w) * 3 * l1).mean(0), np.sum),
        (Activation(), np.sqrt(second), np.mean),
        (Activation(measure="mean_abs"), np.abs(flat).mean(0), np.mean),
        (Expression(), (w**2 * minmax).mean(0), np.sum),
        (Expression(formula="mul(abs(W), sqrt(X))"), (np.abs(w) * np.sqrt(second)).mean(0), np.sum),
    ]
    for criterion, channels, fold in cases:
        statistics = gather(model, samples, criterion.needs(), batch_size=3)
        scores = criterion.score(group, ModuleSource(model), statistics)
        want = fold(channels.reshape(-1, width), axis=1)
        # Losses, hence gradients, pass through norms and a softmax in float32.
        np.testing.assert_allclose(scores.values, want, rtol=1e-3, err_msg=repr(criterion))
        spread = channels.std(ddof=1) * (width if fold is np.sum else 1)
        assert scores.spread == pytest.approx(spread, rel=1e-3)


def test_a_group_that_nothing_contracts_is_refused(small):
    model, samples = small
    group = Group(Axis("x", "channel", 48), (Site("model.norm.weight", 0, Layout.plain(48), "pointwise"),))
    criterion = Activation()
    with pytest.raises(SurgeonError, match="no parameter contracts 'x'"):
        criterion.score(group, ModuleSource(model), gather(model, samples, criterion.needs()))


def test_a_projection_that_got_no_token_is_an_error(small):
    model, samples = small
    group = Group(Axis("x", "ffn", 40), (Site("elsewhere", 1, Layout.plain(40), "consumer"),))
    criterion = Activation()
    with pytest.raises(SurgeonError, match="no calibration token entered 'elsewhere'"):
        criterion.score(group, ModuleSource(model), gather(model, samples, criterion.needs()))
