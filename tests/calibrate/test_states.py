"""What a run has accumulated can be put aside, taken up again, and joined with that of other ranks."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from surgeon.calibrate import Ranks, Samples, gather, rows
from surgeon.calibrate.absolute_gradient import AbsoluteGradient
from surgeon.calibrate.block_similarity import BlockSimilarity
from surgeon.calibrate.expert_load import ExpertLoad
from surgeon.calibrate.expert_match import ExpertMatch
from surgeon.calibrate.expert_mean import ExpertMean
from surgeon.calibrate.expert_moment import ExpertMoment
from surgeon.calibrate.fluctuation import Fluctuation
from surgeon.calibrate.gradient import Gradient
from surgeon.calibrate.gram import Gram
from surgeon.calibrate.input_moment import InputMoment
from surgeon.calibrate.reconstruction import Reconstruction
from surgeon.calibrate.router_moment import RouterMoment
from surgeon.calibrate.squared_gradient import SquaredGradient
from surgeon.calibrate.store import PartialRun
from surgeon.trace import trace_module

MOMENTS = tuple(InputMoment(moment) for moment in ("count", "mean", "variance", "second", "mean_abs"))
FORWARD = (
    *MOMENTS,
    Gram(),
    Gram(constant=True),
    BlockSimilarity(blocks=("model.layers.0", "model.layers.1")),
)
BACKWARD = (*FORWARD, Gradient(), SquaredGradient(), AbsoluteGradient())
RELEASED = (Fluctuation("baseline"), Fluctuation("fluctuation"), Fluctuation("scaler"))


@pytest.fixture
def samples() -> Samples:
    ids = torch.randint(3, 53, (6, 11), generator=torch.Generator().manual_seed(4))
    return rows([row[: 5 + place] for place, row in enumerate(ids.tolist())])


@pytest.fixture
def moe() -> Qwen3MoeForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 20, "moe_intermediate_size": 16, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": 53}
    config = Qwen3MoeConfig(**sizes, **heads, num_experts=5, num_experts_per_tok=2)
    return Qwen3MoeForCausalLM(config).eval()


def routed(model):
    graph = trace_module(model)
    groups = [group for group in graph.groups if group.kind == "expert"]
    loads = (ExpertLoad(load) for load in ("count", "gate", "norm", "gated_norm", "peak"))
    routers = (RouterMoment(), RouterMoment(tuple((g.name, ((0, 3), (1,))) for g in groups)))
    return [key.on(graph, groups) for key in (*loads, ExpertMoment(), *routers)]


def alone(model):
    """Statistics of experts that are run on tokens which they were not given."""
    graph = trace_module(model)
    groups = [group for group in graph.groups if group.kind == "expert"]
    pairs = tuple((group.name, ((0, 3), (3, 4))) for group in groups)
    keys = (ExpertMean(tokens=40), ExpertMatch(tokens=40, pairs=pairs), Reconstruction(tokens=40))
    return [key.on(graph, groups) for key in keys]


class Shelf:
    """A Store in memory."""

    def __init__(self):
        self.held: dict[str, dict[str, torch.Tensor]] = {}

    def load(self, key):
        found = self.held.get(key)
        return None if found is None else {name: tensor.clone() for name, tensor in found.items()}

    def save(self, key, tensors):
        self.held[key] = {name: tensor.clone() for name, tensor in tensors.items()}

    def remove(self, key):
        self.held.pop(key, None)


@dataclass(frozen=True)
class Threads(Ranks):
    """Ranks that are threads of this process, and talk through `slots`."""

    barrier: threading.Barrier = None
    slots: dict = None

    def _exchanged(self, value):
        self.slots[self.rank] = value
        self.barrier.wait(60)
        found = [self.slots[rank] for rank in range(self.size)]
        self.barrier.wait(60)
        return found

    def _all(self, value):
        return self._exchanged(value)

    def _sent(self, own, source, shape, dtype):
        sent = self._exchanged(own)[source]
        assert sent.shape == torch.Size(shape)
        assert sent.dtype == dtype
        return sent.clone()


def on_ranks(size, build, samples, keys):
    """What each of `size` ranks ends with."""
    barrier, slots = threading.Barrier(size), {}
    with ThreadPoolExecutor(size) as pool:
        runs = [
            pool.submit(gather, build(), samples, keys, ranks=Threads(rank, size, barrier, slots))
            for rank in range(size)
        ]
        return [run.result(120) for run in runs]


def assert_same(found, expected, keys, **tolerance):
    assert found.loss == pytest.approx(expected.loss, rel=1e-12)
    assert found.tokens == expected.tokens
    for key in keys:
        assert set(found.get(key)) == set(expected.get(key))
        for name, value in expected.get(key).items():
            torch.testing.assert_close(found.get(key)[name], value, **tolerance)


@pytest.mark.parametrize("size", [2, 7])
def test_ranks_end_with_what_one_has(small_llama, samples, size):
    keys = FORWARD if size == 7 else BACKWARD
    whole = gather(small_llama().double(), samples, keys)
    for found in on_ranks(size, lambda: small_llama().double(), samples, keys):
        assert_same(found, whole, keys, rtol=1e-9, atol=1e-12)


def test_ranks_share_routing_statistics(moe, samples):
    keys = routed(moe)
    whole = gather(moe, samples, keys)
    state = moe.state_dict()

    def build():
        copy = Qwen3MoeForCausalLM(moe.config).eval()
        copy.load_state_dict(state)
        return copy

    for found in on_ranks(2, build, samples, keys):
        assert_same(found, whole, keys, rtol=1e-9, atol=1e-12)


def test_experts_that_run_alone_are_seen_by_no_other_statistic(moe, samples):
    keys = [*routed(moe), *alone(moe)]
    together = gather(moe, samples, keys)
    for part in (routed(moe), alone(moe)):
        assert_same(together, gather(moe, samples, part), part, rtol=0, atol=0)


def test_ranks_share_nothing_where_order_matters(small_llama, samples):
    keys = (*RELEASED, InputMoment("mean"))
    whole = gather(small_llama().double(), samples, keys)
    for found in on_ranks(2, lambda: small_llama().double(), samples, keys):
        assert_same(found, whole, keys, rtol=0, atol=0)


class Killed(Exception):
    pass


def interrupted(model, samples, keys, after):
    """The result of a run that was killed after `after` samples and made again, and the samples that took."""
    shelf, forwards = Shelf(), []

    def kill(done, total):
        if done == after:
            raise Killed

    with pytest.raises(Killed):
        gather(model, samples, keys, progress=kill, partial=PartialRun(shelf, "run", interval=0))
    handle = model.register_forward_hook(lambda *seen: forwards.append(1))
    partial = PartialRun(shelf, "run", interval=0)
    found = gather(model, samples, keys, partial=partial)
    handle.remove()
    partial.over()
    assert not shelf.held
    return found, len(forwards)


@pytest.mark.parametrize("after", [1, 4])
def test_a_killed_run_goes_on_to_the_same_bits(small_llama, samples, after):
    keys = (*BACKWARD, *RELEASED)
    model = small_llama().bfloat16().float()
    found, forwards = interrupted(model, samples, keys, after)
    assert len(samples) - after <= forwards < len(samples)
    assert_same(found, gather(model, samples, keys), keys, rtol=0, atol=0)


@pytest.mark.parametrize("asked", [routed, alone])
def test_a_killed_run_of_routing_statistics_goes_on(moe, samples, asked):
    keys = asked(moe)
    found, forwards = interrupted(moe, samples, keys, 2)
    assert len(samples) - 2 <= forwards < len(samples)
    assert_same(found, gather(moe, samples, keys), keys, rtol=0, atol=0)


def test_what_cannot_be_put_aside_starts_over(moe, samples):
    graph = trace_module(moe)
    keys = [Reconstruction(sets=0).on(graph, [group for group in graph.groups if group.kind == "expert"])]
    found, forwards = interrupted(moe, samples, keys, 2)
    assert forwards == len(samples)
    assert_same(found, gather(moe, samples, keys), keys, rtol=0, atol=0)


def test_saving_is_as_rare_as_it_is_slow():
    shelf = Shelf()
    partial = PartialRun(shelf, "run", interval=1000)
    partial.put_aside((), 1, 0.5)
    assert not shelf.held
    assert PartialRun(shelf, "run").resume(()) == (0, 0.0)
