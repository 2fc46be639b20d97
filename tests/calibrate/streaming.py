"""A process that measures block by block, slowly enough to be killed: folder, cache, pause, result."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from surgeon.api.subject import Subject
from surgeon.calibrate import Bench, Memory, pace, rows
from surgeon.calibrate.gradient import Gradient
from surgeon.calibrate.input_moment import InputMoment
from surgeon.calibrate.squared_gradient import SquaredGradient
from surgeon.io.statistics_cache import StatisticsCache
from surgeon.io.waiting import Waiting
from surgeon.plan import Plan
from tests.handmade import llama_graph


def measure(folder: Path, cache: Path | None, pause: float, result: Path) -> list[int]:
    """Write what was measured; blocks that were reported done, in order."""
    ids = torch.randint(3, 53, (5, 11), generator=torch.Generator().manual_seed(4)).tolist()
    subject, done = Subject(folder, stream=True), []

    def told(stage: str, at: int, total: int | None) -> None:
        done.append(at)
        print(at, flush=True)
        time.sleep(pause)

    params = tuple(f"model.layers.{place}.mlp.down_proj.weight" for place in range(3))
    memory = None if cache is None else Memory(StatisticsCache(cache), lambda: "this model", interval=0.0)
    graph = llama_graph(subject.config)
    keep = Waiting(1000).keep
    bench = Bench(graph, lambda: subject.measured, lambda: rows(ids), told, memory, True, None, keep)
    keys = frozenset({Gradient(params), SquaredGradient(params), InputMoment("variance", params)})
    found = bench.measure(Plan("llama"), keys)
    tensors = {f"{key.statistic}/{n}": t.contiguous() for key in keys for n, t in found.get(key).items()}
    save_file(dict(sorted(tensors.items())), result)
    return done


if __name__ == "__main__":
    torch.set_num_threads(1)
    pace.SHARE = 0  # every block is put aside, however slow the disk is
    measure(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))
