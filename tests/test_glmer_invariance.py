"""One evaluation of a generalized model: whatever the order of the data, and with any threads."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import mixedeffects as me

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from generalized_designs import Descents, design


def _evaluation(descents: Descents, x: np.ndarray) -> tuple[float, np.ndarray]:
    value, gradient = descents.at(x)
    assert value < 1e10
    return value, gradient


@pytest.mark.parametrize("seed", range(33))
def test_the_order_of_rows_and_levels_does_not_matter(seed: int) -> None:
    """Three designs of each family and link, of all layouts, with weights and offsets."""
    one, rng = design(seed), np.random.default_rng([33, seed])
    names = sorted(set(one.data["g"]))
    renamed = dict(zip(names, rng.permutation(names), strict=True))
    orders = {
        "rows": one.data.sample(frac=1.0, random_state=seed),
        "levels": one.data.assign(g=one.data["g"].map(renamed)),
        "backwards": one.data.iloc[::-1],
    }

    def fit(data: object) -> me.GeneralizedLinearMixedModel:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", me.ConvergenceWarning)
            return me.glmer(one.formula, data, family=one.family, **one.arguments)

    here = Descents(fit(one.data))
    x = here.best + 0.05 * rng.normal(size=len(here.best))
    low, high = np.array(here.bounds()).T
    x = np.clip(x, low + 1e-3, high - 1e-3)
    value, gradient = _evaluation(here, x)
    for what, data in orders.items():
        there = Descents(fit(data))
        other, its_gradient = _evaluation(there, x)
        assert other == pytest.approx(value, rel=1e-13, abs=1e-12), what
        size = max(float(np.linalg.norm(gradient)), 1.0)
        assert its_gradient == pytest.approx(gradient, abs=1e-11 * size), what
        if here.optimum.certificate.holds:
            assert there.optimum.criterion == pytest.approx(here.optimum.criterion, rel=1e-11)


_EVALUATIONS = """
import numpy as np, pandas as pd, mixedeffects as me
from mixedeffects.engine.generalized.quadrature import evaluate_criterion

rng, n = np.random.default_rng(1), 40_000
g, h = rng.integers(0, 6_000, n), rng.integers(0, 300, n)
d = pd.DataFrame({"x": rng.normal(size=n), "g": g, "h": h, "top": g // 20})
eta = 0.3 * d.x + 0.7 * rng.normal(size=6_000)[g] + 0.4 * rng.normal(size=300)[h]
d["y"] = (rng.random(n) < 1.0 / (1.0 + np.exp(-eta))).astype(int)
d["c"] = rng.poisson(np.exp(eta / 2.0))
for formula, family, nagq in (
    ("y ~ x + (1 | g) + (1 | h)", "binomial", 1),
    ("y ~ x + (x | g)", "binomial", 1),
    ("c ~ x + (1 | top / g)", "poisson", 1),
    ("y ~ x + (1 | g)", "binomial", 7),
):
    m = me.glmer(formula, d, family=family, nagq=nagq)
    made, best = m.fit.found.design, m.fit.evaluation
    T = [1.1 * own for own in best.T]
    at = evaluate_criterion(made, T, best.beta + 0.1, 0.0, nodes=nagq)
    gradient = np.concatenate([at.beta_gradient, *(own.ravel() for own in at.score)])
    for line in ([at.criterion, m.criterion], gradient, m.se):
        print(*(float(value).hex() for value in line))
"""


def _numbers(threads: int) -> list[np.ndarray]:
    done = subprocess.run(
        [sys.executable, "-c", _EVALUATIONS],
        capture_output=True,
        text=True,
        timeout=300,
        env={
            **os.environ,
            "OPENBLAS_NUM_THREADS": "1",
            "MIXEDEFFECTS_NUM_THREADS": str(threads),
        },
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [np.array([float.fromhex(v) for v in row.split()]) for row in done.stdout.splitlines()]


@pytest.mark.slow
def test_threads_change_nothing() -> None:
    """Criterion, gradient and standard errors, crossed, with slopes, nested and by quadrature."""
    one = _numbers(1)
    assert len(one) == 12
    for alone, together in zip(one, _numbers(2), strict=True):
        assert together == pytest.approx(alone, abs=1e-12 * np.abs(alone).max(), rel=0.0)


@pytest.mark.slow
def test_derivatives_on_five_hundred_designs() -> None:
    """Criterion beside dense matrices, first and second derivatives beside differences.

    At certified optima: where there is none, the search stopped far out, and differences with it.
    """
    errors: dict[str, list[float]] = {"criterion": [], "gradient": [], "hessian": []}
    for seed in range(530):
        one = design(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", me.ConvergenceWarning)
            try:
                m = me.glmer(one.formula, one.data, family=one.family, **one.arguments)
            except me.ModelError as error:
                assert "no finite estimate" in str(error)
                continue
        if not m.optimum.certificate.holds:
            continue
        descents = Descents(m)
        errors["criterion"].append(abs(descents.dense(descents.best) - m.criterion))
        errors["gradient"].append(descents.error_of_gradient(seed))
        of_hessian = descents.error_of_hessian()
        if of_hessian is not None:
            errors["hessian"].append(of_hessian)
    assert len(errors["gradient"]) >= 500
    assert len(errors["hessian"]) >= 350
    worst = {name: max(values) for name, values in errors.items()}
    assert worst["criterion"] < 1e-8, worst
    assert worst["gradient"] < 1e-6, worst
    assert worst["hessian"] < 1e-5, worst


def test_second_derivatives_where_the_tangent_leads_far_out() -> None:
    """With three times the deviations the modes of this one were not found from those before."""
    one = design(362)
    m = me.glmer(one.formula, one.data, family=one.family, **one.arguments)
    error = Descents(m).error_of_hessian()
    assert error is not None
    assert error < 1e-5
