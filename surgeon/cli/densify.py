"""``surgeon densify``: a mixture of experts becomes a plain model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from surgeon.cli.arguments import Device, Json
from surgeon.cli.console import print_json, say
from surgeon.cli.gauge import gauge

__all__ = ["command"]


def command(
    model: Annotated[str, typer.Argument(metavar="M", help="Checkpoint folder or hub id.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; must not exist.")],
    text: Annotated[Path, typer.Option("--text", metavar="FILE", help="Calibration text.")],
    experts: Annotated[int, typer.Option("--experts", help="Experts of each mixture that stay.")] = 1,
    to: Annotated[
        str | None, typer.Option("--to", metavar="TYPE", help="Family of the result; else the model's own.")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", help="Windows of text.")] = 128,
    seq_len: Annotated[int, typer.Option("--seq-len", help="Tokens of a window.")] = 256,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Each mixture becomes one feed-forward sublayer: its most used experts side by side, gates fixed."""
    with gauge(events=json) as told:
        from surgeon.api.densify import densify

        done = densify(
            model,
            out,
            texts=[text],
            experts=experts,
            to=to,
            samples=samples,
            seq_len=seq_len,
            device=device,
            progress=told,
        )
    if json:
        print_json(done.to_dict())
        return
    for layer in done.layers:
        gates = ", ".join(f"{e} x {g:.3f}" for e, g in zip(layer.experts, layer.gates, strict=True))
        say(f"{layer.axis}: experts {gates}")
    for check in done.checks:
        say(check)
    say(f"written: {out}, a {done.model_type} of {done.parameters} parameters ({done.before} before)")
