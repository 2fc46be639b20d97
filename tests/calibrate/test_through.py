"""Guards and tried plans of a streamed model: the numbers of whole runs, each weight read once a plan."""

from __future__ import annotations

import pytest
import torch

from surgeon.api.subject import Subject
from surgeon.calibrate import Bench, Memory, Samples, pace, rows
from surgeon.calibrate.divergence import divergences
from surgeon.calibrate.last_hidden import Likeness
from surgeon.calibrate.tally import tally
from surgeon.errors import SurgeonError
from surgeon.io.statistics_cache import StatisticsCache
from surgeon.io.waiting import Waiting
from surgeon.operations.guard import Guard
from surgeon.plan import DropBlock, Keep, Plan
from surgeon.trace import trace_module
from tests.calibrate.test_blocks_held import folder as sharing_folder
from tests.handmade import llama_graph

__all__ = ["sharing_folder"]

BLOCKS = tuple(f"model.layers.{place}" for place in range(3))
NOTHING = Plan("llama")
CUT = NOTHING.add([Keep("layers.1.mlp.ffn", tuple(range(0, 40, 3)), 0)])
PLANS = {
    "cut": CUT,
    "without the first": CUT.add([DropBlock(BLOCKS[0], 1)]),
    "without the last": CUT.add([DropBlock(BLOCKS[2], 1)]),
    "without a sublayer": CUT.add([DropBlock(f"{BLOCKS[1]}.self_attn", 1)]),
}
ASKED = {
    **{
        metric: (lambda bench, plan, metric=metric: Guard(metric=metric, max=1).damage(bench, plan))
        for metric in ("perplexity", "similarity", "kl")
    },
    "divergences": lambda bench, plan: sum(divergences(bench, NOTHING, (plan, NOTHING), 20)),
    "likeness": lambda bench, plan: Likeness(bench, NOTHING, bench.samples).of(plan),
}


@pytest.fixture
def folder(small_llama, tmp_path):
    small_llama().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def samples() -> Samples:
    ids = torch.randint(3, 53, (5, 11), generator=torch.Generator().manual_seed(4))
    return rows([row[: 7 + place] for place, row in enumerate(ids.tolist())])


def bench_of(folder, told=lambda *said: None, memory=None, stream=True, keep=None) -> Bench:
    subject = Subject(folder, stream=stream)
    module = subject.measured if stream else subject.wide
    graph = llama_graph(module.config)
    own = {} if keep is None else {"keep": keep}
    return Bench(graph, lambda: module, samples, told, memory, streamed=stream, **own)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("name", ASKED)
def test_the_same_numbers_as_whole_runs(folder, name, plan):
    stages: list[str] = []
    streamed = bench_of(folder, lambda stage, *at: stages.append(stage), keep=Waiting(1000).keep)
    expected = ASKED[name](bench_of(folder, stream=False), plan)
    assert ASKED[name](streamed, plan) == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert any("block by block" in stage for stage in stages)


def test_weights_of_blocks_are_read_once_a_plan(folder, elements_read):
    divergences(bench_of(folder), NOTHING, (CUT, NOTHING))
    for at in (1, 2):  # what stands at the first is read once more, to see how blocks are called
        assert elements_read[f"{BLOCKS[at]}.mlp.gate_proj.weight"] == 3 * 48 * 40
        assert elements_read[f"{BLOCKS[at]}.self_attn.o_proj.weight"] == 3 * 48 * 48


def test_what_was_run_before_is_known(folder):
    """The reference of several comparisons goes through once."""
    stages: list[str] = []
    bench = bench_of(folder, lambda stage, *at: stages.append(stage))
    likeness = Likeness(bench, NOTHING, bench.samples)
    likeness.of(CUT)
    first = sum("block by block" in stage for stage in stages)
    likeness.of(PLANS["without the first"])
    assert first == 2 * len(BLOCKS)
    assert sum("block by block" in stage for stage in stages) == 3 * len(BLOCKS)


def test_a_run_that_was_killed_goes_on_at_its_block(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pace, "SHARE", 0)
    expected = ASKED["perplexity"](bench_of(folder), CUT)
    memory = Memory(StatisticsCache(tmp_path / "cache"), lambda: "this model", interval=0.0)

    def stop(stage: str, at: int, total: int | None) -> None:
        if at == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ASKED["perplexity"](bench_of(folder, stop, memory), CUT)
    blocks: list[int] = []

    def told(stage: str, at: int, total: int | None) -> None:
        blocks.extend([at] if "block by block" in stage else [])

    assert ASKED["perplexity"](bench_of(folder, told, memory), CUT) == expected
    assert blocks == [3]
    blocks.clear()
    assert ASKED["perplexity"](bench_of(folder, told, memory), CUT) == expected
    assert not blocks  # now it is remembered


def test_blocks_that_hand_on_more_are_run_whole(sharing_folder):
    subject, plain = Subject(sharing_folder, stream=True), Subject(sharing_folder)
    graph = trace_module(plain.wide)
    plan = Plan(graph.model_type).add([Keep(graph.of_kind("ffn")[0].name, tuple(range(9)), 0)])
    found = []
    for module, stream in ((plain.wide, False), (subject.measured, True)):
        bench = Bench(graph, lambda m=module: m, samples, lambda *said: None, streamed=stream)
        found.append(divergences(bench, Plan(graph.model_type), (plan,))[0])
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert bench.apart


def test_a_streamed_model_is_called_with_its_batch_alone(folder):
    bench = bench_of(folder)
    batches = tuple(bench.samples.unpadded(1))

    def each(models, batch):
        return models[0](input_ids=batch.ids[:, :3]).logits.sum()[None]

    with pytest.raises(SurgeonError, match="other inputs than batch 0"):
        tally(bench, "heads", (NOTHING,), batches, each, "stage", once=True)
