"""From a checkpoint with mixtures to a plain one, and what is refused."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM
from typer.testing import CliRunner

from surgeon.api.densify import densify
from surgeon.cli.app import app
from surgeon.errors import InfeasibleError
from surgeon.rebuild.forward import call_with
from tests.rebuild.routed import MANY

IDS = torch.randint(3, 61, (6, 16), generator=torch.Generator().manual_seed(0))
SHORT = {"texts": [IDS], "samples": 6, "seq_len": 16}


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "mixture"
    torch.manual_seed(0)
    config = Qwen3MoeConfig(**MANY, head_dim=6, num_experts=8, norm_topk_prob=True)
    Qwen3MoeForCausalLM(config).save_pretrained(folder)
    return folder


def test_the_most_used_experts_stand_side_by_side(mixture, tmp_path):
    done = densify(mixture, tmp_path / "dense", experts=3, **SHORT)
    dense, model = (AutoModelForCausalLM.from_pretrained(f) for f in (tmp_path / "dense", mixture))
    assert done.parameters == sum(p.numel() for p in dense.parameters()) < done.before
    assert dense.config.intermediate_size == 3 * 14
    counts = []
    hooks = [
        block.mlp.gate.register_forward_hook(
            lambda *a: counts.append(a[2][2].flatten().bincount(minlength=8))
        )
        for block in model.model.layers
    ]
    with torch.no_grad():
        call_with(model, {}, input_ids=IDS)
    for hook in hooks:
        hook.remove()
    for layer, count, block in zip(done.layers, counts, dense.model.layers, strict=True):
        assert set(layer.experts) == set(count.argsort(descending=True, stable=True)[:3].tolist())
        assert sum(layer.gates) == pytest.approx(1)
        first = layer.experts[0]
        old = model.get_submodule(block_path(layer.axis)).experts.gate_up_proj[first]
        assert torch.equal(block.mlp.gate_proj.weight[:14], old[:14])
    assert "stock AutoModelForCausalLM loads it" in " ".join(done.checks)


def block_path(axis):
    return f"model.layers.{axis.split('.')[1]}.mlp"


def test_command(mixture, tiny_model, tmp_path):
    text = tmp_path / "ids.json"
    text.write_text(json.dumps(IDS.tolist()))
    call = partial(CliRunner().invoke, app)
    options = ["--text", str(text), "--out", str(tmp_path / "dense"), "--samples", "6", "--seq-len", "16"]
    shown = call(["densify", str(mixture), *options])
    assert shown.exit_code == 0, shown.stderr
    assert "layers.1.mlp.expert: experts" in shown.stdout
    assert "a qwen3_moe of" in shown.stdout
    again = call(["densify", str(mixture), *options])
    assert (again.exit_code, "exists" in again.stderr) == (2, True)
    options[3] = str(tmp_path / "other")
    refused = call(["densify", str(tiny_model), *options])
    assert (refused.exit_code, "has no mixture of experts" in refused.stderr) == (1, True)
    spoken = call(["densify", str(mixture), *options, "--json"])
    assert json.loads(spoken.stdout)["layers"][0]["axis"] == "layers.0.mlp.expert"


def test_too_many_experts_are_refused(mixture, tmp_path):
    with pytest.raises(InfeasibleError, match=r"9 experts of '.*' were asked for, which has 8"):
        densify(mixture, tmp_path / "dense", experts=9, **SHORT)
    assert not (tmp_path / "dense").exists()


def test_a_model_without_mixtures_is_refused(tiny_model, tmp_path):
    with pytest.raises(InfeasibleError, match="the model has no mixture of experts to make dense"):
        densify(tiny_model, tmp_path / "dense", **SHORT)
