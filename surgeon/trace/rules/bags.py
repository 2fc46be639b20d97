"""Rule for bags of embeddings: rows of a table, looked up by number and added up bag by bag."""

from __future__ import annotations

from surgeon.trace.rule import Op, rules

__all__: list[str] = []


@rules.register("_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(op: Op) -> None:
    """Weight [rows, features], indices [...], where each bag begins → [bags, features]."""
    rows, features = op.dims(op.args[0])
    op.look_up(op.args[1], rows)
    op.note_role(op.args[0], rows, "index")
    op.note_role(op.args[0], features, "producer")
    op.set(op.out, [op.fresh(op.shape(op.out)[0], "data"), features])
    for value in op.outs[1:]:
        for term in op.dims(value):
            op.mark(term, "data")
