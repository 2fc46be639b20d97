"""A config that builds plain feed-forward sublayers where another one builds mixtures of experts.

Found by probing: in the same family a field is changed (a list or count of routed layers, say) until the
mixtures are gone; in another family the fields of one name carry over. All other tensors must be built
as they were, and one field must set the width. Not here: the weights (`densify`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig

from surgeon.errors import InfeasibleError, RebuildError
from surgeon.rebuild.config_tree import Path, leaves, quiet, vary
from surgeon.rebuild.rehome import carried_over
from surgeon.rebuild.signature import Shape, measure

__all__ = ["Mixtures", "dense_config"]


@dataclass(frozen=True)
class Mixtures:
    """What is to be replaced: `params` of all mixtures, in a model of so many `blocks` and `hidden` size."""

    params: frozenset[str]
    blocks: int
    hidden: int


def dense_config(
    config: PreTrainedConfig, mixtures: Mixtures, width: int, model_type: str | None = None
) -> PreTrainedConfig:
    """The config of a model with feed-forward sublayers of `width` channels in place of `mixtures`.

    Args:
        config: of the model with mixtures.
        mixtures: what must be gone.
        width: channels of every sublayer that takes a mixture's place.
        model_type: the family to look in; None: the model's own.

    Raises:
        InfeasibleError: no config of that family builds it; says what came nearest.
    """
    want = {n: s for n, s in measure(config).shapes.items() if n not in mixtures.params}
    if model_type is not None and (
        model_type not in CONFIG_MAPPING or CONFIG_MAPPING[model_type] not in MODEL_FOR_CAUSAL_LM_MAPPING
    ):
        raise InfeasibleError(f"transformers has no language model of type '{model_type}' to move to")
    family = model_type or config.model_type
    same = family == config.model_type
    closest: tuple[str, ...] = ()
    for candidate in _without(config, mixtures) if same else carried_over(config, family):
        faults = _faults(want, candidate, mixtures)
        if faults is None:
            continue
        if not faults:
            found = _as_wide(want, candidate, mixtures, width)
            if found is not None:
                return found
            faults = (f"no field of it makes the sublayers {width} channels wide",)
        closest = faults if not closest or len(faults) < len(closest) else closest
    more = f" and {len(closest) - 3} more" if len(closest) > 3 else ""
    raise InfeasibleError(
        f"no config of type '{family}' builds feed-forward sublayers in place of the mixtures: "
        f"{'; '.join(closest[:3]) or 'no field takes them away'}{more}",
        hint="--to with the type of a family that is the same but for the mixtures",
    )


def _without(config: PreTrainedConfig, mixtures: Mixtures) -> Iterator[PreTrainedConfig]:
    """One field changed to what could mean: no mixture in any block."""
    every = list(range(mixtures.blocks))
    fields = config.to_dict()
    for key, value in fields.items():
        options: list[object] = []
        if isinstance(value, list):
            words = dict.fromkeys(word for word in value if isinstance(word, str))
            options = [every, [], *([word] * len(value) for word in words)]
        elif value is None:
            options = [every]
        elif type(value) is int:
            options = [mixtures.blocks, mixtures.blocks + 1, 0]
        elif isinstance(value, bool):
            options = [not value]
        for option in options:
            if option != value:
                try:
                    with quiet():
                        yield vary(config, {(key,): option})
                except RebuildError:
                    continue


def _as_wide(
    want: Mapping[str, Shape], config: PreTrainedConfig, mixtures: Mixtures, width: int
) -> PreTrainedConfig | None:
    """`config`, or with one of its numbers changed, where the new sublayers are `width` wide."""
    numbers = [path for path, value in leaves(config).items() if type(value) is int]
    changes: list[Mapping[Path, object]] = [{}, *({path: width} for path in numbers)]
    for change in changes:
        try:
            varied = vary(config, change)
        except RebuildError:
            continue
        if _faults(want, varied, mixtures, width) == ():
            return varied
    return None


def _faults(
    want: Mapping[str, Shape], config: PreTrainedConfig, mixtures: Mixtures, width: int | None = None
) -> tuple[str, ...] | None:
    """What of the rest is not built as it was, and what is built that is no part of a plain sublayer.

    None where nothing can be built at all.
    """
    try:
        built = measure(config).shapes
    except RebuildError:
        return None
    faults = [
        f"{name} {list(shape)} is built {list(built[name]) if name in built else 'not at all'}"
        for name, shape in want.items()
        if built.get(name) != shape
    ]
    fresh = {name: shape for name, shape in built.items() if name not in want}
    faults += [f"{name} is built" for name in sorted(fresh.keys() & mixtures.params)]
    for name, shape in sorted(fresh.items()):
        plain = len(shape) == 2 and mixtures.hidden in shape
        others = [size for size in shape if size != mixtures.hidden] or [mixtures.hidden]
        if not plain or (width is not None and others[0] not in (width, 2 * width)):
            faults.append(f"{name} {list(shape)} is built")
    return (*faults, *(() if fresh else ("no sublayer is built in place of the mixtures",)))
