"""Under a launcher such as ``torchrun``: open the process group for the time of a verb.

The launcher says in the environment how many ranks there are. Each plans the same, having read its share
of the calibration samples; only the first one writes. A group that the caller opened is used as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed

from surgeon.calibrate import Ranks
from surgeon.errors import InputError

__all__ = ["check_device", "together"]


@contextmanager
def together(device: str = "cpu") -> Iterator[str]:
    """The device of this rank: where ``cuda`` is asked for, each rank on a machine takes one of its own.

    Raises:
        InputError: the device is unknown, absent, or there is none for this rank.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if device == "cuda" and "LOCAL_RANK" in os.environ and count > 1:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    check_device(device)
    if count == 1 or Ranks.now().size > 1:
        yield device
        return
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(torch.device(device))
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def check_device(device: str) -> None:
    """Refuse a device that this machine does not have.

    Raises:
        InputError: saying what there is.
    """
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"there is no device '{device}'", hint="cpu, cuda, or cuda:1") from error
    if wanted.type == "cpu":
        return
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    count = torch.accelerator.device_count() if accelerator is not None else 0
    if accelerator is None or accelerator.type != wanted.type or (wanted.index or 0) >= count:
        there = "only the cpu" if accelerator is None else f"{count} of type {accelerator.type}"
        raise InputError(
            f"the device '{device}' is not on this machine, or this build of torch "
            f"({torch.__version__}) cannot use it; there is {there}",
            hint="--device cpu, or a build of torch for your accelerator",
        )
