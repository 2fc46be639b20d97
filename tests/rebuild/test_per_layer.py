"""Layout per_layer: blocks of different widths compute what the masked original computes, in any family."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import MPNetConfig, OpenAIGPTConfig, RecurrentGemmaConfig, TrOCRConfig, XLMConfig

from surgeon.errors import InfeasibleError
from surgeon.plan import DropBlock, Keep, Plan
from surgeon.rebuild import per_layer
from surgeon.rebuild.apply import apply_plan
from surgeon.rebuild.layout import arrange, is_ordinary, limits_of
from surgeon.rebuild.per_layer_class import TABLE, modeling_source
from surgeon.rebuild.per_layer_model import Reshapes
from surgeon.rebuild.retraced import retraced_faults
from surgeon.rebuild.skeleton import skeleton
from surgeon.rebuild.verify import compare
from surgeon.trace import trace_module
from tests.rebuild.config_cases import TOKENS, cut, names, probed, probed_config
from tests.rebuild.uneven import FAMILIES, uneven


def narrowed(family: str, plan_of=uneven, **changes):
    module, graph, space = probed(family, **changes)
    plan = plan_of(graph)
    small, ledger = apply_plan(module, plan, graph, space, "per_layer")
    return module, graph, plan, small, ledger


@pytest.mark.parametrize("family", FAMILIES)
def test_uneven_blocks_are_the_masked_original(family):
    module, graph, plan, small, ledger = narrowed(family)
    assert isinstance(small, type(module))
    assert not is_ordinary(small.config)
    assert ledger[-1].field == TABLE
    assert compare(module, small, plan, graph, TOKENS).require()


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2", "opt", "falcon-grouped"])
def test_what_modules_say_of_themselves_is_what_they_are(family):
    _, _, _, small, _ = narrowed(family)
    for part in small.modules():
        if isinstance(part, nn.Linear):
            assert (part.out_features, part.in_features) == part.weight.shape
        elif type(part).__name__ == "Conv1D":
            assert (part.nx, part.nf) == part.weight.shape


def test_numbers_of_a_block_are_those_of_a_stock_block_of_that_width():
    """Built by the stock class from a config with this block's fields alone: every number must agree."""
    _, _, _, small, _ = narrowed("llama")
    for place, layer in enumerate(small.model.layers):
        fields = dict(small.config.per_layer_config[place].to_dict())
        plain = {
            key: value for key, value in fields.items() if key not in (TABLE, "per_layer_config", "auto_map")
        }
        stock = skeleton(type(small.config).from_dict({**plain, "hidden_size": 60, "architectures": None}))
        want = dict(stock.model.layers[place].named_modules())
        for path, part in layer.named_modules():
            own = {k: v for k, v in vars(part).items() if type(v) in (int, float)}
            assert own == {k: v for k, v in vars(want[path]).items() if type(v) in (int, float)}, path


def test_a_wrong_number_is_found_out():
    module, graph, plan, small, _ = narrowed("gptneox")
    with torch.no_grad():
        small.gpt_neox.layers[1].mlp.dense_4h_to_h.weight[3, 4] += 0.5
    assert not compare(module, small, plan, graph, TOKENS).ok


def test_a_plan_that_plain_fields_can_say_stays_ordinary():
    module, graph, space = probed("llama")
    small, _ = apply_plan(module, cut(graph, ffn=40), graph, space, "per_layer")
    assert type(small) is type(module)
    assert is_ordinary(small.config)


def test_widths_alike_in_all_blocks_stay_in_their_fields():
    def plan_of(graph):
        both = uneven(graph, ("ffn",))
        return both.add(Keep(name, (1,), 0) for name in names(graph, "kv_group"))

    module, graph, plan, small, ledger = narrowed("llama", plan_of)
    assert {"num_key_value_heads", "per_layer_config.*.intermediate_size"} <= {row.field for row in ledger}
    assert small.config.num_key_value_heads == 1
    assert all("self_attn." not in path for path in getattr(small.config, TABLE))
    assert compare(module, small, plan, graph, TOKENS).require()


def test_widths_alike_in_the_blocks_that_are_left_stay_in_their_fields():
    def plan_of(graph):
        plan = uneven(graph, ("ffn",)).add([DropBlock("model.layers.1", 1)])
        return plan.add(Keep(name, (1,), 0) for name in names(graph, "kv_group") if ".1." not in name)

    module, graph, plan, small, _ = narrowed("llama", plan_of, num_hidden_layers=3)
    assert small.config.num_key_value_heads == 1
    assert all("self_attn." not in path for path in getattr(small.config, TABLE))
    assert compare(module, small, plan, graph, TOKENS).require()


def test_shared_widths_and_dropped_blocks_beside():
    def plan_of(graph):
        plan = uneven(graph, ("ffn", "kv_group"))
        hidden = graph.of_kind("hidden")[0].name
        return plan.add([Keep(hidden, tuple(range(12, 60)), 1), DropBlock("model.layers.1", 2)])

    module, graph, plan, small, _ = narrowed("llama", plan_of, num_hidden_layers=4)
    assert len(small.model.layers) == 3
    assert small.config.hidden_size == 48
    assert compare(module, small, plan, graph, TOKENS).require()


def test_one_cut_block_among_many():
    def plan_of(graph):
        return Plan(graph.model_type, (Keep("layers.1.mlp.ffn", tuple(range(30)), 0),))

    module, graph, plan, small, _ = narrowed("llama", plan_of, num_hidden_layers=3)
    assert [layer.mlp.down_proj.in_features for layer in small.model.layers] == [88, 30, 88]
    assert compare(module, small, plan, graph, TOKENS).require()


def test_it_can_be_copied_and_its_attention_switched():
    _, _, _, small, _ = narrowed("phi3")
    with torch.no_grad():
        want = small(TOKENS).logits
        again = copy.deepcopy(small)
        torch.testing.assert_close(again(TOKENS).logits, want)
        again.set_attn_implementation("sdpa")
        torch.testing.assert_close(again(TOKENS).logits, want, rtol=1e-4, atol=1e-4)
    assert again.model.layers[1].self_attn.config._attn_implementation == "sdpa"


def test_from_scratch_the_model_is_initialised():
    _, _, _, small, _ = narrowed("llama")
    fresh = type(small)(copy.deepcopy(small.config))
    assert all(torch.isfinite(p).all() for p in fresh.parameters())
    assert fresh.model.layers[1].mlp.up_proj.weight.detach().std().item() == pytest.approx(0.02, rel=0.2)


def test_limits_bind_what_blocks_share():
    _, graph, space = probed("qwen2")
    limits = limits_of(space, graph, "per_layer")
    own, hidden = names(graph, "ffn"), graph.of_kind("hidden")[0].name
    assert limits.tied((*own, hidden)) == ((own[0],), (own[1],), (hidden,))
    assert limits.refuse({own[0]: 31}) is None
    assert limits.nearest((own[0],), 31, {}) == (31,)
    refusal = limits.refuse({own[0]: 31, hidden: 41})
    assert (refusal is None) == (limits_of(space, graph).refuse({hidden: 41}) is None)
    assert limits.nearest((hidden,), 41, {own[0]: 31}) == limits_of(space, graph).nearest((hidden,), 41, {})


def test_a_block_that_does_not_run_is_refused(monkeypatch):
    from surgeon.rebuild import per_layer_trial

    monkeypatch.setattr(per_layer_trial, "runs", lambda module, **kinds: "ValueError: shapes")
    _, graph, space = probed("gpt2")
    with pytest.raises(InfeasibleError, match=r"'transformer\.h\.0' cannot be run .* ValueError: shapes"):
        arrange(space, graph, uneven(graph), "per_layer")


def test_tensors_that_blocks_share_are_refused():
    _, _, space = probed("llama")
    built = per_layer.measure(space.config)
    name = "model.layers.1.mlp.up_proj.weight"
    tied = type(built)(built.shapes, {name: "model.layers.0.mlp.up_proj.weight"}, built.numbers)
    planned = {**built.shapes, name: (30, 60)}
    with pytest.raises(InfeasibleError, match=r"up_proj.weight is one tensor with model.layers.0"):
        per_layer.check_differences(planned, tied.shapes, tied)


def test_the_modeling_file_is_small_and_knows_nothing_of_surgeon():
    module, _, _ = probed("llama")
    text = modeling_source(type(module), module.config)
    compile(text, "modeling_per_layer.py", "exec")
    assert "surgeon" not in text
    assert text.count("\n") < 200
    assert "class PerLayerLlamaForCausalLM(PerLayer, LlamaForCausalLM):" in text


def test_paths_are_found_where_the_class_has_another_prefix_than_its_parts():
    from surgeon.rebuild.per_layer_model import inside

    module, _, _ = probed("llama")
    assert inside(module, "model.layers.0.mlp") == "model.layers.0.mlp"
    assert inside(module.model, "model.layers.0.mlp") == "layers.0.mlp"  # the base model alone
    assert inside(module.model, "lm_head") is None


def test_code_that_takes_the_width_of_its_input_for_its_own_runs():
    """Attention that ends in a reshape to the stream's width; its cross-attention is run as well."""
    config = TrOCRConfig(
        vocab_size=50,
        d_model=24,
        decoder_layers=2,
        decoder_attention_heads=4,
        decoder_ffn_dim=20,
        max_position_embeddings=64,
    )
    module, graph, space = probed_config(config)
    plan = cut(graph, kv_group=3)
    small, _ = apply_plan(module, plan, graph, space, "per_layer")
    assert compare(module, small, plan, graph, TOKENS).require()
    table = getattr(small.config, TABLE)
    block = "model.decoder.layers.0"
    assert table[f"{block}.self_attn"]["reshapes"] == table[f"{block}.encoder_attn"]["reshapes"] == [[24, 18]]
    assert not retraced_faults(plan, graph, trace_module(small))
    again = copy.deepcopy(small)
    states = torch.randn(2, 5, 24, dtype=torch.float64)
    want = small(TOKENS, encoder_hidden_states=states).logits
    torch.testing.assert_close(again(TOKENS, encoder_hidden_states=states).logits, want)
    with torch.no_grad():
        again.model.decoder.layers[0].self_attn.v_proj.weight.zero_()
    assert not torch.allclose(again(TOKENS).logits, small(TOKENS).logits)  # the copy computes with its own


def test_reshapes_that_fit_stay_as_they_are():
    states = torch.zeros(4, 6, 24)
    with Reshapes([[24, 18], [18, 12]]):
        assert states.view(4, 3, 2, 24).shape == (4, 3, 2, 24)
        assert states.reshape(-1, 24).shape == (24, 24)
        assert states.view(torch.int32).dtype == torch.int32
        with pytest.raises(RuntimeError, match="invalid for input of size"):
            states.view(4, 6, 23)
        assert states[..., :18].reshape(4, 6, 24).shape == (4, 6, 18)
        assert torch.reshape(states[..., :18], (-1, 24)).shape == (24, 18)  # though 4 * 6 * 18 divides by 24
        assert states[..., :12].reshape((24, 18)).shape == (24, 12)


def test_a_window_of_as_many_tokens_as_heads_stays():
    config = RecurrentGemmaConfig(
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=6,
        lru_width=24,
        attention_window_size=4,
        vocab_size=50,
    )
    module, graph, space = probed_config(config)
    plan = cut(graph, kv_group=3)
    small, _ = apply_plan(module, plan, graph, space, "per_layer")
    attention = next(part for part in small.modules() if hasattr(part, "sliding_window"))
    assert (attention.num_attention_heads, attention.sliding_window) == (3, 4)
    assert compare(module, small, plan, graph, TOKENS).require()


def test_heads_that_no_dim_follows_are_counted_anew():
    config = OpenAIGPTConfig(n_embd=32, n_head=4, n_layer=2, n_positions=64, vocab_size=50)
    module, graph, space = probed_config(config)
    plan = cut(graph, kv_group=2)
    small, _ = apply_plan(module, plan, graph, space, "per_layer")
    assert small.get_submodule("transformer.h.0.attn").n_head == 2
    assert compare(module, small, plan, graph, TOKENS).require()


def test_heads_that_share_a_table_of_positions_are_cut_in_all_blocks():
    config = MPNetConfig(
        vocab_size=50,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=20,
        max_position_embeddings=64,
        architectures=["MPNetForMaskedLM"],
    )
    module, graph, space = probed_config(config)
    (heads,) = graph.of_kind("kv_group")
    assert heads.block is None
    assert limits_of(space, graph).nearest((heads.name,), 3, {}) == (4,)
    limits = limits_of(space, graph, "per_layer")
    assert limits.refuse({heads.name: 3}) is None
    assert limits.nearest((heads.name,), 3, {}) == (3,)
    plan = cut(graph, kv_group=3, ffn=15).add([DropBlock("mpnet.encoder.layer.0", 1)])
    small, ledger = apply_plan(module, plan, graph, space, "per_layer")
    assert {row.field for row in ledger} == {"intermediate_size", "num_hidden_layers", TABLE}
    assert small.config.hidden_size == 24
    assert small.mpnet.encoder.relative_attention_bias.weight.shape[1] == 3
    assert compare(module, small, plan, graph, TOKENS).require()
    assert not retraced_faults(plan, graph, trace_module(small))


def test_attentions_in_a_list_of_their_own_are_cut_together():
    config = XLMConfig(
        vocab_size=50, emb_dim=24, n_layers=2, n_heads=4, max_position_embeddings=64, n_langs=1, causal=True
    )
    config.architectures = ["XLMWithLMHeadModel"]
    module, graph, space = probed_config(config)
    assert not graph.blocks
    plan = cut(graph, kv_group=3)
    small, _ = apply_plan(module, plan, graph, space, "per_layer")
    assert small.transformer.attentions[1].q_lin.weight.shape == (18, 24)
    assert compare(module, small, plan, graph, TOKENS).require()


def test_widths_of_the_whole_model_go_in_no_table():
    _, graph, space = probed("gpt2")
    hidden = graph.of_kind("hidden")[0]
    odd = hidden.size - 1
    assert limits_of(space, graph, "per_layer").nearest((hidden.name,), odd, {}) != (odd,)
    with pytest.raises(InfeasibleError):
        arrange(space, graph, Plan(graph.model_type, (Keep(hidden.name, tuple(range(odd)), 0),)), "per_layer")
