"""Numbers of a narrowed block where a forward pass puts parts of its own making in the place of old ones."""

from __future__ import annotations

from transformers import BigBirdConfig

from tests.rebuild.config_cases import cut, probed_config, proven


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
