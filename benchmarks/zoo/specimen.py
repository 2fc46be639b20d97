"""A tiny model of a family that builds and runs: variants tried in order, then odd fields by effect.

A config that runs only under fused attention is not good enough: it is run with eager attention and
experts as batched products, on the token ids that a trace takes, and its output must be finite.
"""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as hf_init

from benchmarks.zoo.derive import Variant, tiny_fields, unknown_fields
from benchmarks.zoo.families import Family
from benchmarks.zoo.running import plainly_run
from benchmarks.zoo.sizes import SIZES, Sizes

__all__ = ["Specimen", "Unbuildable", "specimen", "variants"]

_LIMIT = 60_000_000
"""More parameters than this is not tiny."""

_PATIENCE = 25.0
"""Seconds of processor time after which no further variant is begun."""


class Unbuildable(Exception):
    """No variant builds and runs; the message lists what each met."""


@dataclass(frozen=True)
class Specimen:
    """A family's tiny model, and which variant it took."""

    family: Family
    model: PreTrainedModel
    variant: str

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())


_CHANGES: dict[str, Callable[[Variant], Variant]] = {
    "kv heads = heads": lambda v: replace(v, sizes=v.sizes.with_(kv_heads=v.sizes.heads)),
    "default lists": lambda v: replace(v, lists="none"),
    "ssm heads": lambda v: replace(v, sizes=v.sizes.with_(heads=v.sizes.ssm_heads)),
    "one default period": lambda v: replace(v, sizes=v.sizes.with_(layers=8), keep=(*v.keep, *_PERIODS)),
    "default depth": lambda v: replace(v, lists="default"),
    "unset fields set": lambda v: replace(v, fill_unset=True),
    "as a decoder": lambda v: replace(v, flags=("is_decoder",)),
    "narrow stages": lambda v: replace(v, narrow_lists=True),
    "heads of 64": lambda v: replace(v, sizes=v.sizes.with_(hidden=512, head_dim=64)),
    "rotary per sort of layer": lambda v: replace(v, rotary_per_sort=True),
    "top 1": lambda v: replace(v, sizes=v.sizes.with_(routed=1)),
    "one kind of layer": lambda v: replace(v, same_layers=True),
    "default periods": lambda v: replace(v, keep=(*v.keep, *_PERIODS)),
    "value dim = nope dim": lambda v: replace(v, sizes=v.sizes.with_(value_dim=v.sizes.nope_dim)),
    "wide heads": lambda v: replace(
        v, sizes=v.sizes.with_(hidden=512, heads=4, kv_heads=2, head_dim=128, ffn=640)
    ),
}
_PERIODS = ("attn_layer_period", "expert_layer_period", "sliding_window_pattern", "attn_layer_offset")


def variants(sizes: Sizes = SIZES) -> Iterator[Variant]:
    """Ways to shrink, from the plain one to pairs of fall-backs."""
    plain = Variant(sizes=sizes)
    yield plain
    for count in (1, 2):
        for names in itertools.combinations(_CHANGES, count):
            variant = plain
            for name in names:
                variant = _CHANGES[name](variant)
            yield replace(variant, name=", ".join(names))


def specimen(family: Family, seed: int = 0, sizes: Sizes = SIZES) -> Specimen:
    """A tiny model of `family` of these `sizes`, with random weights.

    Raises:
        Unbuildable: no variant builds and runs.
    """
    try:
        default = _quietly(family.config_class)
    except Exception as error:  # a class whose own defaults its validators refuse
        raise Unbuildable(f"default config: {_words(error)}") from error
    met: dict[str, str] = {}
    deadline = time.process_time() + _PATIENCE
    for variant in variants(sizes):
        if time.process_time() > deadline:
            break
        try:
            model = _build(family, default, variant, seed)
            if sum(p.numel() for p in model.parameters()) > _LIMIT // 30:
                variant = _by_effect(family, default, variant)
                model = _build(family, default, variant, seed)
            _check(model)
        except Exception as error:  # foreign configs and models raise anything
            met.setdefault(_words(error), variant.name)
            continue
        return Specimen(family, model, variant.name)
    raise Unbuildable("; ".join(f"{name}: {words}" for words, name in itertools.islice(met.items(), 4)))


def _build(family: Family, default: PreTrainedConfig, variant: Variant, seed: int) -> PreTrainedModel:
    config = _config(family, default, variant)
    if _meta_size(family, config) > _LIMIT:
        config = _config(family, default, _by_effect(family, default, variant))
    size = _meta_size(family, config)
    if size > _LIMIT:
        raise ValueError(f"{size:,} parameters are left after shrinking every field that is known")
    torch.manual_seed(seed)
    return _quietly(family.model_class._from_config, config, attn_implementation="eager").eval()


def _config(family: Family, default: PreTrainedConfig, variant: Variant) -> PreTrainedConfig:
    """The tiny config, or the part of it that the family's class takes, as auto classes do."""
    config = _quietly(family.config_class, **tiny_fields(default, variant))
    wanted = family.model_class.config_class
    if type(config) is not wanted:
        config = next((part for part in vars(config).values() if type(part) is wanted), config)
    config.architectures = [family.class_name]
    return config


def _by_effect(family: Family, default: PreTrainedConfig, variant: Variant) -> Variant:
    """Fields that no rule knows and that make the model smaller: shrunk, where it still builds."""
    current = variant
    for path, value in unknown_fields(default).items():
        before = _size_or_none(family, default, current)
        for size in (SIZES.rank, SIZES.hidden, SIZES.head_dim, SIZES.ffn, value // 8):
            trial = replace(current, set_fields={**current.set_fields, path: size})
            after = _size_or_none(family, default, trial)
            if after is not None and (before is None or after < before):
                current = trial
                break
    return current


def _size_or_none(family: Family, default: PreTrainedConfig, variant: Variant) -> int | None:
    try:
        return _meta_size(family, _config(family, default, variant))
    except Exception:  # as above
        return None


def _meta_size(family: Family, config: PreTrainedConfig) -> int:
    with torch.device("meta"), hf_init.no_init_weights(), hf_init.meta_device_safe_creation_ops():
        model = _quietly(family.model_class._from_config, config, attn_implementation="eager")
    return sum(parameter.numel() for parameter in model.parameters())


def _check(model: PreTrainedModel) -> None:
    output = plainly_run(model)
    if not bool(torch.isfinite(output).all()):
        raise ValueError("the output is not finite")


def _words(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:160] if lines else ''}"


def _quietly(call: Callable, *args: object, **kwargs: object):
    transformers.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*args, **kwargs)
