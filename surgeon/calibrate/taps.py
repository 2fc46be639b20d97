"""Taps: what enters the contraction of a parameter, seen where it happens.

For the time of the forward of the module that owns the parameter, a dispatch mode watches matrix
products for an operand that is (part of) the parameter, and hands on the other operand, row by row, in
the order of the contracted dim. So plain linear maps, transposed ones, fused experts under batched,
grouped or looped products and bare parameters are all the same, and no module class is asked for. Rows
of an operand that several parameters share are one tensor object.

Not here: what is accumulated (one file a Statistic). Batches hold no padding (see `gather`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

from surgeon.calibrate.gated import Following, Gated
from surgeon.calibrate.held import Held, Operand
from surgeon.calibrate.packing import Samples
from surgeon.errors import InputError, SurgeonError

__all__ = ["Entering", "Taps"]

_aten = torch.ops.aten

_PRODUCTS: dict[Any, tuple[int, int]] = {
    _aten.mm.default: (0, 1),
    _aten.bmm.default: (0, 1),
    _aten.mv.default: (0, 1),
    _aten.addmm.default: (1, 2),
    _aten.baddbmm.default: (1, 2),
    _aten.addmv.default: (1, 2),
}
"""Products and the places of their two factors."""

_GROUPED = ("aten::_grouped_mm", "transformers::grouped_mm_fallback")
"""Products of rows sorted by slice with a 3-D factor; the third argument says where each slice ends."""

_COPIES = (
    _aten._to_copy.default,
    _aten.clone.default,
    _aten.contiguous.default,
    _aten.masked_fill.Scalar,  # a router of which the view silences some experts
)


@dataclass(frozen=True, eq=False)
class Entering:
    """Rows that met a parameter, detached.

    `rows_NF` [rows, features]: features in the order of the contracted dim. `slices` and `slice_N`:
    where the parameter is a stack of matrices (experts), how many, and which one each row met.
    """

    param: str
    dim: int
    rows_NF: Tensor
    slices: int | None = None
    slice_N: Tensor | None = None


class Taps:
    """Hands what enters parameters to those who asked for it."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._wanted: dict[str, list[Callable[[Entering], None]]] = {}
        self._required: set[str] = set()
        self._gated: dict[str, list[Callable[[Gated], None]]] = {}
        self._last: tuple[Tensor, Tensor] | None = None

    def subscribe(self, params: tuple[str, ...] | None, see: Callable[[Entering], None]) -> None:
        """Call `see` with what enters each of `params`; None for every matrix that is contracted."""
        matrices = [name for name, p in self.module.named_parameters() if p.ndim > 1]
        for name in matrices if params is None else params:
            self._wanted.setdefault(name, []).append(see)
        self._required |= set(params or ())

    def follow(self, outlet: str, inlets: tuple[str, ...], see: Callable[[Gated], None]) -> None:
        """Call `see` with what the stack `outlet` gives, and what entered `inlets` for the same rows."""
        self._gated.setdefault(outlet, []).append(see)
        for name in (outlet, *inlets):
            self._wanted.setdefault(name, [])
        self._required.add(outlet)

    def following(self, names: tuple[str, ...]) -> Following:
        """What follows the products with those of `names` whose outputs are asked for."""
        return Following({name: tuple(self._gated[name]) for name in names if name in self._gated})

    def attach(self) -> Iterator[RemovableHandle]:
        """Hook the modules that own the parameters asked for."""
        owners: dict[str, list[str]] = {}
        for name in self._wanted:
            owners.setdefault(name.rpartition(".")[0], []).append(name)
        for path, names in owners.items():
            watch = _Watch(self, self.module.get_submodule(path), tuple(names))
            owner = watch.owner
            yield owner.register_forward_pre_hook(watch.before, prepend=False)
            yield owner.register_forward_hook(watch.after, prepend=True, always_call=True)

    def begin(self, batch: Samples) -> None:
        """Called before `batch` runs.

        Raises:
            InputError: it has rows that are no text, and something is watched.
        """
        if self._wanted and not bool(batch.mask.all()):
            raise InputError(
                "a calibration sample has a gap in its text, and what enters the weights there is no text",
                hint="cut the sample in two",
            )

    def hand_on(self, seen: Entering) -> None:
        """Give `seen` to all who asked for its parameter."""
        for see in self._wanted[seen.param]:
            see(seen)

    def required(self, name: str) -> bool:
        """Whether not seeing anything enter `name` is an error."""
        return name in self._required

    def shared(self, operand: Tensor) -> Tensor:
        """`operand` [..., features] as rows; the same object for the same operand as the last time."""
        if self._last is not None and _same(self._last[0], operand):
            return self._last[1]
        rows = operand.detach().reshape(-1, operand.shape[-1])
        self._last = (operand.detach(), rows)
        return rows

    def forget(self) -> None:
        """Let go of the last operand."""
        self._last = None


def _same(one: Tensor, other: Tensor) -> bool:
    return (
        one.data_ptr() == other.data_ptr()
        and one.shape == other.shape
        and one.stride() == other.stride()
        and one.dtype == other.dtype
        and one._version == other._version
    )


class _Watch:
    """Opens a dispatch mode for each forward of one module, recursion included."""

    def __init__(self, taps: Taps, owner: nn.Module, names: tuple[str, ...]) -> None:
        self.taps, self.owner, self.names = taps, owner, names
        self.open: list[_Products] = []

    def before(self, owner: nn.Module, inputs: Any) -> None:
        held = tuple(self._held(name) for name in self.names)
        mode = _Products(self.taps, held)
        self.open.append(mode)
        mode.__enter__()

    def after(self, owner: nn.Module, inputs: Any, output: Any) -> None:
        if not self.open:
            return
        mode = self.open.pop()
        mode.__exit__(None, None, None)
        mode.following.end()
        unseen = [name for name in self.names if name not in mode.seen and self.taps.required(name)]
        if unseen and output is not None:
            raise SurgeonError(
                f"{type(owner).__name__} ran, and no matrix product with '{unseen[0]}' was seen",
                hint="leave its axis out of the selection, or use a criterion that reads weights only",
            )

    def _held(self, name: str) -> Held:
        tensor = getattr(self.owner, name.rpartition(".")[2])
        return Held(name, tensor, tuple(range(tensor.ndim)))


class _Products(TorchDispatchMode):
    """Watches for products with one of the tensors in `held`, and for copies and gathered rows of them."""

    def __init__(self, taps: Taps, held: tuple[Held, ...]) -> None:
        super().__init__()
        self.taps, self.held = taps, list(held)
        self.seen: set[str] = set()
        self.met: Entering | None = None
        self.following = taps.following(tuple(one.name for one in held))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.met = None
        if func in _PRODUCTS:
            left, right = (args[place] for place in _PRODUCTS[func])
            self._product(left, right)
        elif func.name() in _GROUPED:
            self._grouped(args[0], args[1], args[2] if len(args) > 2 else kwargs["offs"])
        out = func(*args, **(kwargs or {}))
        if self.met is not None:
            self.following.begin(self.met, out)
        elif self.following.outlets:
            self.following.step(func, args, out)
        if func is _aten.index.Tensor or func is _aten.index_select.default or func in _COPIES:
            self._follow(func, args, out)
        return out

    def _find(self, tensor: Tensor) -> Operand | None:
        for held in self.held:
            found = held.find(tensor)
            if found is not None:
                return found
        return None

    def _follow(self, func: Any, args: Any, out: Tensor) -> None:
        """Remember a copy, or rows taken by index along the first dim, as holding the parameter."""
        operand = self._find(args[0])
        if operand is None or operand.single is not None or not all(operand.whole):
            return
        if func in _COPIES:
            dims = tuple(dim for dim in operand.dims if dim is not None)
            self.held.append(Held(operand.held.name, out, dims, operand.held.gathered))
            return
        by_list = func is _aten.index.Tensor
        along, index = (len(args[1]) - 1, args[1][0]) if by_list else (args[1], args[2])
        if along == 0 and operand.dims[0] == 0 and index.ndim == 1 and index.dtype != torch.bool:
            self.held.append(operand.held.gather(index, out))

    def _product(self, left: Tensor, right: Tensor) -> None:
        """`left` [..., n, k] times `right` [..., k, m]; whichever is a parameter, the other one enters it."""
        operand = self._find(right)
        if operand is not None:
            self._enter(operand, right.ndim - 2 if right.ndim > 1 else 0, left)
            return
        operand = self._find(left)
        if operand is not None:
            self._enter(operand, left.ndim - 1, right.transpose(-1, -2) if right.ndim > 1 else right[None])

    def _enter(self, operand: Operand, contracted: int, other: Tensor) -> None:
        """`other` [..., rows, k] enters `operand`, whose dim `contracted` is summed over."""
        dim = operand.dims[contracted]
        if dim is None or not operand.whole[contracted]:
            return
        held, rows_NF = operand.held, self.taps.shared(other)
        slices, slice_N = None, None
        batched = len(operand.dims) == 3 and operand.dims[0] == 0
        if batched and operand.rows is not None and dim != 0:
            slices = self._slices(held)
            slice_N = operand.rows.repeat_interleave(other.shape[-2])
        elif operand.single is not None:
            slices = self._slices(held)
            slice_N = torch.full((len(rows_NF),), operand.single, device=rows_NF.device)
        self._hand_on(Entering(held.name, dim, rows_NF, slices, slice_N))

    def _grouped(self, rows: Tensor, factor: Tensor, ends: Tensor) -> None:
        operand = self._find(factor)
        if operand is None or operand.dims[0] != 0 or operand.dims[1] is None or not operand.whole[1]:
            return
        counts = torch.diff(ends, prepend=ends.new_zeros(1))
        slice_N = torch.arange(len(ends), device=rows.device).repeat_interleave(counts.to(rows.device))
        rows_NF = self.taps.shared(rows)[: len(slice_N)]
        self._hand_on(
            Entering(operand.held.name, operand.dims[1], rows_NF, self._slices(operand.held), slice_N)
        )

    def _slices(self, held: Held) -> int:
        return next(own for own in self.held if own.name == held.name).base.shape[0]

    def _hand_on(self, seen: Entering) -> None:
        self.seen.add(seen.param)
        self.met = seen
        self.taps.hand_on(seen)
