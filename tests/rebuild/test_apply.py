"""A module from a module: the masked original's function, and the original untouched."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from surgeon.errors import InfeasibleError, RebuildError
from surgeon.plan import Plan
from surgeon.rebuild.apply import apply_plan, config_of
from surgeon.rebuild.verify import compare
from tests.rebuild.config_cases import TOKENS, cut, probed
from tests.rebuild.test_config_solve import EXPRESSIBLE


@pytest.mark.parametrize(("family", "counts"), [(family, counts) for family, counts, _ in EXPRESSIBLE])
def test_rebuilt_is_masked(family, counts):
    module, graph, space = probed(family)
    plan = cut(graph, **counts)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    small, ledger = apply_plan(module, plan, graph, space)
    assert type(small) is type(module)
    assert ledger
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in module.parameters())
    assert compare(module, small, plan, graph, TOKENS).require()
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_the_config_survives_its_file(tmp_path):
    module, graph, space = probed("qwen2")
    small, _ = apply_plan(module, cut(graph, kv_group=1, hidden=41), graph, space)
    small.save_pretrained(tmp_path)
    again = type(module).from_pretrained(tmp_path, attn_implementation="eager")
    with torch.no_grad():
        torch.testing.assert_close(again(TOKENS).logits, small(TOKENS).logits)


def test_dtype_mode_and_generation_config_are_kept():
    module, graph, space = probed("llama", num_hidden_layers=1)
    module = module.to(torch.bfloat16).train()
    module.generation_config.max_new_tokens = 5
    small, _ = apply_plan(module, cut(graph, ffn=40), graph, space)
    assert {p.dtype for p in small.parameters()} == {torch.bfloat16}
    assert small.training
    assert small.generation_config.max_new_tokens == 5
    assert small.generation_config is not module.generation_config
    assert small.config._attn_implementation == "eager"


def test_tied_weights_stay_tied():
    module, graph, space = probed("llama-tied")
    small, _ = apply_plan(module, cut(graph, vocab=100, hidden=48), graph, space)
    assert small.get_input_embeddings().weight is small.get_output_embeddings().weight


def test_a_refusal_leaves_everything_alone():
    module, graph, space = probed("bloom")
    with pytest.raises(InfeasibleError, match="cannot express ffn"):
        apply_plan(module, cut(graph, ffn=100), graph, space)


def test_the_config_names_the_module_s_class():
    module, _, _ = probed("llama")
    assert config_of(module).architectures == [type(module).__name__]


def test_a_module_without_a_config_is_refused():
    with pytest.raises(RebuildError, match="Linear is no transformers model"):
        apply_plan(nn.Linear(2, 2), Plan("?"), probed("llama")[1])  # type: ignore[arg-type]
