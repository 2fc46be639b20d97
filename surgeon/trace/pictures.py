"""What images and videos look like to a model: pictures, tiles of them, patches beside their grid.

Sizes come from the module's first convolutions and from the numbers of its config. Which of the layouts a
model wants is found by trying them (`modalities`). Not here: sounds (`sounds`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil, prod
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from surgeon.trace.numbers import config_fields, unused_primes

__all__ = ["BESIDE", "images", "videos"]

BESIDE = ("image_grid_thw", "target_sizes", "image_grids")
"""Inputs that say of each picture how its patches lie; a batch that has them has one picture in all."""

_MANY = 4
"""Up to so many input channels a convolution is taken to read an image."""
_COPIES = (None, 1, 2, 3, 5)
"""How many pictures (tiles of one picture) a sample may have to consist of; None for no such dim."""
Feed = dict[str, Tensor]
Names = Mapping[str, Any]
Copies = TypeVar("Copies", bound=int | None)


def images(module: nn.Module, names: Names, rows: int) -> Iterator[Feed]:
    """One sample a row as ``pixel_values``, beside whatever else the forward pass calls for."""
    if "pixel_values" not in names:
        return
    yield from _patches(module, names, rows)
    tiles = _tiles(module)
    for channels, high, wide, copies in _frames(module, tuple(dict.fromkeys([*_COPIES, *tiles]))):
        shape = (rows, channels, high, wide) if copies is None else (rows, copies, channels, high, wide)
        made = {"pixel_values": _noise(*shape)}
        yield made
        yield from _beside(made, names, high, wide)


def videos(module: nn.Module, names: Names, rows: int) -> Iterator[Feed]:
    """One row of frames [rows, frames, channels, height, width] as ``pixel_values_videos``."""
    if "pixel_values_videos" not in names:
        return
    for channels, high, wide, copies in _frames(module, _COPIES[2:]):
        yield {"pixel_values_videos": _noise(rows, copies, channels, high, wide)}


def _beside(made: Feed, names: Names, high: int, wide: int) -> Iterator[Feed]:
    """`made` with its size, other pictures of it, a mask over its tiles, or how its tiles are laid out."""
    pixels = made["pixel_values"]
    rows = len(pixels)
    if "image_sizes" in names:
        yield {**made, "image_sizes": torch.tensor([[high, wide]]).expand(rows, 2).clone()}
    if pixels.dim() < 5:
        others = [name for name in names if name.endswith("_pixel_values")]
        if others:
            yield {**made, **{name: pixels.clone() for name in others}}
        return
    tiles = pixels.shape[1]
    if "pixel_attention_mask" in names:
        yield {**made, "pixel_attention_mask": torch.ones(rows, tiles, dtype=torch.bool)}
    if "aspect_ratio_ids" in names:
        beside = {
            "aspect_ratio_ids": torch.ones(rows, 1, dtype=torch.int64),
            "aspect_ratio_mask": torch.ones(rows, 1, tiles, dtype=torch.int64),
        }
        yield {"pixel_values": pixels.unsqueeze(1), **beside}


def _frames(module: nn.Module, copies: tuple[Copies, ...]) -> Iterator[tuple[int, int, int, Copies]]:
    """Channels, height and width of pictures, with each number of `copies` that a sample may consist of."""
    channels = next((reader.in_channels for reader in _readers(module)), 3)
    for count in copies:
        for high, wide in _sides(module):
            yield channels, high, wide, count


def _readers(module: nn.Module) -> list[Any]:
    """Convolutions that read pictures, one for each kernel; those of colours first."""
    found = [
        part
        for part in module.modules()
        if isinstance(part, (nn.Conv2d, nn.Conv3d)) and part.in_channels <= _MANY
    ]
    distinct = {(part.in_channels, part.kernel_size): part for part in reversed(found)}
    return sorted(reversed(distinct.values()), key=lambda part: part.in_channels == 1)


def _sides(module: nn.Module) -> list[tuple[int, int]]:
    """Heights and widths that the config tells, else four patches each way."""
    reader = next(iter(_readers(module)), None)
    found: dict[tuple[int, int], None] = {}
    for name, value in config_fields(module):
        if name.endswith(("image_size", "img_size")):
            pair = (value, value) if isinstance(value, int) else tuple(value or ())[-2:]
            if len(pair) == 2 and all(isinstance(side, int) and side > 0 for side in pair):
                found[pair] = None
    if reader is not None and not found:
        found[4 * reader.kernel_size[-2], 4 * reader.kernel_size[-1]] = None
    return list(found)


def _tiles(module: nn.Module) -> list[int]:
    """How many tiles, and the whole picture, the resolutions that the config lists are made of."""
    grids = [value for name, value in config_fields(module) if name.endswith("pinpoints") and value]
    counts = {
        1 + ceil(tall / high) * ceil(long / wide)
        for high, wide in _sides(module)
        for grid in grids
        for tall, long in grid
    }
    tilings = [value for name, value in config_fields(module) if name.endswith("num_tiles")]
    return sorted(counts | {count for count in tilings if isinstance(count, int)})


# ------------------------------------------------------------------------------------------------ patches


def _patches(module: nn.Module, names: Names, rows: int) -> Iterator[Feed]:
    """Patches of pictures beside how they lie: grids [rows, 3], or shapes [rows, 2], or nothing."""
    prime = unused_primes(module)[2]
    for channels, sides, depths in _patch_shapes(module):
        for depth in depths:
            if "spatial_shapes" in names:
                yield _padded_patches(rows, prime, channels * depth * prod(sides))
            elif "image_grid_thw" in names:
                yield from _patches_beside_grids(names, prime, channels, (depth, *sides))
            elif "image_token_pooling" in names and "image_grids" in names and depth == 1:
                yield from _pooled_patches(module, prime, channels * prod(sides))
            elif "target_sizes" in names and depth == 1:
                yield _strip(prime, channels, sides)
            elif depth == 1 and not _readers(module):
                patches = _noise(rows, prime, channels * prod(sides))
                yield {"pixel_values": patches}
                yield {"pixel_values": patches.flatten(0, 1)}


def _patch_shapes(module: nn.Module) -> Iterator[tuple[int, tuple[int, int], tuple[int, ...]]]:
    """Channels, height and width of a patch, and how many frames may lie in it."""
    readers = _readers(module)
    for reader in readers:
        *depth, high, wide = reader.kernel_size
        yield reader.in_channels, (high, wide), tuple(depth) or (1, 2)
    if not readers:
        sizes = [v for n, v in config_fields(module) if n.endswith("patch_size") and isinstance(v, int)]
        for size in dict.fromkeys(sizes):
            yield 3, (size, size), (1, 2)


def _patches_beside_grids(names: Names, prime: int, channels: int, sides: tuple[int, ...]) -> Iterator[Feed]:
    """Patches [count, values], [count, channels, ...], of a batch of one, or pixel by pixel.

    Of one picture in all, since some models attend to window after window. The grid has twice as many as no
    axis has, so that it can be merged or not.
    """
    beside = {"image_grid_thw": torch.tensor([[1, 2, 2 * prime]])}
    if "image_merge_sizes" in names:
        beside["image_merge_sizes"] = torch.ones(1, dtype=torch.int64)
    flat = _noise(4 * prime, channels * prod(sides))
    yield {"pixel_values": flat, **beside}
    if sides[0] == 1:
        apart = flat.view(-1, channels, *sides[1:])
        for pixels in (apart, apart.unsqueeze(0), flat.view(-1, channels)):
            yield {"pixel_values": pixels, **beside}


def _padded_patches(rows: int, prime: int, values: int) -> Feed:
    """[rows, patches, values] beside shapes [rows, 2] and a mask [rows, patches]."""
    pixels = _noise(rows, 4 * prime, values)
    shapes = torch.tensor([[2, 2 * prime]]).expand(rows, 2).clone()
    whole = torch.ones(pixels.shape[:2], dtype=torch.int64)
    return {"pixel_values": pixels, "spatial_shapes": shapes, "pixel_attention_mask": whole}


def _pooled_patches(module: nn.Module, prime: int, values: int) -> Iterator[Feed]:
    """Patches [1, positions, values] beside which of them make each token, [tokens, 2], and grids [1, 4].

    As many patches as the config has positions for; a grid is of rows and columns of tokens, twice.
    """
    counts = [value for name, value in config_fields(module) if name.endswith("num_position_embeddings")]
    for count in dict.fromkeys(count for count in counts if isinstance(count, int)):
        yield {
            "pixel_values": _noise(1, count, values),
            "image_token_pooling": torch.arange(2 * prime).reshape(prime, 2) % count,
            "image_grids": torch.tensor([[1, prime, 0, 0]]),
        }


def _strip(prime: int, channels: int, sides: tuple[int, int]) -> Feed:
    """All patches side by side in one picture [1, channels, height, width], beside its grid [1, 2].

    The grid has four times as many as no axis has, for it may be merged twice.
    """
    high, wide = sides
    grids = torch.tensor([[4, 4 * prime]])
    return {"pixel_values": _noise(1, channels, high, 16 * prime * wide), "target_sizes": grids}


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))
