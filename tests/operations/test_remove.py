from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from surgeon.calibrate import Statistics, gather, rows
from surgeon.calibrate.gradient import Gradient
from surgeon.criteria.magnitude import Magnitude
from surgeon.errors import ConflictError, InfeasibleError, SelectorError, SurgeonError
from surgeon.graph import Graph
from surgeon.operations import State, operations
from surgeon.operations.remove import Remove
from surgeon.passes.regroup import Regroup
from surgeon.plan import Plan, Refusal, parameters_after, sizes
from surgeon.rebuild import ModuleSource
from surgeon.rebuild.masked import masked
from tests.conftest import llama_config
from tests.handmade import llama_graph
from tests.operations.limits import TiedByKind


@pytest.fixture(scope="module")
def model():
    from transformers import LlamaForCausalLM

    torch.manual_seed(5)
    return LlamaForCausalLM(llama_config()).eval()


@pytest.fixture(scope="module")
def state(model):
    """A Llama of 3 layers: ffn 40, 3 kv groups of 2 heads, hidden 48; no limits."""
    return State(llama_graph(model.config), Plan("llama"), source=ModuleSource(model))


def remove(keep, kind=("kv_group", "ffn"), criterion="magnitude", blocks=None, **options):
    select = {"kind": list(kind) if isinstance(kind, tuple) else kind}
    select |= {} if blocks is None else {"blocks": blocks}
    return Remove.model_validate(
        {"op": "remove", "select": select, "keep": keep, "criterion": criterion, **options}
    )


def kept(plan):
    return {name: len(indices) for name, indices in plan.kept().items()}


def test_keeps_the_highest_of_every_axis(state):
    after, record = remove({"fraction": 0.5}, "ffn").run(state)
    for layer in range(3):
        group = state.graph.group(f"layers.{layer}.mlp.ffn")
        scores = Magnitude().score(group, state.weights, Statistics()).values
        assert after.plan.kept()[group.name] == tuple(np.sort(np.argsort(scores)[20:]))
    assert [(c.axis, c.size, c.kept) for c in record.choices] == [
        (f"layers.{layer}.mlp.ffn", 40, 20) for layer in range(3)
    ]
    assert record.choices[0].why == "the 20 lowest by magnitude"
    assert record.options["keep"] == {"fraction": 0.5, "multiple_of": 1}
    assert after.step == 1


def test_every_removable_kind(state):
    for kind, size in (("ffn", 40), ("kv_group", 3), ("q_per_kv", 2), ("hidden", 48)):
        after, _ = remove({"count": size - 1}, kind).run(state)
        assert set(kept(after.plan).values()) == {size - 1}


@settings(deadline=None, max_examples=25)
@given(
    st.floats(0.72, 1),
    st.sampled_from(["uniform", "global", {"allocation": "global", "per": "unit"}]),
    st.booleans(),
)
def test_a_parameter_budget_is_met_and_never_exceeded(state, share, allocation, tied):
    total = state.graph.parameter_count
    limited = replace(state, config_limits=TiedByKind(state.graph)) if tied else state
    after, record = remove({"params": share}, criterion="random", allocation=allocation).run(limited)
    left = parameters_after(after.plan, state.graph)
    assert left <= int(total * share + 1e-9)
    rung = 3 * (48 * 8 * 6 + 48 * 3)  # one kv group and one neuron in every layer
    assert left > total * share - rung
    assert f", {left} of {total} parameters" in record.notes[1]
    if tied:
        assert TiedByKind(state.graph).refuse(sizes(after.plan, state.graph)) is None


def test_an_absolute_budget(state):
    after, _ = remove({"params": 35000}, "ffn").run(state)
    left = parameters_after(after.plan, state.graph)
    assert 35000 - 3 * 48 * 3 < left <= 35000


def test_a_budget_that_cannot_be_reached_says_how_low_it_goes(state):
    with pytest.raises(InfeasibleError, match=r"10000 parameters cannot be reached: .* the model has \d+"):
        remove({"params": 10000}, "ffn").run(state)


def test_a_budget_already_met_cuts_nothing(state):
    after, record = remove({"params": 1.0}, "ffn").run(state)
    assert after.plan.edits == ()
    assert {choice.why for choice in record.choices} == {"this amount keeps all"}


def test_multiple_of_holds_for_every_count(state):
    for keep, allocation in (({"fraction": 0.6}, "uniform"), ({"params": 0.8}, "global")):
        after, _ = remove({**keep, "multiple_of": 8}, "ffn", allocation=allocation).run(state)
        assert {count % 8 for count in kept(after.plan).values()} == {0}
    with pytest.raises(InfeasibleError, match=r"no multiple of 8 fits in 'layers.0.attn.kv_group'"):
        remove({"fraction": 0.6, "multiple_of": 8}).run(state)


def test_one_ranking_cuts_where_scores_are_low(state, model):
    """Layer 1's neurons are made worthless: a global cut of as many takes them and no other."""
    source = ModuleSource(model)

    class Quiet:
        names, shape = source.names, source.shape

        def get(self, name):
            factor = 1e-3 if "layers.1.mlp" in name else 1
            return source.get(name) * factor

    quiet = replace(state, source=Quiet())
    for per in ("unit", "parameter"):
        step = remove({"fraction": 0.75}, "ffn", allocation={"allocation": "global", "per": per})
        after, _ = step.run(quiet)
        assert kept(after.plan) == {"layers.1.mlp.ffn": 10}


def test_shots_score_what_is_left(state, model):
    """With hidden cut first, the second shot scores by the columns that are left."""
    graph = state.graph
    once, _ = remove({"count": 24}, "hidden").run(state)
    twice, record = remove({"count": 24}, "hidden", shots=3).run(state)
    assert len(twice.plan.kept()["hidden"]) == len(once.plan.kept()["hidden"]) == 24
    assert "in 3 shots" in record.choices[0].why
    assert len(twice.plan.edits) == 1
    by_hand = set(range(48))
    norms = {name: source.double().square() for name, source in model.named_parameters()}
    for left in (40, 32, 24):
        scores = torch.zeros(48, dtype=torch.float64)
        for site in graph.group("hidden").sites:
            w = norms[site.param].movedim(site.dim, 0).reshape(48, -1)
            scores += w.sum(1)
        order = sorted(by_hand, key=lambda i: scores[i].item(), reverse=True)
        by_hand = set(order[:left])
    assert set(twice.plan.kept()["hidden"]) == by_hand


def test_shots_measure_again_on_the_masked_view(state, model):
    ids = rows(torch.randint(3, 53, (3, 12), generator=torch.Generator().manual_seed(0)).tolist())
    plans = []

    def measure(plan, keys):
        plans.append(plan)
        return gather(model, ids, keys, view=masked(model, plan, state.graph))

    step = remove({"fraction": 0.5}, "ffn", criterion="taylor", shots=2)
    assert step.needs() == {Gradient()}
    after, _ = step.run(replace(state, measure=measure))
    assert [kept(plan) for plan in plans] == [{}, {f"layers.{i}.mlp.ffn": 30 for i in range(3)}]
    assert set(kept(after.plan).values()) == {20}
    for name, first in plans[1].kept().items():
        assert set(after.plan.kept()[name]) <= set(first)


def test_a_later_step_cuts_what_an_earlier_one_left(state):
    first, _ = remove({"fraction": 0.5}, "ffn", criterion={"criterion": "random", "seed": 1}).run(state)
    second, record = remove({"fraction": 0.5}, "ffn").run(first)
    assert {(c.size, c.kept) for c in record.choices} == {(20, 10)}
    for name, indices in second.plan.kept().items():
        assert set(indices) <= set(first.plan.kept()[name])
    with pytest.raises(
        InfeasibleError, match=r"step 2 'remove': keep 11 of 'layers.0.mlp.ffn', which has 10"
    ):
        remove({"count": 11}, "ffn").run(second)


def test_regrouped_axes_are_cut_alike_and_named_as_traced(state):
    graph = Regroup.model_validate({"op": "regroup", "select": {"kind": "ffn"}}).run(state.graph)
    after, record = remove({"count": 13}, "ffn").run(replace(state, graph=graph))
    assert [choice.axis for choice in record.choices] == ["layers.*.mlp.ffn"]
    assert len(after.plan.kept()) == 3
    assert len(set(after.plan.kept().values())) == 1


def test_tied_axes_keep_one_count_and_their_own_indices(state):
    limits = TiedByKind(state.graph)
    step = remove({"fraction": 0.7}, "ffn", allocation="global", criterion="random")
    after, _ = step.run(replace(state, config_limits=limits))
    assert set(kept(after.plan).values()) == {28}
    assert len(set(after.plan.kept().values())) == 3


def test_a_fraction_moves_to_what_the_config_can_say(state):
    limits = TiedByKind(state.graph, lambda kind, count: kind != "ffn" or count % 16 == 0)
    after, record = remove({"fraction": 0.75}, "ffn").run(replace(state, config_limits=limits))
    assert set(kept(after.plan).values()) == {32}
    assert {(c.requested, c.kept) for c in record.choices} == {(30, 32)}
    after, _ = remove({"params": 0.85}, "ffn").run(replace(state, config_limits=limits))
    assert parameters_after(after.plan, state.graph) <= 0.85 * state.graph.parameter_count


def test_multiple_of_and_the_config_are_met_together(state):
    limits = TiedByKind(state.graph, lambda kind, count: kind != "ffn" or count % 6 == 0)
    after, _ = remove({"fraction": 0.75, "multiple_of": 4}, "ffn").run(replace(state, config_limits=limits))
    assert set(kept(after.plan).values()) == {24}


def test_an_explicit_count_that_the_config_cannot_say_is_refused_with_the_nearest(state):
    limits = TiedByKind(state.graph, lambda kind, count: kind != "ffn" or count % 16 == 0)
    with pytest.raises(InfeasibleError, match=r"ffn cannot be 30; nearest that works: 16 or 32"):
        remove({"count": 30}, "ffn").run(replace(state, config_limits=limits))


def test_a_cut_of_which_the_config_leaves_nothing_is_refused(state):
    limits = TiedByKind(state.graph, lambda kind, count: False)
    with pytest.raises(InfeasibleError, match=r"nothing is cut: 30 of 40 .* all of them: ffn cannot be 30"):
        remove({"fraction": 0.75}, "ffn").run(replace(state, config_limits=limits))


class OneKindOnly(TiedByKind):
    """Either Axes of one kind are cut, or of another."""

    def refuse(self, sizes):
        cut = {self.graph.group(name).kind for name, n in sizes.items() if n < self.graph.group(name).size}
        return Refusal("one kind only") if len(cut) > 1 else None

    def nearest(self, names, count, sizes):
        return ()


def test_counts_that_only_work_apart_leave_one_kind_whole(state):
    after, record = remove({"fraction": 0.6}).run(replace(state, config_limits=OneKindOnly(state.graph)))
    assert set(kept(after.plan).values()) == {24}
    heads = [choice for choice in record.choices if choice.size == 3]
    assert {(c.requested, c.kept) for c in heads} == {(2, 3)}
    assert heads[0].why == "the config can express nothing nearer"


def test_counts_that_never_work_are_refused(state):
    class Never(OneKindOnly):
        def refuse(self, sizes):
            return Refusal("this config says nothing")

    with pytest.raises(InfeasibleError, match=r"cannot express 2 of .* nor what is near: this config says"):
        remove({"fraction": 0.6}).run(replace(state, config_limits=Never(state.graph)))


def test_a_selection_of_some_of_the_tied_axes_is_refused(state):
    with pytest.raises(
        InfeasibleError, match=r"one size for 3 axes, and the selection has 2 of them; it lacks"
    ) as e:
        remove({"fraction": 0.5}, "ffn", blocks="1:").run(
            replace(state, config_limits=TiedByKind(state.graph))
        )
    assert "layers.0.mlp.ffn" in e.value.message
    assert "per_layer" in str(e.value.hint)


def test_kinds_and_locks_are_refused_all_at_once(state):
    graph = state.graph.map_groups(lambda g: g.lock(["too precious"]) if g.name == "layers.1.mlp.ffn" else g)
    with pytest.raises(InfeasibleError) as e:
        remove({"fraction": 0.5}, ("ffn", "head_dim")).run(replace(state, graph=graph))
    assert "4 of 6 selected axes cannot be cut" in e.value.message
    assert "'layers.1.mlp.ffn' is locked: too precious" in e.value.message
    assert "'layers.2.attn.head_dim' is of kind head_dim" in e.value.message


def test_what_would_leave_nothing_is_refused_with_numbers(state):
    with pytest.raises(InfeasibleError, match=r"fraction 0.01 of an axis of size 40 keeps nothing"):
        remove({"fraction": 0.01}, "ffn").run(state)
    with pytest.raises(ValidationError, match=r"greater than or equal to 1"):
        remove({"count": 0}, "ffn")
    with pytest.raises(InfeasibleError, match=r"keep 41 of 'layers.0.mlp.ffn', which has 40"):
        remove({"count": 41}, "ffn").run(state)


def test_no_axis_is_emptied_by_one_ranking(state):
    step = remove({"fraction": 0.1}, allocation={"allocation": "global", "per": "unit"}, criterion="random")
    after, _ = step.run(state)
    assert min(kept(after.plan).values()) >= 1


def test_a_count_leaves_a_ranking_nothing_to_decide():
    with pytest.raises(ValidationError, match=r"allocation 'global' nothing to decide"):
        remove({"count": 3}, "ffn", allocation="global")


def test_an_empty_selection_says_what_exists(state):
    with pytest.raises(SelectorError, match=r"step 0 'remove': .* selects nothing"):
        remove({"fraction": 0.5}, "expert").run(state)


def test_random_reads_no_weights_and_others_say_which(state):
    bare = replace(state, source=None)
    step = remove({"fraction": 0.5}, criterion="random")
    assert not step.reads_weights
    step.run(bare)
    assert remove({"fraction": 0.5}).reads_weights
    with pytest.raises(SurgeonError, match=r"weights of 'model.layers.0.self_attn.q_proj.weight' are needed"):
        remove({"fraction": 0.5}).run(bare)


def test_statistics_without_text_are_refused(state):
    with pytest.raises(
        SurgeonError, match=r"needs the statistics gradient, and there is no calibration text"
    ):
        remove({"fraction": 0.5}, criterion="taylor").run(state)


def test_a_criterion_of_the_wrong_length_is_an_error(state, monkeypatch):
    from surgeon.criteria import Scores

    monkeypatch.setattr(Magnitude, "score", lambda *_: Scores("x", np.zeros(3)))
    with pytest.raises(SurgeonError, match=r"gave 3 scores for 'layers.0.mlp.ffn', which has 40 indices"):
        remove({"fraction": 0.5}, "ffn").run(state)


def test_steps_round_trip_through_their_dump():
    step = remove({"fraction": 0.5}, criterion={"criterion": "taylor", "order": "vectorize"}, shots=2)
    assert Remove.model_validate(step.model_dump(mode="json", by_alias=True, exclude_none=True)) == step
    assert "remove" in operations.names()


def test_contract_runs_in_order_and_names_the_step(state):
    from typing import Literal

    from surgeon.operations import Operation, Proposal
    from surgeon.plan import Keep

    called = []

    class Revive(Operation):
        op: Literal["revive"] = "revive"

        def requires(self, state):
            called.append("requires")

        def propose(self, state: State) -> Proposal:
            called.append("propose")
            return Proposal((Keep("layers.0.mlp.ffn", (1,), state.step),))

        def ensures(self, before, after):
            called.append("ensures")
            assert isinstance(after.graph, Graph)

    first, _ = Revive().run(state)
    assert called == ["requires", "propose", "ensures"]
    assert first.plan.kept() == {"layers.0.mlp.ffn": (1,)}

    class Other(Revive):
        def propose(self, state: State) -> Proposal:
            return Proposal((Keep("layers.0.mlp.ffn", (2,), state.step),))

    with pytest.raises(ConflictError, match=r"step 1 'revive': step 1 keeps 1 indices"):
        Other().run(first)
