"""What planning takes of a model that is streamed: memory as the system saw it, time beside the bare blocks.

``python -m benchmarks.memory --work DIR`` generates a checkpoint and plans FLAP, `refit` and Taylor on it
with ``--stream``, each in a process of its own. Given are the peak of all memory (VmHWM), the peak of what
is no page of a file (sampled), both over the size of the checkpoint, and processor time over that of the
bare passes through the blocks in the same run: as many tokens, weights in memory, nothing measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
from safetensors import safe_open

from benchmarks.generated import SHAPES, generate
from surgeon.calibrate.packing import rows
from surgeon.calibrate.walk import Walk
from surgeon.plan import Plan
from surgeon.rebuild import masked, skeleton
from surgeon.trace import trace_module

JOBS: dict[str, dict[str, object]] = {
    "flap": {"criterion": "flap"},
    "refit": {"criterion": "magnitude", "repair": "refit"},
    "taylor": {"criterion": "taylor"},
}
GOALS = {"flap": "3GB", "refit": "3GB", "taylor": "5GB"}
"""Memory that each job may take on the shape of 8 B."""
BACK = {"taylor": 4}
"""Passes that a job needs, forward ones: a way back computes each block once more, and costs two."""
PASSES = 7
"""Turns of the bare block, after one that does not count, of which the median is taken."""


def main() -> None:
    """Run the benchmark and print one JSON object a job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the checkpoint and recipes")
    parser.add_argument("--shape", choices=SHAPES, default="llama-1.1b")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--memory", help="in place of the goal of each job: 3GB, 5GB for gradients")
    asked = parser.parse_args()
    model = asked.work / asked.shape
    if not model.exists():
        generate(asked.shape, model)
    size = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    ids = torch.randint(3, 1000, (asked.samples, asked.seq_len), generator=torch.Generator().manual_seed(0))
    (asked.work / "ids.json").write_text(json.dumps(ids.tolist()))
    bare, read = bare_pass(asked.shape, ids), one_read(model)
    for job in asked.jobs:
        row = planned(asked.work, model, job, asked.memory or GOALS[job])
        row |= {
            "peak_over_checkpoint": round(row["peak"] / size, 3),
            "own_over_checkpoint": round(row["own"] / size, 3),
            "time_over_bare_and_read": round(row["processor"] / (BACK.get(job, 1) * bare + read), 2),
        }
        about = {"shape": asked.shape, "job": job, "checkpoint": size, "bare": round(bare, 2), "read": read}
        print(json.dumps(about | row), flush=True)


def bare_pass(shape: str, ids: torch.Tensor) -> float:
    """Processor seconds of all samples through as many blocks as the shape has, of one block's weights."""
    config = SHAPES[shape]()
    blocks, config.num_hidden_layers = config.num_hidden_layers, 1
    module = skeleton(config, device="cpu", dtype=torch.float32)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.02)
    name = trace_module(module).stacks[0].blocks[0].name
    forward = masked(module, Plan(config.model_type), trace_module(module)).fixed()
    walk = Walk.begin(module, (name,), rows(ids.tolist()), max(1, 1024 // ids.shape[1]), forward)
    took = []
    for _ in range(1 + PASSES):
        begin = time.process_time()
        for number in range(len(walk.batches)):
            walk.run(forward, number)
        took.append(time.process_time() - begin)
    return median(took[1:]) * blocks


def one_read(model: Path) -> float:
    """Processor seconds of reading all weights once, tensor by tensor, in the dtype they are computed in."""
    begin = time.process_time()
    for file in sorted(model.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():
                tensors.get_tensor(name).to(torch.float32)
    return round(time.process_time() - begin, 2)


def planned(work: Path, model: Path, job: str, memory: str) -> dict[str, float]:
    """Plan `job` in a process of its own: bytes at the peak, and processor seconds."""
    step = {"op": "remove", "select": {"kind": "ffn"}, "keep": {"fraction": 0.75}} | JOBS[job]
    recipe = {"surgeon": 1, "calibration": {"texts": str(work / "ids.json")}, "steps": [step]}
    (work / f"{job}.json").write_text(json.dumps(recipe))
    command = [sys.executable, "-m", "surgeon.cli", "plan", str(work / f"{job}.json"), "--model", str(model)]
    command += ["--stream", "--memory", memory, "--no-cache", "--json"]
    said = work / f"{job}.log"
    with said.open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
    own, peak, spent = 0, 0, 0.0
    while process.poll() is None:
        fields = _status(process.pid)
        own, peak = max(own, fields.get("RssAnon", 0)), max(peak, fields.get("VmHWM", 0))
        spent = max(spent, _processor(process.pid))
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(said.read_text())
    return {"peak": peak, "own": own, "processor": round(spent, 2)}


def _status(pid: int) -> dict[str, int]:
    """Sizes in bytes, as the system says."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith(" kB")}


def _processor(pid: int) -> float:
    """Processor seconds of a process so far."""
    try:
        tasks = tuple(Path(f"/proc/{pid}/task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except (OSError, IndexError):
        return 0.0


if __name__ == "__main__":
    main()
