"""Models whose later blocks use what earlier ones left in the same run, streamed: one block in memory."""

from __future__ import annotations

import pytest
import torch
from transformers import Gemma3nForCausalLM, Gemma3nTextConfig

import surgeon
from surgeon.api.subject import Subject
from surgeon.calibrate.blocks_held import blocks_held
from surgeon.errors import SurgeonError
from surgeon.rebuild.unread import Unread

IDS = torch.randint(3, 90, (6, 24), generator=torch.Generator().manual_seed(0)).tolist()
FFN = {"op": "remove", "select": {"kind": "ffn"}, "keep": {"fraction": 0.75}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = Gemma3nTextConfig(
        hidden_size=64,
        intermediate_size=[112] * 4,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        vocab_size=97,
        vocab_size_per_layer_input=97,
        hidden_size_per_layer_input=16,
        num_kv_shared_layers=2,
        layer_types=["sliding_attention", "full_attention"] * 2,
        activation_sparsity_pattern=[0.0] * 4,
        altup_num_inputs=2,
        laurel_rank=8,
        max_position_embeddings=128,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    made = tmp_path_factory.mktemp("shared") / "model"
    Gemma3nForCausalLM(config).save_pretrained(made)
    return made


@pytest.mark.parametrize("criterion", ["flap", "wanda"])
def test_a_plan_is_the_same(folder, criterion):
    recipe = {"surgeon": 1, "steps": [{**FFN, "criterion": criterion}]}
    plain = surgeon.plan(folder, recipe, texts=[IDS])
    assert surgeon.plan(folder, recipe, texts=[IDS], stream=True).edits == plain.edits


@pytest.mark.parametrize("before", [None, "flap"])
def test_gradients_are_refused_in_one_message(folder, before):
    """Also where an earlier step found out that blocks do not run alone."""
    kept = {**FFN, "keep": {"fraction": 1.0}}
    first = [] if before is None else [{**kept, "criterion": before}]
    recipe = {"surgeon": 1, "steps": [*first, {**FFN, "criterion": "taylor"}]}
    with pytest.raises(SurgeonError, match=r"cannot be streamed|more than the residual stream"):
        surgeon.plan(folder, recipe, texts=[IDS], stream=True)


def test_weights_are_in_place_only_while_their_block_runs(folder):
    module = Subject(folder, stream=True).measured
    blocks = [
        name for name, part in module.named_modules() if name.endswith(tuple(f"layers.{n}" for n in range(4)))
    ]
    own, seen = dict(module.named_parameters()), []

    def look(part, args, kwargs):
        here = {
            name: any(isinstance(p, Unread) for p in module.get_submodule(name).parameters())
            for name in blocks
        }
        seen.append([name for name, unread in here.items() if not unread])

    for name in blocks:
        module.get_submodule(name).self_attn.register_forward_pre_hook(look, with_kwargs=True)
    with blocks_held(module, blocks), torch.no_grad():
        module(input_ids=torch.tensor(IDS[:1]), use_cache=False)
    assert seen == [[name] for name in blocks]
    assert all(one is own[name] for name, one in module.named_parameters())
