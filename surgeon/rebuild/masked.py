"""The masked view: the original module acting as if a Plan were applied, without a rebuild.

Removed contributions are zero, norms divide by the kept width, routers pass over removed experts, Blocks
are skipped, dropped sublayers add zero, assigned values are in place. It serves verification, and
statistics and evaluation of a half-cut model. The module's own tensors are not changed, not even for the
time of a call. Not here: the smaller module (`rebuild`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from surgeon.errors import RebuildError
from surgeon.graph import Graph, Group
from surgeon.plan import Cuts, Plan, cuts_of, dropped_parts, silent_params
from surgeon.rebuild.absent import Absent, lacking
from surgeon.rebuild.forward import all_tensors, call_with
from surgeon.rebuild.kept_width import KeptWidth, Width
from surgeon.rebuild.reading import Reading
from surgeon.rebuild.unread import Unread, described_like

__all__ = ["Fixed", "MaskedView", "masked"]


def masked(module: nn.Module, plan: Plan, graph: Graph, dtype: torch.dtype | None = None) -> MaskedView:
    """`module` acting as if `plan` were applied.

    Args:
        module: the traced module; it is not changed.
        plan: what to mask.
        graph: the module's Graph.
        dtype: compute in this dtype instead of the weights'.

    Raises:
        RebuildError: the plan cuts something that cannot be masked, or names what the module lacks.
    """
    return MaskedView(module, plan, graph, dtype)


class MaskedView(nn.Module):
    """Call it like the module that it wraps; `module` is the place for hooks.

    After a backward pass, each parameter of `module` holds the gradient with respect to the masked
    tensor in its place: zero where something was removed, and with respect to the assigned value where
    one was assigned.
    """

    def __init__(self, module: nn.Module, plan: Plan, graph: Graph, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.module = module
        self.training = module.training
        self._dtype = dtype
        self._cuts = cuts_of(plan, graph)
        self._values = _values(plan, graph)
        parts = dropped_parts(plan, graph)
        self._dropped = tuple(name for name in plan.dropped if name not in parts)
        self._silent = silent_params(plan, graph)
        self._widths = _widths(plan, graph, self._cuts)
        self._routing = _routing(plan, graph)
        _check(module, plan, graph, self._cuts)

    @property
    def config(self) -> object:
        """The wrapped module's config."""
        return self.module.config

    def forward(self, *args: object, **kwargs: object) -> object:
        """What the module returns, with the plan in force."""
        return self._call(self.tensors(), *args, **kwargs)

    def fixed(self, unused: Collection[str] = (), *held: str) -> Fixed:
        """`forward` with the tensors that are in force now, made once: for many calls without gradients.

        Args:
            unused: paths of modules that will not run; their tensors are not made.
            held: paths of modules whose tensors are read once, where they lie on disk.
        """
        reading = Reading[tuple[str, ...]](lambda paths: self.inside(*paths))
        return self.holding(reading.at(held), (*unused, *held))

    def holding(self, tensors: Mapping[str, Tensor], unused: Collection[str]) -> Fixed:
        """`fixed` with these `tensors`, which were read of modules `inside` some of the `unused`."""
        with torch.no_grad():
            return Fixed(self, self.tensors(unused) | dict(tensors))

    def around(self, own: Mapping[str, Tensor], unused: Collection[str]) -> Fixed:
        """`holding` with tensors as the module has them; those that the plan changes are made anew."""
        with torch.no_grad():
            return Fixed(self, self.tensors(unused) | dict(own) | self._differing(own))

    def inside(self, *paths: str) -> dict[str, Tensor]:
        """The tensors in force in the modules at `paths`, by name: what differs, and what is to be read."""
        with torch.no_grad():
            own = self.own(*paths)
            unread = {name: tensor for name, tensor in own.items() if isinstance(tensor, Unread)}
            return unread | self._differing(own)

    def own(self, *paths: str) -> dict[str, Tensor]:
        """The module's own tensors, whatever the plan, of the modules at `paths`."""
        begins = tuple(f"{path}." for path in paths)
        return {name: t for name, t in all_tensors(self.module).items() if name.startswith(begins)}

    def learning(
        self, own: Mapping[str, Tensor], unused: Collection[str], params: Collection[str]
    ) -> tuple[dict[str, Tensor], Callable[..., object]]:
        """`holding` with tensors as the module has them, and leaves by name that gradients are taken of.

        Args:
            own: read of modules inside some of the `unused`; the plan is put in force in every call.
            unused: paths of modules whose tensors are not made.
            params: which of `own` are leaves.
        """
        with torch.no_grad():
            tensors, own = self.tensors(unused), {name: tensor.detach() for name, tensor in own.items()}
        leaves = {name: tensor.requires_grad_() for name, tensor in own.items() if name in params}

        def call(*args: object, **kwargs: object) -> object:
            inside = {name: self._in_force(name, tensor) for name, tensor in own.items()}
            return self._call(tensors | inside, *args, **kwargs)

        return leaves, call

    def _call(self, tensors: Mapping[str, Tensor], *args: object, **kwargs: object) -> object:
        with ExitStack() as stack:
            stack.enter_context(_skipping([self.module.get_submodule(name) for name in self._dropped]))
            if self._widths:
                stack.enter_context(KeptWidth(self._widths))
            if self._routing:
                stack.enter_context(Absent())
            return call_with(self.module, tensors, *args, **kwargs)

    def tensors(self, unused: Collection[str] = ()) -> dict[str, Tensor]:
        """The tensors in force, by name; only those that differ from the module's own.

        Args:
            unused: paths of modules whose tensors are left out.
        """
        left_out = tuple(f"{path}." for path in unused)
        return self._differing(
            {n: t for n, t in all_tensors(self.module).items() if not n.startswith(left_out)}
        )

    def _differing(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of the module's own tensors those in whose place another is in force, which is given."""
        done: dict[int, Tensor] = {}
        for name, tensor in own.items():
            if id(tensor) not in done:
                done[id(tensor)] = self._in_force(name, tensor)
        return {name: done[id(t)] for name, t in own.items() if done[id(t)] is not t}

    def _in_force(self, name: str, tensor: Tensor) -> Tensor:
        if self._dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(self._dtype)
        if name in self._values:
            value = described_like(tensor, self._values[name])
            # The difference is zero, and carries the gradient to the parameter.
            tensor = value if isinstance(tensor, Unread) else value + (tensor - tensor.detach())
        if name in self._silent:
            tensor = tensor * 0  # keeps the path for gradients, which are zero
        for dim, kept in self._cuts.get(name, {}).items():
            removed = np.setdiff1d(np.arange(tensor.shape[dim]), kept)
            tensor = tensor.index_fill(dim, torch.from_numpy(removed).to(tensor.device), 0)
        return self._marked(name, tensor)

    def _marked(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor in force, which knows its places of removed experts where it is a router's."""
        for param, dim in self._routing:
            if param == name and dim in self._cuts.get(name, {}):
                kept = torch.from_numpy(self._cuts[name][dim])
                gone = torch.ones(tensor.shape[dim], dtype=torch.bool).index_fill(0, kept, False)
                shape = [-1 if place == dim else 1 for place in range(tensor.ndim)]
                lacking(tensor, gone.view(shape).expand(tensor.shape).to(tensor.device))
        return tensor


@dataclass(frozen=True, eq=False)
class Fixed:
    """A MaskedView whose `tensors`, those that differ from the module's own, are what they were once."""

    view: MaskedView
    tensors: Mapping[str, Tensor]

    def __call__(self, *args: object, **kwargs: object) -> object:
        """What the module returns, with the plan in force."""
        return self.view._call(self.tensors, *args, **kwargs)


def _values(plan: Plan, graph: Graph) -> dict[str, Tensor]:
    """Assigned tensors under every name that their parameter has."""

    def root(name: str) -> str:
        known = graph.parameters.get(name)
        return name if known is None or known.tied_to is None else known.tied_to

    values = {root(name): value for name, value in plan.values.items()}
    names = set(graph.parameters) | set(plan.values)
    found = {name: values[root(name)] for name in names if root(name) in values}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _widths(plan: Plan, graph: Graph, cuts: Cuts) -> tuple[Width, ...]:
    """The partly removed dimensions that some norm averages over, each once."""
    found: dict[tuple[int, bytes], Width] = {}
    for axis in plan.kept():
        group = graph.group(axis)
        for site in group.sites if group.normalised else ():
            kept = cuts.get(site.param, {}).get(site.dim)
            if kept is None:
                continue
            size = graph.parameters[site.param].shape[site.dim]
            removed = np.setdiff1d(np.arange(size), kept)
            width = Width(size, torch.from_numpy(kept), torch.from_numpy(removed))
            found.setdefault((size, kept.tobytes()), width)
    return tuple(found.values())


def _routing(plan: Plan, graph: Graph) -> tuple[tuple[str, int], ...]:
    """Vectors and matrices, and the dim, where cut experts have a place: what makes or corrects scores."""
    return tuple(
        dict.fromkeys(
            (site.param, site.dim)
            for axis in plan.kept()
            if _is_routed(group := graph.group(axis))
            for site in group.sites
            if len(graph.parameters[site.param].shape) < 3
        )
    )


def _is_routed(group: Group) -> bool:
    """Whether tokens choose among the indices: experts, and groups of them."""
    indexed = any(site.role == "index" for site in group.sites)
    return group.kind == "expert" or (group.kind == "channel" and indexed)


def _check(module: nn.Module, plan: Plan, graph: Graph, cuts: Mapping[str, Mapping[int, object]]) -> None:
    own = all_tensors(module)
    lacking = sorted(name for name in (*cuts, *plan.values) if name not in own)
    lacking += [name for name in plan.dropped if name not in dict(module.named_modules())]
    if lacking:
        raise RebuildError(
            f"the plan names what {type(module).__name__} lacks: {', '.join(lacking)}",
            hint="use the module that the plan was made for",
        )


@contextmanager
def _skipping(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Let each block return the residual stream that it was given."""
    handles = [
        # First of all hooks: whoever else looks sees what the block gives under the plan.
        block.register_forward_hook(_pass_through, with_kwargs=True, prepend=True)
        for block in blocks
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _pass_through(block: nn.Module, args: tuple, kwargs: dict, output: object) -> object:
    several = isinstance(output, tuple | list)
    first = output[0] if several else output
    for given in (*args, *kwargs.values()):
        if isinstance(given, Tensor) and isinstance(first, Tensor) and given.shape == first.shape:
            whole = (given, *output[1:]) if several else given
            return list(whole) if isinstance(output, list) else whole
    raise RebuildError(f"{type(block).__name__} returns no tensor that is shaped like one of its inputs")
