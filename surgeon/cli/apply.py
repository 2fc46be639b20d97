"""``surgeon apply``: replay a plan on a checkpoint, without the recipe and without calibration text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from surgeon.cli.arguments import Cache, Device, Json, Memory, NoCache, Quick
from surgeon.cli.console import print_json, say
from surgeon.cli.gauge import gauge
from surgeon.cli.measurements import measurements
from surgeon.cli.report import print_measured, print_steps

__all__ = ["command"]


def command(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="plan.json of surgeon plan or run.")],
    model: Annotated[str, typer.Option("--model", metavar="M", help="Checkpoint folder or hub id.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; must not exist.")],
    layout: Annotated[
        Literal["uniform", "padded", "per_layer"],
        typer.Option("--layout", help="How blocks of different widths are written; see docs/layouts.md."),
    ] = "uniform",
    quick: Quick = False,
    max_shard_size: Annotated[
        str, typer.Option("--max-shard-size", metavar="SIZE", help="Largest file of weights: 500MB, 5GB.")
    ] = "5GB",
    memory: Memory = None,
    device: Device = "cpu",
    cache: Cache = None,
    no_cache: NoCache = False,
    json: Json = False,
) -> None:
    """Cut as planned, prove, publish."""
    with gauge(events=json) as told:
        if quick and layout == "uniform":
            from surgeon.api.copying import copy

            if copy(plan, model=model, out=out, shard_size=max_shard_size, progress=told):
                told.rest()
                _tell_copied(out, json)
                return
        from surgeon.api.replay import replay

        report = replay(
            plan,
            model=model,
            out=out,
            layout=layout,
            proof=not quick,
            shard_size=max_shard_size,
            memory=memory,
            device=device,
            cache=measurements(cache, no_cache),
            progress=told,
        )
        told.rest()
        if json:
            print_json(report.to_dict())
            return
        print_steps(report)
        print_measured(report)
        say(f"written: {out}")


def _tell_copied(out: Path, json: bool) -> None:
    if json:
        print_json({"written": str(out), "proven": False})
    else:
        say(f"written: {out}; not compared with the masked original, which surgeon verify does")
