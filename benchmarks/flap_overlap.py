"""How far FLAP by its paper's formulas, and as released, keeps what the original code keeps.

    python benchmarks/flap_overlap.py --reference ../shared/data/reference

Reads the dumps of the original code beside the project's test data: the model, the token ids, and for each
setting the kept heads and channels. Writes the overlaps (Jaccard: shared over all that either keeps) to
``results/flap_overlap.json``, from where `quality.py --page` takes them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from surgeon.calibrate import Bench, rows
from surgeon.operations import State
from surgeon.operations.remove import Remove
from surgeon.plan import Plan
from surgeon.rebuild import ModuleSource
from surgeon.trace import trace_module

RESULTS = Path(__file__).resolve().parent / "results" / "flap_overlap.json"
KINDS = {"kv_group": "heads", "ffn": "neurons"}
VARIANTS = ("paper", "released")


def overlaps(state: State, dump: dict[str, Any], structure: str, metric: str) -> list[dict[str, Any]]:
    """One row for each variant and kind."""
    found = []
    for variant in VARIANTS:
        step = Remove(
            select={"kind": list(KINDS)},
            keep={"fraction": 0.8},
            criterion={"criterion": "flap", "metric": metric, "variant": variant},
            allocation={"allocation": "adaptive", "structure": structure, "variant": variant},
        )
        kept = step.run(state)[0].plan.kept()
        for kind, words in KINDS.items():
            shared = every = 0
            for group, want in zip(state.graph.of_kind(kind), dump["kept"][words], strict=True):
                got = set(kept.get(group.name, range(group.size)))
                shared, every = shared + len(got & set(want)), every + len(got | set(want))
            found.append({"variant": variant, "kind": words, "shared": shared, "every": every})
    return found


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reference", type=Path, required=True, help="folder of the dumps")
    folder = parser.parse_args().reference
    model = AutoModelForCausalLM.from_pretrained(folder / "tiny-llama", dtype=torch.float32).eval()
    samples = rows(load_file(folder / "ids-flap.safetensors")["input_ids"].tolist())
    graph = trace_module(model)
    bench = Bench(graph, lambda: model, lambda: samples, lambda *told: None)
    state = State(
        graph=graph,
        plan=Plan(graph.model_type),
        source=ModuleSource(model),
        measure=bench.measure,
        bench=bench,
    )
    found = {}
    for path in sorted(folder.glob("flap_*.json")):
        _, _, metric, structure, ratio = path.stem.split("_")
        name = f"{metric}, {structure}, {ratio.removeprefix('r')} removed"
        options = (structure.lower().replace("-", "_"), metric.lower())
        found[name] = overlaps(state, json.loads(path.read_text()), *options)
        print(name, found[name])
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
