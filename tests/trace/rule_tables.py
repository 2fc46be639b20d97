"""What each op rule is held to: a function in the middle of a toy, its parts, and what must come of it.

`COUPLED`: the Sites of Groups that must be there, free. `STRUCTURE`: factors that make no Group. `LOCKED`: a
part of the reason that some Group must give.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tests.trace.toys import WIDTH, through

__all__ = ["COUPLED", "LOCKED", "STRUCTURE"]

WHOLE = through("0+[24:1]")
HALVES = through("0+[12:1]") | through("12+[12:1]")
SPLIT = [through("0+[10:1]"), through("10+[14:1]")]
FACTORS = [through("0+[3:8] 8:1"), through("0+3:8 [8:1]")]
TURNED = [
    {"up.weight[0] 0+[3:8] 8:1", "up.bias[0] 0+[3:8] 8:1", "down.weight[1] 0+8:3 [3:1]"},
    {"up.weight[0] 0+3:8 [8:1]", "up.bias[0] 0+3:8 [8:1]", "down.weight[1] 0+[8:3] 3:1"},
]
SWAPPED = [
    {"up.weight[0] 0+[10:1]", "up.bias[0] 0+[10:1]", "down.weight[1] 14+[10:1]"},
    {"up.weight[0] 10+[14:1]", "up.bias[0] 10+[14:1]", "down.weight[1] 0+[14:1]"},
]


def heads(x):
    return x.unflatten(-1, (3, 8)).transpose(1, 2)


def lanes(x):
    return x.unflatten(-1, (3, 8)).unbind(-2)


def channels_first(name):
    return lambda toy, x: getattr(toy, name)(x.transpose(1, 2)).transpose(1, 2)


def tokens(x):
    return x.reshape(-1, WIDTH)


def backwards(x):
    return torch.arange(len(x)).flip(0)


def half_of_ones(toy, x):
    mask = torch.zeros(WIDTH, dtype=x.dtype)
    mask[10:] = 1
    return x * mask + x


def written(toy, x):
    x = x.clone()
    x[..., :10] += toy.a
    return x


def sampled(picture):
    """[5, c, h, w] → the same, each place looked up beside the middle."""
    places = torch.full((5, *picture.shape[2:], 2), 0.3, dtype=picture.dtype)
    return F.grid_sample(picture, places, align_corners=False)


def picked_whole(t, x):
    mask = (torch.arange(19) > 3)[None, :, None].expand(5, 19, 24)
    y = torch.zeros_like(x)
    y[mask] = 2 * x[mask]
    y[~mask] = x[~mask].view(-1, 24).tanh().flatten()
    return y


def picked_tokens(toy, x):
    mask = torch.arange(19).expand(5, 19) > 3
    y = torch.zeros_like(x)
    y[mask] = x[mask] * 2
    return y


def top_four(toy, x):
    _, chosen = x.topk(4, -1)
    return x * torch.zeros_like(x).scatter(-1, chosen, 1.0)


def counted(toy, x, step=1):
    """Each token through the one of six matrices that its scores say; pieces as long as they are counted."""
    flat = tokens(x)
    best, chosen = (flat @ toy.a.T).topk(1, -1)
    counts = torch.zeros(len(flat), 6, dtype=x.dtype).scatter(1, chosen, 1).long().sum(0).tolist()
    _, order = chosen.flatten().sort(0)
    pieces = [F.linear(piece, toy.w[n]) for n, piece in enumerate(flat[order].split(counts[::step]))]
    return (torch.zeros_like(flat).index_add(0, order, torch.cat(pieces)) * best).view_as(x)


def in_chunks(x):
    """Heads of chunks of a padded sequence, each less its mean, and back."""
    apart = F.pad(heads(x), (0, 0, 0, 1)).reshape(15, 5, 4, 8)
    apart = apart - apart.mean(2, keepdim=True)
    return apart.reshape(5, 3, 20, 8)[:, :, :19].transpose(1, 2).flatten(-2)


def complex_square(toy, x):
    z = torch.view_as_complex(x.unflatten(-1, (12, 2)).contiguous())
    return torch.view_as_real(z * z).flatten(-2)


def vector(size=WIDTH):
    return lambda: nn.Parameter(torch.rand(size))


def matrix(*sizes):
    return lambda: nn.Parameter(torch.rand(sizes))


COUPLED = {
    # pointwise
    "activation": (lambda t, x: torch.tanh(x), {}, [WHOLE]),
    "parameter": (lambda t, x: torch.lerp(x, x * x, t.a), {"a": vector()}, [WHOLE | {"a[0] 0+[24:1]"}]),
    "where": (lambda t, x: torch.where(x > 0, x, t.a), {"a": vector()}, [WHOLE | {"a[0] 0+[24:1]"}]),
    "volatile buffer": (
        lambda t, x: x * t.table,
        {"table": lambda: nn.Buffer(torch.rand(24), persistent=False)},
        [WHOLE | {"table[0] 0+[24:1]"}],
    ),
    # lanes: taken apart index by index, treated alike, put together again
    "lanes beside each other": (
        lambda t, x: torch.cat([torch.tanh(head @ w) for head, w in zip(lanes(x), t.a, strict=True)], -1),
        {"a": matrix(3, 8, 8)},
        [
            FACTORS[0] | {"a[0] 0+[3:1]"},
            {"up.weight[0] 0+3:8 [8:1]", "up.bias[0] 0+3:8 [8:1]", "a[1] 0+[8:1]"},
            {"a[2] 0+[8:1]", "down.weight[1] 0+3:8 [8:1]"},
        ],
    ),
    "lanes stacked": (
        lambda t, x: torch.stack([h * a for h, a in zip(lanes(x), t.a, strict=True)], -2).flatten(-2),
        {"a": vector(3)},
        [FACTORS[0] | {"a[0] 0+[3:1]"}, FACTORS[1]],
    ),
    "one of equal numbers": (
        lambda t, x: x + torch.zeros_like(x, dtype=torch.int)[..., 3].sum(),
        {},
        [WHOLE],
    ),
    "bags of rows": (
        lambda t, x: x + F.embedding_bag(torch.arange(6).view(3, 2), t.a, mode="sum").tanh().sum(0),
        {"a": matrix(7, 24)},
        [WHOLE | {"a[1] 0+[24:1]"}],
    ),
    "pieces as long as counted": (
        counted,
        {"a": matrix(6, 24), "w": matrix(6, 24, 24)},
        [{"a[0] 0+[6:1]", "w[0] 0+[6:1]"}, WHOLE | {"a[1] 0+[24:1]", "w[1] 0+[24:1]", "w[2] 0+[24:1]"}],
    ),
    "a padded sequence in chunks": (lambda t, x: in_chunks(x), {}, FACTORS),
    "glu": (
        lambda t, x: F.pad(F.glu(x), (0, 12)),
        {},
        [
            {f"up.{p}[0] {at}+[12:1]" for p in ("weight", "bias") for at in (0, 12)}
            | {"down.weight[1] 0+[12:1]"}
        ],
    ),
    "prelu": (lambda t, x: F.prelu(x.mT, t.a).mT, {"a": vector()}, [WHOLE | {"a[0] 0+[24:1]"}]),
    "unsafe split": (
        lambda t, x: torch.cat([p.tanh() for p in torch.unsafe_split_with_sizes(x, [10, 14], -1)], -1),
        {},
        SPLIT,
    ),
    "windows side by side": (lambda t, x: x.unfold(-1, 8, 8).flatten(-2), {}, FACTORS),
    "windows over positions": (lambda t, x: F.pad(x, (0, 0, 2, 0)).unfold(1, 3, 1).sum(-1), {}, [WHOLE]),
    "strides over positions": (
        lambda t, x: x.contiguous().as_strided((5, 17, 3, 24), (19 * 24, 24, 24, 1)).sum(-2).sum(1, True) + x,
        {},
        [WHOLE],
    ),
    "columns of windows": (
        lambda t, x: F.unfold(x.mT.unsqueeze(-1), (3, 1), padding=(1, 0)).unflatten(1, (24, 3)).sum(2).mT,
        {},
        [WHOLE],
    ),
    "sampled between places": (lambda t, x: x + sampled(x.mT.unsqueeze(2)).squeeze(2).mT, {}, [WHOLE]),
    "pooled": (lambda t, x: x + F.avg_pool1d(x.mT, 3, 1, 1).mT, {}, [WHOLE]),
    "pooled and stretched": (
        lambda t, x: F.interpolate(F.max_pool2d(x.mT.unsqueeze(2), (1, 2)), (1, 19)).squeeze(2).mT,
        {},
        [WHOLE],
    ),
    "fft over positions": (lambda t, x: torch.fft.fft(x, dim=1).real, {}, [WHOLE]),
    "real fft over positions": (
        lambda t, x: torch.fft.irfft(torch.fft.rfft(x, dim=1), 19, dim=1),
        {},
        [WHOLE],
    ),
    "diagonal": (
        lambda t, x: (torch.diag_embed(x) * torch.diag_embed(x.tanh())).diagonal(0, -2, -1),
        {},
        [WHOLE],
    ),
    "rows put in": (
        lambda t, x: x.masked_scatter((torch.arange(19) < 4)[:, None].expand(5, 19, 24), t.a.tanh()),
        {"a": matrix(20, 24)},
        [WHOLE | {"a[1] 0+[24:1]"}],
    ),
    "values of rows put in": (
        lambda t, x: x.masked_scatter(
            (torch.arange(19) < 4)[:, None].expand(5, 19, 24), (t.a @ t.b).flatten()
        ),
        {"a": matrix(20, 7), "b": matrix(7, 24)},
        [WHOLE | {"b[1] 0+[24:1]"}],
    ),
    "picked beside": (
        lambda t, x: x * torch.cat([x, x.sum(-1, keepdim=True).tanh()], -1)[..., -1].unsqueeze(-1),
        {},
        [WHOLE],
    ),
    "all true": (lambda t, x: x * (1.0 + torch.ops.aten._is_all_true(x.abs() >= 0)), {}, [WHOLE]),
    "counts written out": (
        lambda t, x: x.index_select(1, torch.repeat_interleave(torch.full((19,), 2)))[:, ::2],
        {},
        [WHOLE],
    ),
    "places": (
        lambda t, x: x * torch.zeros_like(t.a).index_fill(0, (t.a > 0.5).nonzero().squeeze(-1), 2.0) + x,
        {"a": vector()},
        [WHOLE | {"a[0] 0+[24:1]"}],
    ),
    # views
    "view": (lambda t, x: x.unflatten(-1, (3, 8)).transpose(-1, -2).flatten(-2), {}, TURNED),
    "squeeze": (lambda t, x: x.unsqueeze(2).squeeze(2).movedim(-1, 0).movedim(0, -1), {}, [WHOLE]),
    "expand": (lambda t, x: x.repeat_interleave(2, -1).unflatten(-1, (24, 2)).sum(-1), {}, [WHOLE]),
    "repeat": (lambda t, x: x.repeat(1, 1, 2).unflatten(-1, (2, 24)).sum(-2), {}, [WHOLE]),
    # segments
    "gate": (lambda t, x: torch.cat([x[..., :12] * x[..., 12:].sigmoid(), x[..., 12:]], -1), {}, [HALVES]),
    "rotate": (lambda t, x: x * torch.cat([-x[..., 12:], x[..., :12]], -1), {}, [HALVES]),
    "reorder": (lambda t, x: torch.cat([x[..., 10:], x[..., :10]], -1), {}, SWAPPED),
    "split": (lambda t, x: torch.cat([p.tanh() for p in x.split([10, 14], -1)], -1), {}, SPLIT),
    "written": (
        written,
        {"a": vector(10)},
        [SPLIT[0] | {"a[0] 0+[10:1]"}, SPLIT[1]],
    ),
    # contractions
    "matmul": (
        lambda t, x: x @ t.a @ t.b,
        {"a": matrix(24, 9), "b": matrix(9, 24)},
        [
            {"up.weight[0] 0+[24:1]", "up.bias[0] 0+[24:1]", "a[0] 0+[24:1]"},
            {"a[1] 0+[9:1]", "b[0] 0+[9:1]"},
            {"b[1] 0+[24:1]", "down.weight[1] 0+[24:1]"},
        ],
    ),
    "one weight twice": (
        lambda t, x: x @ t.a @ t.a,
        {"a": matrix(24, 24)},
        [WHOLE | {"a[0] 0+[24:1]", "a[1] 0+[24:1]"}],
    ),
    "einsum": (
        lambda t, x: torch.einsum("bsgi,gij->bsgj", x.unflatten(-1, (3, 8)), t.a).flatten(-2),
        {"a": matrix(3, 8, 8)},
        [
            FACTORS[0] | {"a[0] 0+[3:1]"},
            {"up.weight[0] 0+3:8 [8:1]", "up.bias[0] 0+3:8 [8:1]", "a[1] 0+[8:1]"},
            {"a[2] 0+[8:1]", "down.weight[1] 0+3:8 [8:1]"},
        ],
    ),
    "attention": (
        lambda t, x: (heads(x) @ heads(x).mT).softmax(-1).matmul(heads(x)).transpose(1, 2).flatten(-2),
        {},
        FACTORS,
    ),
    "fused attention": (
        lambda t, x: F.scaled_dot_product_attention(*[heads(x)] * 3).transpose(1, 2).flatten(-2),
        {},
        FACTORS,
    ),
    # convolutions
    "convolution": (
        channels_first("conv"),
        {"conv": lambda: nn.Conv1d(24, 24, 3, padding=1)},
        [
            {"up.weight[0] 0+[24:1]", "up.bias[0] 0+[24:1]", "conv.weight[1] 0+[24:1]"},
            {"conv.weight[0] 0+[24:1]", "conv.bias[0] 0+[24:1]", "down.weight[1] 0+[24:1]"},
        ],
    ),
    "depthwise": (
        channels_first("conv"),
        {"conv": lambda: nn.Conv1d(24, 24, 3, padding=1, groups=24)},
        [WHOLE | {"conv.weight[0] 0+[24:1]", "conv.bias[0] 0+[24:1]"}],
    ),
    "grouped convolution": (
        channels_first("conv"),
        {"conv": lambda: nn.Conv1d(24, 24, 3, padding=1, groups=3)},
        [
            FACTORS[0] | {"conv.weight[0] 0+[3:8] 8:1", "conv.bias[0] 0+[3:8] 8:1"},
            {"up.weight[0] 0+3:8 [8:1]", "up.bias[0] 0+3:8 [8:1]", "conv.weight[1] 0+[8:1]"},
            {
                "conv.weight[0] 0+3:8 [8:1]",
                "conv.bias[0] 0+3:8 [8:1]",
                "down.weight[1] 0+3:8 [8:1]",
            },
        ],
    ),
    # norms and reductions
    "layer norm": (
        lambda t, x: t.norm(x),
        {"norm": lambda: nn.LayerNorm(24)},
        [WHOLE | {"norm.weight[0] 0+[24:1]", "norm.bias[0] 0+[24:1]"}],
    ),
    "group norm": (
        channels_first("norm"),
        {"norm": lambda: nn.GroupNorm(3, 24)},
        [
            FACTORS[0] | {"norm.weight[0] 0+[3:8] 8:1", "norm.bias[0] 0+[3:8] 8:1"},
            FACTORS[1] | {"norm.weight[0] 0+3:8 [8:1]", "norm.bias[0] 0+3:8 [8:1]"},
        ],
    ),
    "batch norm": (
        channels_first("norm"),
        {"norm": lambda: nn.BatchNorm1d(24)},
        [WHOLE | {f"norm.{leaf}[0] 0+[24:1]" for leaf in ("weight", "bias", "running_mean", "running_var")}],
    ),
    "deviation": (lambda t, x: (x - x.amax(-1, keepdim=True)) / x.std(-1, keepdim=True), {}, [WHOLE]),
    "unit length": (lambda t, x: F.normalize(x, dim=-1), {}, [WHOLE]),
    "softmax": (lambda t, x: 9 * x.softmax(-1), {}, [WHOLE]),
    # indices
    "largest": (lambda t, x: x * F.one_hot(x.argmax(-1), WIDTH), {}, [WHOLE]),
    "top-k": (top_four, {}, [WHOLE]),
    "add by token": (
        lambda t, x: torch.zeros_like(tokens(x)).index_add(0, backwards(tokens(x)), tokens(x)).view_as(x),
        {},
        [WHOLE],
    ),
    "scatter by token": (
        lambda t, x: (
            torch.zeros(tokens(x).shape, dtype=x.dtype)
            .scatter_add(0, backwards(tokens(x))[:, None].expand(-1, WIDTH), tokens(x))
            .view_as(x)
        ),
        {},
        [WHOLE],
    ),
    "gather by token": (
        lambda t, x: x + x.gather(1, torch.zeros(5, 19, WIDTH, dtype=torch.int64)),
        {},
        [WHOLE],
    ),
    "short gather": (
        lambda t, x: torch.cat([x.gather(1, torch.zeros(5, 19, 10, dtype=torch.int64)), x[..., 10:]], -1),
        {},
        SPLIT,
    ),
    "run of indices": (lambda t, x: torch.cat([x[..., :10], x[..., torch.arange(10, 24)]], -1), {}, SPLIT),
    "picked by mask": (picked_tokens, {}, [WHOLE]),
    "picked by a mask over whole tokens": (picked_whole, {}, [WHOLE]),
    # made inside forward, but the same for every index of a segment
    "filled": (half_of_ones, {}, SPLIT),
}
LOCKED = {
    # order matters
    "flip": (lambda t, x: x + x.flip(-1), {}, "reversed or rolled"),
    "roll": (lambda t, x: x + x.roll(1, -1), {}, "reversed or rolled"),
    "roll all": (lambda t, x: x + x.roll(1), {}, "reversed or rolled"),
    "cumsum": (lambda t, x: x.cumsum(-1), {}, "summed up in order"),
    "sort": (lambda t, x: x.sort(-1).values, {}, "sorted"),
    "triangle": (lambda t, x: x @ torch.ones(24, 24, dtype=x.dtype).tril(), {}, "compared by place"),
    # one index is not like the other
    "select": (lambda t, x: x * x[..., 3, None], {}, "picked one by one"),
    "unbind": (lambda t, x: torch.stack(x.unbind(-1)[::-1], -1), {}, "picked one by one"),
    "lanes of another order": (
        lambda t, x: torch.cat([head * w for head, w in zip(lanes(x), t.a.flip(0), strict=True)], -1),
        {"a": matrix(3, 8)},
        "reversed or rolled",
    ),
    "pieces of another count": (
        lambda t, x: counted(t, x, -1),
        {"a": matrix(6, 24), "w": matrix(6, 24, 24)},
        "leave for Python",
    ),
    "picked within": (
        lambda t, x: x * torch.cat([x.sum(-1, keepdim=True), x], -1)[..., -1].unsqueeze(-1),
        {},
        "picked one by one",
    ),
    "lanes not alike": (
        lambda t, x: torch.cat([t.a[0] * t.a[1] * x[..., :12], t.a[1] * x[..., 12:]], -1),
        {"a": matrix(3, 12)},
        "picked one by one",
    ),
    "lanes with a first": (
        lambda t, x: torch.cat([x[..., :8] * row * t.a[0] for row in t.a.unbind(0)], -1),
        {"a": matrix(3, 8)},
        "picked one by one",
    ),
    "cut": (lambda t, x: F.pad(x.repeat_interleave(2, -1)[..., :23], (0, 1)), {}, "do not divide"),
    "fft": (lambda t, x: torch.fft.fft(x).real, {}, "transformed by its positions"),
    "half of an fft": (
        lambda t, x: torch.fft.rfft(x).abs().repeat(1, 1, 2)[..., :24],
        {},
        "by its positions",
    ),
    "windows": (lambda t, x: F.pad(x, (1, 1)).unfold(-1, 3, 1).sum(-1), {}, "a window slides"),
    "sampled between features": (lambda t, x: x + sampled(x[:, None])[:, 0], {}, "sampled by place"),
    "pooled features": (lambda t, x: F.avg_pool1d(x, 3, 1, 1) + x, {}, "a window slides"),
    "diagonal aside": (lambda t, x: torch.diag_embed(x, 1)[..., :24, :24].sum(-1), {}, "beside the main one"),
    "values put in": (
        lambda t, x: x.masked_scatter(torch.arange(24).expand(5, 19, 24) < 9, t.a) + x,
        {"a": matrix(45, 24)},
        "values are put in one after the other",
    ),
    "borders": (lambda t, x: x * torch.bucketize(x, t.a), {"a": vector()}, "borders in ascending order"),
    "places of two dims": (
        lambda t, x: x * (t.a > 0).nonzero().sum(),
        {"a": matrix(24, 9)},
        "read as numbers",
    ),
    "triangular": (
        lambda t, x: torch.linalg.solve_triangular(
            x.unsqueeze(-1) * x.unsqueeze(-2) + torch.ones(24, 24, dtype=x.dtype),
            x.unsqueeze(-1),
            upper=False,
            unitriangular=True,
        ).squeeze(-1),
        {},
        "solved for row by row",
    ),
    "kernel": (channels_first("conv"), {"conv": lambda: nn.Conv1d(24, 24, 3, padding=1)}, "kernel positions"),
    "transposed": (
        channels_first("conv"),
        {"conv": lambda: nn.ConvTranspose1d(24, 24, 3, padding=1, groups=3)},
        "a transposed convolution in groups",
    ),
    # constants
    "counting": (lambda t, x: x * (torch.arange(24) < 9), {}, "constants that forward makes"),
    "unit matrix": (lambda t, x: x @ (torch.eye(24, dtype=x.dtype) + 1), {}, "constants that forward makes"),
    "noise": (
        lambda t, x: x * torch.rand(24, dtype=x.dtype, generator=torch.Generator().manual_seed(0)),
        {},
        "constants that forward makes",
    ),
    "literal": (
        lambda t, x: x * torch.tensor([float(n) for n in range(24)]),
        {},
        "constants that forward makes",
    ),
    "array": (lambda t, x: x * torch.from_numpy(np.arange(24.0)), {}, "constants that forward makes"),
    "attribute": (
        lambda t, x: x * t.free[0],
        {"free": lambda: [torch.rand(24, dtype=torch.float64)]},
        "constants that forward makes",
    ),
    # indices
    "shuffled": (lambda t, x: x[..., list(range(24))[::-1]], {}, "indexed by constants or positions"),
    "put": (
        lambda t, x: torch.zeros_like(x).index_copy(-1, torch.arange(24).flip(0), x),
        {},
        "indexed by constants or positions",
    ),
    "index as number": (lambda t, x: x * x.argmax(-1, keepdim=True).to(x.dtype), {}, "with its indices"),
    "index compared": (lambda t, x: x * (x.argmax(-1, keepdim=True) > 3), {}, "would renumber an index"),
    "index shifted": (lambda t, x: x * x.gather(-1, x.argmax(-1, True) // 2), {}, "with its indices"),
    "index to Python": (lambda t, x: x * int(x.sum((0, 1)).argmax()), {}, "indices leave for Python"),
    "indices to Python": (
        lambda t, x: x * sum(x.sum((0, 1)).topk(3).indices.tolist()),
        {},
        "indices leave for Python",
    ),
    "indices to numpy": (
        lambda t, x: x * float(x.sum((0, 1)).topk(3).indices.numpy().sum()),
        {},
        "indices leave for Python",
    ),
    "picked by a mask over some of it": (
        lambda t, x: x * x[(torch.arange(24) < 9).expand(5, 19, 24)].sum(),
        {},
        "picked by a mask",
    ),
    "picked by a mask of its own": (lambda t, x: x * x[x > 0].sum(), {}, "picked by a mask"),
    "mask to Python": (
        lambda t, x: x * float(sum(n for n, yes in enumerate((x.sum((0, 1)) > 0).tolist()) if yes)),
        {},
        "positions leave for Python",
    ),
    # without a rule
    "eigenvalues": (
        lambda t, x: x * torch.linalg.eigvalsh(x.mT @ x).sum(-1)[:, None, None],
        {},
        r"an op without a rule \(aten._linalg_eigh in the model\)",
    ),
}

# factors of two named parts: no set to choose from, so no Group, whole pairs are one
STRUCTURE = {
    "stack": (lambda t, x: torch.stack([x[..., :12], x[..., 12:]], -1).flatten(-2), {}, "no reason"),
    "step": (lambda t, x: torch.cat([x[..., ::2], x[..., 1::2]], -1), {}, "no reason"),
    "complex": (complex_square, {}, "no reason"),
    "named rows": (
        lambda t, x: torch.cat([t.a[0] * t.a[1] * x[..., :12], t.a[1] * x[..., 12:]], -1),
        {"a": matrix(2, 12)},
        "no reason",
    ),
    "named numbers": (
        lambda t, x: torch.cat([x[..., :12] * t.a[0], x[..., 12:] * t.a[1]], -1),
        {"a": matrix(2)},
        "no reason",
    ),
}
