"""Rules for windows that slide over positions: pooling, im2col, unfold, overlapping strides.

What they slide over is a sequence or a picture: where it is an axis of the model, it is locked. Not
here: convolutions, which slide weights.
"""

from __future__ import annotations

from surgeon.trace.rule import Op, rules
from surgeon.trace.terms import Term, is_data, product

__all__: list[str] = []

_WINDOWED = frozenset(
    {"avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices"}
)
_WINDOW = "a window slides over its positions"


def _slid(op: Op, term: Term, size: int) -> Term:
    """A dim of `size` windows over `term`."""
    if term.size == size:
        return term
    if is_data(term):
        return op.fresh(size, "data")
    op.lock(term, _WINDOW)
    new = op.fresh(size)
    op.lock(new, _WINDOW)
    return new


@rules.register(
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "max_pool2d_with_indices",
    "max_pool3d_with_indices",
    "_adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_linear1d",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
    "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
)
def pool(op: Op) -> None:
    """[..., positions] → [..., fewer, as many or more]; windows of one position leave a dim as it is."""
    terms = op.dims(op.args[0])
    windows = list(op.args[1]) if op.name in _WINDOWED else []
    for term, width in zip(reversed(terms), reversed(windows), strict=False):
        if width > 1 and not is_data(term):
            op.lock(term, _WINDOW)
    made = [_slid(op, term, size) for term, size in zip(terms, op.shape(op.out), strict=True)]
    for value in op.outs:
        op.set(value, made)


@rules.register("im2col")
def im2col(op: Op) -> None:
    """[n, c, h, w] → [n, c * kernel positions, windows]."""
    terms = op.dims(op.args[0])
    taps = op.fresh(op.shape(op.out)[-2] // terms[-3].size)
    op.mark(taps, "position")
    op.lock(taps, "kernel positions of a window")
    for term in terms[-2:]:
        if term.size > 1 and not is_data(term):
            op.lock(term, _WINDOW)
    windows = op.fresh(op.shape(op.out)[-1], "data")
    op.set(op.out, [*terms[:-3], product((terms[-3], taps)), windows])


@rules.register("unfold")
def unfold(op: Op) -> None:
    """One dim becomes windows, their positions go last; side by side they are factors of the dim."""
    terms = op.dims(op.args[0])
    d, width, step = op.dim(op.args[1], len(terms)), op.args[2], op.args[3]
    count = op.shape(op.out)[d]
    halves = (
        op.state.unifier.factor(terms[d], count) if count * width == terms[d].size and step == width else None
    )
    if halves is None:
        place = _slid(op, terms[d], width)
        halves = (_slid(op, terms[d], count), place)
    terms[d] = halves[0]
    op.set(op.out, [*terms, halves[1]])


@rules.register("as_strided")
def as_strided(op: Op) -> None:
    """A dim with size and step of an old one is that dim; others walk over the dim that their step is in."""
    terms, tensor = op.dims(op.args[0]), op.tensor(op.args[0])
    steps = tensor.stride()
    made: list[Term] = []
    for size, step in zip(op.args[1], op.args[2], strict=True):
        same = [n for n, old in enumerate(steps) if old == step and terms[n].size == size]
        within = [n for n, old in enumerate(steps) if old <= step and terms[n].size > 1]
        walked = max(within, key=lambda n: steps[n], default=None)
        if same:
            made.append(terms[same[0]])
        else:
            made.append(op.fresh(size) if walked is None else _slid(op, terms[walked], size))
    op.set(op.out, made)
