"""Distributions behind adjusted probabilities: Tukey's studentized range and multivariate t."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
import scipy.special
import scipy.stats
from numpy.testing import assert_allclose

import mixedeffects as me
from mixedeffects.inference.mean_contrasts import contrast_coefficients
from mixedeffects.inference.multiplicity import Family, adjusted_p, critical_values
from mixedeffects.inference.studentized_range import studentized_range_sf
from references import REFERENCE

FOLDER = REFERENCE / "studentized_range"


def test_two_means_are_students_t() -> None:
    """In closed form, also where the probability is next to nothing."""
    for df in (0.4, 1.0, 3.0, 30.0, 1e4, 1e9):
        q = np.geomspace(1e-3, 30.0, 40)
        exact = 2.0 * scipy.stats.t.sf(q / np.sqrt(2.0), df)
        assert_allclose(studentized_range_sf(q, 2, df), exact, rtol=1e-9)
    q = np.linspace(0.0, 50.0, 40)
    assert_allclose(studentized_range_sf(q, 2, np.inf), scipy.special.erfc(q / 2.0), rtol=1e-10)
    assert studentized_range_sf(50.0, 2, np.inf) < 1e-270


def panels(edges: np.ndarray, points: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights within each of the intervals."""
    x, w = np.polynomial.legendre.leggauss(points)
    half, middle = np.diff(edges) / 2.0, (edges[1:] + edges[:-1]) / 2.0
    return (middle[:, None] + half[:, None] * x).ravel(), (half[:, None] * w).ravel()


@pytest.mark.parametrize(
    ("q", "k", "df"),
    [
        (2.0, 100, 2.0),
        (12.0, 150, 3.0),
        (3.0, 3, 5.0),
        (6.0, 10, 20.0),
        (25.0, 4, 8.5),
        (14.0, 40, 60.0),
        (40.0, 200, 3.0),
        (0.7, 3, 1.0),
        (9.0, 20, 1e5),
    ],
)
def test_range_by_other_quadrature(q: float, k: int, df: float) -> None:
    """Gauss-Legendre over the scale itself, and over the largest of the means."""
    sd = 1.0 / np.sqrt(2.0 * df)
    last = max(1.0 + 12.0 * sd, 3.0)
    edges = np.unique(np.concatenate([np.linspace(0.0, min(14.0 / q, last), 40), [last]]))
    around = np.linspace(max(0.0, 1.0 - 12.0 * sd), 1.0 + 12.0 * sd, 40)
    s, ws = panels(np.unique(np.concatenate([edges, around])))
    z, wz = panels(np.linspace(-9.0, 40.0, 120))
    upper, lower = scipy.special.ndtr(z), scipy.special.ndtr(z - q * s[:, None])
    with np.errstate(divide="ignore"):
        lost = -np.expm1((k - 1) * np.log1p(-np.minimum(lower / upper, 1.0))) * upper ** (k - 1)
    S = lost @ (wz * k * np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi))
    density = 2.0 * df * s * scipy.stats.chi2.pdf(df * s**2, df)
    found = float(studentized_range_sf(q, k, df))
    assert found == pytest.approx(float((ws * density) @ S), rel=1e-9)


def test_range_against_r() -> None:
    """R's algorithm aims at four digits with few degrees of freedom, and gets seven with many."""
    r = pd.read_csv(FOLDER / "ptukey.csv")
    for (k, df), own in r[r["df"] >= 10].groupby(["k", "df"]):
        found = studentized_range_sf(own["q"].to_numpy(), int(k), df)
        assert_allclose(found, own["p"], atol=3e-5 if df < 20 else 3e-6)
    r = pd.read_csv(FOLDER / "qtukey.csv")
    for (k, df), own in r[r["df"] >= 30].groupby(["k", "df"]):
        found = studentized_range_sf(own["q"].to_numpy(), int(k), df)
        assert_allclose(found, own["alpha"], rtol=3e-5)


def test_range_of_many_degrees_of_freedom_is_that_of_none() -> None:
    q = np.array([0.5, 3.0, 7.0])
    for k in (3, 90):
        near = studentized_range_sf(q, k, 1e13)
        assert_allclose(near, studentized_range_sf(q, k, np.inf), rtol=1e-10)


def test_range_of_arrays() -> None:
    """Any shape; infinite and missing statistics have their answers."""
    q, df = np.array([[1.0, 3.0, np.inf], [np.nan, 0.0, 5.0]]), np.array([7.0, np.inf, 0.5])
    found = studentized_range_sf(q, 4, df)
    for i in range(2):
        for j in range(3):
            one = float(studentized_range_sf(q[i, j], 4, df[j]))
            assert_allclose(found[i, j], one, rtol=1e-10)
    assert found[0, 2] == 0.0 and np.isnan(found[1, 0]) and found[1, 1] == 1.0


def test_many_comparisons_take_no_time() -> None:
    """150 means: 11,175 p-values; generous, for machines that do other things too."""
    q, df = np.abs(np.sin(np.arange(11_175.0))) * 6.0, 250.0 + np.arange(11_175) % 97
    began = time.process_time()
    studentized_range_sf(q, 150, df)
    assert time.process_time() - began < 1.5


def test_all_adjustments_of_many_means() -> None:
    """60 means, 1,770 pairs: no matrix of the pairs, no loop over them."""
    rng = np.random.default_rng(5)
    data = pd.DataFrame({"f": np.arange(1200) % 60, "g": np.arange(1200) // 40})
    data["f"] = data["f"].map(lambda i: f"L{i:02d}")
    data["y"] = rng.normal(size=1200) + rng.normal(size=30)[data["g"]]
    means = me.lmer("y ~ f + (1 | g)", data).emmeans("f")
    p = {}
    for how in ("none", "tukey", "mvt", "scheffe"):
        began = time.process_time()
        p[how] = means.contrasts(adjust=how).to_frame()["p_value"].to_numpy()
        assert time.process_time() - began < 2.5, how
    # Balanced, so that Tukey's and the multivariate t distribution are one.
    assert_allclose(p["mvt"], p["tukey"], atol=0.01)
    assert (p["none"] <= p["tukey"]).all() and (p["tukey"] <= p["scheffe"] + 1e-12).all()


def test_multivariate_t_averages_over_all_directions() -> None:
    """The Gauss rule gives what the directions themselves give, in the tails too."""
    _, C = contrast_coefficients("pairwise", list("abcdef"))
    root = C @ np.diag([1.0, 0.5, 2.0, 1.0, 3.0, 0.1])
    t, df = np.array([0.1, 1.0, 2.5, 4.0, 9.0] * 3), np.repeat([3.0, 40.0, np.inf], 5)
    one = Family(np.ones(15), np.full(15, 9.0), np.full(15, 0.5), root, 6)
    points = scipy.stats.qmc.Sobol(one.rank, seed=1).random(2**14)
    normal = scipy.stats.norm.ppf(np.clip(points, 1e-12, 1.0 - 1e-12))
    normal /= np.linalg.norm(normal, axis=1)[:, None]
    reach = np.abs(normal @ one._directions.T).max(axis=1)
    r = one.rank
    for a, b, found in zip(t, df, one.exceeds(t, df), strict=True):
        square = (a / reach) ** 2
        sf = scipy.stats.chi2.sf(square, r) if np.isinf(b) else scipy.stats.f.sf(square / r, r, b)
        assert found == pytest.approx(sf.mean(), rel=1e-8, abs=1e-25)


def test_adjusted_values_of_infinite_and_finite_degrees_of_freedom() -> None:
    """One family may hold both; critical values and probabilities agree in each."""
    _, C = contrast_coefficients("pairwise", list("abc"))
    df = np.array([4.0, np.inf, 33.0])
    for how in ("tukey", "mvt", "scheffe"):
        blank = Family(np.ones(3), df, np.full(3, 0.5), C, 3)
        width = critical_values(how, blank, 0.95)
        p = 2.0 * scipy.stats.t.sf(width, df)
        assert_allclose(adjusted_p(how, Family(width, df, p, C, 3)), 0.05, rtol=1e-6)
