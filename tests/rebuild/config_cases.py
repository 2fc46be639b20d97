"""Traced and probed small models, made once a family: what the config tests look at."""

from __future__ import annotations

from functools import cache

import torch

from surgeon.graph import Graph
from surgeon.plan import Keep, Plan
from surgeon.rebuild.apply import apply_plan, config_of
from surgeon.rebuild.config_probe import ConfigSpace, probe
from surgeon.rebuild.layout import ExportLayout
from surgeon.rebuild.skeleton import architecture
from surgeon.rebuild.symmetry import randomised
from surgeon.rebuild.verify import compare
from surgeon.trace import trace_module
from tests.trace.families import CONFIGS

TOKENS = torch.tensor([[5, 7, 11, 2, 40, 3, 9], [1, 30, 4, 18, 6, 6, 21]])


@cache
def probed(family: str, **changes) -> tuple[torch.nn.Module, Graph, ConfigSpace]:
    """The model, its Graph and its ConfigSpace; `changes` replace fields of the family's config."""
    return probed_config(config_with(family, **changes))


def config_with(family: str, **changes):
    """The family's config with fields replaced."""
    config = CONFIGS[family]()
    return type(config).from_dict({**config.to_dict(), **changes})


def probed_config(config) -> tuple[torch.nn.Module, Graph, ConfigSpace]:
    """The same for a config."""
    torch.manual_seed(0)
    module = architecture(config)._from_config(config, attn_implementation="eager").eval()
    module = randomised(module, seed=1)
    graph = trace_module(module)
    return module, graph, probe(config_of(module), graph)


def names(graph: Graph, kind: str, size: int | None = None) -> tuple[str, ...]:
    """Unlocked Axes of a kind, and of one size where the family has several of that kind."""
    found = (g for g in graph.of_kind(kind) if not g.locked and size in (None, g.size))
    return tuple(g.name for g in found)


def cut(graph: Graph, **counts: int) -> Plan:
    """A Plan that keeps the last `counts[kind]` indices of every unlocked Axis of a kind.

    Of a vocabulary the first: the config names some of them.
    """
    keeps = [
        Keep(
            name,
            tuple(range(graph.group(name).size))[slice(count) if kind == "vocab" else slice(-count, None)],
            0,
        )
        for kind, count in counts.items()
        for name in names(graph, kind)
    ]
    return Plan(graph.model_type, tuple(keeps))


def proven(module, plan: Plan, graph: Graph, space: ConfigSpace, layout: ExportLayout = "uniform"):
    """The smaller model and the ledger, the model compared with the masked original."""
    small, ledger = apply_plan(module, plan, graph, space, layout)
    assert compare(module, small, plan, graph, TOKENS).require()
    return small, ledger
