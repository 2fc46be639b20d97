"""What a recipe is refused, or led to another choice by, before any weight is read."""

from __future__ import annotations

import pytest
import transformers as hf

import surgeon
from surgeon.errors import InfeasibleError

TEXT = {
    "vocab_size": 60,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def hybrid(*layers):
    return hf.Qwen3NextConfig(
        **TEXT,
        head_dim=6,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        layer_types=[f"{layer}_attention" for layer in layers],
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=6,
        linear_value_head_dim=6,
    )


def dropping(**how):
    return {"surgeon": 1, "steps": [{"op": "drop_blocks", **how}]}


def test_the_last_layer_that_a_cache_needs_is_spared():
    step = dropping(keep={"count": 2}, criterion="tail")
    plan = surgeon.plan(hybrid("linear", "linear", "full"), step)
    assert plan.dropped == ("model.layers.1",)
    assert surgeon.plan(hybrid("full", "linear", "full"), step).dropped == ("model.layers.2",)


def test_dropping_it_by_its_number_is_refused():
    with pytest.raises(InfeasibleError, match="makes no cache that works for the blocks that are left"):
        surgeon.plan(hybrid("linear", "linear", "full"), dropping(drop=[2]))


def test_blocks_go_beside_a_width_that_only_a_table_can_say():
    config = hf.LlavaConfig(
        text_config=hf.LlamaConfig(**TEXT),
        vision_config=hf.CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=20,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
        ),
        image_token_id=59,
        architectures=["LlavaForConditionalGeneration"],
    )
    width = {"op": "remove", "select": {"kind": "ffn"}, "keep": {"fraction": 0.75}, "criterion": "random"}
    depth = {"op": "drop_blocks", "keep": {"count": 2}, "criterion": "tail"}
    depth["select"] = {"stack": "model.language_model.layers"}
    recipe = {"surgeon": 1, "steps": [width, depth]}
    plan = surgeon.plan(config, {**recipe, "export": {"layout": "per_layer"}})
    cut = [name for name in plan.kept() if not name.startswith(("layers", "vision_tower"))]
    assert cut
    assert plan.dropped == ("model.language_model.layers.2",)
