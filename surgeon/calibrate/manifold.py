"""How alike Blocks are on a manifold of samples: diffusion maps, and mutual information between them.

As MKA states it (Liu et al. 2024, arXiv 2406.16330), over all samples; its released code looks at one.
Mutual information by nearest neighbours as in Kraskov et al. (2004, Phys. Rev. E 69, 066138), in nats.
Entropy estimates of few samples can be negative, and then say nothing: such a pair is 0 alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["diffusion_map", "mutual_information", "normalised_information", "ranked"]

Floats = npt.NDArray[np.float64]

_JITTER = 1e-10


def diffusion_map(distances_NN: Floats, sigma: float, alpha: float, dims: int) -> Floats:
    """Coordinates [samples, dims] of samples with these pairwise distances.

    Kernel ``exp(-sqrt(D / sigma))``, divided by its density to the power `alpha`, normalised symmetrically;
    the leading vector is constant and divides the next ones.
    """
    kernel = np.exp(-np.sqrt(distances_NN / sigma))
    density = kernel.sum(0)
    kernel = kernel / np.outer(density, density) ** alpha
    root = np.sqrt(kernel.sum(0))
    vectors = np.linalg.svd(kernel / np.outer(root, root))[0]
    return vectors[:, 1 : dims + 1] / vectors[:, :1]


def ranked(points_ND: Floats) -> Floats:
    """Every column replaced by its ranks over the number of samples: in [0, 1)."""
    return np.argsort(np.argsort(points_ND, axis=0, kind="stable"), axis=0) / len(points_ND)


def mutual_information(x_N: Floats, y_N: Floats, neighbours: int) -> float:
    """Of two columns; never below 0."""
    dx, dy = (np.abs(column[:, None] - column[None]) for column in (_unit(x_N, 0), _unit(y_N, 1)))
    both = np.sort(np.maximum(dx, dy), axis=1)
    radius = np.nextafter(both[:, neighbours], 0)[:, None]
    near = [torch.from_numpy((d <= radius).sum(1).astype(np.float64)) for d in (dx, dy)]
    counts = torch.tensor([len(x_N), neighbours], dtype=torch.float64)
    found = torch.digamma(counts).sum() - sum(torch.digamma(count).mean() for count in near)
    return max(0.0, float(found))


def normalised_information(points: Sequence[Floats], neighbours: int, entropy_neighbours: int) -> Floats:
    """Similarity of embeddings [blocks, blocks]: mean information over the root of the entropies."""
    entropies = [_entropy(p, min(entropy_neighbours, len(p) - 1)) for p in points]
    found = np.zeros((len(points), len(points)))
    for i, one in enumerate(points):
        for j, other in enumerate(points):
            both = entropies[i] * entropies[j]
            if both > 0:
                columns = [(a, b) for a in one.T for b in other.T]
                shared = np.mean([mutual_information(a, b, min(neighbours, len(a) - 1)) for a, b in columns])
                found[i, j] = shared / np.sqrt(both)
    return found


def _unit(column_N: Floats, seed: int) -> Floats:
    """Of unit spread, with noise far below any difference: ranks lie on a grid, where distances tie."""
    noise = np.random.default_rng(seed).standard_normal(len(column_N))
    spread = column_N.std() or 1.0
    scaled = column_N / spread
    return scaled + _JITTER * max(1.0, float(np.abs(scaled).mean())) * noise


def _entropy(points_ND: Floats, neighbours: int) -> float:
    """``-mean log(k / (n d^dims))`` with d the distance to the k-th neighbour."""
    count, dims = points_ND.shape
    distances = np.sqrt(((points_ND[:, None] - points_ND[None]) ** 2).sum(-1))
    reach = np.maximum(np.sort(distances, axis=1)[:, neighbours], np.finfo(np.float64).tiny)
    return float(-np.mean(np.log(neighbours / (count * reach**dims))))
