"""Removing experts: which stay, what the router needs, and what the others take over."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from surgeon.calibrate import Bench, gather, rows
from surgeon.calibrate.expert_load import ExpertLoad
from surgeon.errors import InfeasibleError
from surgeon.operations import State, operations
from surgeon.plan import Keep, Plan
from surgeon.rebuild import ModuleSource, apply_plan, compare, masked, probe_tokens
from surgeon.rebuild.forward import call_with
from surgeon.trace import trace_module
from tests.rebuild.routed import routed

GROUPED = "sigmoid, groups by their two best"
PLAIN = "softmax, as it is"
SAMPLES = rows(torch.randint(3, 61, (12, 19), generator=torch.Generator().manual_seed(0)).tolist())


def state(name):
    model, graph = routed(name)
    model = model.float()
    model.set_experts_implementation("eager")
    bench = Bench(graph, lambda: model, lambda: SAMPLES, lambda *told: None)
    plan = Plan(graph.model_type)
    return model, State(graph, plan, source=ModuleSource(model), measure=bench.measure, bench=bench)


def remove(**fields):
    given = {"op": "remove", "select": {"kind": "expert"}, "criterion": "reap_sum", **fields}
    return operations.get("remove").model_validate(given)


def outputs(model, plan, graph):
    """Hidden states behind every block, of the masked view."""
    found = []
    blocks = [model.get_submodule(block.name) for block in graph.blocks]
    handles = [block.register_forward_hook(lambda *a: found.append(a[2])) for block in blocks]
    with torch.no_grad():
        masked(model, plan, graph)(input_ids=SAMPLES.ids)
    for handle in handles:
        handle.remove()
    return [output[0] if isinstance(output, tuple) else output for output in found]


def test_lowest_go_in_every_layer():
    model, before = state(PLAIN)
    after, record = remove(keep={"count": 5}).run(before)
    assert {len(kept) for kept in after.plan.kept().values()} == {5}
    assert len(after.plan.kept()) == 2
    again = remove(keep={"count": 5}, criterion="frequency").run(before)[0]
    for axis, kept in again.plan.kept().items():
        counts = dict.fromkeys(range(9), 0)
        block = model.get_submodule(before.graph.group(axis).sublayer)
        seen = []
        handle = block.gate.register_forward_hook(lambda *a, seen=seen: seen.append(a[2][2]))
        with torch.no_grad():
            call_with(model, {}, input_ids=SAMPLES.ids)
        handle.remove()
        for expert in seen[0].flatten().tolist():
            counts[expert] += 1
        assert min(counts[e] for e in kept) >= max(counts[e] for e in counts if e not in kept)
    assert [choice.kept for choice in record.choices] == [5, 5]


def test_cut_model_is_the_masked_one():
    model, before = state(GROUPED)
    after, _ = remove(keep={"fraction": 0.8}, repair="refit").run(before)
    small, ledger = apply_plan(model, after.plan, before.graph)
    compare(model, small, after.plan, before.graph, probe_tokens(model)).require()
    assert [(row.old, row.new) for row in ledger] == [(15, 12)]


def test_fewer_than_top_k_are_refused():
    _, before = state(PLAIN)
    with pytest.raises(InfeasibleError, match="would keep 2, and its router takes 3 at once"):
        remove(keep={"count": 2}).run(before)


def test_fewer_than_top_k_in_a_group_are_refused():
    _, before = state(GROUPED)
    with pytest.raises(InfeasibleError, match="would keep 1, and its router takes 2 at once"):
        remove(keep={"count": 1}).run(before)


def test_top_k_is_clamped_where_that_is_asked_for():
    model, before = state(PLAIN)
    after, record = remove(keep={"count": 2}, top_k="clamp").run(before)
    assert "top-k of routers clamped from 3 to 2" in record.notes
    small, ledger = apply_plan(model, after.plan, before.graph)
    assert {row.field: row.new for row in ledger} == {"num_experts": 2, "num_experts_per_tok": 2}
    compare(model, small, after.plan, before.graph, probe_tokens(model)).require()


def test_top_k_over_groups_cannot_be_clamped():
    model, before = state(GROUPED)
    after, _ = remove(keep={"count": 1}, top_k="clamp").run(before)
    with pytest.raises(InfeasibleError, match="no field of the config holds alone"):
        apply_plan(model, after.plan, before.graph)


def test_groups_of_experts_are_refused():
    _, before = state(GROUPED)
    outer = [g.name for g in before.graph.groups if g.kind == "channel" and g.picked]
    others = [g.name for g in before.graph.of_kind("channel") if g.name not in outer]
    with pytest.raises(InfeasibleError, match="counts groups of experts, which the router takes 2 of"):
        remove(select={"kind": "channel", "except": others}, keep={"count": 2}).run(before)


def test_bias_repair_is_refused():
    _, before = state(PLAIN)
    with pytest.raises(InfeasibleError, match="repair 'bias' cannot make up for removed experts"):
        remove(keep={"count": 5}, repair="bias").run(before)


@pytest.mark.parametrize("name", [PLAIN, GROUPED, "softmax of the chosen, biased"])
@pytest.mark.parametrize("target", ["stream", "layer"])
def test_refit_comes_nearer_to_the_original_stream(name, target):
    model, before = state(name)
    keep = {"count": 4}
    cut = remove(keep=keep).run(before)[0].plan
    mended = remove(keep=keep, repair={"repair": "refit", "target": target}).run(before)[0].plan
    assert mended.kept() == cut.kept()
    want, bare, better = (outputs(model, p, before.graph) for p in (before.plan, cut, mended))
    assert (better[-1] - want[-1]).norm() < 0.9 * (bare[-1] - want[-1]).norm()


def test_refit_is_the_least_squares_solution():
    """First block, no ridge: the normal equations of plain features over all kept experts hold."""
    model, before = state(PLAIN)
    repair = {"repair": "refit", "ridge": 0.0}
    after = remove(keep={"count": 4}, repair=repair, select={"kind": "expert"}).run(before)[0]
    axis = min(after.plan.kept())
    kept = list(after.plan.kept()[axis])
    block = model.get_submodule(before.graph.group(axis).sublayer)
    features, outs = [], []

    def look(module, args, output):
        hidden, index, gates = args
        gate, up = torch.einsum("th,eoh->teo", hidden, module.gate_up_proj[kept]).chunk(2, -1)
        wide = torch.zeros(len(hidden), 9).scatter(1, index, gates)[:, kept]
        features.append((torch.nn.functional.silu(gate) * up * wide[..., None]).flatten(1))
        outs.append(output)

    handle = block.experts.register_forward_hook(look)
    keeps = tuple(edit for edit in after.plan.edits if isinstance(edit, Keep))
    with torch.no_grad():
        want = outputs(model, before.plan, before.graph)[0]
        features.clear()
        outs.clear()
        have = outputs(model, Plan(before.graph.model_type, keeps), before.graph)[0]
    handle.remove()
    a = features[0].double()
    e = (want - have).flatten(0, 1).double()
    w0 = block.experts.down_proj[kept].transpose(1, 2).flatten(0, 1).double()
    best = torch.linalg.lstsq(a, e, driver="gelsd").solution + w0
    outlet = f"{before.graph.group(axis).sublayer}.experts.down_proj"
    got = after.plan.values[outlet][kept].transpose(1, 2).flatten(0, 1).double()
    torch.testing.assert_close(a @ got, a @ best.detach(), rtol=1e-3, atol=1e-3)


def test_channels_inside_experts_go_from_all_of_them():
    model, before = state(PLAIN)
    step = remove(select={"kind": "ffn"}, keep={"count": 12}, criterion="moe_pruner", repair="refit")
    after, _ = step.run(before)
    small, ledger = apply_plan(model, after.plan, before.graph)
    assert [(row.old, row.new) for row in ledger] == [(20, 12)]
    compare(model, small, after.plan, before.graph, probe_tokens(model)).require()


def test_statistics_of_the_cut_model_see_no_removed_expert():
    model, before = state(PLAIN)
    after, _ = remove(keep={"count": 4}).run(before)
    key = ExpertLoad("count").on(before.graph, before.graph.of_kind("expert"))
    found = gather(model, SAMPLES, [key], view=masked(model, after.plan, before.graph)).get(key)
    for axis, kept in after.plan.kept().items():
        counts = found[f"{before.graph.group(axis).sublayer}.experts.down_proj"]
        gone = sorted(set(range(9)) - set(kept))
        assert counts[gone].sum() == 0
        assert counts.sum() == SAMPLES.ids.numel() * 3


def test_super_experts_stay_whatever_they_score():
    """One expert of the first layer gives outputs far above all others, on few tokens."""
    model, before = state(PLAIN)
    first = min(group.name for group in before.graph.of_kind("expert"))
    sublayer = before.graph.group(first).sublayer
    step = remove(keep={"count": 5}, criterion="frequency")
    gone = sorted(set(range(9)) - set(step.run(before)[0].plan.kept()[first]))[0]
    with torch.no_grad():
        model.get_submodule(sublayer).experts.down_proj[gone] *= 100
    guarded = remove(keep={"count": 5}, criterion="frequency", protect="super_experts")
    after, record = guarded.run(before)
    assert gone in after.plan.kept()[first]
    assert len(after.plan.kept()[first]) == 5
    assert f"protected experts: {first} [{gone}]" in record.notes


def test_outliers_are_protected_in_every_layer():
    model, before = state(PLAIN)
    last = max(group.name for group in before.graph.of_kind("expert"))
    with torch.no_grad():
        model.get_submodule(before.graph.group(last).sublayer).experts.down_proj[3] *= 1e4
    wide, _ = remove(keep={"count": 5}, protect="outlier_experts", criterion="frequency").run(before)
    assert 3 in wide.plan.kept()[last]


def test_channels_of_stacked_experts_go_by_what_grouped_products_read():
    """A row of 38 numbers is no multiple of 16 bytes, and stock transformers would not run it."""
    sizes = {"vocab_size": 61, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes |= {"num_hidden_layers": 2, "moe_intermediate_size": 48, "num_experts": 6, "head_dim": 8}
    sizes |= {"num_experts_per_tok": 2}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes, **ids)).eval()
    graph = trace_module(model)
    before = State(graph, Plan(graph.model_type), source=ModuleSource(model))
    step = remove(select={"kind": "ffn"}, keep={"fraction": 0.8}, criterion="magnitude")
    after, record = step.run(before)
    assert {len(kept) for kept in after.plan.kept().values()} == {32}
    small, _ = apply_plan(model, after.plan, graph)
    with torch.no_grad():
        assert small(input_ids=SAMPLES.ids).logits.isfinite().all()
    assert any("multiples of 8: grouped products need them" in note for note in record.notes)


def test_experts_that_lost_channels_are_fitted_together_to_the_stream():
    model, before = state(PLAIN)

    def error(repair):
        step = remove(select={"kind": "ffn"}, keep={"count": 8}, criterion="magnitude", repair=repair)
        after, record = step.run(before)
        whole, cut = (outputs(model, plan, before.graph)[-1] for plan in (before.plan, after.plan))
        return float((whole - cut).square().mean()), record.notes

    stream, said = error({"repair": "refit", "target": "stream"})
    layer, _ = error({"repair": "refit", "target": "layer"})
    none, _ = error("none")
    assert stream < layer < none
    assert any("stacks of experts re-fitted together" in note for note in said)
