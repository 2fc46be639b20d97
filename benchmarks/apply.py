"""What `surgeon apply` costs, as a ratio to ``cp -r`` of the same checkpoint in the same run.

``python -m benchmarks.apply --work DIR`` generates the checkpoints, plans the jobs once, then takes turns:
``cp``, the job, ``cp`` of what it wrote, each a fresh process that begins when the disk has nothing to do.
Time is given by the clock and by the processor (which a busy machine does not stretch as much), as the median
and as the least of all turns, memory as the system saw it at its peak. Peers are commands given by
``--peer NAME=COMMAND`` with ``{model}`` and ``{out}`` in them.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.generated import SHAPES, generate
from benchmarks.launched import Took, took
from surgeon.api.plan import plan_report

DROP = {"op": "drop_blocks", "keep": {"fraction": 0.75}, "criterion": "tail"}
JOBS = {
    "llama": {
        "a quarter of the layers": DROP,
        "a quarter of the ffn, given indices": {
            "op": "remove",
            "select": {"kind": "ffn"},
            "keep": {"fraction": 0.75},
            "criterion": "random",
        },
    },
    "qwen3": {
        "a quarter of the layers": DROP,
        "half of the experts": {
            "op": "remove",
            "select": {"kind": "expert"},
            "keep": {"fraction": 0.5},
            "criterion": "random",
        },
    },
}
MAGNITUDE = {
    "op": "remove",
    "select": {"kind": "ffn"},
    "keep": {"fraction": 0.75},
    "criterion": "magnitude",
}
SURGEON = (sys.executable, "-m", "surgeon.cli")


def main() -> None:
    """Run the benchmark and write its rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and outputs")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["llama-1.1b", "qwen3-moe"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--proof", action="store_true", help="measure with proof too")
    parser.add_argument("--magnitude", action="store_true", help="measure `run` with magnitude scores")
    parser.add_argument("--only", default="", help="jobs whose names hold one of these, by commas")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--results", type=Path, required=True)
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    wanted = [part for part in options.only.split(",") if part]
    for shape in options.shapes:
        model = options.work / shape
        if not (model / "config.json").exists():
            shutil.rmtree(model, ignore_errors=True)
            generate(shape, model)
        for name, commands in _commands(shape, model, options).items():
            if wanted and not any(part in name for part in wanted):
                continue
            rows.append(_measure(shape, name, model, commands, options.work / "out", options.repeats))
            print(json.dumps(rows[-1]), flush=True)
            options.results.write_text(json.dumps(rows, indent=1) + "\n")


def _commands(shape: str, model: Path, options: argparse.Namespace) -> dict[str, Sequence[str]]:
    """What is measured, by name; plans are made where they are not there."""
    found: dict[str, Sequence[str]] = {}
    for job, step in JOBS[shape.partition("-")[0]].items():
        plan = options.work / f"{shape}.{job.replace(' ', '_')}.json"
        if not plan.exists():
            plan_report({"surgeon": 1, "steps": [step]}, model=model, out=plan)
        common = ("apply", str(plan), "--model", str(model), "--out", "{out}", "--max-shard-size", "500MB")
        found[job] = (*SURGEON, *common, "--quick")
        if options.proof:
            found[f"{job}, with proof"] = (*SURGEON, *common)
    if options.magnitude and shape.startswith("llama"):
        recipe = options.work / "magnitude.json"
        export = {"shard_size": "500MB"}
        recipe.write_text(json.dumps({"surgeon": 1, "steps": [MAGNITUDE], "export": export}))
        common = ("run", str(recipe), "--model", str(model), "--out", "{out}")
        job = "a quarter of the ffn by magnitude"
        found[job] = (*SURGEON, *common, "--no-cache", "--quick")
        cache = options.work / "cache"
        other = {**MAGNITUDE, "criterion": "random"}
        plan_report({"surgeon": 1, "steps": [other]}, model=model, cache=cache)
        found[f"{job}, as much planned before"] = (*SURGEON, *common, "--cache", str(cache), "--quick")
        if options.proof:
            found[f"{job}, with proof"] = (*SURGEON, *common, "--no-cache")
    for peer in options.peer:
        name, _, command = peer.partition("=")
        found[name] = [part.replace("{model}", str(model)) for part in shlex.split(command)]
    return found


def _measure(
    shape: str, name: str, model: Path, command: Sequence[str], out: Path, repeats: int
) -> dict[str, object]:
    """Turns of ``cp`` of the model, the command, and ``cp`` of what it wrote."""
    turns: dict[str, list[Took]] = {"cp": [], "job": [], "cp_result": []}
    copied = out.with_name("copied")
    written = 0
    for _ in range(repeats):
        turns["cp"].append(_rested(("cp", "-r", str(model), str(copied))))
        shutil.rmtree(copied)
        turns["job"].append(_rested([part.replace("{out}", str(out)) for part in command]))
        written = _size(out)
        turns["cp_result"].append(_rested(("cp", "-r", str(out), str(copied))))
        shutil.rmtree(copied)
        shutil.rmtree(out)
    peak = max(one.peak_bytes for one in turns["job"])
    return {
        "shape": shape,
        "job": name,
        "bytes": _size(model),
        "written": written,
        **_times(turns, "median", statistics.median),
        **_times(turns, "least", min),
        "peak_bytes": peak,
        "peak_of_checkpoint": round(peak / _size(model), 3),
    }


def _rested(command: Sequence[str]) -> Took:
    """What a command takes once nothing waits to be written to the disk."""
    os.sync()
    return took(command)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _times(
    turns: dict[str, list[Took]], name: str, of: Callable[[list[float]], float]
) -> dict[str, dict[str, float]]:
    """Seconds of the job and of ``cp``, and their ratios, by the clock and by the processor."""
    found = {}
    for how in ("seconds", "cpu_seconds"):
        spent = {what: of([getattr(one, how) for one in each]) for what, each in turns.items()}
        found[f"{name}_{how}"] = {
            **{what: round(seconds, 2) for what, seconds in spent.items()},
            "to_cp": round(spent["job"] / spent["cp"], 2),
            "to_cp_of_result": round(spent["job"] / spent["cp_result"], 2),
        }
    return found


if __name__ == "__main__":
    main()
