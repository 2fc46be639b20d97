"""Modules that are no language model: a small vision transformer and an MLP, beside torch_pruning."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch_pruning as tp
from torch import nn

import surgeon
from surgeon.rebuild.symmetry import prove, randomised

SIDE, PATCH, WIDTH, HEADS, MIDDLE, CLASSES = 12, 4, 20, 4, 28, 11
PICTURES = torch.zeros(5, 3, SIDE, SIDE)
ROWS = torch.zeros(5, 7)


class Layer(nn.Module):
    """Attention by torch's own module, and an MLP, each behind a norm."""

    def __init__(self):
        super().__init__()
        self.before, self.after = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.up, self.down = nn.Linear(WIDTH, MIDDLE), nn.Linear(MIDDLE, WIDTH)

    def forward(self, x):
        seen = self.before(x)
        x = x + self.attention(seen, seen, seen, need_weights=False)[0]
        return x + self.down(nn.functional.gelu(self.up(self.after(x))))


class Picture(nn.Module):
    """Patches, a token for the class, learned positions, two layers, a head."""

    def __init__(self):
        super().__init__()
        count = (SIDE // PATCH) ** 2 + 1
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.token = nn.Parameter(torch.rand(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.rand(1, count, WIDTH))
        self.layers = nn.ModuleList([Layer(), Layer()])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, image):
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)[:, 0])


def mlp():
    return nn.Sequential(
        nn.Linear(7, 12), nn.ReLU(), nn.Linear(12, 9), nn.LayerNorm(9), nn.Linear(9, CLASSES)
    )


@pytest.fixture
def vision():
    torch.manual_seed(0)
    return randomised(Picture().eval())


def test_a_vision_transformer_is_traced_with_its_stack_heads_and_middles(vision):
    graph = surgeon.trace(vision, inputs={"image": PICTURES.to(torch.float64)})
    (stack,) = graph.stacks
    assert [block.name for block in stack.blocks] == ["layers.0", "layers.1"]
    assert [[part.role for part in block.sublayers] for block in stack.blocks] == [["attn", "mlp"]] * 2
    free = {group.name: group.size for group in graph.groups if group.locked is None}
    assert free["hidden"] == WIDTH
    for number in range(2):
        assert free[f"layers.{number}.attn.kv_group"] == HEADS
        assert free[f"layers.{number}.mlp.ffn"] == MIDDLE
    places = " ".join(group.locked for group in graph.groups if group.kind == "position")
    assert "as long as the batch or the sequence" in places
    assert "kernel positions of a convolution" in places


def test_every_free_group_of_a_vision_transformer_is_a_symmetry(vision):
    graph = surgeon.trace(vision, inputs={"image": PICTURES.to(torch.float64)})
    image = torch.rand(PICTURES.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert [proof for proof in prove(vision, graph, inputs={"image": image}) if not proof.passed] == []


def theirs(module, example, layer):
    """Parameter and dim of everything that torch_pruning cuts together with the outputs of `layer`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = tp.DependencyGraph().build_dependency(module, example_inputs=example)
        members = graph.get_pruning_group(layer, tp.prune_linear_out_channels, [0])
    names = {id(part): name for name, part in module.named_modules()}
    found = set()
    for dependency, _ in members:
        name = names.get(id(dependency.target.module))
        if name is None:  # their stand-in for an op
            continue
        if "out_channels" in dependency.handler.__name__:
            found |= {(f"{name}.weight", 0), (f"{name}.bias", 0)}
        elif "in_channels" in dependency.handler.__name__:
            found.add((f"{name}.weight", 1))
    return found


def ours(graph, param):
    (group,) = [g for g in graph.groups if any((s.param, s.dim) == (param, 0) for s in g.sites)]
    return {(site.param, site.dim) for site in group.sites}


@pytest.mark.parametrize("number", [0, 2])
def test_groups_of_an_mlp_are_those_of_torch_pruning(number):
    module = mlp()
    graph = surgeon.trace(module, inputs={"input": ROWS})
    found = ours(graph, f"{number}.weight")
    # their handler of a norm cuts its weight and bias as outputs
    assert found == theirs(module, ROWS, module[number])


@pytest.mark.parametrize("name", ["layers.0.up", "layers.1.up"])
def test_middles_of_a_vision_transformer_are_those_of_torch_pruning(name):
    torch.manual_seed(0)
    module = Picture().eval()
    graph = surgeon.trace(module, inputs={"image": PICTURES})
    assert ours(graph, f"{name}.weight") == theirs(module, PICTURES, module.get_submodule(name))


class Zipped(nn.Module):
    """Layers whose parts stand in lists of their own, so that no module is a layer."""

    def __init__(self, layers=2):
        super().__init__()
        self.embed = nn.Embedding(26, 14)
        self.ups = nn.ModuleList(nn.Linear(14, 24) for _ in range(layers))
        self.downs = nn.ModuleList(nn.Linear(24, 14) for _ in range(layers))
        self.out = nn.Linear(14, 26)

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        for up, down in zip(self.ups, self.downs, strict=True):
            hidden = hidden + down(up(hidden).relu())
        return self.out(hidden)


def test_without_blocks_the_stream_is_what_ids_are_looked_up_to():
    graph = surgeon.trace(Zipped(), inputs={"input_ids": torch.zeros(5, 19, dtype=torch.int64)})
    assert graph.stacks == ()
    kinds = {(group.kind, group.size) for group in graph.groups}
    assert kinds == {("vocab", 26), ("hidden", 14), ("ffn", 24)}
    (stream,) = [group for group in graph.groups if group.kind == "hidden"]
    assert {"embed.weight", "ups.1.weight", "downs.1.bias", "out.weight"} <= set(stream.params)
    assert [group.name for group in graph.groups if group.kind == "ffn"] == ["ffn", "ffn_2"]
