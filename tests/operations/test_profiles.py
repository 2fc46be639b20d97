"""Allocations by depth, by similarity and by measured loss, against their formulas in numpy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from surgeon.calibrate import Bench, gather, rows
from surgeon.errors import InfeasibleError
from surgeon.graph import Axis, Group
from surgeon.operations import State
from surgeon.operations.allocation.isotonic import Isotonic, nearest_rising
from surgeon.operations.allocation.logistic import Logistic
from surgeon.operations.allocation.profile import Profile
from surgeon.operations.allocation.ranking import Global
from surgeon.operations.allocation.similarity import BySimilarity
from surgeon.operations.pool import Depth, Member, Pool
from surgeon.operations.remove import Remove
from surgeon.plan import Amount, DropBlock, Plan, parameters_after
from surgeon.rebuild import ModuleSource, masked
from surgeon.trace import trace_module

IDS = torch.randint(3, 53, (12, 11), generator=torch.Generator().manual_seed(1))


def layers(sizes, scores=None, cost=3, multiple_of=1, kind="ffn"):
    """One Pool a layer."""
    found = []
    for place, size in enumerate(sizes):
        values = np.arange(size, dtype=float) if scores is None else np.asarray(scores[place], dtype=float)
        member = Member(Group(Axis(f"{place}.{kind}", kind, size), ()), tuple(range(size)), values, cost)
        found.append(Pool((member,), size, 1, multiple_of, depth=Depth(place, len(sizes))))
    return tuple(found)


def test_logistic_is_the_curve_over_the_active_layers():
    pools = layers([1000] * 10)
    counts = Logistic(k=3.0, x0=0.5, skip_first=2, skip_last=1).counts(pools, Amount(fraction=0.7))
    assert [counts[place] for place in (0, 1, 9)] == [1000] * 3
    depth = np.arange(7) / 6
    curve = 1 / (1 + np.exp(-3.0 * (depth - 0.5)))
    want = 1000 - 1000 * 0.3 * curve / curve.mean()
    assert np.abs(np.array(counts[2:9]) - want).max() <= 1
    assert abs(np.mean(counts[2:9]) - 700) <= 1


def test_logistic_that_leaves_everything_whole_is_refused():
    with pytest.raises(InfeasibleError, match="leaves the first 2 and the last 2 blocks whole"):
        Logistic().counts(layers([10] * 4), Amount(fraction=0.5))


def test_a_profile_lies_evenly_over_the_depth():
    counts = Profile(removes=[1, 3]).counts(layers([1000] * 5), Amount(fraction=0.8))
    assert counts == (900, 850, 800, 750, 700)
    assert Profile(removes=[1, 1]).counts(layers([100] * 3), Amount(fraction=0.75)) == (75, 75, 75)
    assert Profile(removes=[0, 0, 6]).counts(layers([100] * 3), Amount(fraction=0.9)) == (100, 100, 70)


def test_a_layer_that_has_nothing_left_hands_on_to_the_others():
    counts = Profile(removes=[1, 9]).counts(layers([100, 100]), Amount(fraction=0.25))
    assert counts[1] == 1
    assert abs(sum(counts) - 50) <= 1


@pytest.mark.parametrize("removes", [[1, 2, 1], [2, 1, 2], [0, 0], [1]])
def test_a_profile_that_turns_or_removes_nothing_is_refused(removes):
    with pytest.raises(ValidationError):
        Profile(removes=removes)


def with_leans(pools, leans):
    from dataclasses import replace

    return tuple(replace(pool, lean=lean) for pool, lean in zip(pools, leans, strict=True))


def test_similarity_spreads_the_shares_by_the_amplitude():
    pools = with_leans(layers([1000] * 3), [-1.0, 0.0, 1.0])
    counts = BySimilarity(amplitude=0.1).counts(pools, Amount(fraction=0.7))
    assert counts == (800, 700, 600)


@given(
    st.lists(st.integers(1, 60), min_size=2, max_size=6),
    st.floats(0.1, 1),
    st.sampled_from(["logistic", "profile", "by_similarity", "isotonic"]),
    st.integers(1, 3),
)
@settings(deadline=None)
def test_nothing_is_emptied_and_ladders_fall(sizes, fraction, name, multiple):
    sizes = [size * multiple for size in sizes]
    pools = with_leans(layers(sizes, multiple_of=multiple), np.linspace(-1, 1, len(sizes)).tolist())
    allocation = {
        "logistic": Logistic(skip_first=0, skip_last=1),
        "profile": Profile(removes=[3, 1]),
        "by_similarity": BySimilarity(amplitude=0.3),
        "isotonic": Isotonic(),
    }[name]
    counts = allocation.counts(pools, Amount(fraction=fraction))
    ladder = allocation.ladder(pools)
    every = [ladder.at(place) for place in range(ladder.length)]
    assert every[0] == tuple(sizes)
    for found in (counts, *every):
        assert all(1 <= n <= p.left and n % multiple == 0 for n, p in zip(found, pools, strict=True))
    if name != "isotonic":
        assert all(a <= b for before, after in pairwise(every) for a, b in zip(after, before, strict=True))


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.1, 3)), min_size=1, max_size=8))
def test_isotonic_is_the_least_squares_fit(pairs):
    values, weights = (np.array(column) for column in zip(*pairs, strict=True))
    fit = nearest_rising(values, weights)
    assert (np.diff(fit) >= -1e-12).all()
    assert weights @ fit == pytest.approx(weights @ values, abs=1e-9)
    # Max-min formula of isotonic regression, written out.
    for place in range(len(values)):
        best = max(
            min(
                np.average(values[low:high], weights=weights[low:high])
                for high in range(place + 1, len(values) + 1)
            )
            for low in range(place + 1)
        )
        assert fit[place] == pytest.approx(best, abs=1e-9)


def test_isotonic_smooths_another_allocation():
    scores = [np.full(20, level) + np.arange(20) / 100 for level in (1.0, 5.0, 2.0, 9.0)]
    pools = layers([20] * 4, scores)
    rough = Global().counts(pools, Amount(fraction=0.5))
    assert rough[1] > rough[2]
    smooth = Isotonic(of="global", keeps="rising").counts(pools, Amount(fraction=0.5))
    assert list(smooth) == sorted(smooth)
    assert abs(sum(smooth) - sum(rough)) <= 2


def state_of(model):
    graph, samples = trace_module(model), rows(IDS.tolist())
    return State(
        graph=graph,
        plan=Plan(graph.model_type),
        source=ModuleSource(model),
        measure=lambda plan, keys: gather(model, samples, keys, view=masked(model, plan, graph)),
        bench=Bench(graph, lambda: model, lambda: samples, lambda *told: None),
    )


def remove(**options):
    return Remove.model_validate(
        {"select": {"kind": "ffn"}, "keep": {"fraction": 0.6}, "criterion": "obs", **options}
    )


def counts_of(record):
    return [choice.kept for choice in record.choices]


@pytest.mark.parametrize("similarity", ["cosine", "angular", "manhattan", "euclidean"])
def test_the_idle_layer_loses_most_by_similarity(small_llama, similarity):
    model = small_llama(initializer_range=0.3)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight *= 1e-4
        model.model.layers[1].self_attn.o_proj.weight *= 1e-4
    allocation = {"allocation": "by_similarity", "amplitude": 0.2, "similarity": similarity}
    kept = counts_of(remove(allocation=allocation).run(state_of(model))[1])
    assert kept[1] == min(kept) < max(kept)
    shots = counts_of(remove(allocation=allocation, shots=3).run(state_of(model))[1])
    assert max(shots) - min(shots) > max(kept) - min(kept)


@pytest.mark.parametrize("repair", ["none", "refit"])
def test_by_loss_protects_the_layer_that_matters(small_llama, repair):
    """Scores compare within a layer; a layer of which the model loses more keeps more."""
    model = small_llama(initializer_range=0.3)
    with torch.no_grad():
        for layer in (0, 2):
            model.model.layers[layer].mlp.down_proj.weight *= 0.05
    kept = counts_of(remove(allocation="by_loss", repair=repair).run(state_of(model))[1])
    assert kept[1] == max(kept)
    assert abs(sum(kept) - 0.6 * 120) <= 1


def test_by_loss_scales_scores_to_the_divergence(small_llama):
    from surgeon.calibrate.divergence import divergences
    from surgeon.criteria import criteria
    from surgeon.operations.allocation.by_loss import ByLoss
    from surgeon.operations.pooling import make_pools
    from surgeon.plan import Keep
    from surgeon.repair import NoRepair

    model = small_llama(initializer_range=0.3)
    state = state_of(model)
    groups = state.graph.of_kind("ffn")
    pools = make_pools(state, groups, criteria.get("obs")(), {g.name: g.size for g in groups}, 1)
    found = ByLoss(trial=0.5).weighed(pools, state, NoRepair())
    for before, after in zip(pools, found, strict=True):
        member = after.members[0]
        plan = state.after([Keep(member.group.name, member.best(20), 0)]).plan
        with torch.no_grad():
            p = model(input_ids=IDS).logits.double().log_softmax(-1)
            q = masked(model, plan, state.graph)(input_ids=IDS).logits.double().log_softmax(-1)
        want = float((p.exp() * (p - q)).sum(-1).mean())
        assert np.sort(member.scores)[:20].sum() == pytest.approx(want, rel=1e-3)
        assert (np.argsort(member.scores) == np.argsort(before.members[0].scores)).all()
        assert divergences(state.trial(), state.plan, [plan])[0] == pytest.approx(want, rel=1e-3)


def test_by_loss_refuses_scores_that_are_no_loss(small_llama):
    step = remove(allocation="by_loss", criterion={"criterion": "expression", "formula": "neg(abs(W))"})
    with pytest.raises(InfeasibleError, match="needs scores that add up to a loss"):
        step.run(state_of(small_llama()))


def test_a_layer_may_lose_all_where_the_recipe_says_so(small_llama):
    model = small_llama(initializer_range=0.3)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight *= 1e-6
    before = state_of(model)
    after, record = remove(allocation="global", least=0).run(before)
    assert [edit.block for edit in after.plan.edits if isinstance(edit, DropBlock)] == ["model.layers.1.mlp"]
    assert counts_of(record)[1] == 0
    kept, _ = remove(allocation="global").run(before)
    assert len(kept.plan.kept()["layers.1.mlp.ffn"]) == 1
    norm = 48
    assert parameters_after(after.plan, before.graph) <= parameters_after(kept.plan, before.graph) + norm


def test_what_is_no_sublayer_cannot_lose_all(small_llama):
    model = small_llama()
    step = Remove.model_validate(
        {
            "select": {"kind": "q_per_kv"},
            "keep": {"params": 0.2},
            "criterion": "random",
            "allocation": "global",
            "least": 0,
        }
    )
    with pytest.raises(InfeasibleError, match="cannot"):
        step.run(state_of(model))


def test_achieved_against_requested(small_llama):
    before = state_of(small_llama())
    after, record = remove(criterion="random").run(before)
    part, total = 3 * 40 * 3 * 48, before.graph.parameter_count
    left = parameters_after(after.plan, before.graph)
    assert record.notes == (
        f"asked for 60.00%: 60.00% of the selected parameters, {part * 24 // 40} of {part}",
        f"leaves {left / total:.2%} of the model, {left} of {total} parameters",
    )
