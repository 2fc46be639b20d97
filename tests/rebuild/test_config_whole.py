"""What a block computes from the depth, or keeps as the shape of a norm, stays as it was, or is refused."""

from __future__ import annotations

import pytest
from transformers import EsmcConfig

from surgeon.errors import InfeasibleError
from surgeon.plan import DropBlock, Keep, Plan
from surgeon.rebuild.apply import apply_plan
from surgeon.rebuild.per_layer_class import TABLE
from tests.rebuild.config_cases import config_with, cut, probed_config, proven

DROPPED = DropBlock("esmc.layers.1", 0)


@pytest.fixture(scope="module")
def protein():
    config = EsmcConfig(
        hidden_size=24,
        intermediate_size=20,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_hidden_layers=3,
        vocab_size=50,
        architectures=["EsmcForMaskedLM"],
    )
    return probed_config(config)


def test_a_scale_made_of_the_depth_is_refused_where_no_field_gives_the_old_one(protein):
    module, graph, space = protein
    scale = module.esmc.layers[0].scaling_factor
    with pytest.raises(InfeasibleError, match=rf"constant esmc\.layers\.2\.scaling_factor {scale:.6g} → "):
        apply_plan(module, Plan(graph.model_type, (DROPPED,)), graph, space)


def test_per_layer_it_stands_in_the_table(protein):
    module, graph, space = protein
    small, _ = proven(module, Plan(graph.model_type, (DROPPED,)), graph, space, "per_layer")
    scale = module.esmc.layers[0].scaling_factor
    assert [layer.scaling_factor for layer in small.esmc.layers] == [scale, scale]
    assert getattr(small.config, TABLE)["esmc.layers.1"] == {"scaling_factor": scale}


def test_the_shape_that_a_norm_keeps_follows_its_weight(protein):
    module, graph, space = protein
    plan = cut(graph, kv_group=3).add([DROPPED])
    small, _ = proven(module, plan, graph, space, "per_layer")
    assert small.esmc.layers[0].self_attn.q_norm.normalized_shape == (18,)


def test_what_is_computed_for_a_sort_of_layer_goes_with_the_last_one():
    config = config_with(
        "gemma3", num_hidden_layers=3, layer_types=["sliding_attention"] * 2 + ["full_attention"]
    )
    module, graph, space = probed_config(config)
    assert any("full_attention" in name for name, _ in module.named_buffers())
    ffn = graph.group("layers.0.mlp.ffn")
    plan = Plan(graph.model_type, (Keep(ffn.name, tuple(range(40)), 0), DropBlock("model.layers.2", 1)))
    small, _ = proven(module, plan, graph, space, "per_layer")
    assert not any("full_attention" in name for name, _ in small.named_buffers())
