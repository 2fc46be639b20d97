"""What was found of a model is taken up for that very model and code, and for nothing else."""

from __future__ import annotations

import os
import pickle

import pytest
from transformers import LlamaConfig

import surgeon
from surgeon.graph.document import graph_document
from surgeon.io.findings import Findings
from surgeon.plan import Keep, Plan
from surgeon.rebuild import probe, skeleton, solve
from surgeon.trace import trace_module
from surgeon.trace.rule import rules
from tests.conftest import llama_config


@pytest.fixture
def config() -> LlamaConfig:
    return llama_config()


@pytest.fixture(scope="module")
def anew():
    graph = trace_module(skeleton(llama_config()))
    return graph, probe(llama_config(), graph)


@pytest.fixture
def found(config, anew, tmp_path):
    """Findings of `config`, kept below `tmp_path`."""
    Findings(tmp_path).save(config, *anew)
    return anew


def test_what_was_kept_is_what_was_found(config, found, tmp_path):
    graph, space = Findings(tmp_path).load(llama_config())
    assert graph_document(graph) == graph_document(found[0])
    assert graph.parameters == found[0].parameters
    assert list(graph.couplings.edges(data=True)) == list(found[0].couplings.edges(data=True))
    assert (space.fields, space.depths) == (found[1].fields, found[1].depths)
    cut = Plan("llama").add(
        [Keep(g.name, tuple(range(0, g.axis.size, 2)), 0) for g in graph.groups if g.kind == "ffn"]
    )
    assert solve(space, graph, cut).config.to_dict() == solve(found[1], found[0], cut).config.to_dict()


@pytest.mark.parametrize(
    "change", [{"intermediate_size": 44}, {"rope_theta": 500.0}, {"attention_bias": True}]
)
def test_another_config_is_not_known(found, tmp_path, change):
    assert Findings(tmp_path).load(llama_config(**change)) is None


def test_the_same_config_elsewhere_is_known(found, tmp_path):
    config = llama_config()
    config._name_or_path = "elsewhere"
    graph, space = Findings(tmp_path).load(config)
    assert graph.parameters == found[0].parameters
    assert space.config is config


def test_other_code_does_not_know_it(config, found, tmp_path, monkeypatch):
    monkeypatch.setattr("surgeon.io.findings.own_code", lambda *parts: "of another release")
    assert Findings(tmp_path).load(config) is None


def test_another_release_of_transformers_does_not_know_it(config, found, tmp_path, monkeypatch):
    monkeypatch.setattr("surgeon.io.findings.version", lambda name: "0")
    assert Findings(tmp_path).load(config) is None


def test_a_changed_modeling_file_does_not_know_it(config, found, tmp_path, monkeypatch):
    monkeypatch.setattr("surgeon.io.findings.inspect.getsource", lambda module: "class Other: ...")
    assert Findings(tmp_path).load(config) is None


def test_rules_of_a_plugin_keep_nothing(config, found, tmp_path, monkeypatch):
    rules.load()
    monkeypatch.setitem(rules._entries, "made_up", lambda op: None)
    monkeypatch.setitem(rules._origins, "made_up", "surgeon_plugin_mine")
    assert Findings(tmp_path).load(config) is None
    Findings(tmp_path / "other").save(config, *found)
    assert not (tmp_path / "other").exists()


def test_a_file_that_says_another_key_or_is_cut_short_is_not_read(config, found, tmp_path):
    (file,) = (tmp_path / "models").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-50])
    assert Findings(tmp_path).load(config) is None
    file.write_bytes(b"{}" + whole[whole.index(b"\n") :])
    assert Findings(tmp_path).load(config) is None


class Harm:
    def __reduce__(self):
        return os.system, ("touch harmed",)


@pytest.mark.parametrize(
    "body", [Harm(), surgeon.load_recipe, trace_module], ids=["system", "verb", "function"]
)
def test_a_file_that_names_anything_but_data_is_not_read(config, found, tmp_path, monkeypatch, body):
    monkeypatch.chdir(tmp_path)
    (file,) = (tmp_path / "models").iterdir()
    key, _, _ = file.read_bytes().partition(b"\n")
    file.write_bytes(key + b"\n" + pickle.dumps((body, body, body, body)))
    assert Findings(tmp_path).load(config) is None
    assert not (tmp_path / "harmed").exists()


def test_a_folder_that_cannot_be_written_to_keeps_nothing(config, found, tmp_path):
    (tmp_path / "file").write_text("")
    Findings(tmp_path / "file").save(config, *found)
    assert Findings(tmp_path / "file").load(config) is None


def test_planning_again_traces_nothing(saved_llama, tmp_path):
    step = {"op": "remove", "select": {"kind": "ffn"}, "keep": {"fraction": 0.5}, "criterion": "magnitude"}
    stages: list[str] = []

    def planned() -> Plan:
        stages.clear()
        return surgeon.plan(
            saved_llama() if not (tmp_path / "model").exists() else tmp_path / "model",
            {"surgeon": 1, "steps": [step]},
            cache=tmp_path / "cache",
            progress=lambda stage, done, total: stages.append(stage),
        )

    first = planned()
    assert "trace" in stages
    again = planned()
    assert "trace" not in stages
    assert again == first
