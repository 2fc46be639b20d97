"""A tiny config from a config class: its declared fields, read and shrunk, nested configs included.

Not here: whether the result builds and runs (`specimen`).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedConfig

from benchmarks.zoo.layers import chosen_layers, resampled
from benchmarks.zoo.sizes import SIZES, Sizes, size_of

__all__ = ["Variant", "tiny_fields", "unknown_fields"]

_INT = re.compile(r"(?<![\[\w])int\b")
_PLAIN_ROTARY = {"rope_type": "default", "rope_theta": 10000.0}
_PLACEHOLDERS = ("image_token_id", "video_token_id", "audio_token_id")
_SENSES = {"patch_size", "num_mel_bins"}
_LARGE = 64
"""An integer that no rule knows is looked into from here on."""


@dataclass(frozen=True)
class Variant:
    """One way to shrink. `lists`: what becomes of per-layer lists. `set_fields`: forced, by path."""

    name: str = "plain"
    sizes: Sizes = SIZES
    lists: str = "resample"
    same_layers: bool = False
    keep: tuple[str, ...] = ()
    fill_unset: bool = False
    flags: tuple[str, ...] = ()
    narrow_lists: bool = False
    rotary_per_sort: bool = False
    set_fields: Mapping[tuple[str, ...], object] = field(default_factory=dict)


def tiny_fields(default: PreTrainedConfig, variant: Variant) -> dict[str, object]:
    """Keyword arguments for the class of `default` that make it tiny."""
    changed = _shrunk(default, variant, special={})
    for path, value in variant.set_fields.items():
        holder: dict = changed
        for step in path[:-1]:
            holder = holder.setdefault(step, {})
        holder[path[-1]] = value
    return changed


def unknown_fields(default: PreTrainedConfig, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], int]:
    """Large integer fields whose names say nothing, nested configs included."""
    found: dict[tuple[str, ...], int] = {}
    for name, value in _declared(default).items():
        if isinstance(value, PreTrainedConfig):
            found |= unknown_fields(value, (*path, name))
        elif isinstance(value, int) and not isinstance(value, bool) and value >= _LARGE and not size_of(name):
            found[*path, name] = value
    return found


def _type_text(kind: object) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _declared(default: PreTrainedConfig) -> dict[str, object]:
    names = [f.name for f in dataclasses.fields(default)] if dataclasses.is_dataclass(default) else []
    names += [name for name in default.sub_configs if name not in names]
    held = vars(default)  # not getattr: a field that differs per layer must not be read globally
    return {name: held[name] for name in names if name in held}


def _shrunk(default: PreTrainedConfig, variant: Variant, special: dict[str, int]) -> dict[str, object]:
    own = _declared(default)
    types = {f.name: _type_text(f.type) for f in dataclasses.fields(default)}
    changed: dict[str, object] = {}
    depth = _depth(own)
    for name, value in own.items():
        if isinstance(value, PreTrainedConfig):
            changed[name] = {"model_type": value.model_type, **_shrunk(value, variant, special)}
        elif name in variant.flags and isinstance(value, bool):
            changed[name] = True
        elif isinstance(value, int) and not isinstance(value, bool):
            new = _integer(name, value, own, variant, special)
            if new != value:
                changed[name] = new
        elif value is None and name in _PLACEHOLDERS:
            changed[name] = _special(name, variant.sizes.vocab, variant.sizes.vocab, special)
        elif value is None and variant.fill_unset:
            changed |= _filled(name, types.get(name, ""), own, variant)
        elif isinstance(value, (list, tuple)) and value and name.endswith(("_token_id", "_token_index")):
            changed[name] = [
                _special(f"{name}{place}", item, variant.sizes.vocab, special)
                for place, item in enumerate(value)
            ]
    if depth and variant.lists == "resample" and variant.sizes.layers < depth:
        changed |= resampled(own, depth, chosen_layers(own, depth, variant.sizes.layers))
    if depth and variant.same_layers:
        layers = changed.get("layer_types", own.get("layer_types"))
        if isinstance(layers, list):
            changed["layer_types"] = ["full_attention"] * len(layers)
    changed |= _parts_of_hidden(own, changed)
    changed |= _merged_patches(own, changed)
    changed |= _resolutions(own, variant)
    if variant.narrow_lists:
        changed |= _narrowed(own, changed)
    changed |= _rotary(own, changed)
    sorts = changed.get("layer_types", own.get("layer_types"))
    if variant.rotary_per_sort and isinstance(sorts, list):
        changed["rope_parameters"] = {sort: dict(_PLAIN_ROTARY) for sort in sorts}
    return {name: value for name, value in changed.items() if name not in variant.keep}


def _filled(name: str, kind: str, own: Mapping[str, object], variant: Variant) -> dict[str, object]:
    """A value for a field that is unset by default although the model may need it."""
    choices = own.get(f"{name.removeprefix('default_')}s")
    if name.startswith("default_") and isinstance(choices, (list, tuple)) and choices:
        return {name: choices[0]}
    if name == "layer_types":
        return {name: ["full_attention"] * variant.sizes.layers}
    if kind.startswith("dict"):
        return {name: {}}
    known = size_of(name)
    return {name: getattr(variant.sizes, known[0])} if known and known[0] and _INT.search(kind) else {}


def _depth(own: Mapping[str, object]) -> int:
    """The number of layers that the per-layer lists of this config have."""
    for name, value in own.items():
        known = size_of(name)
        if known and known[0] == "layers" and isinstance(value, int) and value > 1:
            return value
    return 0


def _integer(
    name: str, value: int, own: Mapping[str, object], variant: Variant, special: dict[str, int]
) -> int:
    known = size_of(name)
    if name.endswith(("layer_id", "layer_index", "layer_idx")):
        return min(value, variant.sizes.layers - 1)  # a layer by its number: the last one that is left
    if name.endswith(("_id", "_index")) or (known is not None and known[0] == "" and "_id" in name):
        return _special(name, value, variant.sizes.vocab, special)
    if known is None or known[0] == "" or value < known[1]:
        return value
    if known[0] == "window" and "patch_size" in own:  # of pixels: smaller than a patch it would be none
        return value
    if variant.lists == "default" and known[0] == "layers":
        return value
    if known[0] == "ffn" and own.keys() & _SENSES and value == 4 * _width(own):
        return 4 * variant.sizes.hidden  # of a tower, four states of which may be joined to one of this size
    return getattr(variant.sizes, known[0]) * _multiple(known[0], value, own)


def _width(own: Mapping[str, object]) -> int:
    value = own.get("hidden_size", own.get("d_model"))
    return value if isinstance(value, int) else 0


def _multiple(what: str, value: int, own: Mapping[str, object]) -> int:
    """How many times the hidden size a width is by default, alone or times the heads."""
    hidden, heads = own.get("hidden_size"), own.get("num_attention_heads")
    if not isinstance(hidden, int) or not isinstance(heads, int) or not hidden:
        return 1
    width = value if what == "hidden" else value * heads if what == "head_dim" else 0
    return 2 if width == 2 * hidden else 1


def _special(name: str, value: object, vocab: int, special: dict[str, int]) -> object:
    """Ids of special tokens beyond the tiny vocabulary move to its end, one id for one name."""
    if not isinstance(value, int) or value < vocab:
        return value
    return special.setdefault(name, vocab - 1 - len(special))


def _parts_of_hidden(own: Mapping[str, object], changed: Mapping[str, object]) -> dict[str, object]:
    """Lists of widths that add up to the hidden size."""
    old, new = own.get("hidden_size"), changed.get("hidden_size")
    if not isinstance(old, int) or not isinstance(new, int):
        return {}
    return {
        name: _sections(value, new)
        for name, value in own.items()
        if isinstance(value, (list, tuple)) and len(value) > 1 and _whole(value) and sum(value) == old
    }


def _merged_patches(own: Mapping[str, object], changed: Mapping[str, object]) -> dict[str, object]:
    """Widths of what a tower hands on, where these are those of all patches that it merges, side by side."""
    found: dict[str, object] = {}
    for name, part in own.items():
        merged = _declared(part).get("merge_size") if isinstance(part, PreTrainedConfig) else None
        tiny = changed.get(name)
        if not isinstance(merged, int) or not isinstance(tiny, dict):
            continue
        old, new = _width(_declared(part)), tiny.get("hidden_size")
        if merged > 1 and old and isinstance(new, int):
            found |= {
                field: new * merged**2
                for field, value in own.items()
                if value == old * merged**2 and field in changed
            }
    return found


def _narrowed(own: Mapping[str, object], changed: Mapping[str, object]) -> dict[str, object]:
    """Lists of widths and heads, one entry per stage, an eighth of what they are."""
    return {
        name: [max(1, item // 8) for item in value]
        for name, value in own.items()
        if name not in changed and isinstance(value, (list, tuple)) and value and _whole(value)
        if min(value) >= 8 or (max(value) >= 32 and min(value) >= 4)
    }


def _resolutions(own: Mapping[str, object], variant: Variant) -> dict[str, object]:
    """Lists of heights and widths, in as many tiny pictures as they are in pictures."""
    found: dict[str, object] = {}
    for name, value in own.items():
        if name.endswith("pinpoints") and isinstance(value, (list, tuple)) and value:
            side = math.gcd(*(number for pair in value for number in pair))
            found[name] = [[number // side * variant.sizes.image for number in pair] for pair in value]
    return found


def _whole(value: Sequence) -> bool:
    return all(isinstance(item, int) and not isinstance(item, bool) for item in value)


def _rotary(own: Mapping[str, object], changed: Mapping[str, object]) -> dict[str, object]:
    """Sections of a rotary dim, scaled to the new head dim."""
    rope = own.get("rope_parameters")
    old, new = _head_dim(own, {}), _head_dim(own, changed)
    if not isinstance(rope, dict) or not old or not new or old == new:
        return {}
    scaled = {
        key: _sections(value, sum(value) * new // old)
        for key, value in rope.items()
        if isinstance(value, (list, tuple)) and value and _whole(value)
    }
    return {"rope_parameters": {**rope, **scaled}} if scaled else {}


def _head_dim(own: Mapping[str, object], changed: Mapping[str, object]) -> int:
    now = {**own, **changed}
    explicit = now.get("head_dim")
    if isinstance(explicit, int) and not isinstance(explicit, bool):
        return explicit
    hidden, heads = now.get("hidden_size"), now.get("num_attention_heads")
    return hidden // heads if isinstance(hidden, int) and isinstance(heads, int) and heads else 0


def _sections(old: Sequence[int], total: int) -> list[int]:
    new = [max(1, part * total // sum(old)) for part in old]
    new[0] += total - sum(new)
    return new
