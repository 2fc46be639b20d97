"""Rules for fused normalisations: same dims out, the normalised dims marked, weights pointwise."""

from __future__ import annotations

from surgeon.trace.rule import Op, rules
from surgeon.trace.rules.pointwise import broadcast

__all__: list[str] = []


@rules.register("native_layer_norm", "_fused_rms_norm", "layer_norm", "rms_norm")
def layer_norm(op: Op) -> None:
    """Over the trailing dims of ``normalized_shape``."""
    terms = op.dims(op.args[0])
    for term in terms[-len(op.args[1]) :]:
        op.mark(term, "normalised")
    for value in op.inputs[1:]:
        broadcast(op, terms, value, role="pointwise")
    op.set(op.out, terms)
    for value in op.outs[1:]:
        sizes = op.shape(value)
        kept = [t if t.size == size else op.fresh(size) for t, size in zip(terms, sizes, strict=False)]
        op.set(value, kept)


@rules.register("native_group_norm", "group_norm")
def group_norm(op: Op) -> None:
    """[n, c, ...]: channels are normalised in groups of consecutive ones."""
    terms = op.dims(op.args[0])
    groups = op.args[6] if op.name == "native_group_norm" else op.args[1]
    for value in op.inputs[1:]:
        op.unify(op.dims(value)[0], terms[1])
        op.note_role(value, op.dims(value)[0], "pointwise")
    halves = op.state.unifier.factor(terms[1], groups)
    op.mark(halves[1] if halves else terms[1], "normalised")
    if halves is None:
        op.lock(terms[1], f"normalised in {groups} groups that its parts do not follow")
    op.set(op.out, op.dims(op.args[0]))
    for value in op.outs[1:]:
        op.dims(value)


@rules.register("_native_batch_norm_legit_no_training", "native_batch_norm", "_native_batch_norm_legit")
def batch_norm(op: Op) -> None:
    """[n, c, ...]: every channel on its own, so nothing is normalised across the axis."""
    terms = op.dims(op.args[0])
    for value in op.inputs[1:]:
        op.unify(op.dims(value)[0], terms[1])
        op.note_role(value, op.dims(value)[0], "pointwise")
    op.set(op.out, terms)
    for value in op.outs[1:]:
        op.dims(value)
