"""Plan: the ordered Edits, and how several edits of one Axis compose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from surgeon.errors import ConflictError
from surgeon.plan.edits import Assign, DropBlock, Edit, Keep

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """Ordered Edits for one traced model; alone it replays the surgery.

    `fingerprint` identifies the model (None where it was planned without weights); `values` holds
    the tensors of the Assign edits by parameter name (torch tensors, opaque to this layer).
    """

    model_type: str
    edits: tuple[Edit, ...] = ()
    fingerprint: str | None = None
    values: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)

    def add(self, edits: Iterable[Edit], values: Mapping[str, object] | None = None) -> Plan:
        """A new Plan with more Edits; a contradiction is a ConflictError that names both steps."""
        grown = replace(self, edits=(*self.edits, *edits), values={**self.values, **(values or {})})
        grown.kept()
        return grown

    def kept(self) -> dict[str, tuple[int, ...]]:
        """Kept indices of every cut Axis: a later Keep must keep a subset of the earlier one."""
        kept: dict[str, Keep] = {}
        for edit in self.edits:
            if not isinstance(edit, Keep):
                continue
            earlier = kept.get(edit.axis)
            if earlier is not None and not set(edit.indices) <= set(earlier.indices):
                revived = sorted(set(edit.indices) - set(earlier.indices))
                raise ConflictError(
                    f"step {edit.step} keeps {len(revived)} indices of '{edit.axis}' that step "
                    f"{earlier.step} removed (first: {revived[:5]})",
                    hint="a later cut of an axis must keep a subset of the earlier one",
                )
            kept[edit.axis] = edit
        return {axis: edit.indices for axis, edit in kept.items()}

    @property
    def dropped(self) -> tuple[str, ...]:
        """Dropped Blocks, in order, each once."""
        return tuple(dict.fromkeys(e.block for e in self.edits if isinstance(e, DropBlock)))

    @property
    def assigned(self) -> tuple[str, ...]:
        """Parameters with a new value, in order, each once."""
        return tuple(dict.fromkeys(e.param for e in self.edits if isinstance(e, Assign)))
