"""The promise of every Group: permuting its indices at all its Sites changes nothing.

That is the proof that a traced Group is complete and right, for channels, heads and the residual
stream alike, and it needs no knowledge of the model. A Group with a Site too few, or with a wrong
Layout, fails by orders of magnitude. Not here: the promise of a cut (`verify`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from surgeon.errors import VerifyError
from surgeon.graph import Graph, Group, Layout
from surgeon.graph.layout import Positions
from surgeon.rebuild.forward import (
    Output,
    PrecisionLoss,
    all_tensors,
    call_with,
    cast_inputs,
    feed,
    first_output,
    probe_tokens,
)

__all__ = ["Proof", "prove", "randomised"]

M = TypeVar("M", bound=nn.Module)
SPREAD = 0.3
"""How far `randomised` moves vectors, such as norm weights and biases, from where they are."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Outcome for one Group; `error` is the largest difference over the largest output.

    `effect` is the error where only the first Site is permuted: far above the tolerance where the
    Group's structure matters at all for these weights, which is what makes a small `error` a proof.
    """

    axis: str
    error: float
    effect: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the output stayed the same, up to rounding."""
        return self.error <= self.tolerance

    @property
    def sharp(self) -> bool:
        """Whether a wrong Group would have been noticed."""
        return self.effect > 10 * self.tolerance


def prove(
    module: nn.Module,
    graph: Graph,
    groups: Iterable[Group] | None = None,
    seed: int = 0,
    tokens: Tensor | None = None,
    inputs: Mapping[str, Tensor] | None = None,
) -> tuple[Proof, ...]:
    """Permute each Group's indices at all its Sites and compare the outputs in float64.

    A model that insists on a narrower dtype inside is compared in its own, and its tolerance is the
    root of that dtype's rounding.

    Args:
        module: the traced module, with weights large enough that every structure matters (see
            `randomised`); it is not changed.
        graph: its Graph.
        groups: which to prove; None takes every Group that is not locked.
        seed: of the permutations and of the tokens.
        tokens: input ids [rows, length]; None draws some.
        inputs: all keyword arguments of the forward pass, in the place of `tokens`.

    Raises:
        VerifyError: the module has no weights, or no output that can be compared.
    """
    tensors = all_tensors(module)
    if any(tensor.is_meta for tensor in tensors.values()):
        raise VerifyError(
            f"{type(module).__name__} lies on the meta device, so nothing can be computed",
            hint="prove a small model of the same family, with weights",
        )
    if inputs is None:
        inputs = feed(module, probe_tokens(module, seed) if tokens is None else tokens)
    tensors, want, tolerance = _reference(module, inputs)
    chosen = tuple(g for g in graph.groups if g.locked is None) if groups is None else tuple(groups)
    proofs = []
    for place, group in enumerate(chosen):
        order = _shuffled(group.size, seed + place)
        effect = _error(module, _permuted(tensors, group, order, sites=1), inputs, want)
        ported = _renumbered(inputs, group, order)
        error = _error(module, _permuted(tensors, group, order), ported, _moved(want, group, order))
        proofs.append(Proof(group.name, error, effect, tolerance))
    return tuple(proofs)


def _reference(module: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Output, float]:
    """The tensors that are computed with, the output, and the tolerance."""
    loss = PrecisionLoss()
    try:
        tensors = all_tensors(module, torch.float64)
        with torch.no_grad(), loss:
            return (
                tensors,
                first_output(call_with(module, tensors, **cast_inputs(inputs, torch.float64))),
                loss.tolerance,
            )
    except RuntimeError:  # the model's own code insists on a narrower dtype, or overflows it
        pass
    own = next(p.dtype for p in module.parameters() if p.is_floating_point())
    narrow = torch.float32 if own == torch.float64 else own
    tensors = all_tensors(module, narrow)
    with torch.no_grad():
        want = first_output(call_with(module, tensors, **cast_inputs(inputs, narrow)))
    return tensors, want, float(torch.finfo(narrow).eps) ** 0.5


def randomised(module: M, seed: int = 0) -> M:
    """A float64 copy whose weights are large enough for every structure to matter.

    Matrices are drawn anew with the inverse root of their last dim as deviation; vectors (norms,
    biases) are moved from where they are; buffers stay.
    """
    generator = torch.Generator().manual_seed(seed)
    own = copy.deepcopy(module).to(torch.float64)
    with torch.no_grad():
        for parameter in own.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if parameter.ndim > 1:
                parameter.copy_(noise / parameter.shape[-1] ** 0.5)
            else:
                parameter.add_(SPREAD * noise)
    return own


def _shuffled(size: int, seed: int) -> Positions:
    """A permutation that moves something, where anything can be moved."""
    order = np.random.default_rng(seed).permutation(size)
    return order if size == 1 or (order != np.arange(size)).any() else np.roll(order, 1)


def _positions(extent: int, layout: Layout, order: Positions) -> Tensor:
    """For each position of a dim, which old position comes there."""
    index = np.arange(extent)
    index[layout.positions().reshape(-1)] = layout.positions(order).reshape(-1)
    return torch.from_numpy(index)


def _permuted(
    tensors: Mapping[str, Tensor], group: Group, order: Positions, sites: int | None = None
) -> dict[str, Tensor]:
    """The tensors with `group` permuted at its first `sites` Sites (default: all)."""
    changed = dict(tensors)
    seen: set[tuple[int, int, Layout]] = set()
    for site in group.sites[:sites]:
        place = (id(tensors[site.param]), site.dim, site.layout)
        if place in seen:
            continue
        seen.add(place)
        old = changed[site.param]
        index = _positions(old.shape[site.dim], site.layout, order)
        new = old.index_select(site.dim, index.to(old.device))
        for name, tensor in tensors.items():
            if tensor is tensors[site.param]:
                changed[name] = new
    return changed


def _renumbered(inputs: Mapping[str, Tensor], group: Group, order: Positions) -> dict[str, Tensor]:
    """The inputs with the values that index `group` moved along."""
    moved = dict(inputs)
    for port in group.ports:
        if port.direction == "input" and port.dim is None and port.name in moved:
            ids = moved[port.name]
            extent = max(int(ids.max()) + 1, int(port.layout.positions().max()) + 1)
            moved_to = torch.argsort(_positions(extent, port.layout, order))
            moved[port.name] = moved_to.to(ids.device)[ids]
    return moved


def _moved(want: Output, group: Group, order: Positions) -> Output:
    value = want.value
    for port in group.ports:
        if port.direction == "output" and port.name == want.name and port.dim is not None:
            index = _positions(value.shape[port.dim], port.layout, order)
            value = value.index_select(port.dim, index.to(value.device))
    return Output(want.name, value)


def _error(
    module: nn.Module, tensors: Mapping[str, Tensor], inputs: Mapping[str, Tensor], want: Output
) -> float:
    with torch.no_grad():
        dtype = next(t.dtype for t in tensors.values() if t.is_floating_point())
        got = first_output(call_with(module, tensors, **cast_inputs(inputs, dtype))).value
    return float((got - want.value).abs().max() / want.value.abs().max())
