"""Beside a plan that only selects: the list of stored tensors and positions that it comes to.

Not here: carrying it out (`surgeon.api.copying`).
"""

from __future__ import annotations

from pathlib import Path

from surgeon.api.card import copied_pages
from surgeon.api.planning import Planned
from surgeon.api.subject import Subject
from surgeon.io.copies import write_copies
from surgeon.io.disk_layout import pieces_of
from surgeon.io.writer import pages_of
from surgeon.rebuild import ModuleSource, arrange, skeleton

__all__ = ["list_copies"]


def list_copies(subject: Subject, planned: Planned, plan: str | Path) -> bool:
    """Write what `planned` comes to beside its file `plan`; whether there is such a list.

    There is none where the weights are not on this machine or not those of the plan's class, or where
    something is computed.

    Raises:
        InputError: the file cannot be written.
    """
    checkpoint, known = subject.checkpoint, planned.traced
    if checkpoint is None or not checkpoint.has_weights or subject.changed or planned.plan.assigned:
        return False
    original = checkpoint.unread_module()
    arranged = arrange(known.space, known.graph, planned.plan, known.layout)
    blank = skeleton(arranged.config, dtype=original.dtype)
    pieces = pieces_of(blank, arranged.stream(ModuleSource(original), known.graph))
    pages = copied_pages(pages_of(blank, checkpoint.folder), planned.report)
    return write_copies(Path(plan).expanduser(), pieces, pages, checkpoint.folder)
