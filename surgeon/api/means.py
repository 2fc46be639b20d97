"""Means: how a verb works, whatever it does: on what, in how much memory, and whom it tells."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from surgeon.api.progress import Progress, silent

if TYPE_CHECKING:
    from surgeon.api.subject import DeviceMap

__all__ = ["Means"]


@dataclass(frozen=True)
class Means:
    """As the arguments of `surgeon.run` of these names; `budget` is `memory` in bytes."""

    device: str = "cpu"
    device_map: DeviceMap | None = None
    stream: bool = False
    cache: str | Path | None = None
    budget: int | None = None
    progress: Progress = silent

    @property
    def modest(self) -> bool:
        """Whether this process computes by itself, and on the CPU."""
        alone = os.environ.get("WORLD_SIZE", "1") == "1"
        return alone and self.device == "cpu" and self.device_map is None
