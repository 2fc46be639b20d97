"""Plans whose blocks end up with different widths, as a global allocation makes them."""

from __future__ import annotations

import random

from surgeon.graph import Graph
from surgeon.plan import Keep, Plan
from tests.rebuild.config_cases import names

FAMILIES = (
    "llama",
    "llama-mha",
    "llama-mqa",
    "llama-biased",
    "qwen2",
    "qwen3",
    "gemma3",
    "phi3",
    "gpt2",
    "gptneox",
    "gptneox-serial",
    "opt",
    "bloom",
    "falcon-multi-query",
    "falcon-grouped",
    "falcon-alibi",
    "mixtral",
)


def uneven(graph: Graph, kinds: tuple[str, ...] = ("ffn", "kv_group", "q_per_kv"), seed: int = 3) -> Plan:
    """Keep random indices of every unlocked Axis of these kinds, another count in each block."""
    rng = random.Random(seed)
    keeps = []
    for kind in kinds:
        for place, name in enumerate(names(graph, kind)):
            size = graph.group(name).size
            least = max(1, size - 1 - place) if size < 10 else size // 3 + 7 * place
            count = size if size < 10 and place == 0 else rng.randint(least, size - 1)
            keeps.append(Keep(name, tuple(sorted(rng.sample(range(size), count))), 0))
    return Plan(graph.model_type, tuple(keeps))
