"""The whole run of a few tokens that a Walk starts from, against counts and whole runs."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import closing, nullcontext

import pytest
import torch
from torch import nn

from surgeon.calibrate.packing import Samples, rows
from surgeon.calibrate.probe import TOKENS
from surgeon.calibrate.walk import Walk
from surgeon.errors import SurgeonError
from surgeon.plan import Keep, Plan
from surgeon.rebuild import masked
from surgeon.rebuild.lazy import Lazy
from surgeon.rebuild.unread import Unread
from surgeon.trace import trace_module

IDS = torch.randint(3, 53, (6, 24), generator=torch.Generator().manual_seed(0))
BLOCKS = [f"model.layers.{i}" for i in range(3)]


def states_behind(model, block, ids):
    """States behind a block in a whole run, by a hook."""
    found = []
    hook = model.get_submodule(block).register_forward_hook(
        lambda part, args, out: found.append(out[0] if isinstance(out, tuple) else out)
    )
    with torch.no_grad():
        model(input_ids=ids, use_cache=False)
    hook.remove()
    return found[0]


def through(walk, forward):
    for _ in walk.blocks:
        walk.advance(forward)


def test_the_whole_run_is_of_a_few_tokens(small_llama):
    model, seen = small_llama(), []
    hook = model.get_submodule(BLOCKS[2]).register_forward_pre_hook(lambda part, args: seen.append(args[0]))
    walk = Walk.begin(model, BLOCKS, rows(IDS.tolist()), 4, model)
    hook.remove()
    assert [tuple(state.shape[:2]) for state in seen] == [(1, TOKENS)]
    assert [tuple(state.shape[:2]) for state in walk.probe.states] == [(1, TOKENS)] * 4


def test_it_begins_where_the_text_does(small_llama):
    mask = torch.ones_like(IDS[:1], dtype=torch.bool)
    mask[0, :5] = mask[0, 9] = False
    model = small_llama()
    walk = Walk.begin(model, BLOCKS, Samples(IDS[:1], mask), 1, model)
    assert torch.equal(walk.probe.samples.ids, IDS[:1, 5 : 5 + TOKENS])
    assert torch.equal(walk.probe.samples.mask, mask[:, 5 : 5 + TOKENS])


class Handing(nn.Module):
    """A block that returns a tensor as long as the text beside the state."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, **kwargs):
        return self.inner(x, **kwargs), x.new_ones(x.shape[:2])


class First(nn.Module):
    """Takes the state only, and adds what the block before returned beside it."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, **kwargs):
        state, more = x
        return self.inner(state, **kwargs) + more[..., None]


def test_blocks_that_return_more_tensors_are_called_with_those_of_a_whole_batch(small_llama):
    model = small_llama(initializer_range=0.3)
    layers = model.model.layers
    layers[0], layers[1] = Handing(layers[0]), First(layers[1])
    blocks = BLOCKS[:1]
    walk = Walk.begin(model, blocks, rows(IDS.tolist()), 3, model)
    assert walk.probe.samples.ids.shape == (3, 24)
    walk.advance(model)
    for number, batch in enumerate(walk.batches):
        want = states_behind(model, "model.layers.0", batch.ids)
        torch.testing.assert_close(walk.states[number], want)


def test_alongside_a_walk_the_whole_run_sees_the_same(small_llama):
    model = small_llama()
    whole = Walk.begin(model, BLOCKS, rows(IDS.tolist()), 4, model)
    with closing(Walk.begin(model, BLOCKS, rows(IDS.tolist()), 4, model, alongside=True)) as walk:
        for at in range(len(BLOCKS)):
            assert len(walk.probe.shapes) <= at + 1
            walk.advance(model)
            whole.advance(model)
            for mine, other in zip(walk.states, whole.states, strict=True):
                assert torch.equal(mine, other)
        assert walk.probe.shapes == whole.probe.shapes
        for mine, other in zip(walk.probe.states, whole.probe.states, strict=True):
            assert torch.equal(mine, other)


def test_alongside_a_walk_it_computes_with_the_weights_that_are_held(small_llama):
    model = small_llama()
    graph = trace_module(model)
    view = masked(model, Plan(graph.model_type), graph)
    reads = Counter()

    class Counting(Lazy):
        def __init__(self, name, tensor):
            super().__init__(tensor.shape, tensor.dtype)
            self.name, self.tensor = name, tensor

        def read(self):
            reads[self.name] += 1
            return self.tensor

    for name, tensor in list(model.named_parameters()):
        path, _, leaf = name.rpartition(".")
        if name.startswith("model.layers."):
            model.get_submodule(path)._parameters[leaf] = Unread(Counting(name, tensor.detach()))
    blocks = tuple(BLOCKS)
    samples = rows(IDS.tolist())
    with closing(Walk.begin(model, blocks, samples, 4, view.fixed(), alongside=True)) as walk:
        for at in range(len(blocks)):
            walk.advance(view.fixed(blocks[:at] + blocks[at + 1 :], blocks[at]))
    assert {count for name, count in reads.items() if not name.startswith(BLOCKS[0])} == {1}
    assert len(walk.probe.states) == len(blocks) + 1


@pytest.mark.parametrize("where", ["in what one run is given", "in the model"])
def test_what_blocks_hand_each_other_is_seen_alongside_too(small_llama, where):
    """In the model, the passes of the walk overwrite it for the run that waits."""
    model = small_llama(initializer_range=0.3)

    def place(kwargs):
        return model if where == "in the model" else kwargs["position_ids"]

    def give(part, args, kwargs, output):
        place(kwargs).handed = output[0] if isinstance(output, tuple) else output

    def take(part, args, kwargs):
        return (args[0] + place(kwargs).handed, *args[1:]), kwargs

    model.model.layers[0].register_forward_hook(give, with_kwargs=True)
    model.model.layers[2].register_forward_pre_hook(take, with_kwargs=True)
    with closing(Walk.begin(model, BLOCKS, rows(IDS.tolist()), 4, model, alongside=True)) as walk:
        with pytest.raises(SurgeonError, match="hand each other more"):
            through(walk, model)


def test_a_whole_run_that_is_ended_early_leaves_the_module_as_it_was(small_llama):
    model = small_llama().train()
    own, threads = dict(model.named_parameters()), threading.active_count()
    want = model(input_ids=IDS, use_cache=False).logits
    with closing(Walk.begin(model, BLOCKS, rows(IDS.tolist()), 4, model, alongside=True)) as walk:
        walk.advance(model)
    assert threading.active_count() == threads
    assert model.training
    assert all(one is own[name] for name, one in model.named_parameters())
    assert torch.equal(model(input_ids=IDS, use_cache=False).logits, want)
    assert not any(part._forward_hooks for part in model.modules())


def test_what_the_model_raises_alongside_is_raised_here(small_llama):
    model, threads = small_llama(), threading.active_count()

    def fail(part, args):
        raise RuntimeError("broken block")

    model.model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="broken block"):
        Walk.begin(model, BLOCKS, rows(IDS.tolist()), 4, model, alongside=True)
    assert threading.active_count() == threads


def test_alongside_blocks_that_return_more_tensors_a_whole_batch_is_run(small_llama):
    model = small_llama(initializer_range=0.3)
    layers = model.model.layers
    layers[0], layers[1] = Handing(layers[0]), First(layers[1])
    blocks = BLOCKS[:1]
    with closing(Walk.begin(model, blocks, rows(IDS.tolist()), 3, model, alongside=True)) as walk:
        assert walk.probe.samples.ids.shape == (3, 24)
        walk.advance(model)
    for number, batch in enumerate(walk.batches):
        torch.testing.assert_close(walk.states[number], states_behind(model, "model.layers.0", batch.ids))


@pytest.mark.parametrize("taken", [1, 2, 3])
@pytest.mark.parametrize("broken", [False, True])
def test_under_a_plan_the_module_is_afterwards_as_it_was(small_llama, taken, broken):
    """The tensors in force are in place for the whole run, and those of a block for its time."""
    model = small_llama()
    graph = trace_module(model)
    plan = Plan(graph.model_type, tuple(Keep(f"layers.{at}.mlp.ffn", (0, 2, 3), 0) for at in range(3)))
    view, own, blocks = masked(model, plan, graph), dict(model.named_parameters()), tuple(BLOCKS)
    walk = Walk.begin(model, blocks, rows(IDS.tolist()), 4, view.fixed(), alongside=True)
    if broken:
        model.get_submodule(BLOCKS[taken - 1]).mlp.register_forward_hook(lambda *_: 1 / 0)
    with closing(walk), pytest.raises((ZeroDivisionError, SurgeonError)) if broken else nullcontext():
        for at in range(taken):
            walk.advance(view.fixed(blocks[:at] + blocks[at + 1 :], blocks[at]))
    assert all(one is own[name] for name, one in model.named_parameters())
    assert len(own) == len(dict(model.named_parameters()))


def test_a_block_that_fails_alone_is_one_message(small_llama):
    """As where a block looks up what an earlier one left for it in the same run."""
    model = small_llama()

    def give(part, args, kwargs, output):
        if "_identity" not in part.forward.__qualname__:  # not where it is stepped over
            kwargs["position_ids"].handed = True

    def take(part, args, kwargs):
        assert kwargs["position_ids"].handed

    model.model.layers[0].register_forward_hook(give, with_kwargs=True)
    model.model.layers[1].register_forward_pre_hook(take, with_kwargs=True)
    with closing(Walk.begin(model, BLOCKS, rows(IDS.tolist()), 4, model, alongside=True)) as walk:
        walk.advance(model)
        with pytest.raises(SurgeonError, match=r"'model\.layers\.1' fails \(AttributeError") as caught:
            walk.advance(model)
    assert "do not stream" in str(caught.value)
