"""Repairs as a step makes them, against a refit written out with plain hooks and numpy's lstsq."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
)

from surgeon.calibrate import Bench, gather, rows
from surgeon.calibrate.junction import Junction
from surgeon.calibrate.walk import Walk
from surgeon.errors import InfeasibleError, SurgeonError
from surgeon.operations import State
from surgeon.operations.remove import Remove
from surgeon.plan import Assign, DropBlock, Plan
from surgeon.rebuild import ModuleSource, masked
from surgeon.trace import trace_module
from tests.handmade import llama_graph

IDS = torch.randint(3, 53, (24, 13), generator=torch.Generator().manual_seed(1))


def state_of(model, ids=IDS) -> State:
    graph = llama_graph(model.config)
    samples = rows(ids.tolist())
    return State(
        graph=graph,
        plan=Plan(graph.model_type),
        source=ModuleSource(model),
        measure=lambda plan, keys: gather(
            model, samples, keys, view=masked(model, plan, graph), batch_size=7
        ),
        bench=Bench(graph, lambda: model, lambda: samples, lambda *told: None),
    )


def removed(state, repair, kinds=("ffn",), fraction=0.6):
    step = Remove(select={"kind": list(kinds)}, keep={"fraction": fraction}, criterion="wanda", repair=repair)
    return step.run(state)


def entering_and_leaving(model, path, ids=IDS):
    seen = []
    handle = model.get_submodule(path).register_forward_hook(lambda m, x, y: seen.append((x[0], y)))
    model(input_ids=ids)
    handle.remove()
    return [t.detach().flatten(0, -2).numpy() for t in seen[0]]


def ridge_fit(a, r, w0, ridge):
    pull = np.eye(a.shape[1]) * np.sqrt(len(a) * ridge * (a**2).mean())
    return np.linalg.lstsq(np.vstack([a, pull]), np.vstack([r, pull @ w0]), rcond=None)[0]


@pytest.mark.parametrize("kinds", [("ffn",), ("kv_group",), ("ffn", "kv_group")])
def test_layer_target_is_the_closed_form(small_llama, kinds):
    model = small_llama(initializer_range=0.3).double()
    after, _ = removed(state_of(model), {"repair": "refit", "target": "layer", "ridge": 0.05}, kinds)
    kept = after.plan.kept()
    assert {edit.fn for edit in after.plan.edits if isinstance(edit, Assign)} == {"repair.refit"}
    for kind, path, width in (("mlp.ffn", "mlp.down_proj", 1), ("attn.kv_group", "self_attn.o_proj", 16)):
        if kind.rpartition(".")[2] not in kinds:
            continue
        for layer in range(3):
            at = f"model.layers.{layer}.{path}"
            x, y = entering_and_leaving(model, at)
            columns = (np.array(kept[f"layers.{layer}.{kind}"])[:, None] * width + np.arange(width)).reshape(
                -1
            )
            w = model.get_submodule(at).weight.detach().numpy()
            want = ridge_fit(x[:, columns], y, w[:, columns].T, 0.05).T
            got = after.plan.values[f"{at}.weight"].numpy()
            np.testing.assert_allclose(got[:, columns], want, rtol=1e-6, atol=1e-9)
            assert ((x[:, columns] @ want.T - y) ** 2).sum() < (
                (x[:, columns] @ w[:, columns].T - y) ** 2
            ).sum()


def stream(model, layer, point, ids=IDS):
    """The residual stream behind attention, or behind the whole layer."""
    seen = []
    at = model.model.layers[layer]
    if point == "attn":
        hook = at.post_attention_layernorm.register_forward_pre_hook(lambda m, x: seen.append(x[0]))
    else:
        hook = at.register_forward_hook(lambda m, x, y: seen.append(y[0] if isinstance(y, tuple) else y))
    model(input_ids=ids)
    hook.remove()
    return seen[0].detach().flatten(0, 1).numpy()


def test_stream_target_is_the_closed_form_front_to_back(small_llama):
    model = small_llama(initializer_range=0.3).double()
    state = state_of(model)
    repair = {"repair": "refit", "target": "stream", "ridge": 0.02}
    after, _ = removed(state, repair, ("ffn", "kv_group"))
    kept = after.plan.kept()
    cut = copy.deepcopy(model)
    with torch.no_grad():
        for layer in range(3):
            at = cut.model.layers[layer]
            gone = sorted(set(range(40)) - set(kept[f"layers.{layer}.mlp.ffn"]))
            for part in (at.mlp.gate_proj, at.mlp.up_proj):
                part.weight[gone] = 0
            heads = sorted(set(range(3)) - set(kept[f"layers.{layer}.attn.kv_group"]))
            for part, width in (
                (at.self_attn.q_proj, 16),
                (at.self_attn.v_proj, 8),
                (at.self_attn.k_proj, 8),
            ):
                part.weight.view(3, width, -1)[heads] = 0
            at.mlp.down_proj.weight[:, gone] = 0
            at.self_attn.o_proj.weight.view(-1, 3, 16)[:, heads] = 0
    parts = [("attn", "self_attn.o_proj", "attn.kv_group", 16), ("mlp", "mlp.down_proj", "mlp.ffn", 1)]
    for layer in range(3):
        for point, path, kind, width in parts:
            at = f"model.layers.{layer}.{path}"
            columns = np.array(kept[f"layers.{layer}.{kind}"])[:, None] * width + np.arange(width)
            columns = columns.reshape(-1)
            a = entering_and_leaving(cut, at)[0][:, columns]
            w = cut.get_submodule(at).weight
            w0 = w.detach().numpy()[:, columns].T
            r = stream(model, layer, point) - (stream(cut, layer, point) - a @ w0)
            want = ridge_fit(a, r, w0, 0.02).T
            # Norms compute in float32, and the two ways to run round differently.
            got = after.plan.values[f"{at}.weight"].numpy()[:, columns]
            np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4 * np.abs(want).max())
            with torch.no_grad():
                w[:, columns] = torch.from_numpy(want)


def test_stream_repair_brings_the_states_nearer(small_llama):
    model = small_llama(initializer_range=0.3)
    state = state_of(model)

    def gap(plan):
        view = masked(model, plan, state.graph)
        with torch.no_grad():
            return float((view(input_ids=IDS).logits - model(input_ids=IDS).logits).square().mean())

    plain, layer, streamed = (
        gap(removed(state, repair)[0].plan)
        for repair in (
            "none",
            {"repair": "refit", "target": "layer"},
            {"repair": "refit", "target": "stream"},
        )
    )
    assert streamed < layer < plain


def test_dropped_blocks_are_stepped_over(small_llama):
    model = small_llama(initializer_range=0.3).double()
    state = state_of(model).after([DropBlock("model.layers.1", 0)])
    after, _ = removed(state, {"repair": "refit", "target": "stream"})
    cut = masked(model, after.plan, state.graph)
    kept = np.array(after.plan.kept()["layers.2.mlp.ffn"])
    seen = []
    hook = model.model.layers[2].mlp.down_proj.register_forward_pre_hook(lambda m, x: seen.append(x[0]))
    with torch.no_grad():
        cut(input_ids=IDS)
    hook.remove()
    a = seen[0].flatten(0, 1).numpy()[:, kept]
    name = "model.layers.2.mlp.down_proj.weight"
    new = after.plan.values[name].numpy()[:, kept].T
    old = state.weights.get(name).numpy()[:, kept].T
    error = _stream_error(model, cut)
    gradient = a.T @ error / len(a) + 0.01 * (a**2).mean() * (old - new)
    assert np.abs(gradient).max() <= 1e-4 * np.abs(a.T @ a / len(a)).max()


def _stream_error(model, cut):
    """Original's states minus the cut model's behind the last layer."""
    states = []
    hook = model.model.norm.register_forward_pre_hook(lambda m, x: states.append(x[0].detach()))
    with torch.no_grad():
        model(input_ids=IDS)
        cut(input_ids=IDS)
    hook.remove()
    return (states[0] - states[1]).flatten(0, 1).numpy()


def test_constant_fits_the_bias_too(small_llama):
    model = small_llama(initializer_range=0.3, mlp_bias=True).double()
    traced, samples = trace_module(model), rows(IDS.tolist())
    state = State(
        graph=traced,
        plan=Plan(traced.model_type),
        source=ModuleSource(model),
        measure=lambda plan, keys: gather(model, samples, keys),
        bench=Bench(traced, lambda: model, lambda: samples, lambda *told: None),
    )
    for target in ("layer", "stream"):
        repair = {"repair": "refit", "target": target, "constant": True, "ridge": 0}
        after, _ = removed(state, repair)
        at = "model.layers.0.mlp.down_proj"
        x, y = entering_and_leaving(model, at)
        columns = list(after.plan.kept()["layers.0.mlp.ffn"])
        design = np.concatenate([x[:, columns], np.ones((len(x), 1))], 1)
        want = np.linalg.lstsq(design, y, rcond=None)[0]
        values = after.plan.values
        np.testing.assert_allclose(
            values[f"{at}.weight"].numpy()[:, columns].T, want[:-1], rtol=1e-3, atol=1e-5
        )
        np.testing.assert_allclose(values[f"{at}.bias"].numpy(), want[-1], rtol=1e-3, atol=1e-5)


def test_bias_is_added_to_the_bias_that_is_there(small_llama):
    model = small_llama(initializer_range=0.3, mlp_bias=True).double()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.bias.normal_()
    traced, samples = trace_module(model), rows(IDS.tolist())
    state = State(
        graph=traced,
        plan=Plan(traced.model_type),
        source=ModuleSource(model),
        measure=lambda plan, keys: gather(model, samples, keys),
    )
    after, _ = removed(state, "bias")
    at = "model.layers.1.mlp.down_proj"
    x, _ = entering_and_leaving(model, at)
    part = model.get_submodule(at)
    gone = sorted(set(range(40)) - set(after.plan.kept()["layers.1.mlp.ffn"]))
    want = part.bias.detach().numpy() + part.weight.detach().numpy()[:, gone] @ x.mean(0)[gone]
    np.testing.assert_allclose(after.plan.values[f"{at}.bias"].numpy(), want, rtol=1e-9)


def test_bias_without_a_slot_is_refused(small_llama):
    with pytest.raises(
        InfeasibleError, match=r"repair 'bias': 'model.layers.0.mlp.down_proj.weight' and 2 more"
    ):
        removed(state_of(small_llama()), "bias")


def test_hidden_cannot_be_repaired(small_llama):
    model = small_llama()
    state = state_of(model)
    state = State(
        graph=trace_module(model),
        plan=state.plan,
        source=state.source,
        measure=state.measure,
        bench=state.bench,
    )
    with pytest.raises(InfeasibleError, match="no one projection can take over its part"):
        Remove(select={"kind": "hidden"}, keep={"fraction": 0.5}, criterion="magnitude", repair="refit").run(
            state
        )


def test_nothing_to_measure_on(small_llama):
    state = state_of(small_llama())
    state = State(graph=state.graph, plan=state.plan, source=state.source)
    with pytest.raises(SurgeonError, match="calibration text"):
        Remove(select={"kind": "ffn"}, keep={"fraction": 0.5}, criterion="magnitude", repair="refit").run(
            state
        )


SIZES = {"vocab_size": 53, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"intermediate_size": 24, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def junction_of(model, part, block, ids=IDS[:2]):
    outs = []
    hook = block.register_forward_hook(lambda m, x, y: outs.append(y[0] if isinstance(y, tuple) else y))
    with Junction(part, block) as junction, torch.no_grad():
        model(input_ids=ids)
    hook.remove()
    return junction, outs[0]


def test_junction_of_a_parallel_residual_is_the_block_s_output():
    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES)).eval()
    block = model.gpt_neox.layers[0]
    for part in (block.attention.dense, block.mlp.dense_4h_to_h):
        junction, out = junction_of(model, part, block)
        assert junction.joined
        assert torch.equal(junction.state, out)


def test_junction_knows_a_scale_on_the_way():
    torch.manual_seed(0)
    model = GraniteForCausalLM(GraniteConfig(**SIZES, residual_multiplier=0.25)).eval()
    block = model.model.layers[1]
    junction, out = junction_of(model, block.mlp.down_proj, block)
    assert (junction.joined, junction.scale) == (True, 0.25)
    assert torch.equal(junction.state, out)
    assert junction_of(model, block.self_attn.o_proj, block)[0].scale == 0.25


def test_junction_before_a_norm_is_the_projection_s_own_output():
    torch.manual_seed(0)
    config = Gemma2Config(**SIZES, num_key_value_heads=2, head_dim=8, attn_implementation="eager")
    model = Gemma2ForCausalLM(config).eval()
    block = model.model.layers[0]
    junction, _ = junction_of(model, block.mlp.down_proj, block)
    assert not junction.joined
    assert torch.equal(junction.state, junction.own)


def test_walk_gives_the_states_of_a_whole_run(small_llama):
    model = small_llama()
    blocks = [f"model.layers.{i}" for i in range(3)]
    walk = Walk.begin(model, blocks, rows(IDS.tolist()), 7, model)
    for layer in range(3):
        walk.advance(model)
        got = torch.cat(walk.states).flatten(0, 1).numpy()
        np.testing.assert_allclose(got, stream(model, layer, "mlp"), rtol=1e-4, atol=1e-6)
    assert all("forward" not in vars(part) for part in model.modules())


def test_blocks_that_hand_on_more_than_the_stream_are_refused(small_llama):
    model = small_llama(initializer_range=0.3)
    kept = []

    class Remembers(nn.Module):
        def __init__(self, inner, first):
            super().__init__()
            self.inner, self.first = inner, first

        def forward(self, x, **kwargs):
            out = self.inner(x, **kwargs)
            if self.first:
                kept.append(out)
                return out
            return out + kept[-1].mean()

    for place in (0, 1):
        model.model.layers[place] = Remembers(model.model.layers[place], place == 0)
    blocks = [f"model.layers.{i}" for i in range(3)]
    walk = Walk.begin(model, blocks, rows(IDS.tolist()), 24, model)
    kept[:] = [torch.full((1,), 9.0)]
    walk.advance(model)
    kept[:] = [torch.full((1,), 9.0)]
    with pytest.raises(SurgeonError, match=r"run alone, block 'model.layers.1' gives other states"):
        walk.advance(model)


def test_a_block_without_a_state_is_refused(small_llama):
    model = small_llama()

    class Sums(nn.Module):
        def forward(self, x, **kwargs):
            return x.sum(-1)

    model.model.layers[2] = Sums()
    with pytest.raises(SurgeonError, match="Sums takes no tensor of the shape that it returns"):
        Walk.begin(model, [f"model.layers.{i}" for i in range(3)], rows(IDS.tolist()), 24, model)


class Twice(nn.Module):
    """A feed-forward part that uses its last projection twice."""

    def __init__(self, inner):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = inner.gate_proj, inner.up_proj, inner.down_proj

    def forward(self, x):
        inside = self.gate_proj(x).sigmoid() * self.up_proj(x)
        return self.down_proj(inside) + self.down_proj(inside.square())


def test_a_projection_that_runs_twice_is_not_fitted_to_the_stream(small_llama):
    model = small_llama()
    model.model.layers[0].mlp = Twice(model.model.layers[0].mlp)
    with pytest.raises(SurgeonError, match=r"down_proj.weight' is not used once a token"):
        removed(state_of(model), {"repair": "refit", "target": "stream"})


class Pair(nn.Linear):
    """Gives its output in a tuple."""

    def forward(self, x):
        return (super().forward(x),)


def test_a_projection_that_gives_no_tensor_is_not_fitted_to_the_stream(small_llama):
    model = small_llama()
    mlp = model.model.layers[0].mlp
    mlp.down_proj = Pair(40, 48, bias=False)
    mlp.forward = lambda x: mlp.down_proj(mlp.gate_proj(x).sigmoid() * mlp.up_proj(x))[0]
    with pytest.raises(SurgeonError, match="Pair did not give a tensor when its block ran"):
        removed(state_of(model), {"repair": "refit", "target": "stream"})
