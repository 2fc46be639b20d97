"""Our Groups as groups of torch_pruning, so that its importance classes score them.

For every Site a stand-in layer is made that holds the Site's weights with one row (or column) for each
channel of the Axis: a producer as the output dim of a Linear, a consumer as its input dim, a pointwise
weight as a LayerNorm. Positions beyond the common channels (the query heads of one key/value head) lie
in the row beside each other, so every member of the group has the same, plain indices, whatever the
Layout. A parameter called ``bias`` goes to the stand-in of the ``weight`` beside it: importance classes
count it under ``bias: true``, as they do in torch_pruning.

Gradients and activations are put where an importance looks for them; it never sees the model.
``OBDCImportance`` gets the mean squared gradient of samples as its Fisher matrix, and
``ActivationImportance`` averages over all calibration tokens where by itself it keeps the last batch.

Not here: what the scores are for (`surgeon.criteria`), and tracing by torch_pruning's own graph.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch_pruning.pruner import function
from torch_pruning.pruner import importance as every

from surgeon.errors import InputError, SurgeonError
from surgeon.graph import Group, Site
from surgeon.registry import nearest

__all__ = ["Extra", "as_pruning_group", "importance_names", "importance_scores", "make_importance", "reads"]

Extra = Literal["gradient", "squared_gradient", "input_magnitude"]
"""What an importance reads beside the weights."""

_SET_BY_US = ("self", "target_types", "num_classes")


def importance_names() -> tuple[str, ...]:
    """Every importance class of the installed torch_pruning."""
    return tuple(sorted(name for name, _ in _classes()))


def make_importance(name: str, options: Mapping[str, Any]) -> every.Importance:
    """The importance called `name` with constructor `options`.

    Raises:
        InputError: torch_pruning has no such class, or the class has no such option, or refuses it.
    """
    classes = dict(_classes())
    if name not in classes:
        raise InputError(f"torch_pruning has no importance '{name}'", hint=nearest(name, importance_names()))
    cls = classes[name]
    known = [key for key in inspect.signature(cls.__init__).parameters if key not in _SET_BY_US]
    known = [key for key in known if key not in ("args", "kwargs")]
    wrong = [key for key in options if key not in known]
    if wrong:
        raise InputError(f"{name} has no option '{wrong[0]}'", hint=nearest(wrong[0], known))
    # OBDC passes over the layer that it takes for a classifier, by its size; here there is none.
    own: dict[str, Any] = {"num_classes": 0} if issubclass(cls, every.OBDCImportance) else {}
    try:
        return cls(**options, **own)
    except (AssertionError, TypeError, ValueError) as error:
        raise InputError(f"{name} refuses the options {dict(options)}: {error!r}") from error


def reads(importance: every.Importance) -> Extra | None:
    """What `importance` reads beside the weights, or None."""
    if isinstance(importance, every.GroupHessianImportance | every.OBDCImportance):
        return "squared_gradient"
    if isinstance(importance, every.GroupTaylorImportance):
        return "gradient"
    return "input_magnitude" if isinstance(importance, every.ActivationImportance) else None


def importance_scores(
    importance: every.Importance,
    group: Group,
    width: int,
    weights: Callable[[str], Tensor],
    extra: Mapping[str, Tensor],
    seed: int,
) -> Tensor:
    """Scores [size] of `group`: the importance of its channels, summed over the channels of an index.

    Args:
        importance: as `make_importance` makes it.
        group: Sites are parameters, each storage once.
        width: channels of one index.
        weights: the parameter of that name.
        extra: by parameter name, what `reads` says.
        seed: for an importance that draws random numbers; torch's own generator is left alone.

    Raises:
        SurgeonError: `importance` finds no layer of its sort in the Group, or cannot carry on.
    """
    name = type(importance).__name__
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        pruning_group = as_pruning_group(group, width, weights, extra, importance)
        try:
            found = importance(pruning_group)
        except (NotImplementedError, RuntimeError, IndexError, KeyError, AttributeError) as error:
            raise SurgeonError(f"{name} fails on '{group.name}': {error!r}") from error
    if not isinstance(found, Tensor) or found.numel() != group.size * width:
        sort = ", ".join(sorted({site.role for site in group.sites}))
        raise SurgeonError(
            f"{name} scores nothing in '{group.name}': no layer of the sort it looks at ({sort} sites)",
            hint="another importance; BNScaleImportance, for one, needs batch norms",
        )
    return found.detach().to(torch.float64).view(group.size, width).sum(1)


def as_pruning_group(
    group: Group,
    width: int,
    weights: Callable[[str], Tensor],
    extra: Mapping[str, Tensor],
    importance: every.Importance,
) -> tp.Group:
    """`group` as torch_pruning has it: stand-in layers, pruning functions and plain indices."""
    channels = list(range(group.size * width))
    made = tp.Group()
    for member in _members(group, width, weights, extra, reads(importance)):
        layer, handler = member.stand_in()
        node = tp.dependency.Node(layer, member.name)
        made.add_dep(tp.Dependency(handler, handler, node, node), list(channels))
        made[-1].root_idxs = list(channels)
        if isinstance(importance, every.OBDCImportance) and isinstance(layer, nn.Linear):
            importance.Fisher[layer] = layer.weight.grad
            importance.steps = 1
    return made


@dataclass(eq=False)
class _Member:
    """One stand-in to be: `rows` [channels, everything else] and, beside it, a bias [channels]."""

    name: str
    site: Site
    rows: Tensor
    grads: Tensor | None
    entering: Tensor | None
    bias: Tensor | None = None
    bias_grads: Tensor | None = None

    def stand_in(self) -> tuple[nn.Module, Callable[..., Any]]:
        """The layer and the function that would prune it."""
        count, features = self.rows.shape
        if self.site.role == "pointwise":
            norm = nn.LayerNorm(count, device="meta")
            self._fill(norm, self.rows[:, 0], None if self.grads is None else self.grads[:, 0])
            return norm, function.prune_layernorm_out_channels
        biased = self.bias is not None
        if self.site.role == "consumer":
            layer = nn.Linear(count, features, bias=False, device="meta")
            self._fill(layer, self.rows.T, None if self.grads is None else self.grads.T)
            if self.entering is not None:
                layer._importance = self.entering  # type: ignore[assignment]
            return layer, function.prune_linear_in_channels
        layer = nn.Linear(features, count, bias=biased, device="meta")
        self._fill(layer, self.rows, self.grads)
        return layer, function.prune_linear_out_channels

    def _fill(self, layer: nn.Linear | nn.LayerNorm, weight: Tensor, grads: Tensor | None) -> None:
        layer.weight = _parameter(weight, grads)
        if layer.bias is not None:
            none = torch.zeros(self.rows.shape[0], dtype=weight.dtype, device=weight.device)
            bias_grads = none if grads is not None and self.bias_grads is None else self.bias_grads
            layer.bias = _parameter(none if self.bias is None else self.bias, bias_grads)


def _members(
    group: Group,
    width: int,
    weights: Callable[[str], Tensor],
    extra: Mapping[str, Tensor],
    kind: Extra | None,
) -> Iterator[_Member]:
    """One member for each Site, biases joined to the weight beside them."""
    members: dict[tuple[str, Site], _Member] = {}
    biases: list[tuple[Site, Tensor, Tensor | None]] = []
    graded = kind in ("gradient", "squared_gradient")
    for site in group.sites:
        rows = _rows(weights(site.param), site, width)
        grads = _rows(extra[site.param], site, width).to(rows.dtype) if graded else None
        owner, _, leaf = site.param.rpartition(".")
        if leaf == "bias" and site.role == "pointwise":
            biases.append((site, rows[:, 0], None if grads is None else grads[:, 0]))
            continue
        entering = extra.get(site.param) if kind == "input_magnitude" and site.role == "consumer" else None
        driven = None if entering is None else _rows(entering, site, width, dim=0).sum(1)
        members[owner, site] = _Member(site.param, site, rows, grads, driven)
    for site, bias, grads in biases:
        owner = site.param.rpartition(".")[0]
        for (beside, other), member in members.items():
            if beside == owner and other.role != "consumer" and other.layout == site.layout:
                member.bias, member.bias_grads = bias, grads
    yield from members.values()


def _rows(tensor: Tensor, site: Site, width: int, dim: int | None = None) -> Tensor:
    """[size * width, everything else]: one row a channel of the Axis."""
    at = site.dim if dim is None else dim
    positions = torch.from_numpy(site.layout.positions()).to(tensor.device)
    size, owned = positions.shape
    flat = tensor.detach().movedim(at, 0).flatten(1) if tensor.ndim > 1 else tensor.detach()[:, None]
    picked = flat[positions.view(size, owned // width, width)]
    return picked.transpose(1, 2).reshape(size * width, -1)


def _parameter(data: Tensor, grads: Tensor | None) -> nn.Parameter:
    parameter = nn.Parameter(data.contiguous())
    if grads is not None:
        parameter.grad = grads.to(parameter.dtype).contiguous()
    return parameter


def _classes() -> Iterator[tuple[str, type[every.Importance]]]:
    for name, found in vars(every).items():
        if inspect.isclass(found) and issubclass(found, every.Importance) and not inspect.isabstract(found):
            yield name, found
