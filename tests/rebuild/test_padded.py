"""Layout padded: zeros up to the widest block, and still the masked original."""

from __future__ import annotations

import pytest
import torch

from surgeon.errors import InfeasibleError
from surgeon.plan import Keep, Plan
from surgeon.rebuild.apply import apply_plan
from surgeon.rebuild.layout import arrange, is_ordinary
from surgeon.rebuild.padded import widened_plan
from surgeon.rebuild.verify import compare
from tests.rebuild.config_cases import TOKENS, names, probed
from tests.rebuild.uneven import uneven

FAMILIES = ("llama", "qwen2", "phi3", "gpt2", "gptneox", "opt", "falcon-grouped", "mixtral")


@pytest.mark.parametrize("family", FAMILIES)
def test_padded_is_the_masked_original(family):
    module, graph, space = probed(family)
    plan = uneven(graph)
    small, ledger = apply_plan(module, plan, graph, space, "padded")
    assert type(small) is type(module)
    assert is_ordinary(small.config)
    assert ledger
    widest = max(len(kept) for axis, kept in plan.kept().items() if axis.endswith("ffn"))
    assert str(widest) in str([row.new for row in ledger])
    assert compare(module, small, plan, graph, TOKENS).require()


def test_what_fills_up_is_zero():
    module, graph, space = probed("llama")
    plan = uneven(graph, ("ffn",))
    small, _ = apply_plan(module, plan, graph, space, "padded")
    kept = plan.kept()
    for place, layer in enumerate(small.model.layers):
        zero = (layer.mlp.up_proj.weight == 0).all(1)
        assert torch.equal(zero, (layer.mlp.down_proj.weight == 0).all(0))
        assert int((~zero).sum()) == len(kept[f"layers.{place}.mlp.ffn"])


def test_counts_go_up_to_what_the_config_can_say():
    """With a hidden size of 60, the family refuses five heads: the widest block's five become six."""
    _, graph, space = probed("gpt2")
    heads = names(graph, "kv_group")
    plan = Plan(graph.model_type, (Keep(heads[0], (0, 1, 2), 0), Keep(heads[1], (0, 1, 2, 4, 5), 0)))
    wide = widened_plan(space, graph, plan).kept()
    assert [len(wide[name]) for name in heads] == [6, 6]


def test_assigned_values_are_cut_and_padded_as_well():
    module, graph, space = probed("llama")
    name = "model.layers.0.mlp.down_proj.weight"
    value = torch.randn(60, 88, generator=torch.Generator().manual_seed(0))
    plan = uneven(graph, ("ffn",)).add((), {name: value})
    small, _ = apply_plan(module, plan, graph, space, "padded")
    assert compare(module, small, plan, graph, TOKENS).require()


def test_zeros_where_a_norm_counts_them_are_refused(monkeypatch):
    from dataclasses import replace

    _, graph, space = probed("llama")
    plan = uneven(graph, ("ffn",))
    normed = graph.map_groups(lambda group: replace(group, normalised=True) if group.kind == "ffn" else group)
    with pytest.raises(InfeasibleError, match=r"zeros are not the same as absence in layers\.\d\.mlp\.ffn"):
        arrange(space, normed, plan, "padded")


def test_no_config_wide_enough(monkeypatch):
    from surgeon.plan import Refusal
    from surgeon.rebuild.config_limits import ConfigLimits

    _, graph, space = probed("llama")
    monkeypatch.setattr(ConfigLimits, "refuse", lambda self, sizes: Refusal("validators say no"))
    with pytest.raises(InfeasibleError, match=r"as wide as the widest blocks .*validators say no"):
        arrange(space, graph, uneven(graph, ("ffn",)), "padded")
