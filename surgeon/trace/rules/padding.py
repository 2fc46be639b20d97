"""Rule for padding: positions before and behind a dim, all of one value."""

from __future__ import annotations

from surgeon.trace.rule import Op, rules
from surgeon.trace.rules.segments import segment, touches_data
from surgeon.trace.rules.special import replaces
from surgeon.trace.terms import concat

__all__: list[str] = []


@rules.register("constant_pad_nd")
def pad(op: Op) -> None:
    """New positions at either end; negative padding cuts. Indices are padded with one that forward knows."""
    terms, pads = op.dims(op.inputs[0]), op.args[1]
    for back in range(len(pads) // 2):
        d = len(terms) - 1 - back
        low, high = pads[2 * back], pads[2 * back + 1]
        term = segment(op, terms[d], max(0, -low), terms[d].size - max(0, -high))
        ends = op.fresh(max(0, low)), op.fresh(max(0, high))
        if touches_data(term):
            for end in ends:
                op.mark(end, "data")
        terms[d] = concat([ends[0], term, ends[1]])
    op.set(op.out, terms)
    known = op.domain(op.inputs[0])
    if known is not None:
        replaces(op, known, [op.arg(2, "value", 0)])
    if known is not None or op.state.is_input(op.inputs[0]):
        op.pass_domain(op.inputs[0], op.out)
