"""Rule for convolutions: channels couple, group by group; what the kernel slides over is a sequence.

Kernel positions are positions, and locked: which of them is the first matters.
"""

from __future__ import annotations

from surgeon.trace.rule import Op, rules
from surgeon.trace.terms import is_data
from surgeon.trace.unify import Mismatch

__all__: list[str] = []


@rules.register("convolution", "_convolution")
def convolution(op: Op) -> None:
    """Input [n, in, ...], weight [out, in / groups, ...] → [n, out, ...]."""
    x, w = op.dims(op.args[0]), op.dims(op.args[1])
    transposed, groups = op.args[6], op.args[8]
    w_out, w_in = (w[1], w[0]) if transposed else (w[0], w[1])
    if groups == 1:
        op.unify(x[1], w_in)
        op.note_role(op.args[1], w_in, "consumer")
        op.note_role(op.args[1], w_out, "producer")
    else:
        _grouped(op, groups)
        op.note_role(op.args[1], w[0], "pointwise" if w[1].size == 1 else "producer")
        x, w = op.dims(op.args[0]), op.dims(op.args[1])
        w_out = w[0]
    if op.args[2] is not None:
        op.unify(op.dims(op.args[2])[0], w_out)
        op.note_role(op.args[2], w_out, "pointwise")
    if any(is_data(term) and term.size > 1 for term in x[2:]):
        op.state.scans.add(op.event.index)
    for place, (term, kernel) in enumerate(zip(x[2:], w[2:], strict=True)):
        if kernel.size > 1 or op.shape(op.out)[2 + place] != term.size:
            op.mark(term, "data")
    for term in w[2:]:
        op.mark(term, "position")
        op.lock(term, "kernel positions of a convolution")
    sizes = op.shape(op.out)
    spatial = [
        t if t.size == size else op.fresh(size, "data") for t, size in zip(x[2:], sizes[2:], strict=True)
    ]
    op.set(op.out, [x[0], w_out, *spatial])


def _grouped(op: Op, groups: int) -> None:
    """Channels are groups * channels of a group on both sides; a depthwise kernel is one to one."""
    x, w = op.dims(op.args[0])[1], op.dims(op.args[1])
    if op.args[6] and w[1].size > 1:
        raise Mismatch("a transposed convolution in groups")
    if groups == x.size == w[0].size:
        op.unify(x, w[0])
        return
    inner = op.state.unifier.factor(x, groups)
    outer = op.state.unifier.factor(w[0], groups)
    if inner is None or outer is None:
        op.lock(x, f"convolved in {groups} groups that its parts do not follow")
        op.lock(w[0], f"convolved in {groups} groups that its parts do not follow")
        return
    op.unify(inner[0], outer[0])
    op.unify(inner[1], w[1])
