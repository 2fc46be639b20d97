"""The export doctor's verdicts, by what became of the config."""

from __future__ import annotations

from surgeon.plan.report import LedgerRow
from surgeon.rebuild.doctor import diagnose
from surgeon.rebuild.layout import arrange
from tests.rebuild.config_cases import cut, probed
from tests.rebuild.uneven import uneven


def verdicts(family, plan_of, layout, more=()):
    _, graph, space = probed(family)
    arranged = arrange(space, graph, plan_of(graph), layout)
    return {one.loader: one for one in diagnose(arranged, (*more, *arranged.ledger))}


def test_blocks_of_different_widths_need_code():
    found = verdicts("llama", uneven, "per_layer")
    assert found["transformers"].verdict == "with remote code"
    assert {found["vllm"].verdict, found["llama.cpp"].verdict} == {"no"}
    assert "one width for all blocks" in found["vllm"].why


def test_an_ordinary_checkpoint_loads_where_the_original_does():
    assert {one.verdict for one in verdicts("llama", uneven, "padded").values()} == {"yes"}
    assert {one.verdict for one in verdicts("llama", lambda g: cut(g, ffn=40), "uniform").values()} == {"yes"}


def test_a_field_that_is_newly_set_makes_others_unsure():
    found = verdicts("qwen2", lambda g: cut(g, kv_group=1), "uniform")
    assert found["transformers"].verdict == "yes"
    assert found["vllm"].verdict == "unsure"
    assert "head_dim" in found["vllm"].why


def test_a_flag_that_is_switched_on_makes_others_unsure():
    row = LedgerRow(field="mlp_bias", old=False, new=True, why="a repair")
    found = verdicts("llama", lambda g: cut(g, ffn=40), "uniform", (row,))
    assert found["llama.cpp"].verdict == "unsure"
    assert "mlp_bias" in found["llama.cpp"].why
