"""Numbers of a narrowed block where a forward pass puts parts of its own making in the place of old ones."""

from __future__ import annotations

import pytest
from transformers import BigBirdConfig, BlipConfig

from surgeon.errors import InfeasibleError
from surgeon.rebuild.apply import apply_plan
from surgeon.rebuild.forward import feed
from tests.rebuild.config_cases import TOKENS, cut, probed_config, proven


def test_a_part_that_a_pass_makes_of_the_config_is_as_narrow_as_the_one_it_replaces():
    # Short sequences are attended to as a whole, by an attention that is made when the first one comes.
    config = BigBirdConfig(
        hidden_size=24,
        intermediate_size=20,
        num_attention_heads=4,
        num_hidden_layers=2,
        vocab_size=50,
        max_position_embeddings=64,
        block_size=4,
        architectures=["BigBirdForMaskedLM"],
    )
    module, graph, space = probed_config(config)
    small, _ = proven(module, cut(graph, kv_group=3), graph, space, "per_layer")
    assert small.bert.encoder.layer[1].attention.self.query.weight.shape == (18, 24)


def tower(hidden):
    """A model whose picture tower divides the width of what it is given by the number of its heads."""
    text = {"hidden_size": 24, "encoder_hidden_size": hidden, "intermediate_size": 20, "projection_dim": 16}
    text |= {"num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 50, "bos_token_id": 1}
    text |= {"eos_token_id": 2, "sep_token_id": 2, "pad_token_id": 0}
    vision = {"hidden_size": hidden, "intermediate_size": 20, "num_hidden_layers": 2}
    vision |= {"num_attention_heads": 4, "image_size": 16, "patch_size": 8, "projection_dim": 16}
    return BlipConfig(
        text_config=text,
        vision_config=vision,
        projection_dim=16,
        image_text_hidden_size=16,
        architectures=["BlipForConditionalGeneration"],
    )


def test_heads_of_a_tower_that_splits_its_input_s_width_among_them():
    module, graph, space = probed_config(tower(24))
    assert set(feed(module, TOKENS)) == {"input_ids", "pixel_values"}  # it runs on no text alone
    small, _ = proven(module, cut(graph, kv_group=3), graph, space, "per_layer")
    assert small.vision_model.encoder.layers[0].self_attn.qkv.weight.shape == (54, 24)


def test_as_many_heads_as_features_in_each_are_refused_before_anything_is_computed():
    module, graph, space = probed_config(tower(16))
    with pytest.raises(InfeasibleError, match="cannot be run with the planned shapes"):
        apply_plan(module, cut(graph, kv_group=3), graph, space, "per_layer")
