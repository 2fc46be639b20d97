from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from surgeon.calibrate.manifold import diffusion_map, mutual_information, normalised_information, ranked


def test_similarities_are_those_of_the_released_code(shared_data):
    """Given its embeddings, that is; on a grid of ranks both break ties by noise of their own."""
    dump = load_file(shared_data / "reference" / "mka_tiny.safetensors")
    got = normalised_information(list(dump["ranked"]), 5, 50)
    np.testing.assert_allclose(got, dump["similarity"], rtol=0.02)


def test_ranks():
    points = np.array([[0.3, 9.0], [0.1, 7.0], [0.2, 8.0]])
    np.testing.assert_array_equal(ranked(points), np.array([[2, 2], [0, 0], [1, 1]]) / 3)


def test_information_of_correlated_normal_variables():
    drawn = np.random.default_rng(0).standard_normal((2, 700))
    for correlation in (0.0, 0.6, 0.9):
        y = correlation * drawn[0] + np.sqrt(1 - correlation**2) * drawn[1]
        want = -0.5 * np.log(1 - correlation**2)
        assert mutual_information(drawn[0], y, 5) == pytest.approx(want, abs=0.08)


def test_a_diffusion_map_is_eigenvectors_of_a_random_walk():
    points = np.random.default_rng(1).standard_normal((30, 4))
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    mapped = diffusion_map(distances, 2.0, 0.5, 2)
    kernel = np.exp(-np.sqrt(distances / 2.0))
    density = kernel.sum(1)
    kernel /= np.sqrt(np.outer(density, density))
    walk = kernel / kernel.sum(1, keepdims=True)
    values = np.sort(np.linalg.eigvals(walk).real)[::-1]
    np.testing.assert_allclose(walk @ mapped, mapped * values[1:3], atol=1e-10)
