from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from surgeon.calibrate import Bench, next_token_loss
from surgeon.criteria.blocks import BlockCriterion
from surgeon.errors import InfeasibleError, SelectorError, SurgeonError
from surgeon.operations import State
from surgeon.operations.drop_blocks import DropBlocks
from surgeon.plan import Plan
from surgeon.rebuild import apply_plan, compare, probe_tokens
from surgeon.rebuild.execution import plain_execution
from surgeon.trace import trace_module
from tests.operations.depth import model_of, samples_of, state_of, without

CONTAINERS = {"dense": "model.layers", "hybrid": "model.layers", "encoder": "bert.encoder.layer"}
CRITERIA = ("block_influence", "angular", "perplexity", "magnitude", "tail", "random")


def drop(**options) -> DropBlocks:
    return DropBlocks.model_validate({"op": "drop_blocks", **options})


def numbers(plan: Plan) -> list[int]:
    return sorted(int(name.rpartition(".")[2]) for name in plan.dropped)


@pytest.fixture(scope="module")
def dense():
    return model_of("dense")


@pytest.fixture(scope="module")
def state(dense) -> State:
    return state_of(dense)


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("dense", (1, 3, 4)),
        ("dense", (0, 5)),
        ("encoder", (0, 2, 5)),
        ("moe", (0, 4)),
        ("sliding", (1, 2)),
        ("hybrid", (1, 2)),
    ],
)
def test_the_cut_is_the_original_with_the_blocks_skipped(name, gone, tmp_path):
    module = model_of(name)
    found = state_of(module)
    after, _ = drop(drop=list(gone)).run(found)
    small, ledger = apply_plan(module, after.plan, found.graph)
    tokens = probe_tokens(module)
    assert compare(module, small, after.plan, found.graph, tokens).require()
    if name in CONTAINERS:
        theirs = without(module, CONTAINERS[name], gone)
        with torch.no_grad(), plain_execution(theirs), plain_execution(small):
            want = theirs(input_ids=tokens, use_cache=False).logits
            got = small(input_ids=tokens, use_cache=False).logits
        assert torch.allclose(want, got, rtol=0, atol=1e-9 * float(want.abs().max()))
    left = len(found.graph.blocks) - len(gone)
    assert len(small.get_submodule(after.plan.dropped[0].rpartition(".")[0])) == left
    assert ledger
    small.save_pretrained(tmp_path)
    auto = AutoModelForMaskedLM if name == "encoder" else AutoModelForCausalLM
    dtype = torch.float32 if name in ("moe", "hybrid") else torch.float64  # grouped products know no float64
    again = auto.from_pretrained(tmp_path, dtype=dtype)
    with torch.no_grad():
        want, got = small.to(dtype)(input_ids=tokens).logits, again(input_ids=tokens).logits
    assert torch.allclose(want, got, rtol=0, atol=1e-6 * float(want.abs().max()))
    if name != "encoder":
        assert_cache_makes_no_difference(again, tokens)


def assert_cache_makes_no_difference(module, tokens):
    options = {"max_new_tokens": 9, "do_sample": False, "pad_token_id": 0}
    with torch.no_grad():
        cached = module.generate(tokens, use_cache=True, **options)
        plain = module.generate(tokens, use_cache=False, **options)
    assert torch.equal(cached, plain)


@pytest.mark.parametrize(
    "criterion", [*CRITERIA, {"criterion": "taylor", "protect_first": 1, "protect_last": 1}]
)
@pytest.mark.parametrize("contiguous", [False, True])
def test_every_criterion_drops_the_lowest(state, criterion, contiguous):
    after, record = drop(keep={"count": 4}, criterion=criterion, contiguous=contiguous).run(state)
    gone = numbers(after.plan)
    assert len(gone) == 2
    assert not contiguous or gone[1] == gone[0] + 1
    if not contiguous:
        scores = {place: choice.score for place, choice in enumerate(record.choices)}
        kept = [score for place, score in scores.items() if place not in gone and score is not None]
        assert max(scores[place] for place in gone) <= min(kept)


def test_block_influence_is_one_minus_the_mean_cosine(state, dense):
    _, record = drop(keep={"count": 5}, criterion="block_influence").run(state)
    states = []
    for block in dense.model.layers:
        block.register_forward_hook(lambda module, args, output: states.append((args[0], output)))
    with torch.no_grad():
        dense(input_ids=state.trial().samples.ids, use_cache=False)
    for block in dense.model.layers:
        block._forward_hooks.clear()
    for choice, (x, y) in zip(record.choices, states, strict=True):
        x, y = x.numpy().reshape(-1, 48), y.numpy().reshape(-1, 48)
        cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
        assert choice.score == pytest.approx(1 - cosine.mean(), abs=1e-9)


def test_angular_takes_the_run_that_turns_the_last_token_least(state, dense):
    after, _ = drop(keep={"count": 3}, criterion="angular", contiguous=True).run(state)
    with torch.no_grad():
        hidden = dense(
            input_ids=state.trial().samples.ids, use_cache=False, output_hidden_states=True
        ).hidden_states
    last = [h[:, -1].numpy() for h in hidden[:-1]]
    seen = []
    handle = dense.model.layers[-1].register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        dense(input_ids=state.trial().samples.ids, use_cache=False)
    handle.remove()
    last.append(seen[0][:, -1].numpy())
    angles = []
    for start in range(4):
        x, y = last[start], last[start + 3]
        cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
        angles.append(np.arccos(cosine).mean() / math.pi)
    best = int(np.argmin(angles))
    assert numbers(after.plan) == [best, best + 1, best + 2]


def brute_force_loss(module, container, gone, samples) -> float:
    with torch.no_grad():
        logits = without(module, container, gone)(input_ids=samples.ids, use_cache=False).logits
    return float(next_token_loss(logits, samples))


@pytest.mark.parametrize("name", ["dense", "encoder"])
def test_perplexity_is_what_the_model_without_the_block_has(name):
    module = model_of(name, seed=4)
    found = state_of(module)
    criterion = {"criterion": "perplexity", "protect_first": 0}
    _, record = drop(keep={"count": 5}, criterion=criterion).run(found)
    for place, choice in enumerate(record.choices):
        want = brute_force_loss(module, CONTAINERS[name], [place], found.trial().samples)
        assert choice.score == pytest.approx(want, rel=1e-6)  # norms drop to float32 inside


def test_greedy_perplexity_measures_again_after_every_block(state, dense):
    criterion = {"criterion": "perplexity", "protect_first": 0}
    after, _ = drop(keep={"count": 3}, criterion=criterion, shots="each").run(state)
    gone: list[int] = []
    for _ in range(3):
        left = [place for place in range(6) if place not in gone]
        losses = {
            place: brute_force_loss(dense, "model.layers", [*gone, place], state.trial().samples)
            for place in left
        }
        gone.append(min(losses, key=losses.__getitem__))
    assert numbers(after.plan) == sorted(gone)


def test_trying_every_block_costs_at_most_half_of_as_many_passes(dense):
    tokens = 0

    def count(module, args, output):
        nonlocal tokens
        tokens += output.shape[:-1].numel()

    found = state_of(dense, limited=False)
    handles = [block.mlp.register_forward_hook(count) for block in dense.model.layers]
    drop(keep={"count": 4}, criterion="perplexity").run(found)
    for handle in handles:
        handle.remove()
    passes = tokens / len(dense.model.layers) / found.trial().samples.ids.numel()
    assert 0 < passes <= len(dense.model.layers) / 2


def test_nothing_of_the_model_is_changed_by_trying(dense):
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    dense.train()
    drop(keep={"count": 4}, criterion="perplexity").run(state_of(dense))
    assert dense.training
    dense.eval()
    assert all("forward" not in vars(part) for part in dense.modules())
    assert all(torch.equal(before[name], value) for name, value in dense.state_dict().items())


def test_taylor_plus_protects_the_ends(state):
    criterion = {"criterion": "taylor", "protect_first": 2, "protect_last": 1}
    after, _ = drop(keep={"count": 3}, criterion=criterion).run(state)
    assert numbers(after.plan) == [2, 3, 4]
    with pytest.raises(InfeasibleError, match="4 of 6 blocks should go, and only 3 of them may"):
        drop(keep={"count": 2}, criterion=criterion).run(state)


def test_tail_and_tail_but_the_last(state):
    after, _ = drop(keep={"fraction": 0.5}, criterion="tail").run(state)
    assert numbers(after.plan) == [3, 4, 5]
    after, _ = drop(keep={"count": 4}, criterion={"criterion": "tail", "keep_last": 1}).run(state)
    assert numbers(after.plan) == [3, 4]


def test_select_says_which_may_go(state):
    after, _ = drop(keep={"count": 4}, criterion="tail", select={"blocks": "1:-2"}).run(state)
    assert numbers(after.plan) == [2, 3]


def test_a_second_step_goes_on_from_what_is_left(state):
    once, _ = drop(drop=[4]).run(state)
    twice, record = drop(keep={"count": 3}, criterion="tail").run(once)
    assert numbers(twice.plan) == [3, 4, 5]
    assert [choice.axis for choice in record.choices if choice.kept == 0] == [
        "model.layers.3",
        "model.layers.5",
    ]
    with pytest.raises(InfeasibleError, match=r"'model.layers.4' was dropped by an earlier step"):
        drop(drop=[4]).run(once)


def test_all_blocks_may_stay(state):
    after, record = drop(keep={"count": 6}, criterion="tail").run(state)
    assert after.plan == state.plan
    assert record.notes == ("all 6 blocks stay",)


def test_a_hybrid_keeps_its_pattern_or_is_refused():
    """Every second layer attends, so neighbours go in pairs, and no single one but the last."""
    found = state_of(model_of("hybrid"))
    after, record = drop(keep={"count": 2}, criterion="tail", select={"blocks": "1:"}).run(found)
    assert numbers(after.plan) == [2, 3]
    assert record.refused == ()
    scattered = BySeed.model_validate({"criterion": "by seed"})
    after, record = (
        drop(keep={"count": 2}, criterion="tail").model_copy(update={"criterion": scattered}).run(found)
    )
    assert numbers(after.plan) == [1, 2]
    assert record.refused[0].axis == "model.layers.0, model.layers.2"
    assert "does not build the planned model" in record.refused[0].reason
    with pytest.raises(InfeasibleError, match="nor without any run of 1 blocks"):
        drop(keep={"count": 3}, criterion="tail", select={"blocks": "0:3"}).run(found)


class BySeed(BlockCriterion):
    """Scores that a test makes up: blocks 0 and 2 go first, of runs the one from 1."""

    criterion: Literal["by seed"] = "by seed"

    def score(self, candidates, run=1):
        return np.array([1.0, 3.0, 2.0, 4.0] if run == 1 else [2.0, 1.0, 3.0])


def test_layers_that_scale_by_their_depth_are_refused():
    found = state_of(model_of("scaled by depth"))
    with pytest.raises(InfeasibleError, match="constant"):
        drop(keep={"count": 5}, criterion="tail", select={"blocks": "0:3"}).run(found)
    after, _ = drop(keep={"count": 5}, criterion="tail").run(found)
    assert numbers(after.plan) == [5]


def test_no_text_is_said(dense):
    graph = trace_module(dense)
    bare = State(graph, Plan(graph.model_type))
    with pytest.raises(SurgeonError, match="tries plans on calibration text, and there is none"):
        drop(keep={"count": 5}, criterion="perplexity").run(bare)


def test_unknown_stack_and_empty_selection(state):
    with pytest.raises(SelectorError, match="no stack 'encoder'"):
        drop(drop=[0], select={"stack": "encoder"}).run(state)
    with pytest.raises(SelectorError, match="selects nothing"):
        drop(keep={"count": 5}, criterion="tail", select={"blocks": "6:"}).run(state)
    with pytest.raises(SelectorError, match=r"blocks \[7\] do not exist"):
        drop(drop=[7]).run(state)


def test_nan_scores_are_an_error(state, monkeypatch):
    from surgeon.criteria.blocks.tail import Tail

    monkeypatch.setattr(Tail, "score", lambda self, shown, run=1: np.full(len(shown.blocks), np.nan))
    with pytest.raises(SurgeonError, match=r"gave NaN for 'model.layers.0'"):
        drop(keep={"count": 5}, criterion="tail").run(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either drop"),
        ({"drop": [1], "keep": {"count": 1}, "criterion": "tail"}, "give either drop"),
        ({"keep": {"count": 1}}, "keep and criterion go together"),
        ({"keep": {"params": 0.5}, "criterion": "tail"}, "params is not for blocks"),
        ({"keep": {"count": 1}, "criterion": "tail", "contiguous": True, "shots": 2}, "in one shot"),
        ({"keep": {"count": 1}, "criterion": "nonsense"}, "no criterion is called 'nonsense'"),
    ],
)
def test_contradicting_options(options, message):
    with pytest.raises(ValidationError, match=message):
        drop(**options)


def test_scores_do_not_depend_on_how_samples_are_padded(dense):
    ragged = samples_of(89)
    lengths = [19, 11, 19, 7]
    for row, length in enumerate(lengths):
        ragged.mask[row, length:] = False
    found = state_of(dense, ragged)
    assert isinstance(found.bench, Bench)
    _, record = drop(keep={"count": 5}, criterion={"criterion": "perplexity", "protect_first": 0}).run(found)
    clone = without(dense, "model.layers", [2])
    total = 0.0
    with torch.no_grad():
        for row, length in enumerate(lengths):
            ids = ragged.ids[row : row + 1, :length]
            logits = clone(input_ids=ids, use_cache=False).logits
            total += float(torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum"))
    assert record.choices[2].score == pytest.approx(
        total / sum(n - 1 for n in lengths), rel=1e-6
    )  # norms drop to float32 inside
