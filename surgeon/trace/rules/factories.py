"""Rules for ops that make tensors. Uniform ones say nothing; counting and random ones are constants."""

from __future__ import annotations

from surgeon.trace.rule import Op, rules

__all__: list[str] = []


@rules.register(
    "zeros",
    "ones",
    "empty",
    "full",
    "new_zeros",
    "new_ones",
    "new_empty",
    "new_full",
    "empty_strided",
    "scalar_tensor",
    "new_empty_strided",
)
def uniform(op: Op) -> None:
    """Every position alike: fresh Atoms."""
    op.dims(op.out)


@rules.register(
    "arange", "linspace", "logspace", "eye", "hann_window", "rand", "randn", "randint", "randperm"
)
def counting(op: Op) -> None:
    """Values tell positions apart: what they meet is tied to constants made inside forward."""
    op.state.constants.add(op.out.id)
    for term in op.dims(op.out):
        op.mark(term, "constant")
