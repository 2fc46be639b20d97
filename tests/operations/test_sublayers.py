"""Attention and MLP sublayers on their own: chosen, masked, taken out, generated with."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from surgeon.calibrate import next_token_loss
from surgeon.errors import InfeasibleError, SelectorError
from surgeon.operations.collapse import Collapse
from surgeon.operations.drop_blocks import DropBlocks
from surgeon.operations.merge import Merge
from surgeon.operations.replace import Replace
from surgeon.plan import DropBlock, Plan, parameters_after
from surgeon.rebuild import apply_plan, compare, probe_tokens
from surgeon.rebuild.skeleton import modeling_text
from tests.operations.depth import model_of, state_of
from tests.operations.test_drop_blocks import assert_cache_makes_no_difference

MLP, ATTENTION = {"sublayer": "mlp"}, {"sublayer": "attention"}


def drop(**options) -> DropBlocks:
    return DropBlocks.model_validate({"op": "drop_blocks", **options})


@pytest.fixture(scope="module")
def dense():
    return model_of("dense")


@pytest.fixture(scope="module")
def state(dense):
    return state_of(dense, limited=False)


def silent(module, names):
    """By hand: modules that return zeros."""
    return [
        module.get_submodule(name).register_forward_hook(
            lambda part, args, output: (
                (torch.zeros_like(output[0]), *output[1:])
                if isinstance(output, tuple)
                else torch.zeros_like(output)
            )
        )
        for name in names
    ]


def logits_without(module, names, ids):
    handles = silent(module, names)
    with torch.no_grad():
        found = module(input_ids=ids, use_cache=False).logits
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize(
    ("name", "layout"), [("dense", "per_layer"), ("dense", "padded"), ("moe", "per_layer")]
)
def test_the_cut_is_the_original_without_what_the_sublayers_add(name, layout, tmp_path):
    module = model_of(name)
    found = state_of(module, limited=False)
    cut, _ = drop(drop=[0, 3], select=ATTENTION).run(found)
    cut, _ = drop(drop=[1], select=MLP).run(cut)
    gone = ("model.layers.0.self_attn", "model.layers.3.self_attn", "model.layers.1.mlp")
    assert cut.plan.dropped == gone
    small, _ = apply_plan(module, cut.plan, found.graph, layout=layout)
    tokens = probe_tokens(module)
    assert compare(module, small, cut.plan, found.graph, tokens).require()
    if name == "dense":
        want = logits_without(module, gone, tokens)
        with torch.no_grad():
            got = small(input_ids=tokens, use_cache=False).logits
        assert torch.allclose(want, got, rtol=0, atol=1e-6 * float(want.abs().max()))
    sizes = [sum(p.numel() for p in one.parameters()) for one in (module, small)]
    left = parameters_after(cut.plan, found.graph)
    assert sizes[1] == (left if layout == "per_layer" else sizes[0])
    assert left < sizes[0]
    if layout == "padded":
        assert_cache_makes_no_difference(small.float(), tokens)
        return
    names = dict(small.named_parameters())
    assert "model.layers.0.input_layernorm.weight" not in names
    assert "model.layers.0.post_attention_layernorm.weight" in names
    small.float().save_pretrained(tmp_path)
    (tmp_path / "modeling_per_layer.py").write_text(modeling_text(small.config))
    again = AutoModelForCausalLM.from_pretrained(tmp_path, trust_remote_code=True)
    assert_cache_makes_no_difference(again, tokens)


def test_a_stock_config_refuses_and_says_what_to_do():
    found = state_of(model_of("dense"))
    with pytest.raises(InfeasibleError, match=r"no field of the config says that a layer lacks") as caught:
        drop(keep={"count": 4}, criterion="tail", select=MLP).run(found)
    assert "per_layer" in str(caught.value)
    with pytest.raises(InfeasibleError, match=r"lacks 'model.layers.1.mlp'"):
        drop(drop=[1], select=MLP).run(found)


def test_what_joins_the_stream_inside_of_itself_is_not_taken_out():
    module = model_of("encoder")
    found = state_of(module, limited=False)
    cut, _ = drop(drop=[2], select=ATTENTION).run(found)
    with pytest.raises(InfeasibleError, match="inside of it adds to the residual stream"):
        apply_plan(module, cut.plan, found.graph, layout="per_layer")
    small, _ = apply_plan(module, cut.plan, found.graph, layout="padded")
    assert compare(module, small, cut.plan, found.graph, probe_tokens(module)).require()


def test_block_influence_of_sublayers_is_the_turn_of_the_stream(state, dense):
    _, record = drop(keep={"count": 5}, criterion="block_influence", select=ATTENTION).run(state)
    _, others = drop(keep={"count": 5}, criterion="block_influence", select=MLP).run(state)
    before, middle, behind, handles = [], [], [], []
    for block in dense.model.layers:
        handles += [
            block.register_forward_pre_hook(lambda part, args: before.append(args[0])),
            block.post_attention_layernorm.register_forward_pre_hook(
                lambda part, args: middle.append(args[0])
            ),
            block.register_forward_hook(lambda part, args, output: behind.append(output)),
        ]
    with torch.no_grad():
        dense(input_ids=state.trial().samples.ids, use_cache=False)
    for handle in handles:
        handle.remove()
    for place in range(6):
        for choice, x, y in (
            (record.choices[place], before[place], middle[place]),
            (others.choices[place], middle[place], behind[place]),
        ):
            x, y = x.numpy().reshape(-1, 48), y.numpy().reshape(-1, 48)
            cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
            assert choice.score == pytest.approx(1 - cosine.mean(), abs=1e-6)


def test_perplexity_of_sublayers_is_that_of_the_model_without(state, dense):
    criterion = {"criterion": "perplexity", "protect_first": 0}
    _, record = drop(keep={"count": 5}, criterion=criterion, select=MLP).run(state)
    samples = state.trial().samples
    for place, choice in enumerate(record.choices):
        logits = logits_without(dense, [f"model.layers.{place}.mlp"], samples.ids)
        assert choice.score == pytest.approx(float(next_token_loss(logits, samples)), rel=1e-6)
    assert math.isfinite(record.choices[0].score)


def test_a_block_that_loses_all_goes_whole(state):
    once, _ = drop(drop=[2], select=MLP).run(state)
    twice, _ = drop(drop=[2], select=ATTENTION).run(once)
    assert twice.plan.dropped == ("model.layers.2.mlp", "model.layers.2")
    bare = Plan(state.plan.model_type).add([DropBlock("model.layers.2", 0)])
    assert parameters_after(twice.plan, state.graph) == parameters_after(bare, state.graph)


def test_what_is_gone_is_no_choice(state):
    once, _ = drop(drop=[5], select=ATTENTION).run(state)
    twice, _ = drop(keep={"count": 4}, criterion="tail", select=ATTENTION).run(once)
    assert twice.plan.dropped == ("model.layers.5.self_attn", "model.layers.4.self_attn")
    with pytest.raises(InfeasibleError, match=r"'model.layers.5' has no sublayer 'attention', or lost it"):
        drop(drop=[5], select=ATTENTION).run(once)


def test_there_must_be_such_sublayers(state):
    with pytest.raises(SelectorError, match="no block has a sublayer 'mixer' left"):
        drop(keep={"fraction": 0.5}, criterion="tail", select={"sublayer": "mixer"}).run(state)


def test_angular_is_about_runs(state):
    with pytest.raises(InfeasibleError, match="angular compares runs of whole blocks"):
        drop(keep={"count": 4}, criterion="angular", select=MLP).run(state)


@pytest.mark.parametrize(
    ("step", "options", "message"),
    [
        (Collapse, {"op": "collapse", "size": 2, "threshold": 0.5}, "collapse folds whole blocks"),
        (Merge, {"op": "merge", "keep": {"count": 3}}, "merge fuses whole blocks"),
        (Replace, {"op": "replace", "drop": [2]}, "replace works on whole blocks"),
        (DropBlocks, {"keep": {"count": 3}, "criterion": "tail", "contiguous": True}, "leave sublayer out"),
    ],
)
def test_only_drop_blocks_takes_sublayers(step, options, message):
    with pytest.raises(ValidationError, match=message):
        step.model_validate({**options, "select": MLP})
