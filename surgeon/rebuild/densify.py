"""One mixture of experts becomes one feed-forward sublayer: chosen experts side by side, gates fixed.

A sublayer whose channels are those of several experts, each expert's last matrix times a number, computes
the sum of these experts under gates that no longer depend on the token. That is exact, and is proven
against the mixture with its routing held so; how far it is from the mixture itself, where gates do depend
on the token, is a matter of the text. With one expert left and gates that add up to one, nothing is lost.

Not here: the config (`dense_config`), which experts and gates (`surgeon.api.densify`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import permutations
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from surgeon.errors import InfeasibleError
from surgeon.graph import Graph, Group, Site
from surgeon.rebuild.forward import PrecisionLoss, all_tensors, call_with, feed, first_output, probe_tokens
from surgeon.rebuild.skeleton import load_into, skeleton
from surgeon.rebuild.tensors import ModuleSource

__all__ = ["Fixed", "densified", "inner_of", "plain_mixture"]


@dataclass(frozen=True)
class Fixed:
    """Experts (positions along the stacks) of the Axis `axis`, and the gate of each."""

    axis: str
    experts: tuple[int, ...]
    gates: tuple[float, ...]


def plain_mixture(graph: Graph, group: Group) -> tuple[str, ...]:
    """Parameters of the mixture whose experts `group` counts, router included.

    Raises:
        InfeasibleError: the experts hold more than matrices, or something else runs beside them.
    """
    sizes = {name: len(graph.parameters[name].shape) for name in group.params}
    routers = {name.rpartition(".")[0] for name, dims in sizes.items() if dims < 3}
    experts = {name.rpartition(".")[0] for name, dims in sizes.items() if dims > 2}
    odd = [name for name, dims in sizes.items() if dims < 3 and name.rpartition(".")[0] in experts]
    beside = [
        name
        for name in graph.parameters
        if name.startswith(f"{group.sublayer}.") and name.rpartition(".")[0] not in routers | experts
    ]
    if odd or beside:
        raise InfeasibleError(
            f"the mixture of '{group.name}' is more than matrices of experts and a router: it holds "
            f"'{(odd or beside)[0]}'",
            hint="remove or merge_experts, which keep the mixture",
        )
    return tuple(sizes)


def inner_of(graph: Graph, group: Group) -> Group:
    """The Axis of the channels inside of the experts that `group` counts.

    Raises:
        InfeasibleError: there is none, or several.
    """
    inner = [g for g in graph.groups if g.kind == "ffn" and set(g.params) & set(group.params)]
    if len(inner) != 1:
        raise InfeasibleError(f"the experts of '{group.name}' have {len(inner)} sets of hidden channels")
    return inner[0]


def densified(
    module: PreTrainedModel, graph: Graph, layers: Sequence[Fixed], config: PreTrainedConfig, small: Graph
) -> PreTrainedModel:
    """The model that `config` builds, with every mixture's chosen experts as one sublayer.

    Args:
        module: the model with mixtures; it is not changed.
        graph: what it was traced to.
        layers: the choice for every mixture.
        config: from `dense_config`.
        small: what a model of `config` is traced to.

    Raises:
        InfeasibleError: the new model computes something else than the fixed routing does.
    """
    tokens = probe_tokens(module)
    loss = PrecisionLoss()
    with loss, _held(module, graph, layers):
        want = _logits(module, tokens)
    source = ModuleSource(module)
    apart = float("inf")
    pairs = [(layer, _counterpart(graph, layer, small)) for layer in layers]
    producers = len(_sites(inner_of(graph, graph.group(layers[0].axis)), "producer", graph, layers[0].axis))
    for order in permutations(range(producers)):
        blank = skeleton(config, dtype=module.dtype)
        fresh = {
            name: tensor
            for layer, sublayer in pairs
            for name, tensor in _joined(source, graph, layer, small, sublayer, order).items()
        }
        gone = {name for layer in layers for name in graph.group(layer.axis).params}
        stream = ((name, source.get(name)) for name in source.names() if name not in gone)
        dense = cast(PreTrainedModel, load_into(blank, [*stream, *fresh.items()]))
        got = _logits(dense, tokens)
        apart = min(apart, float((want - got).abs().max() / want.abs().max()))
        if apart <= loss.tolerance:
            if dense.can_generate():
                dense.generation_config = copy.deepcopy(module.generation_config)
            return dense.train(module.training)
    raise InfeasibleError(
        f"the experts fit a model of type '{config.model_type}', but it computes something else: logits "
        f"differ by {apart:.2g} of the largest",
        hint="--to with another family",
    )


def _sites(group: Group, role: str, graph: Graph, axis: str) -> tuple[Site, ...]:
    stacks = set(graph.group(axis).params)
    return tuple(site for site in group.sites if site.role == role and site.param in stacks)


def _counterpart(graph: Graph, layer: Fixed, small: Graph) -> Group:
    """The Axis of the channels of the sublayer that takes a mixture's place."""
    block = graph.group(layer.axis).block
    found = [g for g in small.groups if g.kind == "ffn" and g.block == block]
    if len(found) != 1:
        raise InfeasibleError(f"block '{block}' of the new model has {len(found)} sets of hidden channels")
    return found[0]


def _joined(
    source: ModuleSource,
    graph: Graph,
    layer: Fixed,
    small: Graph,
    sublayer: Group,
    order: Sequence[int],
) -> Mapping[str, Tensor]:
    """Tensors of one new sublayer; `order` says which of the first matrices goes where."""
    group, inner = graph.group(layer.axis), inner_of(graph, graph.group(layer.axis))
    dims = {site.param: site.dim for site in group.sites}
    found: dict[str, Tensor] = {}
    for role in ("producer", "consumer"):
        ours = _sites(inner, role, graph, layer.axis)
        theirs = [site for site in sublayer.sites if site.role == role]
        if len(ours) != len(theirs):
            raise InfeasibleError(
                f"the experts of '{layer.axis}' have {len(ours)} matrices of role {role}, the new sublayer "
                f"{len(theirs)}"
            )
        places = order if role == "producer" else range(len(ours))
        for own, place in zip(ours, places, strict=True):
            rows = [
                _channels(source.get(own.param), dims[own.param], own, expert)
                * (gate if role == "consumer" else 1.0)
                for expert, gate in zip(layer.experts, layer.gates, strict=True)
            ]
            _put(found, small, theirs[place], torch.cat(rows))
    return found


def _channels(stack: Tensor, dim: int, site: Site, expert: int) -> Tensor:
    """What one expert has at a Site of its channels, [channels, others]."""
    one = stack.movedim(dim, 0)[expert]
    positions = torch.from_numpy(site.layout.positions().reshape(-1)).to(stack.device)
    return one.movedim(site.dim - (site.dim > dim), 0)[positions]


def _put(found: dict[str, Tensor], small: Graph, site: Site, rows: Tensor) -> None:
    shape = small.parameters[site.param].shape
    if site.param not in found:
        found[site.param] = torch.zeros(shape, dtype=rows.dtype, device=rows.device)
    positions = torch.from_numpy(site.layout.positions().reshape(-1)).to(rows.device)
    found[site.param].movedim(site.dim, 0)[positions] = rows


def _logits(module: PreTrainedModel, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        output = call_with(module, all_tensors(module, torch.float64), **feed(module, tokens))
    return first_output(output).value


@contextmanager
def _held(module: nn.Module, graph: Graph, layers: Sequence[Fixed]) -> Iterator[None]:
    """While open, the experts of every layer get all tokens under the fixed gates."""
    with ExitStack() as stack:
        for layer in layers:
            outlet = next(n for n in graph.group(layer.axis).params if len(graph.parameters[n].shape) > 2)
            part = module.get_submodule(outlet.rpartition(".")[0])
            hook = part.register_forward_pre_hook(_fixing(layer), with_kwargs=True)
            stack.callback(hook.remove)
        yield


def _fixing(layer: Fixed) -> Callable[..., tuple[tuple, dict[str, Any]]]:
    def before(part: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        index = [g for g in (*args, *kwargs.values()) if _chooses(g)]
        shapes = [g.shape for g in index]
        weights = [
            g
            for g in (*args, *kwargs.values())
            if isinstance(g, Tensor) and g.is_floating_point() and g.shape in shapes
        ]
        if len(index) != 1 or len(weights) != 1:
            raise InfeasibleError(
                f"{type(part).__name__} is not told which experts a token goes to and with what gates, so "
                "its routing cannot be held"
            )
        chosen = torch.tensor(layer.experts).to(index[0]).expand(len(index[0]), -1)
        gates = torch.tensor(layer.gates).to(weights[0]).expand(len(index[0]), -1)

        def fixed(given: object) -> object:
            return chosen if given is index[0] else gates if given is weights[0] else given

        return tuple(map(fixed, args)), {key: fixed(value) for key, value in kwargs.items()}

    return before


def _chooses(given: object) -> bool:
    return isinstance(given, Tensor) and given.ndim == 2 and not given.is_floating_point()
