"""Names of the rungs of the export ladder, which is `surgeon.rebuild.layout`; a recipe says one of them."""

from __future__ import annotations

from typing import Literal

__all__ = ["ExportLayout"]

ExportLayout = Literal["uniform", "padded", "per_layer"]
"""``uniform`` within what the config can say, ``padded`` with zeros, ``per_layer`` with a table."""
