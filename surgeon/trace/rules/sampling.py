"""Rule for sampling a picture between its pixels: where to look is given, channel by channel the same."""

from __future__ import annotations

from surgeon.trace.rule import Op, rules
from surgeon.trace.terms import is_data

__all__: list[str] = []


@rules.register("grid_sampler_2d", "grid_sampler_3d", "cudnn_grid_sampler")
def grid_sample(op: Op) -> None:
    """Picture [n, c, places...], grid [n, samples..., coordinates] → [n, c, samples...]."""
    picture, grid = op.dims(op.args[0]), op.dims(op.args[1])
    op.unify(picture[0], grid[0])
    for term in picture[2:]:
        if not is_data(term):
            op.mark(term, "position")
            op.lock(term, "sampled by place")
    if not is_data(grid[-1]):
        op.lock(grid[-1], "coordinates of a place")
        op.mark(grid[-1], "part")
    op.set(op.out, [*op.dims(op.args[0])[:2], *grid[1:-1]])
