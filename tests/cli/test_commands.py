"""Every command on a small model, in this process: what it prints where, and its exit status."""

from __future__ import annotations

import json

import pytest
from transformers import BloomConfig
from typer.testing import CliRunner

from surgeon.cli.app import app

RECIPE = """\
surgeon: 1
steps:
  - op: remove
    select: {kind: ffn}
    keep: {fraction: 0.75}
    criterion: magnitude
"""
GATE, DOWN = "model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.down_proj.weight"


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE)
    return str(file)


def call(*arguments, status: int = 0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, (result.stdout, result.stderr, result.exception)
    return result


def test_run_apply_verify(recipe, saved_llama, tmp_path):
    model, out = saved_llama(), tmp_path / "small"
    shown = call("run", recipe, "--model", model, "--out", out)
    assert "intermediate_size" in shown.stdout
    assert "checked: stock AutoModelForCausalLM loads it" in shown.stdout
    assert "cut ..." in shown.stderr
    assert call("apply", out / "plan.json", "--model", model, "--out", tmp_path / "two").stdout
    assert "checked: equal to the masked original" in call("verify", out, "--model", model).stdout
    document = json.loads(call("verify", out, "--model", model, "--json").stdout)
    assert document["ok"] is True
    refused = call("run", recipe, "--model", model, "--out", out, status=2)
    assert "exists" in refused.stderr
    assert refused.stdout == ""


def test_plan_shows_and_writes(recipe, saved_llama, tmp_path):
    model, out = saved_llama(), tmp_path / "plan.json"
    shown = call("plan", recipe, "--model", model, "--out", out, "--set", "steps.0.keep.fraction=0.5")
    assert "-" in shown.stdout
    assert json.loads(out.read_text())["surgeon_plan"] == 1
    report = json.loads(call("plan", recipe, "--model", model, "--json").stdout)
    assert report["surgeon_report"] == 1
    assert [choice["kept"] for choice in report["steps"][0]["choices"]] == [30, 30, 30]


def test_a_count_that_the_config_cannot_say_is_refused_with_the_nearest(recipe, saved_llama):
    kind, keep = "steps.0.select.kind=kv_group", "steps.0.keep={count: 5}"
    refused = call("plan", recipe, "--model", saved_llama(), "--set", kind, "--set", keep, status=2)
    assert "5" in refused.stderr


def test_graph_says_what_is_locked_and_why(tmp_path):
    config = BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=64)
    config.architectures = ["BloomForCausalLM"]
    config.save_pretrained(tmp_path)
    shown = call("graph", tmp_path).stdout
    (row,) = (line.split() for line in shown.splitlines() if line.strip().startswith("kv_group"))
    assert row[-1] == "yes"
    assert "locked: kv_group: matched with constants" in shown


def test_graph(saved_llama, tmp_path):
    model, out = saved_llama(), tmp_path / "graph.json"
    table = call("graph", model).stdout
    assert all(kind in table for kind in ("ffn", "kv_group", "q_per_kv", "head_dim", "hidden", "vocab"))
    assert "layers.2.mlp.ffn" in call("graph", model, "--all").stdout
    call("graph", model, "--json", out)
    written = json.loads(out.read_text())
    assert json.loads(call("graph", model, "--json", "-").stdout) == written
    assert written["surgeon_graph"] == 1
    chain = call("graph", model, "--why", GATE, DOWN).stdout
    ends = [line.strip() for line in chain.splitlines() if line.strip() in (f"{GATE}[0]", f"{DOWN}[1]")]
    assert ends == [f"{GATE}[0]", f"{DOWN}[1]"]
    assert "aten." in chain
    assert "0 ops" in call("graph", model, "--why", GATE, GATE).stdout
    assert "no parameter" in call("graph", model, "--why", "absent", DOWN, status=1).stderr


def test_check(recipe, saved_llama):
    model = saved_llama()
    assert "is a valid recipe" in call("check", recipe).stdout
    assert "selects 3 groups" in call("check", recipe, "--model", model).stdout
    selected = json.loads(call("check", recipe, "--model", model, "--json").stdout)["selected"]
    assert selected[0][0] == "remove"
    wrong = call("check", recipe, "--set", "steps.0.keep.fractoin=0.5", status=2)
    assert "fractoin" in wrong.stderr
    assert "fraction" in wrong.stderr


def test_eval_list_schema(saved_llama, tmp_path):
    model, ids = saved_llama(), tmp_path / "ids.json"
    ids.write_text(json.dumps([list(range(3, 50))] * 3))
    shown = call("eval", model, "--against", model, "--text", ids, "--window", "16").stdout
    assert "top1 agreement" in shown
    assert "window 16, stride 16, no start token" in shown
    document = json.loads(call("eval", model, "--metric", "parameters", "--json").stdout)
    assert [metric["name"] for metric in document["metrics"]] == ["parameters"]
    assert "magnitude" in call("list", "criteria").stdout
    assert "remove" in json.loads(call("list", "--json").stdout)["operations"]
    assert json.loads(call("schema").stdout)["title"] == "surgeon recipe"


def test_bad_input_says_what_and_ends_with_2(recipe, tmp_path):
    (tmp_path / "empty").mkdir()
    for model, message in (
        (tmp_path / "empty", "has no config.json"),
        (tmp_path / "gone", "no model folder"),
    ):
        assert message in call("graph", model, status=2).stderr
    assert "there is no such recipe" in call("check", tmp_path / "gone.yaml", status=2).stderr
    assert "no model was given" in call("plan", recipe, status=2).stderr


def test_an_interrupt_ends_with_130(recipe, monkeypatch):
    import surgeon.api.check as module

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "check", interrupt)
    assert "interrupted: nothing was published" in call("check", recipe, status=130).stderr
