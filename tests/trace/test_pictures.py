"""Layouts of pictures beyond a plain one: patches apart, pixels, strips, masked and shaped tiles, videos."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from surgeon.rebuild.symmetry import prove
from surgeon.trace import recorded_inputs, trace_module
from tests.trace.dump import site_text
from tests.trace.test_modalities import PATCH, SIDE, TOWER, WIDTH, Pictures, Reader, made

VALUES = 3 * PATCH * PATCH


class Projected(Reader):
    """A tower that is one projection of the values of a patch."""

    def __init__(self):
        super().__init__()
        self.tower = nn.Linear(VALUES, TOWER)

    def look(self, patches):
        return self.connect(self.tower(patches).tanh())


class Apart(Pictures):
    """[patches, 3, 4, 4] beside a grid."""

    def get_image_features(self, pixel_values, image_grid_thw):
        if pixel_values.dim() != 4 or int(image_grid_thw.prod(-1).sum()) != len(pixel_values):
            raise ValueError("patches beside a grid, please")
        return self.connect(self.tower(pixel_values).flatten(1))

    def forward(self, input_ids, pixel_values=None, image_grid_thw=None):
        if pixel_values is None:
            return self.read(input_ids)
        return self.read(input_ids, self.get_image_features(pixel_values, image_grid_thw))


class OneBatch(Apart):
    """[1, patches, 3, 4, 4] beside a grid."""

    def get_image_features(self, pixel_values, image_grid_thw):
        if pixel_values.dim() != 5 or len(pixel_values) != 1:
            raise ValueError("one batch of patches, please")
        return super().get_image_features(pixel_values[0], image_grid_thw)


class Pixels(Projected):
    """[pixels, 3] beside a grid of patches."""

    def get_image_features(self, pixel_values, image_grid_thw):
        if pixel_values.shape != (int(image_grid_thw.prod(-1).sum()) * PATCH * PATCH, 3):
            raise ValueError("every pixel by itself, please")
        return self.look(pixel_values.reshape(-1, VALUES))

    def forward(self, input_ids, pixel_values=None, image_grid_thw=None):
        if pixel_values is None:
            return self.read(input_ids)
        return self.read(input_ids, self.get_image_features(pixel_values, image_grid_thw))


class Strip(Pictures):
    """[1, 3, 4, 4 * patches] beside the grid of each picture."""

    def get_image_features(self, pixel_values, target_sizes):
        made = self.tower(pixel_values).flatten(2).transpose(1, 2)[0]
        if int(target_sizes.prod(-1).sum()) != len(made):
            raise ValueError("as many patches as the grids have, please")
        return self.connect(made)

    def forward(self, input_ids, pixel_values=None, target_sizes=None):
        if pixel_values is None:
            return self.read(input_ids)
        return self.read(input_ids, self.get_image_features(pixel_values, target_sizes))


class MaskedTiles(Pictures):
    """[rows, tiles, 3, 12, 12] beside which of the tiles are there."""

    def get_image_features(self, pixel_values, pixel_attention_mask):
        return super().get_image_features(pixel_values[pixel_attention_mask])

    def forward(self, input_ids, pixel_values=None, pixel_attention_mask=None):
        if pixel_values is None:
            return self.read(input_ids)
        return self.read(input_ids, self.get_image_features(pixel_values, pixel_attention_mask))


class Resolutions(Pictures):
    """[rows, whole and tiles, 3, 12, 12], as many as the sizes of the pictures call for."""

    def __init__(self):
        super().__init__()
        self.config.image_grid_pinpoints = [[2 * SIDE, 3 * SIDE]]

    def get_image_features(self, pixel_values, image_sizes):
        if pixel_values.shape[1:-3] != (7,) or image_sizes.tolist() != [[SIDE, SIDE]] * len(pixel_values):
            raise ValueError("the whole and six tiles, please")
        return super().get_image_features(pixel_values.flatten(0, 1))

    def forward(self, input_ids, pixel_values=None, image_sizes=None):
        if pixel_values is None:
            return self.read(input_ids)
        return self.read(input_ids, self.get_image_features(pixel_values, image_sizes))


class ShapedTiles(Pictures):
    """[rows, pictures, 4 tiles, 3, 12, 12] beside the shape and the mask of the tiles; it has no function."""

    get_image_features = None

    def __init__(self):
        super().__init__()
        self.config.max_num_tiles = 4
        self.shapes = nn.Embedding(3, TOWER)

    def forward(self, input_ids, pixel_values=None, aspect_ratio_ids=None, aspect_ratio_mask=None):
        hidden = self.embed(input_ids)
        if pixel_values is not None:
            if pixel_values.shape[2] != 4 or pixel_values.shape[:3] != aspect_ratio_mask.shape:
                raise ValueError("four tiles, please")
            seen = self.tower(pixel_values.flatten(0, 2)).mean((-1, -2)).view(len(hidden), -1, TOWER)
            hidden = hidden + self.connect((seen + self.shapes(aspect_ratio_ids)).mean(1, keepdim=True))
        return self.out(hidden.tanh())


class BarePatches(Projected):
    """[patches, 48] of all rows, and nothing beside."""

    def get_image_features(self, pixel_values):
        if pixel_values.dim() != 2:
            raise ValueError("patches alone, please")
        return self.look(pixel_values)

    def forward(self, input_ids, pixel_values=None):
        return self.read(input_ids, None if pixel_values is None else self.get_image_features(pixel_values))


class Pooled(Projected):
    """[crops, places, 48] beside which patches each token is made of, and how many tokens there are."""

    def __init__(self):
        super().__init__()
        self.config.num_position_embeddings = 10
        self.places = nn.Parameter(torch.randn(10, TOWER))

    def get_image_features(self, pixel_values, image_token_pooling, image_grids):
        patches = (self.tower(pixel_values) + self.places).tanh().flatten(0, 1)
        if image_token_pooling.unique().numel() != len(patches):
            raise ValueError("every patch in some token, please")
        tokens = patches[image_token_pooling].sum(1)
        if int((image_grids[:, 0] * image_grids[:, 1] + image_grids[:, 2] * image_grids[:, 3]).sum()) != len(
            tokens
        ):
            raise ValueError("as many tokens as the grids have, please")
        return self.connect(tokens)

    def forward(self, input_ids, pixel_values=None, image_token_pooling=None, image_grids=None):
        if pixel_values is None:
            return self.read(input_ids)
        return self.read(input_ids, self.get_image_features(pixel_values, image_token_pooling, image_grids))


class Called(Pictures):
    """A config that has another name for the token of an image than all the others."""

    def __init__(self):
        super().__init__()
        fields = vars(self.config)
        token = fields.pop("image_token_id")
        config = type("Config", (type(self.config),), {"attribute_map": {"image_token_id": "image_patch_id"}})
        config.image_token_id = property(lambda config: config.image_patch_id)
        self.config = config(image_start_token_id=2, image_patch_id=token, **fields)


class Begun(Pictures):
    """A config that names the token before an image first."""

    def __init__(self):
        super().__init__()
        self.config = type(self.config)(image_start_token_id=2, **vars(self.config))


class Mute(Pictures):
    """Plain pictures run, but only tiles are looked at."""

    get_image_features = None

    def forward(self, input_ids, pixel_values=None):
        if pixel_values is None or pixel_values.dim() == 4:
            return self.read(input_ids)
        seen = self.connect(self.tower(pixel_values.flatten(0, 1)).mean((-1, -2)))
        return self.out((self.embed(input_ids) + seen[:, None]).tanh())


LAYOUTS = [Apart, OneBatch, Pixels, Strip, MaskedTiles, Resolutions, ShapedTiles, BarePatches, Pooled]
LAYOUTS += [Called, Begun, Mute]


@pytest.mark.parametrize("kind", LAYOUTS)
def test_the_tower_is_reached_and_what_is_found_is_proven(kind):
    module = made(kind)
    text, both = recorded_inputs(module)
    assert set(text) == {"input_ids"}
    graph = trace_module(module)
    assert [p.name for p in graph.parameters.values() if not p.touched] == []
    found = {frozenset(site_text(site) for site in group.sites): group.locked for group in graph.groups}
    assert all(len({*group.ports}) == len(group.ports) for group in graph.groups)
    stream = {"embed.weight[1]", "connect.weight[0]", "connect.bias[0]", "out.weight[1]"}
    assert found[frozenset(f"{place} 0+[{WIDTH}:1]" for place in stream)] is None
    assert any("connect.weight[1]" in " ".join(sites) for sites, lock in found.items() if lock is None)
    draw = torch.Generator().manual_seed(0)
    noisy = {
        name: torch.rand(value.shape, generator=draw, dtype=torch.float64)
        if value.is_floating_point()
        else value
        for name, value in both.items()
    }
    assert [proof for proof in prove(module, graph, inputs=noisy) if not proof.passed] == []


class Films(Pictures):
    """A tower for pictures, and another for the frames of a video."""

    def __init__(self):
        super().__init__()
        self.config.video_token_id = 4
        self.frames = nn.Conv2d(3, TOWER, SIDE, SIDE)
        self.join = nn.Linear(TOWER, WIDTH)

    def get_video_features(self, pixel_values_videos):
        return self.join(self.frames(pixel_values_videos.flatten(0, 1)).flatten(1))

    def forward(self, input_ids, pixel_values=None, pixel_values_videos=None):
        if pixel_values_videos is None:
            return super().forward(input_ids, pixel_values)
        mask = (input_ids == 4)[..., None]
        hidden = self.embed(input_ids)
        seen = self.get_video_features(pixel_values_videos)
        return self.out(hidden.masked_scatter(mask.expand_as(hidden), seen).tanh())


def test_videos_are_recorded_where_they_have_a_tower_of_their_own():
    module = made(Films)
    feeds = recorded_inputs(module)
    assert [sorted(feed)[-1] for feed in feeds] == ["input_ids", "pixel_values", "pixel_values_videos"]
    graph = trace_module(module)
    assert [p.name for p in graph.parameters.values() if not p.touched] == []
    (stream,) = [group for group in graph.groups if "embed.weight" in group.params and group.size == WIDTH]
    assert {"connect.weight", "join.weight", "out.weight"} <= set(stream.params)
    assert stream.locked is None


class SecondVocabulary(Reader):
    """A text beside the text, with a vocabulary of its own."""

    def __init__(self):
        super().__init__()
        self.second = nn.Embedding(19, TOWER)

    def forward(self, input_ids, formula_input_ids=None, formula_attention_mask=None):
        hidden = self.embed(input_ids)
        if formula_input_ids is not None:
            seen = self.second(formula_input_ids) * formula_attention_mask[..., None]
            hidden = hidden + self.connect(seen.mean(1, keepdim=True))
        return self.out(hidden.tanh())


class Entities(Reader):
    """What a text speaks of, beside the text: which, and where."""

    def __init__(self):
        super().__init__()
        self.second = nn.Embedding(19, TOWER)
        self.config.entity_vocab_size = 19

    def forward(self, input_ids, entity_ids=None, entity_position_ids=None):
        hidden = self.embed(input_ids)
        if entity_ids is not None:
            seen = self.second(entity_ids) * entity_position_ids.ge(0).sum(-1, keepdim=True)
            hidden = hidden + self.connect(seen.mean(1, keepdim=True))
        return self.out(hidden.tanh())


class Listening(Reader):
    """A decoder that is handed what an encoder gave."""

    def forward(self, input_ids, encoder_outputs=None):
        hidden = self.embed(input_ids)
        if encoder_outputs is not None:
            hidden = hidden + self.lower(encoder_outputs).mean(1, keepdim=True)
        return self.out(hidden.tanh())

    def __init__(self):
        super().__init__()
        del self.connect
        self.lower = nn.Linear(WIDTH, WIDTH)


@pytest.mark.parametrize("kind", [SecondVocabulary, Entities, Listening])
def test_what_another_text_or_an_encoder_reaches_is_recorded(kind):
    module = made(kind)
    graph = trace_module(module)
    assert [p.name for p in graph.parameters.values() if not p.touched] == []
    (stream,) = [group for group in graph.groups if "embed.weight" in group.params and group.size == WIDTH]
    assert stream.locked is None


class TwoWays(Pictures):
    """Pictures go another way where the batch is said to be fine."""

    def __init__(self):
        super().__init__()
        self.fine = nn.Linear(TOWER, WIDTH)

    def get_image_features(self, pixel_values, **kwargs):
        if kwargs.get("fine_mask") is None:
            return super().get_image_features(pixel_values)
        return self.fine(self.tower(pixel_values).flatten(2).transpose(1, 2)[:, :4])

    def forward(self, input_ids, pixel_values=None, fine_mask=None):
        if pixel_values is None:
            return self.read(input_ids)
        return self.read(input_ids, self.get_image_features(pixel_values, fine_mask=fine_mask))


def test_a_mask_that_chooses_another_way_through_the_model_is_tried_behind_the_first():
    module = made(TwoWays)
    feeds = recorded_inputs(module)
    assert [set(feed) - {"input_ids"} for feed in feeds] == [
        set(),
        {"pixel_values"},
        {"pixel_values", "fine_mask"},
    ]
    graph = trace_module(module)
    assert [p.name for p in graph.parameters.values() if not p.touched] == []
    proofs = prove(module, graph, inputs=feeds[-1])
    assert [proof for proof in proofs if not proof.passed] == []
