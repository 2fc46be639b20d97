"""Merging experts: who joins whom, what they become, and that the smaller model is that very model."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from surgeon.calibrate.routers import router_of
from surgeon.errors import InfeasibleError, SurgeonError
from surgeon.operations import operations
from surgeon.operations.expert_clusters import around, average_linkage, cosines
from surgeon.plan import Assign, Keep
from surgeon.rebuild import apply_plan, compare, masked, probe_tokens
from surgeon.rebuild.forward import call_with
from tests.operations.test_remove_experts import GROUPED, PLAIN, SAMPLES, outputs, remove, state
from tests.rebuild.routed import CONFIGS

BIASED = "softmax of the chosen, biased"
INPUTS = "all experts run, gates on their inputs"


def merge(**fields):
    return operations.get("merge_experts").model_validate({"op": "merge_experts", **fields})


def seen(model):
    """By layer, of the whole model on the samples: inputs [T, H] and routing of every sublayer."""
    found = []
    blocks = [m for m in model.modules() if hasattr(m, "gate") and hasattr(m, "experts")]
    handles = [
        b.register_forward_hook(lambda b, args, out: found.append((b, args[0].flatten(0, 1)))) for b in blocks
    ]
    with torch.no_grad():
        call_with(model, {}, input_ids=SAMPLES.ids)
    for handle in handles:
        handle.remove()
    return found


def every_output(block, x):
    """[T, E, H] by plain products."""
    gate, up = torch.einsum("th,eoh->teo", x, block.experts.gate_up_proj.detach()).chunk(2, -1)
    return torch.einsum("tef,ehf->teh", F.silu(gate) * up, block.experts.down_proj.detach())


def counts(block, x):
    index = block.gate(x)[2]
    return torch.bincount(index.flatten(), minlength=len(block.gate.weight)).double()


def clusters_of(after):
    """By Axis: clusters as recorded."""
    found = {}
    for edit in after.plan.edits:
        if isinstance(edit, Assign) and "clusters" in edit.args:
            found[edit.param.rpartition(".mlp.")[0]] = edit.args["clusters"]
    return list(found.values())


@pytest.mark.parametrize("name", list(CONFIGS))
def test_smaller_model_is_the_original_with_the_merged_in_place(name):
    model, before = state(name)
    step = merge(keep={"fraction": 0.6}, cluster="router", router="sum_logits", align="none")
    after, record = step.run(before)
    small, ledger = apply_plan(model, after.plan, before.graph)
    compare(model, small, after.plan, before.graph, probe_tokens(model)).require()
    assert all(row.new < row.old for row in ledger)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    assert all("merged into" in choice.why for choice in record.choices)


@pytest.mark.parametrize("name", [GROUPED, BIASED, INPUTS])
def test_all_at_once(name):
    model, before = state(name)
    step = merge(
        keep={"fraction": 0.6},
        cluster="outputs",
        align="activations",
        weights="gate_mass",
        router="sum_gates",
        repair="refit",
    )
    after, _ = step.run(before)
    small, _ = apply_plan(model, after.plan, before.graph)
    compare(model, small, after.plan, before.graph, probe_tokens(model)).require()


def test_clusters_by_outputs_are_average_linkage_of_mean_outputs():
    """Against joining by hand, on mean outputs by plain products."""
    model, before = state(PLAIN)
    after, _ = merge(keep={"count": 5}).run(before)
    for got, (block, x) in zip(clusters_of(after), seen(model), strict=True):
        means = every_output(block, x).double().mean(0)
        apart = torch.cdist(means, means)
        sets = [[index] for index in range(9)]
        while len(sets) > 5:
            pairs = itertools.combinations(range(len(sets)), 2)
            one, other = min(pairs, key=lambda p: float(apart[sets[p[0]]][:, sets[p[1]]].mean()))
            sets[one] += sets.pop(other)
        assert sorted(sorted(c) for c in got) == sorted(sorted(s) for s in sets)
        load = counts(block, x)
        assert all(load[c[0]] == load[c].max() for c in got)


def test_clusters_by_router_are_around_the_most_frequent():
    model, before = state(PLAIN)
    after, _ = merge(keep={"count": 5}, cluster="router").run(before)
    for got, (block, x) in zip(clusters_of(after), seen(model), strict=True):
        logits = x.double() @ block.gate.weight.detach().double().T
        like = F.cosine_similarity(logits.T[:, None], logits.T[None], dim=-1)
        kept = sorted(c[0] for c in got)
        load = counts(block, x)
        assert min(load[kept]) >= max(load[e] for e in range(9) if e not in kept)
        for cluster in got:
            for member in cluster[1:]:
                assert like[member, cluster[0]] == like[member, kept].max()


def test_clusters_around_kept_are_around_what_remove_keeps():
    _, before = state(PLAIN)
    merged, _ = merge(keep={"count": 5}, cluster="around_kept").run(before)
    removed, _ = remove(keep={"count": 5}, criterion="reap").run(before)
    assert merged.plan.kept() == removed.plan.kept()


def test_experts_are_weighted_means():
    """Shares by frequency, no alignment: every tensor is the mean by hand; the router keeps its rows."""
    model, before = state(PLAIN)
    after, _ = merge(keep={"count": 5}, align="none", router="keep_dominant", weights="frequency").run(before)
    for layer, (got, (block, x)) in enumerate(zip(clusters_of(after), seen(model), strict=True)):
        load = counts(block, x)
        for leaf in ("gate_up_proj", "down_proj"):
            new = after.plan.values[f"model.layers.{layer}.mlp.experts.{leaf}"]
            old = getattr(block.experts, leaf).detach()
            for cluster in got:
                share = (load[cluster] / load[cluster].sum()).to(old)
                want = torch.einsum("e,eoi->oi", share, old[cluster])
                torch.testing.assert_close(new[cluster[0]], want, rtol=1e-5, atol=1e-6)
        assert f"model.layers.{layer}.mlp.gate.weight" not in after.plan.values


@pytest.mark.parametrize("align", ["weights", "activations"])
def test_twins_in_another_order_merge_into_one_of_them(align):
    """An expert whose channels are another's, shuffled, is that expert; merging the two changes neither."""
    model, before = state(PLAIN)
    for _, part in model.named_modules():
        if hasattr(part, "gate_up_proj"):
            order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
            gate, up = part.gate_up_proj.data[2].chunk(2, 0)
            part.gate_up_proj.data[6] = torch.cat([gate[order], up[order]])
            part.down_proj.data[6] = part.down_proj.data[2][:, order]
    after, _ = merge(keep={"count": 8}, align=align).run(before)
    for layer, got in enumerate(clusters_of(after)):
        (pair,) = [c for c in got if len(c) > 1]
        assert sorted(pair) == [2, 6]
        for leaf in ("gate_up_proj", "down_proj"):
            name = f"model.layers.{layer}.mlp.experts.{leaf}"
            old = model.get_parameter(name).detach()
            torch.testing.assert_close(after.plan.values[name][pair[0]], old[pair[0]])


@pytest.mark.parametrize("name", [PLAIN, BIASED])
def test_sum_of_logits_is_exact(name):
    model, before = state(name)
    after, _ = merge(keep={"count": 5}, router="sum_logits", cluster="router").run(before)
    x = torch.randn(11, 24, generator=torch.Generator().manual_seed(2))
    for group in before.graph.of_kind("expert"):
        router = router_of(before.graph, group)
        found = next(
            e.args["clusters"] for e in after.plan.edits if isinstance(e, Assign) and e.param == router.weight
        )
        old = router.logits(lambda name: model.get_parameter(name).detach(), x)
        new = router.logits(lambda name: after.plan.values.get(name), x)
        for cluster in found:
            torch.testing.assert_close(new[:, cluster[0]], old[:, cluster].sum(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["max", "sum_gates"])
def test_fitted_rows_come_nearer_than_the_dominant_ones(how):
    model, before = state(PLAIN)
    after, _ = merge(keep={"count": 5}, router=how).run(before)
    block, x = seen(model)[0]
    old, new = block.gate.weight.detach(), after.plan.values["model.layers.0.mlp.gate.weight"]
    for cluster in clusters_of(after)[0]:
        logits = x @ old[cluster].T
        want = logits.amax(1) if how == "max" else logits.logsumexp(1)
        was, now = x @ old[cluster[0]] - want, x @ new[cluster[0]] - want
        assert len(cluster) == 1 or now.norm() < was.norm()


def test_refit_after_merging_comes_nearer_to_the_original_stream():
    model, before = state(PLAIN)
    bare, mended = (merge(keep={"count": 4}, repair=r).run(before)[0].plan for r in ("none", "refit"))
    want, cut, better = (outputs(model, p, before.graph) for p in (before.plan, bare, mended))
    assert (better[-1] - want[-1]).norm() < 0.9 * (cut[-1] - want[-1]).norm()


def test_merging_what_an_earlier_step_has_left():
    model, before = state(PLAIN)
    first, _ = remove(keep={"count": 7}).run(before)
    after, _ = merge(keep={"count": 4}).run(first)
    assert all(set(after.plan.kept()[a]) < set(kept) for a, kept in first.plan.kept().items())
    for kept, clusters in zip(first.plan.kept().values(), clusters_of(after), strict=True):
        assert sorted(itertools.chain(*clusters)) == list(kept)
    small, _ = apply_plan(model, after.plan, before.graph)
    compare(model, small, after.plan, before.graph, probe_tokens(model)).require()


def test_fewer_than_top_k_are_refused():
    _, before = state(PLAIN)
    with pytest.raises(InfeasibleError, match="would keep 2, and its router takes 3 at once"):
        merge(keep={"count": 2}).run(before)


def test_other_kinds_are_refused():
    _, before = state(PLAIN)
    with pytest.raises(InfeasibleError, match="of kind ffn, and only experts of one layer are merged"):
        merge(keep={"count": 2}, select={"kind": "ffn"}).run(before)


def test_nothing_to_merge():
    model, before = state(PLAIN)
    after, _ = merge(keep={"fraction": 1.0}).run(before)
    assert not [e for e in after.plan.edits if isinstance(e, Keep)]
    assert not after.plan.values
    torch.testing.assert_close(
        masked(model, after.plan, before.graph)(input_ids=SAMPLES.ids).logits, model(SAMPLES.ids).logits
    )


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"keep": {"params": 1000}}, "keep: params is not for merging"),
        ({"keep": {"count": 4}, "protect": "super_experts"}, "cluster: outputs lets nobody choose"),
    ],
)
def test_what_cannot_be_meant_is_refused(fields, what):
    with pytest.raises(ValidationError, match=what):
        merge(**fields)


def test_a_router_of_two_matrices_is_refused():
    _, before = state(PLAIN)
    group = before.graph.of_kind("expert")[0]
    router = next(site for site in group.sites if site.param.endswith("gate.weight"))
    twice = type(group)(
        **{**{f: getattr(group, f) for f in group.__slots__}, "sites": (*group.sites, router)}
    )
    with pytest.raises(SurgeonError, match="is made of 2 matrices, and only one can be merged"):
        router_of(before.graph, twice)


def test_linkage_joins_the_nearest_and_the_worthiest_leads():
    points = np.array([[0.0], [10.0], [0.1], [10.3], [5.0]])
    worth = np.array([1.0, 1.0, 2.0, 1.0, 9.0])
    assert average_linkage(points, range(5), worth, 3) == ((1, 3), (2, 0), (4,))
    assert average_linkage(points, (0, 2, 4), worth, 1) == ((4, 0, 2),)
    assert average_linkage(points, (3,), worth, 1) == ((3,),)


def test_around_joins_what_is_most_alike():
    gram = np.array([[4.0, 0.0, 4.0], [0.0, 1.0, 0.5], [4.0, 0.5, 9.0]])
    like = cosines(gram)
    assert like[0, 2] == pytest.approx(2 / 3)
    assert around(like, (0, 1, 2), (1, 0)) == ((0, 2), (1,))
    assert cosines(np.zeros((2, 2))).tolist() == [[0, 0], [0, 0]]
