"""What counts blocks, and what goes along when some are dropped."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    BertConfig,
    Gemma3nTextConfig,
    Gemma4TextConfig,
    Glm4MoeConfig,
    GPTNeoXJapaneseConfig,
    HrmTextConfig,
    LEDConfig,
    MiniCPM3Config,
    NemotronHConfig,
    OlmoHybridConfig,
    OpenAIGPTConfig,
)

from surgeon.errors import InfeasibleError
from surgeon.plan import DropBlock, Plan
from surgeon.rebuild.apply import apply_plan
from surgeon.rebuild.config_tree import keyed_beside, list_sizes, lists_beside, resize_depth
from tests.rebuild.config_cases import config_with, cut, probed_config, proven

SMALL = {
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.fixture(scope="module")
def hybrid():
    # Two linear layers before the attention layer, which the class insists on.
    return probed_config(
        OlmoHybridConfig(
            **SMALL,
            num_hidden_layers=3,
            layer_types=["linear_attention", "linear_attention", "full_attention"],
            linear_num_key_heads=2,
            linear_num_value_heads=2,
            linear_key_head_dim=6,
            linear_value_head_dim=6,
        )
    )


def test_depth_is_found_where_the_last_block_may_not_go(hybrid):
    _, _, space = hybrid
    assert [(depth.path, depth.lists) for depth in space.depths] == [
        (("num_hidden_layers",), (("layer_types",),))
    ]


def test_two_equal_blocks_before_another_sort_are_both_cut(hybrid):
    module, graph, space = hybrid
    plan = cut(graph, ffn=15)
    _, ledger = proven(module, plan, graph, space)
    assert [(row.field, row.new) for row in ledger] == [("intermediate_size", 15)]


def test_a_cut_and_a_dropped_block_of_the_same_sort(hybrid):
    module, graph, space = hybrid
    kept = [edit for edit in cut(graph, ffn=15).edits if ".1." not in edit.axis]
    plan = Plan(graph.model_type, (*kept, DropBlock("model.layers.1", 0)))
    small, _ = proven(module, plan, graph, space)
    assert small.config.layer_types == ["linear_attention", "full_attention"]


def test_as_many_heads_as_blocks_count_no_blocks():
    # One head less changes nothing but the third of three blocks, the only one with attention.
    config = OlmoHybridConfig(
        **{**SMALL, "num_attention_heads": 3, "num_key_value_heads": 3},
        num_hidden_layers=3,
        layer_types=["linear_attention", "linear_attention", "full_attention"],
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=6,
        linear_value_head_dim=6,
    )
    module, graph, space = probed_config(config)
    plan = Plan(graph.model_type, (DropBlock("model.layers.0", 0),))
    _, ledger = proven(module, plan, graph, space)
    assert {row.field for row in ledger} == {"num_hidden_layers", "layer_types"}


def test_a_sort_that_is_dropped_whole_binds_no_field():
    # One dense layer with an own width, then layers of experts: without it, nothing is that wide.
    config = Glm4MoeConfig(
        **SMALL,
        head_dim=6,
        num_hidden_layers=3,
        first_k_dense_replace=1,
        moe_intermediate_size=12,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_shared_experts=1,
    )
    module, graph, space = probed_config(config)
    kept = [edit for edit in cut(graph, kv_group=1).edits if ".0." not in edit.axis]
    plan = Plan(graph.model_type, (*kept, DropBlock("model.layers.0", 0)))
    assert kept
    _, ledger = proven(module, plan, graph, space)
    assert ("first_k_dense_replace", 1, 0) in {(row.field, row.old, row.new) for row in ledger}


def test_mappings_keyed_by_blocks_are_renumbered():
    config = Gemma4TextConfig(
        **SMALL,
        num_hidden_layers=3,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        head_dim=6,
    )
    path = ("per_layer_config",)
    assert path in keyed_beside(config, ("num_hidden_layers",))
    before = config.to_dict()[path[-1]]
    assert {int(block) for block in before} == {2}
    lists = lists_beside(config, ("num_hidden_layers",))
    shorter = resize_depth(config, ("num_hidden_layers",), (0, 2), lists, keyed=(path,))
    assert list(shorter.to_dict()[path[-1]]) == ["1"]
    assert list(shorter.to_dict()[path[-1]].values()) == list(before.values())


def test_labels_of_a_classifier_are_no_blocks():
    config = config_with("llama", num_hidden_layers=2)
    assert keyed_beside(config, ("num_hidden_layers",)) == (("id2label",),)
    _, _, space = probed_config(config)
    assert [depth.keyed for depth in space.depths] == [()]


def test_no_list_lies_beside_an_entry_of_a_list():
    config = BertConfig(num_hidden_layers=2)
    config.sizes = [4, 4]
    assert lists_beside(config, ("sizes", 0)) == ()
    assert keyed_beside(config, ("sizes", 0)) == ()


def test_a_scale_that_follows_the_depth_is_put_right_by_its_field():
    config = MiniCPM3Config(
        **{**SMALL, "num_key_value_heads": 4},
        num_hidden_layers=3,
        q_lora_rank=12,
        kv_lora_rank=10,
        qk_nope_head_dim=4,
        qk_rope_head_dim=4,
        v_head_dim=6,
        scale_depth=1.4,
    )
    module, graph, space = probed_config(config)
    plan = Plan(graph.model_type, (DropBlock("model.layers.2", 0),))
    small, ledger = proven(module, plan, graph, space)
    assert small.config.scale_depth == pytest.approx(1.4 * (2 / 3) ** 0.5)  # scale_depth / sqrt(layers) stays
    assert [row.field for row in ledger] == ["num_hidden_layers", "scale_depth"]


def test_a_block_that_returns_a_list_is_skipped():
    config = OpenAIGPTConfig(n_embd=24, n_head=4, n_layer=3, vocab_size=50, n_positions=32)
    module, graph, space = probed_config(config)
    plan = Plan(graph.model_type, (DropBlock("transformer.h.0", 0),))
    proven(module, plan, graph, space)


def test_the_last_block_may_be_of_its_own_sort_wherever_it_stands():
    # Its attention has a bias, and the next to last gets one where the last is left out of the config.
    config = GPTNeoXJapaneseConfig(
        hidden_size=24,
        num_attention_heads=4,
        num_hidden_layers=3,
        vocab_size=50,
        intermediate_multiple_size=2,
    )
    module, graph, space = probed_config(config)
    plan = Plan(graph.model_type, (DropBlock("gpt_neox_japanese.layers.1", 0),))
    _, ledger = proven(module, plan, graph, space)
    assert [(row.field, row.new) for row in ledger] == [("num_hidden_layers", 2)]
    with pytest.raises(InfeasibleError, match=r"layers\.1\.attention\.dense_bias"):
        apply_plan(
            module, Plan(graph.model_type, (DropBlock("gpt_neox_japanese.layers.2", 0),)), graph, space
        )


def test_parts_of_dropped_blocks_go_where_one_tensor_holds_them_for_all():
    # One embedding for every layer beside the usual one, and a projection onto all of them at once.
    config = Gemma4TextConfig(
        **SMALL,
        head_dim=6,
        global_head_dim=6,
        num_hidden_layers=3,
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=50,
        num_kv_shared_layers=0,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    )
    module, graph, space = probed_config(config)
    plan = Plan(graph.model_type, (DropBlock("model.layers.1", 0),))
    small, _ = proven(module, plan, graph, space)
    whole, left = module.model.embed_tokens_per_layer.weight, small.model.embed_tokens_per_layer.weight
    assert torch.equal(left, torch.cat([whole[:, :8], whole[:, 16:]], 1))


def test_depth_is_found_where_the_last_blocks_lack_what_earlier_ones_have():
    # The last layer uses keys and values of the one before; one more takes them from the third.
    config = Gemma3nTextConfig(
        **SMALL,
        head_dim=6,
        num_hidden_layers=3,
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=50,
        num_kv_shared_layers=1,
        laurel_rank=4,
        activation_sparsity_pattern=[0.0] * 3,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    )
    module, graph, space = probed_config(config)
    plan = Plan(graph.model_type, (DropBlock("model.layers.1", 0),))
    small, _ = proven(module, plan, graph, space)
    assert small.config.layer_types == ["sliding_attention", "sliding_attention"]
    last = Plan(graph.model_type, (DropBlock("model.layers.2", 0),))
    _, ledger = proven(module, last, graph, space)
    assert {row.field: row.new for row in ledger}["num_kv_shared_layers"] == 0
    both = cut(graph, ffn=15).edits  # of layers only: what is embedded for them has another size
    plan = plan.add(edit for edit in both if graph.group(edit.axis).size == 20)
    small, _ = proven(module, plan, graph, space)
    assert small.config.intermediate_size == [15, 15]


@pytest.fixture(scope="module")
def twins():
    # Two stacks of one count, and as many heads as blocks: neither holds parts for the other's blocks.
    return probed_config(
        HrmTextConfig(
            **{**SMALL, "num_attention_heads": 3, "num_key_value_heads": 3},
            head_dim=8,
            num_layers_per_stack=3,
            H_cycles=1,
            L_cycles=1,
        )
    )


def test_one_field_counts_the_blocks_of_two_stacks(twins):
    module, graph, space = twins
    assert [sorted(depth.containers) for depth in space.depths] == [
        ["model.H_module.layers", "model.L_module.layers"]
    ]
    drops = (DropBlock("model.L_module.layers.0", 0), DropBlock("model.H_module.layers.2", 0))
    plan = Plan(graph.model_type, drops)
    _, ledger = proven(module, plan, graph, space)
    assert [(row.field, row.new) for row in ledger] == [("num_layers_per_stack", 2)]


def test_blocks_of_one_of_two_stacks_alone_are_refused(twins):
    module, graph, space = twins
    plan = Plan(graph.model_type, (DropBlock("model.L_module.layers.0", 0),))
    words = r"counts the blocks of 2 stacks at once: it leaves 2 of 'model\.L_module\.layers' and 3 of"
    with pytest.raises(InfeasibleError, match=words):
        apply_plan(module, plan, graph, space)


def test_a_list_of_the_encoder_is_none_of_as_deep_a_decoder():
    config = LEDConfig(
        vocab_size=50,
        d_model=24,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=20,
        decoder_ffn_dim=20,
        max_encoder_position_embeddings=32,
        max_decoder_position_embeddings=32,
        attention_window=[4, 4],
        architectures=["LEDForConditionalGeneration"],
    )
    _, _, space = probed_config(config)
    assert {depth.path: depth.lists for depth in space.depths} == {
        ("encoder_layers",): (("attention_window",),),
        ("decoder_layers",): (),
    }


def test_a_list_of_blocks_may_be_all_that_counts_them():
    # No number does; as many key-value heads as there are blocks, and heads beside, count none.
    config = NemotronHConfig(
        **{**SMALL, "num_key_value_heads": 4},
        head_dim=6,
        layers_block_type=["full_attention", "mlp", "full_attention", "mlp"],
        mamba_num_heads=4,
        mamba_head_dim=12,
        n_groups=2,
        ssm_state_size=8,
    )
    module, graph, space = probed_config(config)
    assert [(depth.path, depth.lists) for depth in space.depths] == [(("layers_block_type",), ())]
    plan = Plan(graph.model_type, (DropBlock("model.layers.1", 0),))
    _, ledger = proven(module, plan, graph, space)
    kinds = ["full_attention", "full_attention", "mlp"]
    assert [(row.field, row.new) for row in ledger] == [("layers_block_type", kinds)]
    assert list_sizes(config)[("layers_block_type",)] == 4
