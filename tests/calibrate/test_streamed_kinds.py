"""Block influence and routing, measured block by block: what a whole run measures, each weight read once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

import surgeon
from surgeon.api.subject import Subject
from surgeon.calibrate import Bench, Samples, gather, pace, rows
from surgeon.calibrate.block_similarity import BlockSimilarity
from surgeon.calibrate.expert_domains import ExpertDomains
from surgeon.calibrate.expert_load import ExpertLoad
from surgeon.calibrate.expert_match import ExpertMatch
from surgeon.calibrate.expert_mean import ExpertMean
from surgeon.calibrate.expert_pairs import ExpertPairs
from surgeon.calibrate.input_moment import InputMoment
from surgeon.calibrate.part_similarity import part_similarity
from surgeon.calibrate.reconstruction import Reconstruction
from surgeon.calibrate.router_moment import RouterMoment
from surgeon.calibrate.streamed import gather_streamed
from surgeon.calibrate.unfinished import Unfinished
from surgeon.errors import SurgeonError
from surgeon.io.statistics_cache import StatisticsCache
from surgeon.plan import DropBlock, Keep, Plan
from surgeon.rebuild import masked
from surgeon.trace import trace_module
from tests.handmade import llama_graph

BLOCKS = tuple(f"model.layers.{place}" for place in range(3))
CROSSING = (
    BlockSimilarity(blocks=BLOCKS),
    BlockSimilarity("angular", "last", 2, BLOCKS),
    BlockSimilarity("euclidean", "all", 3, BLOCKS),
)
CUT = Plan("llama").add([Keep("layers.1.mlp.ffn", tuple(range(0, 40, 3)), 0)])
PLANS = {
    "whole": Plan("llama"),
    "cut": CUT,
    "without the first": CUT.add([DropBlock(BLOCKS[0], 1)]),
    "without the last": CUT.add([DropBlock(BLOCKS[2], 1)]),
}
SIZES = {"hidden_size": 24, "intermediate_size": 20, "moe_intermediate_size": 16, "vocab_size": 53}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 3}


@pytest.fixture
def samples() -> Samples:
    ids = torch.randint(3, 53, (5, 11), generator=torch.Generator().manual_seed(4))
    cut = rows([row[: 7 + place] for place, row in enumerate(ids.tolist())])
    return Samples(cut.ids, cut.mask, ("prose", "prose", "code", "code", "code"))


@pytest.fixture
def folder(small_llama, tmp_path):
    small_llama().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_states_are_compared_on_the_way(folder, samples, plan):
    stored, loaded = Subject(folder, stream=True).measured, Subject(folder).wide
    graph = llama_graph(loaded.config)
    keys = (*CROSSING, InputMoment("mean", (f"{BLOCKS[1]}.mlp.down_proj.weight",)))
    whole = gather(loaded, samples, keys, view=masked(loaded, plan, graph))
    found = gather_streamed(masked(stored, plan, graph), BLOCKS, plan.dropped, samples, keys, batch_size=2)
    for key in keys:
        assert set(found.get(key)) == set(whole.get(key))
        for name, value in whole.get(key).items():
            torch.testing.assert_close(found.get(key)[name], value, rtol=1e-5, atol=1e-6)


def test_a_dropped_block_turns_nothing(small_llama, samples):
    model = small_llama()
    for at in range(3):
        view = masked(model, Plan("llama").add([DropBlock(BLOCKS[at], 0)]), llama_graph(model.config))
        found = gather(model, samples, CROSSING[:1], view=view).get(CROSSING[0])
        assert found[BLOCKS[at]] == pytest.approx(1, abs=1e-6)


def test_comparisons_go_on_where_a_run_was_killed(folder, samples, tmp_path, monkeypatch):
    """Killed behind each Block, with the states that a span of two and of three reaches back to."""
    monkeypatch.setattr(pace, "SHARE", 0)  # every block is put aside, however slow the disk is
    stored = Subject(folder, stream=True).measured
    view = masked(stored, Plan("llama"), llama_graph(stored.config))
    expected = gather_streamed(view, BLOCKS, (), samples, CROSSING)
    for last in range(1, 4):
        store = StatisticsCache(tmp_path / f"cache{last}")

        def stop(done: int, total: int, last: int = last) -> None:
            if done == last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            gather_streamed(
                view, BLOCKS, (), samples, CROSSING, progress=stop, unfinished=Unfinished(store, "run", 0.0)
            )
        again: list[int] = []
        found = gather_streamed(
            view,
            BLOCKS,
            (),
            samples,
            CROSSING,
            progress=lambda done, total, again=again: again.append(done),
            unfinished=Unfinished(store, "run", 0.0),
        )
        assert again == list(range(last + 1, 4))
        for key in CROSSING:
            assert all(torch.equal(found.get(key)[name], value) for name, value in expected.get(key).items())


def qwen() -> Qwen3MoeForCausalLM:
    config = Qwen3MoeConfig(**SIZES, **HEADS, head_dim=8, num_experts=5, num_experts_per_tok=2)
    return Qwen3MoeForCausalLM(config)


def deepseek() -> DeepseekV3ForCausalLM:
    """Its first block has no experts."""
    latent = {"q_lora_rank": 10, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 6}
    routing = {"n_routed_experts": 6, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}
    heads = {**HEADS, "num_key_value_heads": 4}
    config = DeepseekV3Config(**SIZES, **heads, **latent, **routing, v_head_dim=7, first_k_dense_replace=1)
    return DeepseekV3ForCausalLM(config)


@pytest.mark.parametrize("streams", [True, False], ids=["block by block", "whole batches"])
def test_removed_experts_are_given_nothing(samples, tmp_path, streams):
    """Routing passes over them also where weights are read and held for a time."""
    torch.manual_seed(0)
    qwen().eval().save_pretrained(tmp_path / "model")
    stored, loaded = Subject(tmp_path / "model", stream=True).measured, Subject(tmp_path / "model").wide
    graph = trace_module(loaded)
    groups = [group for group in graph.groups if group.kind == "expert"]
    plan = Plan(graph.model_type).add([Keep(group.name, (1, 2, 4), 0) for group in groups])
    keys = [key.on(graph, groups) for key in (ExpertLoad("count"), ExpertPairs(), ExpertDomains())]
    keys += [] if streams else [BlockSimilarity(blocks=BLOCKS[:2])]
    whole = gather(loaded, samples, keys, view=masked(loaded, plan, graph))
    told: list[str] = []
    bench = Bench(
        graph, lambda: stored, lambda: samples, lambda stage, at, of: told.append(stage), streamed=True
    )
    found = bench.measure(plan, frozenset(keys))
    assert all(("block by block" in stage) == streams for stage in told)
    for key in keys:
        assert set(found.get(key)) == set(whole.get(key))
        for name, value in whole.get(key).items():
            torch.testing.assert_close(found.get(key)[name], value, rtol=1e-5, atol=1e-6)
    counts = found.get(keys[0])
    assert all(count[[0, 3]].sum() == 0 and count.sum() > 0 for count in counts.values())


@pytest.mark.parametrize("build", [qwen, deepseek])
def test_routing_is_measured_block_by_block(build, samples, tmp_path, elements_read):
    torch.manual_seed(0)
    build().eval().save_pretrained(tmp_path / "model")
    stored, loaded = Subject(tmp_path / "model", stream=True).measured, Subject(tmp_path / "model").wide
    graph = trace_module(loaded)
    groups = [group for group in graph.groups if group.kind == "expert"]
    pairs = tuple((group.name, ((0, 3), (1, 2))) for group in groups)
    clusters = tuple((group.name, ((0, 3), (1,))) for group in groups)
    keys = tuple(
        key.on(graph, groups)
        for key in (
            ExpertPairs(),
            ExpertDomains(),
            ExpertLoad("gate"),
            RouterMoment(),
            RouterMoment(clusters),
            ExpertMean(tokens=20),
            ExpertMatch(tokens=20, pairs=pairs),
            Reconstruction(tokens=20),
            Reconstruction(sets=3, tokens=20),
        )
    )
    whole = gather(loaded, samples, keys)
    elements_read.clear()
    told: list[str] = []
    bench = Bench(
        graph, lambda: stored, lambda: samples, lambda stage, at, of: told.append(stage), streamed=True
    )
    found = bench.measure(Plan(graph.model_type), frozenset(keys))
    assert all("block by block" in stage for stage in told)
    for key in keys:
        assert found.get(key), key
        assert set(found.get(key)) == set(whole.get(key))
        for name, value in whole.get(key).items():
            torch.testing.assert_close(found.get(key)[name], value, rtol=1e-4, atol=1e-6)
    last = [name for name in elements_read if name.startswith(f"{BLOCKS[2]}.mlp.experts")]
    assert last
    own = loaded.get_submodule(f"{BLOCKS[2]}.mlp.experts").parameters()
    assert sum(elements_read[name] for name in last) == sum(p.numel() for p in own)  # each once in all


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (BlockSimilarity(blocks=BLOCKS[:2]), "is not of single blocks"),
        (InputMoment("mean", ("lm_head.weight",)), "lies in no block"),
    ],
)
def test_what_lies_elsewhere_is_measured_whole(folder, samples, key, why):
    stored = Subject(folder, stream=True).measured
    graph = llama_graph(stored.config)
    with pytest.raises(SurgeonError, match=why):
        gather_streamed(masked(stored, Plan("llama"), graph), BLOCKS, (), samples, [key])
    told: list[str] = []
    bench = Bench(
        graph, lambda: stored, lambda: samples, lambda stage, at, of: told.append(stage), streamed=True
    )
    found = bench.measure(Plan("llama"), frozenset({key})).get(key)
    expected = gather(Subject(folder).wide, samples, [key]).get(key)
    assert set(found) == set(expected)
    assert told
    assert all("whole batches" in stage for stage in told)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("gone", [(), (f"{BLOCKS[1]}.mlp",)], ids=["all", "without one"])
def test_sublayers_are_compared_with_the_weights_read_once(folder, samples, elements_read, gone):
    plan = CUT.add(DropBlock(name, 1) for name in gone)
    found = []
    for module, stream in ((Subject(folder).wide, False), (Subject(folder, stream=True).measured, True)):
        elements_read.clear()
        bench = Bench(
            llama_graph(module.config),
            lambda m=module: m,
            lambda: samples,
            lambda *said: None,
            streamed=stream,
        )
        found.append(part_similarity(bench, plan, BLOCKS))
    plain, streamed = found
    assert streamed == pytest.approx(plain, rel=1e-5)
    assert len(streamed) == 6 - len(plan.dropped)
    for block in BLOCKS[1:]:
        assert elements_read[f"{block}.self_attn.q_proj.weight"] == 48 * 48
        assert elements_read[f"{block}.mlp.up_proj.weight"] == 48 * 40


@pytest.mark.parametrize("recipe", ["shortgpt", "deeper_layers"])
def test_a_plan_by_block_influence_that_is_streamed_is_the_same(folder, recipe):
    ids = torch.randint(3, 53, (5, 12), generator=torch.Generator().manual_seed(0)).tolist()
    read = YAML(typ="safe").load(Path("recipes", f"{recipe}.yaml"))
    for part in ("calibration", "evaluation"):
        read.pop(part, None)
    plain = surgeon.plan(folder, read, texts=[ids])
    assert surgeon.plan(folder, read, texts=[ids], stream=True).edits == plain.edits
    assert plain.dropped
