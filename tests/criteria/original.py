"""What LLM-Pruner computes, written again in numpy from its formulas, names and all.

Grouped-query models fold by `kv_of`: the original's ``view`` credits the wrong heads there.
"""

from __future__ import annotations

import numpy as np


def element(kind, w, g, acc):
    if kind == "l1":
        return np.abs(w)
    if kind == "l2":
        return np.abs(w) ** 2
    first, second = w * g, w * acc * w
    return {"param_second": second, "param_mix": first - 0.5 * second}.get(kind, first)


def to_channels(kind, salience, axis):
    """Out-channels sum over the input dim (axis=1), in-channels over the output dim (axis=0)."""
    if kind == "vectorize":
        return np.abs(salience.sum(axis))
    return np.abs(salience).sum(axis)


REDUCE = {
    "sum": lambda stack: stack.sum(0),
    "mean": lambda stack: stack.mean(0),
    "max": lambda stack: stack.max(0),
    "prod": lambda stack: stack.prod(0),
    "first": lambda stack: stack[0],
}


def group_score(kind, reduce, members, tensors):
    """`members`: (parameter, axis summed over, head fold (kv, rep, d) or None), in the group's order."""
    vectors = []
    for name, axis, fold in members:
        w, g, acc = tensors[name]
        vector = to_channels(kind, element(kind, w, g, acc), axis)
        vectors.append(vector if fold is None else vector.reshape(fold).sum(1).reshape(-1))
    return REDUCE[reduce](np.stack(vectors))


def ffn_members(layer):
    at = f"model.layers.{layer}.mlp"
    return [
        (f"{at}.gate_proj.weight", 1, None),
        (f"{at}.up_proj.weight", 1, None),
        (f"{at}.down_proj.weight", 0, None),
    ]


def head_members(layer, kv, rep, d):
    at, fold = f"model.layers.{layer}.self_attn", (kv, rep, d)
    return [
        (f"{at}.q_proj.weight", 1, fold),
        (f"{at}.k_proj.weight", 1, None),
        (f"{at}.v_proj.weight", 1, None),
        (f"{at}.o_proj.weight", 0, fold),
    ]


def local_pruned(scores, ratio, d=1):
    """Indices that the local mode prunes: n - int(n * (1 - ratio)) channels, whole heads of d channels."""
    channels = len(scores)
    n = channels - int(channels * (1 - ratio))
    heads = scores.reshape(-1, d).sum(1)
    return np.sort(np.argsort(heads, kind="stable")[: n // d])


def global_pruned(scores, ratio):
    """`scores`: one array of units an axis; everything at or below the n-th lowest goes."""
    every = np.concatenate(list(scores.values()))
    n = len(every) - int(len(every) * (1 - ratio))
    threshold = np.sort(every)[n - 1]
    return {name: np.flatnonzero(found <= threshold) for name, found in scores.items()}
