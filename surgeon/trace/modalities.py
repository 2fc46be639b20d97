"""Images and sounds for a model that takes them beside its token ids.

What the forward pass calls them is transformers' own convention (``pixel_values``, ``image_grid_thw``,
``input_features``); their sizes come from the module's first convolutions and from the numbers of its
config. Which of the few possible layouts a model wants is found by trying: its own function for features
must run on it, and tells how many placeholder tokens stand for one sample. Not here: text (`inputs`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from surgeon.trace.numbers import config_fields, unused_primes
from surgeon.trace.record import Recorder

__all__ = ["modality_inputs"]

_MANY = 4
"""Up to so many input channels a convolution is taken to read an image."""
_COPIES = (None, 1, 2, 3, 5)
"""How many pictures (tiles of one picture) a sample may have to consist of; None for no such dim."""
Feed = dict[str, Tensor]


def modality_inputs(module: nn.Module, feed: Mapping[str, Tensor]) -> Iterator[Iterator[Feed]]:
    """For images and for sounds: inputs in the place of `feed`, in each way that the model may want them.

    Every row has one, and as many placeholders among its ids as it has features.
    """
    names = inspect.signature(module.forward).parameters
    rows = feed["input_ids"].shape[0]
    for samples in (_images(module, names, rows), _sounds(module, names, rows)):
        yield (
            whole
            for made in samples
            for whole in _with_placeholders(module, names, feed, _cast(module, made))
        )


# ---------------------------------------------------------------------------------- what a sample looks like


def _images(module: nn.Module, names: Mapping[str, Any], rows: int) -> Iterator[Feed]:
    """Pictures [rows, channels, side, side], tiles of them, or patches beside their grid."""
    if "pixel_values" not in names:
        return
    reader = next((m for m in module.modules() if _reads_images(m)), None)
    channels = reader.in_channels if reader is not None else 3
    if "image_grid_thw" in names or "spatial_shapes" in names:
        yield from _patches(module, names, reader, channels, rows)
    sides = _sides(module, reader)
    for copies in _COPIES:
        for high, wide in sides:
            shape = (rows, channels, high, wide) if copies is None else (rows, copies, channels, high, wide)
            made = {"pixel_values": _noise(*shape)}
            yield made
            if "image_sizes" in names:
                yield {**made, "image_sizes": torch.tensor([[high, wide]]).expand(rows, 2).clone()}


def _reads_images(part: nn.Module) -> bool:
    return isinstance(part, (nn.Conv2d, nn.Conv3d)) and part.in_channels <= _MANY


def _sides(module: nn.Module, reader: nn.Module | None) -> list[tuple[int, int]]:
    """Heights and widths that the config tells, else four patches each way."""
    found: dict[tuple[int, int], None] = {}
    for name, value in config_fields(module):
        if name.endswith(("image_size", "img_size")):
            pair = (value, value) if isinstance(value, int) else tuple(value)[-2:]
            if len(pair) == 2 and all(isinstance(side, int) and side > 0 for side in pair):
                found[pair] = None
    if reader is not None and not found:
        found[4 * reader.kernel_size[-2], 4 * reader.kernel_size[-1]] = None
    return list(found)


def _patches(
    module: nn.Module, names: Mapping[str, Any], reader: Any, channels: int, rows: int
) -> Iterator[Feed]:
    """Flattened patches beside how they lie: a grid of twice as many as no axis has, merged or not.

    [rows * patches, values] beside grids [rows, 3], or [rows, patches, values] beside shapes [rows, 2].
    """
    if reader is not None:
        values = channels * int(torch.tensor(reader.kernel_size).prod())
        depths = [1] if isinstance(reader, nn.Conv3d) else [1, 2]
    else:
        sizes = [v for n, v in config_fields(module) if n.endswith("patch_size") and isinstance(v, int)]
        values, depths = channels * sizes[0] ** 2 if sizes else 0, [1, 2]
    prime = unused_primes(module)[2]
    grid = torch.tensor([[1, 2, 2 * prime]]).expand(rows, 3).clone()
    for depth in depths if values else ():
        pixels = _noise(rows * 4 * prime, values * depth)
        if "spatial_shapes" in names:
            pixels = pixels.view(rows, 4 * prime, -1)
            whole = torch.ones(pixels.shape[:2], dtype=torch.int64)
            yield {"pixel_values": pixels, "spatial_shapes": grid[:, 1:], "pixel_attention_mask": whole}
        else:
            merged = {"image_merge_sizes": torch.ones(rows, dtype=torch.int64)}
            beside = merged if "image_merge_sizes" in names else {}
            yield {"pixel_values": pixels, "image_grid_thw": grid, **beside}


def _sounds(module: nn.Module, names: Mapping[str, Any], rows: int) -> Iterator[Feed]:
    """Features [rows, bins, frames] or [rows, frames, bins], as long as the config's numbers tell.

    Or whole windows of frames. Beside a mask over the frames where there is one, then without.
    """
    if "input_features" not in names:
        return
    bins = [v for n, v in config_fields(module) if n.endswith(("mel_bins", "input_dim", "input_feat_size"))]
    spans = [v for n, v in config_fields(module) if n.endswith("source_positions")]
    frames = [span * step for span in spans if isinstance(span, int) for step in (2, 4, 1)]
    windows = [v for n, v in config_fields(module) if n.endswith("window") and v and isinstance(v, int)]
    prime = unused_primes(module)[3]
    for length in [*frames, 8 * prime, *(2 * window * prime for window in windows)]:
        for width in [size for size in bins if isinstance(size, int)]:
            for shape in ((rows, width, length), (rows, length, width)):
                sound = {"input_features": _noise(*shape)}
                mask = _whole_mask(names, rows, length)
                yield from [sound | mask, sound] if mask else [sound]


def _whole_mask(names: Mapping[str, Any], rows: int, length: int) -> Feed:
    name = next((n for n in ("input_features_mask", "feature_attention_mask") if n in names), None)
    return {} if name is None else {name: torch.ones(rows, length, dtype=torch.int64)}


def _cast(module: nn.Module, made: Feed) -> Feed:
    """`made` in the dtype that the module computes in."""
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in made.items()}


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


# ---------------------------------------------------------------------------------- where it goes in the text


def _with_placeholders(
    module: nn.Module, names: Mapping[str, Any], feed: Mapping[str, Tensor], made: Feed
) -> Iterator[Feed]:
    """`made` with ids that hold as many placeholders as it has features, where the model counts them."""
    word = "image" if "pixel_values" in made else "audio"
    holder = next((part for part in module.modules() if hasattr(part, f"get_{word}_features")), None)
    features = getattr(holder, f"get_{word}_features", None)
    token = _placeholder(module, word)
    if features is None or token is None:
        yield {name: value for name, value in feed.items() if name in names} | made
        return
    count = _count(features, made)
    rows = feed["input_ids"].shape[0]
    if not count or count % rows:
        return
    length = next(prime for prime in unused_primes(module, least=count // rows + 2) if prime != rows)
    ids = torch.zeros(rows, length, dtype=torch.int64)
    ids[:, 1 : 1 + count // rows] = token
    whole = {**feed, "input_ids": ids, **made}
    if "mm_token_type_ids" in names:
        whole["mm_token_type_ids"] = (ids == token).to(torch.int64)
    yield whole


def _placeholder(module: nn.Module, word: str) -> int | None:
    """The token id that stands for a part of an image or a sound."""
    for name, value in config_fields(module):
        words = name.split("_")
        if word in words and "token" in words and words[-1] in ("id", "index") and isinstance(value, int):
            return value
    return None


def _count(features: Any, made: Feed) -> int | None:
    """How many vectors `features` makes of a sample; None where it will not take it."""
    accepted = inspect.signature(features).parameters
    named = {name: value for name, value in made.items() if name in accepted}
    output = None
    for given in (named, made):  # a function may hand on what it does not name
        try:
            with torch.no_grad(), Recorder():
                output = features(**given)
            break
        except Exception:  # the model's own code says no in its own way
            continue
    if output is None:
        return None
    output = getattr(output, "pooler_output", output)
    tensors = [output] if isinstance(output, Tensor) else list(output)
    return sum(tensor.shape[:-1].numel() for tensor in tensors if isinstance(tensor, Tensor))
