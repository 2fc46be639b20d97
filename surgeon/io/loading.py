"""What a loaded checkpoint must be: complete, of the config's shapes, finite."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surgeon.errors import CheckpointError, InputError

__all__ = ["check_finite", "check_report"]

SHOWN = 8
"""How many faults of one sort a message lists."""


def check_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Refuse what transformers loaded with gaps.

    Args:
        folder: the checkpoint, for the message.
        report: what ``from_pretrained(..., output_loading_info=True)`` returned.

    Raises:
        CheckpointError: tensors are missing, unexpected, or of another shape than the config says.
    """
    faults = [
        *(
            f"{name}: {list(stored)} on disk, {list(expected)} by the config"
            for name, stored, expected in sorted(report["mismatched_keys"])
        ),
        *(f"{name}: not on disk" for name in sorted(report["missing_keys"])),
        *(f"{name}: on disk, but not in the model" for name in sorted(report["unexpected_keys"])),
        *(str(message) for message in report["error_msgs"]),
    ]
    if faults:
        shown = "\n".join(f"  {fault}" for fault in faults[:SHOWN])
        more = f"\n  and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise CheckpointError(
            f"the weights in {folder} do not fit its config, in {len(faults)} tensors:\n{shown}{more}",
            hint="config.json and weights of the same model",
        )


def laid_over(device_map: str | Mapping[str, str | int] | None) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` that lay a model over devices; none where there is no map.

    Raises:
        InputError: accelerate, which does it, is not installed.
    """
    if device_map is None:
        return {}
    if find_spec("accelerate") is None:
        raise InputError("a device map needs the package accelerate", hint="pip install accelerate")
    return {"device_map": device_map if isinstance(device_map, str) else dict(device_map)}


def check_resident(folder: Path, module: nn.Module) -> None:
    """Refuse a model of which some weights were left outside of the devices that compute.

    Raises:
        CheckpointError: with how many bytes found no room.
    """
    outside = [p for p in module.parameters() if p.is_meta]
    if outside:
        size = sum(p.nbytes for p in outside) / 1e9
        raise CheckpointError(
            f"of {folder}, {size:.3g} GB of weights found no room on the devices of the map",
            hint="more devices, or --device cpu",
        )


def check_finite(folder: Path, module: nn.Module) -> None:
    """Refuse weights with NaN or infinity: every score and every comparison would be worthless.

    Raises:
        CheckpointError: naming the tensors.
    """
    floats = ((name, p) for name, p in module.named_parameters() if p.is_floating_point())
    bad = [name for name, p in floats if not torch.isfinite(p).all()]
    if bad:
        raise CheckpointError(
            f"the weights in {folder} hold NaN or infinite values in {len(bad)} tensors: "
            f"{', '.join(bad[:SHOWN])}",
            hint="a checkpoint whose training did not diverge",
        )
