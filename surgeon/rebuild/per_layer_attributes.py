"""Attributes of modules that follow a dim of the module's own tensors, as ``out_features`` does.

Told by numbers: the attribute equals that dim in every module of its class; and, since small sizes
collide, by what was measured: the config fields that move the one move the other. Not here: attributes
that follow no tensor of their own module (`per_layer_parts`).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from surgeon.rebuild.config_probe import ConfigSpace
from surgeon.rebuild.signature import Shape

__all__ = ["followed", "own_numbers", "own_tensors", "shape_attributes"]


def followed(
    part: nn.Module, path: str, module: nn.Module, planned: Mapping[str, Shape], space: ConfigSpace
) -> dict[str, tuple[int, ...]]:
    """New values of the attributes of `part` that follow a dim of its own tensors.

    Args:
        part: a module of the shallow model.
        path: its module path there.
        module: the whole shallow model.
        planned: planned shapes of the tensors of `part`, by their names in it.
        space: what the fields of the config move.
    """
    if not planned:
        return {}
    alike = [other for other in module.modules() if type(other) is type(part)]
    found: dict[str, tuple[int, ...]] = {}
    for name, _ in own_numbers(part):
        places = [
            (tensor, dim)
            for tensor, shape in planned.items()
            for dim in range(len(shape))
            if all(_equals(other, name, tensor, dim) for other in alike)
            and _moves_along(path, name, tensor, dim, space)
        ]
        sizes = tuple(dict.fromkeys(planned[tensor][dim] for tensor, dim in places))
        if sizes:
            found[name] = sizes
    return found


def own_tensors(part: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of the module itself."""
    return dict(part.named_parameters(recurse=False)) | dict(part.named_buffers(recurse=False))


def own_numbers(part: nn.Module) -> list[tuple[str, int]]:
    """Attributes of the module itself that are whole numbers."""
    return [(name, value) for name, value in vars(part).items() if type(value) is int]


def shape_attributes(part: nn.Module, tensor: str) -> list[str]:
    """Attributes of the module itself that are the whole shape of one of its tensors, as a norm keeps it."""
    shape = tuple(own_tensors(part)[tensor].shape)
    return [name for name, value in vars(part).items() if type(value) is tuple and value == shape]


def _equals(part: nn.Module, name: str, tensor: str, dim: int) -> bool:
    held = own_tensors(part).get(tensor)
    return held is None or (dim < held.ndim and vars(part).get(name) == held.shape[dim])


def _moves_along(path: str, name: str, tensor: str, dim: int, space: ConfigSpace) -> bool:
    """Whether the fields that move the dim are those that move the number; true where none moves the dim."""
    place = (f"{path}.{tensor}" if path else tensor, dim)
    with_dim = {f.path for f in space.fields if place in f.dims}
    with_number = {f.path for f in space.fields if (path, name) in f.numbers}
    return not with_dim or with_dim == with_number
