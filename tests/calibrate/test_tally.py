"""Sums under tried Plans: the same on every rank, and asked again they run nothing."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
import torch
from transformers import LlamaForCausalLM

from surgeon.calibrate import Bench, Ranks, rows
from surgeon.calibrate.divergence import divergences
from surgeon.calibrate.last_hidden import Likeness
from surgeon.calibrate.memory import Memory
from surgeon.calibrate.skipping import losses_without, losses_without_parts
from surgeon.operations.guard import Guard
from surgeon.plan import Assign, DropBlock, Plan
from surgeon.trace import trace_module
from tests.calibrate.test_states import Shelf, Threads
from tests.conftest import llama_config

BLOCKS = tuple(f"model.layers.{place}" for place in range(3))
NOTHING = Plan("llama")
GONE = NOTHING.add([DropBlock(BLOCKS[1], 0)])
IDS = torch.randint(3, 53, (5, 9), generator=torch.Generator().manual_seed(1)).tolist()


def damage(metric):
    return lambda bench: (Guard(metric=metric, max=1).damage(bench, GONE),)


ASKED = {
    "divergences": lambda bench: divergences(bench, NOTHING, (GONE, NOTHING)),
    "runs": lambda bench: losses_without(bench, NOTHING, BLOCKS, [(0, 1), (1, 3)])[1],
    "parts": lambda bench: losses_without_parts(bench, NOTHING, BLOCKS, [(2, f"{BLOCKS[2]}.mlp")]),
    "likeness": lambda bench: (Likeness(bench, NOTHING, bench.samples).of(GONE),),
    **{metric: damage(metric) for metric in ("perplexity", "similarity", "kl", "first_divergent_token")},
}


@cache
def traced():
    return trace_module(LlamaForCausalLM(llama_config()))


def build():
    torch.manual_seed(0)
    return LlamaForCausalLM(llama_config()).double().eval()


def bench_of(model, memory=None, ids=IDS, told=None) -> Bench:
    samples = rows([row[: len(row) - place % 2] for place, row in enumerate(ids)])
    return Bench(traced(), lambda: model, lambda: samples, told or (lambda *said: None), memory)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", sorted(ASKED))
def test_ranks_agree_with_one_process(name, streamed, monkeypatch):
    expected = ASKED[name](bench_of(build()))
    here, barrier, slots = threading.local(), threading.Barrier(2), {}
    monkeypatch.setattr(Ranks, "now", classmethod(lambda cls: getattr(here, "rank", Ranks())))
    benches = [bench_of(build(), Memory(shelf, lambda: "it")) for shelf in (Shelf(), Shelf())]
    for bench in benches:
        bench.streamed = streamed

    def one(rank):
        here.rank = Threads(rank, 2, barrier, slots)
        return ASKED[name](benches[rank])

    with torch.no_grad(), ThreadPoolExecutor(2) as pool:
        first, second = (run.result(120) for run in [pool.submit(one, rank) for rank in (0, 1)])
    assert first == second
    assert first == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", sorted(ASKED))
def test_asked_again_it_runs_nothing(name):
    shelf, told = Shelf(), []
    found = ASKED[name](bench_of(build(), Memory(shelf, lambda: "it")))
    again = bench_of(build(), Memory(shelf, lambda: "it"), told=lambda *said: told.append(said))
    assert ASKED[name](again) == found
    assert not told
    assert "module" not in vars(again)  # not even loaded


def test_whatever_differs_is_measured_anew():
    shelf, model = Shelf(), build()
    value = model.model.layers[0].mlp.up_proj.weight.detach()
    name = "model.layers.0.mlp.up_proj.weight"
    plan = NOTHING.add([Assign(name, "test")], {name: value * 2})
    other = NOTHING.add([Assign(name, "test")], {name: value * 3})

    def runs(base=NOTHING, tried=plan, identity="it", ids=IDS, tokens=None) -> int:
        memory = Memory(shelf, lambda: identity)
        divergences(bench_of(model, memory, ids), base, (tried,), tokens)
        return memory.runs

    assert runs() == 1
    assert runs() == 0
    assert runs(tried=other) == 1
    assert runs(base=other) == 1
    assert runs(identity="another") == 1
    assert runs(ids=IDS[::-1]) == 1
    assert runs(tokens=9) == 1
    assert runs() == 0
