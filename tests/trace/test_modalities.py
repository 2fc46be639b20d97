"""Images and sounds beside text: which layout, how many placeholders, and what is found by them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import WhisperConfig

from surgeon.rebuild.skeleton import skeleton
from surgeon.rebuild.symmetry import prove, randomised
from surgeon.trace import recorded_inputs, trace_module
from tests.trace.dump import site_text

VOCAB, WIDTH, TOWER, SIDE, PATCH, MARK = 26, 14, 10, 12, 4, 23
ROW = SIDE // PATCH
CONFIG = {
    "image_token_id": MARK,
    "audio_token_id": MARK,
    "image_size": SIDE,
    "patch_size": PATCH,
    "num_mel_bins": 6,
}


class Reader(nn.Module):
    """Text, and a tower whose projected features replace the placeholders in it."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(**CONFIG)
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.connect = nn.Linear(TOWER, WIDTH)
        self.out = nn.Linear(WIDTH, VOCAB)

    def get_input_embeddings(self):
        return self.embed

    def read(self, input_ids, features=None):
        hidden = self.embed(input_ids)
        if features is not None:
            mask = input_ids == MARK
            if int(mask.sum()) != features.shape[:-1].numel():
                raise ValueError("as many placeholders as features, please")
            hidden = hidden.masked_scatter(mask.unsqueeze(-1).expand_as(hidden), features)
        return self.out(hidden.tanh())


class Pictures(Reader):
    """[rows, 3, 12, 12] as patches of 4."""

    def __init__(self):
        super().__init__()
        self.tower = nn.Conv2d(3, TOWER, PATCH, PATCH)

    def get_image_features(self, pixel_values):
        if pixel_values.dim() != 4:
            raise ValueError("one picture a row, please")
        return self.connect(self.tower(pixel_values).flatten(2).transpose(1, 2))

    def forward(self, input_ids, pixel_values=None):
        return self.read(input_ids, None if pixel_values is None else self.get_image_features(pixel_values))


class Tiles(Pictures):
    """[rows, 2, 3, 12, 12]: every picture in two parts."""

    def get_image_features(self, pixel_values):
        rows, tiles, *picture = pixel_values.shape
        if tiles != 2:
            raise ValueError("two tiles, please")
        return super().get_image_features(pixel_values.reshape(rows * tiles, *picture))


class Patches(Reader):
    """[patches, 3 * 4 * 4] beside a grid, four patches merged to one."""

    def __init__(self):
        super().__init__()
        self.tower = nn.Conv2d(3, TOWER, PATCH, PATCH)
        self.merge = nn.Linear(4 * TOWER, TOWER)

    def get_image_features(self, pixel_values, image_grid_thw):
        if int(image_grid_thw.prod(-1).sum()) != len(pixel_values):
            raise ValueError("as many patches as the grid has, please")
        made = self.tower(pixel_values.view(-1, 3, PATCH, PATCH)).view(-1, 4 * TOWER)
        return self.connect(self.merge(made).tanh())

    def forward(self, input_ids, pixel_values=None, image_grid_thw=None):
        if pixel_values is None:
            return self.read(input_ids)
        return self.read(input_ids, self.get_image_features(pixel_values, image_grid_thw))


class Rows(Pictures):
    """As Pictures, each patch told its number by a table, and the patches of a row merged to one."""

    def __init__(self):
        super().__init__()
        self.register_buffer("numbers", torch.arange(ROW**2), persistent=False)
        self.places = nn.Embedding(ROW**2, TOWER)
        self.norm, self.merge = nn.LayerNorm(ROW * TOWER), nn.Linear(ROW * TOWER, TOWER)

    def get_image_features(self, pixel_values):
        if pixel_values.dim() != 4:
            raise ValueError("one picture a row, please")
        patches = self.tower(pixel_values).flatten(2).transpose(1, 2) + self.places(self.numbers)
        merged = self.merge(self.norm(patches.reshape(len(patches), ROW, ROW * TOWER)))
        return self.connect(merged.tanh())


class Sounds(Reader):
    """[rows, 6, frames], two frames a step."""

    def __init__(self):
        super().__init__()
        self.tower = nn.Conv1d(6, TOWER, 2, 2)

    def get_audio_features(self, input_features):
        return self.connect(self.tower(input_features).transpose(1, 2))

    def forward(self, input_ids, input_features=None):
        return self.read(
            input_ids, None if input_features is None else self.get_audio_features(input_features)
        )


class Shapes(Reader):
    """[rows, patches, 3 * 4 * 4] beside heights, widths and a mask that the function does not name."""

    def __init__(self):
        super().__init__()
        self.tower = nn.Linear(3 * PATCH * PATCH, TOWER)

    def get_image_features(self, pixel_values, **beside):
        return self.look(pixel_values, **beside)

    def look(self, pixel_values, spatial_shapes, pixel_attention_mask):
        if spatial_shapes.prod(-1).tolist() != pixel_attention_mask.sum(-1).tolist():
            raise ValueError("as many patches as the shape has, please")
        return self.connect(self.tower(pixel_values).tanh())

    def forward(self, input_ids, pixel_values=None, spatial_shapes=None, pixel_attention_mask=None):
        if pixel_values is None:
            return self.read(input_ids)
        return self.read(input_ids, self.look(pixel_values, spatial_shapes, pixel_attention_mask))


class MergedGrids(Patches):
    """Patches, beside how many of them each picture wants merged each way."""

    def get_image_features(self, pixel_values, image_grid_thw, image_merge_sizes):
        if len(image_merge_sizes) != len(image_grid_thw):
            raise ValueError("a number a picture, please")
        return super().get_image_features(pixel_values, image_grid_thw)

    def forward(self, input_ids, pixel_values=None, image_grid_thw=None, image_merge_sizes=None):
        if pixel_values is None:
            return self.read(input_ids)
        return self.read(input_ids, self.get_image_features(pixel_values, image_grid_thw, image_merge_sizes))


class Windows(Sounds):
    """Sounds in whole windows of frames, and a mask that is not over the frames."""

    def __init__(self):
        super().__init__()
        self.config.n_window = 11

    def get_audio_features(self, input_features):
        if input_features.shape[-1] % 22:
            raise ValueError("whole windows, please")
        return super().get_audio_features(input_features)

    def forward(self, input_ids, input_features=None, input_features_mask=None):
        if input_features_mask is not None:
            raise ValueError("a mask over the features, please")
        return super().forward(input_ids, input_features)


ALL = pytest.mark.parametrize("kind", [Pictures, Tiles, Patches, MergedGrids, Shapes, Rows, Sounds, Windows])


def made(kind):
    torch.manual_seed(0)
    return randomised(kind().eval())


@ALL
def test_the_tower_is_recorded_in_the_layout_that_the_model_takes(kind):
    module = made(kind)
    text, both = recorded_inputs(module)
    assert set(text) == {"input_ids"}
    name = "input_features" if issubclass(kind, Sounds) else "pixel_values"
    assert both[name].dtype == torch.float64
    assert len({*both["input_ids"].shape}) == 2
    with torch.no_grad():
        module(**both)


@ALL
def test_tower_and_projector_are_found_and_proven(kind):
    module = made(kind)
    graph = trace_module(module)
    assert [p.name for p in graph.parameters.values() if not p.touched] == []
    found = {frozenset(site_text(site) for site in group.sites): group.locked for group in graph.groups}
    stream = {"embed.weight[1]", "connect.weight[0]", "connect.bias[0]", "out.weight[1]"}
    assert found[frozenset(f"{place} 0+[{WIDTH}:1]" for place in stream)] is None
    assert any("tower.weight[0]" in " ".join(sites) for sites, lock in found.items() if lock is None)
    feed = recorded_inputs(module)[-1]
    draw = torch.Generator().manual_seed(0)
    noisy = {
        name: torch.rand(value.shape, generator=draw, dtype=torch.float64)
        if value.is_floating_point()
        else value
        for name, value in feed.items()
    }
    proofs = prove(module, graph, inputs=noisy)
    assert [proof for proof in proofs if not proof.passed] == []


def test_patches_that_are_merged_are_structure_also_where_a_buffer_numbers_them():
    graph = trace_module(made(Rows))
    assert [str(group.axis) for group in graph.groups if group.kind == "position" and group.size == ROW] == []
    features = next(group for group in graph.groups if "norm.weight" in group.params)
    (layout,) = [site.layout for site in features.sites if site.param == "norm.weight"]
    assert [mode.extent for mode in layout.modes] == [ROW, TOWER]
    assert features.locked is None


def test_a_model_that_hears_and_takes_no_text_is_traced_from_sounds():
    config = WhisperConfig(
        vocab_size=151, d_model=60, encoder_layers=1, decoder_layers=1, encoder_attention_heads=6,
        decoder_attention_heads=6, encoder_ffn_dim=88, decoder_ffn_dim=92, num_mel_bins=10,
        max_source_positions=22, max_target_positions=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1,
    )  # fmt: skip
    config.architectures = ["WhisperForConditionalGeneration"]
    module = skeleton(config)
    (feed,) = recorded_inputs(module)
    assert feed["input_features"].shape[1:] == (10, 44)
    assert "input_ids" not in feed
    graph = trace_module(module)
    free = sorted(
        str(group.axis) for group in graph.groups if group.locked is None and group.kind != "head_dim"
    )
    # two streams, encoder and decoder; what lies between the two convolutions is neither
    streams = ["channel(60)", "ffn(88)", "ffn(92)", "hidden(60)", "hidden(60)"]
    assert free == [*streams, *["kv_group(6)"] * 3, "vocab(151)"]


def test_a_placeholder_ties_what_lies_before_it_in_the_vocabulary():
    graph = trace_module(made(Pictures))
    rows = [
        group for group in graph.groups if any(s.param == "embed.weight" and s.dim == 0 for s in group.sites)
    ]
    assert [(group.kind, group.size) for group in rows] == [("vocab", MARK), ("vocab", VOCAB - MARK - 1)]
    assert [group.locked for group in rows] == [None, None]


def test_what_no_layout_reaches_is_noted():
    class Stubborn(Pictures):
        def get_image_features(self, pixel_values):
            raise ValueError("not today")

    graph = trace_module(made(Stubborn))
    assert "4 parameters were not used in this forward pass" in graph.notes[0]
    hidden = next(group for group in graph.groups if group.size == WIDTH)
    assert hidden.locked == "parameters that this forward pass did not use may share it"
