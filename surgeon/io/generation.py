"""The generation config that goes along with a model whose vocabulary is cut: its tokens have new numbers."""

from __future__ import annotations

import json
from pathlib import Path

from surgeon.graph.layout import Positions
from surgeon.io.writer import GENERATION
from surgeon.rebuild.config_ids import renumbered_fields

__all__ = ["generation_page"]


def generation_page(original: Path | None, removed: Positions) -> dict[str, str]:
    """The text of ``generation_config.json`` by its name, where the folder `original` has one that changes.

    Raises:
        InfeasibleError: it names a token that is removed.
    """
    file = None if original is None else original / GENERATION
    if file is None or not len(removed) or not file.exists():
        return {}
    fields = renumbered_fields(json.loads(file.read_text(encoding="utf-8")), removed)
    return {GENERATION: json.dumps(fields, indent=2, sort_keys=True) + "\n"}
