"""Experts of widths that grouped products do not take are run one by one, and the result says so."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

import surgeon
from surgeon.rebuild.execution import grouped_products_fit
from tests.rebuild.routed import MANY


def model(width):
    torch.manual_seed(0)
    fields = {**MANY, "moe_intermediate_size": width}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**fields, head_dim=6, num_experts=8)).eval()


def test_widths_that_fit_are_those_that_run():
    ids = torch.tensor([[3, 4, 5, 6]])
    assert grouped_products_fit(model(16))
    assert torch.isfinite(model(16)(ids).logits).all()
    assert not grouped_products_fit(model(14))
    with pytest.raises(RuntimeError, match="multiple of 16 bytes"):
        model(14)(ids)


def test_odd_widths_are_measured_cut_and_said(tmp_path):
    model(14).save_pretrained(tmp_path / "odd")
    step = {"op": "remove", "select": {"kind": "expert"}, "keep": {"fraction": 0.5}, "criterion": "reap_sum"}
    ids = torch.randint(3, 61, (3, 16), generator=torch.Generator().manual_seed(0))
    recipe = {"surgeon": 1, "steps": [step]}
    report = surgeon.run(recipe, model=tmp_path / "odd", out=tmp_path / "out", texts=[ids])
    assert any("experts_implementation='eager'" in check for check in report.measured["checks"])
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.num_experts == 4
