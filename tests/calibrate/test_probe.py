"""The whole run of a few tokens that a Walk starts from, against counts and whole runs."""

from __future__ import annotations

import torch
from torch import nn

from surgeon.calibrate.packing import Samples, rows
from surgeon.calibrate.probe import TOKENS
from surgeon.calibrate.walk import Walk

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
