"""Small designs of many kinds, each drawn from its number: where likelihoods have several optima.

Few rows, few and unbalanced levels, up to four correlated columns, responses whose true covariance
is singular, or nothing but noise. Every fit is compared with the best of many descents of another
optimiser from random starts, whose criterion is computed again by dense algebra.

    python benchmarks/small_designs.py --count 10000
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.optimize
from numpy.typing import NDArray

import mixedeffects as me
from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.objective import evaluate
from mixedeffects.engine.parameters import T_to_theta, theta_to_T

Vector = NDArray[np.float64]

#: Random terms on the first factor with what each adds to the response, in columns of x, z, f.
_FIRST = (
    "(1 | a)",
    "(x | a)",
    "(0 + x | a)",
    "(x || a)",
    "(f | a)",
    "(0 + f | a)",
    "(x + z | a)",
    "(x + z || a)",
    "(x + f | a)",
    "(h | a)",
    "(x + z + f | a)",
)
_SECOND = ("(1 | b)", "(x | b)", "(f | b)", "(0 + z | b)", "(x || b)")
_FIXED = ("1", "x", "x + f", "x * f", "x + z + f", "x + z + f + h", "f:x + h", "x * z", "0 + x")


@dataclass(frozen=True)
class SmallDesign:
    """A formula, its data, and the criterion."""

    number: int
    formula: str
    data: pd.DataFrame
    reml: bool
    truth: str


def _levels(random: np.random.Generator, n: int) -> NDArray[np.int64]:
    """Codes of a factor: balanced, unbalanced, or almost all rows in one level."""
    count = int(random.integers(2, min(9, n // 2 + 1)))
    kind = random.integers(4)
    if kind == 0:
        codes = random.permutation(np.arange(n) % count)
    elif kind == 1:
        codes = random.integers(0, count, n)
    elif kind == 2:
        codes = random.choice(count, n, p=random.dirichlet(np.full(count, 0.7)))
    else:
        codes = np.zeros(n, dtype=np.int64)
        codes[: count - 1] = np.arange(1, count)
        codes = random.permutation(codes)
    # Two levels at the least.
    codes[:2] = (0, 1)
    return np.asarray(codes)


def small_design(number: int, seed: int = 2026) -> SmallDesign:
    """The design of a number; the same for ever."""
    random = np.random.default_rng([seed, number])
    n = int(random.integers(8, 81)) if random.random() < 0.5 else int(random.integers(8, 31))
    x, z = random.normal(size=(2, n))
    if random.random() < 0.2:
        z = 0.9 * x + 0.4 * z
    if random.random() < 0.15:
        x = 100.0 + 10.0 * x
    if random.random() < 0.15:
        x = np.arange(n) % 5.0
    f = random.integers(0, 2, n)
    f[:2] = (0, 1)
    h = random.integers(0, 3, n)
    h[:3] = (0, 1, 2)
    a = _levels(random, n)
    b = _levels(random, n)
    first = _FIRST[random.integers(len(_FIRST))]
    terms = [first]
    if random.random() < 0.5:
        nested = random.random() < 0.4
        if nested and "||" not in first:
            terms = [first.replace("| a", "| a/b")]
        else:
            terms.append(_SECOND[random.integers(len(_SECOND))])
    fixed = _FIXED[random.integers(len(_FIXED))]
    truth = ("noise", "singular", "singular", "full")[random.integers(4)]
    size = float(np.exp(random.normal(0.5, 1.0)))
    y = 0.5 * x + random.normal(size=n)
    if truth != "noise":
        columns = np.column_stack([np.ones(n), (x - x.mean()) / x.std(), z, f, h == 1, h == 2])
        for codes in (a, b):
            effects = random.normal(size=(codes.max() + 1, 6))
            if truth == "singular":
                # One or two dimensions of random effects in six columns.
                rank = int(random.integers(1, 3))
                effects = effects[:, :rank] @ random.normal(size=(rank, 6))
            share = random.choice([0.0, 0.3, 1.0], 6)
            y += size * np.einsum("ij,ij,j->i", columns, effects[codes], share)
    if random.random() < 0.1:
        y[random.integers(n)] += 100.0
    data = pd.DataFrame(
        {
            "y": y,
            "x": x,
            "z": z,
            "f": np.array(["p", "q"])[f],
            "h": np.array(["p", "q", "r"])[h],
            "a": [f"a{i}" for i in a],
            "b": [f"b{i}" for i in b],
        }
    )
    formula = f"y ~ {fixed} + " + " + ".join(terms)
    return SmallDesign(number, formula, data, bool(random.integers(2)), truth)


# --- the best of many descents --------------------------------------------------------------------

#: Residual variance, relative to the response's, below which a descent has run off: no optimum.
NO_RESIDUAL = 1e-9
#: Standard deviations of the random starts, in turn.
SCALES = (0.05, 0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True)
class Best:
    """The lowest criterion of many descents, the same by dense algebra, and which ran off."""

    criterion: float
    checked: float
    ran_off: int


def dense_criterion(m: me.LinearMixedModel, T: list[Vector]) -> float:
    """The criterion at relative factors in the user's columns, from V of the rows."""
    n, X, y = m.nobs, np.asarray(m.X), np.asarray(m.y)
    V = np.eye(n)
    for term, factor in zip(m.frame.terms, T, strict=True):
        same = term.codes[:, None] == term.codes
        V = V + (term.z @ factor @ factor.T @ term.z.T) * same
    inverse = np.linalg.inv(V)
    C = X.T @ inverse @ X
    residual = y - X @ np.linalg.solve(C, X.T @ inverse @ y)
    df = n - m.reml * X.shape[1]
    value = np.linalg.slogdet(V)[1] + m.reml * np.linalg.slogdet(C)[1]
    return float(value + df * (1.0 + np.log(2.0 * np.pi * residual @ inverse @ residual / df)))


def best_of_many(m: me.LinearMixedModel, starts: int) -> Best:
    """Descend with SciPy's L-BFGS-B from random lower-triangular factors of several sizes."""
    A, columns = m.fit.crossproducts, m.fit.crossproducts.term_columns
    offset = A.basis.deviance_offset(A.n, A.p, m.reml)
    random = np.random.default_rng(1)

    def objective(theta: Vector) -> tuple[float, Vector]:
        try:
            here = evaluate(A, theta_to_T(theta, columns), m.reml)
        except NotPositiveDefiniteError:
            return 1e10, np.zeros(len(theta))
        if not np.isfinite(here.deviance):
            return 1e10, np.zeros(len(theta))
        return here.deviance, here.gradient

    best, where, ran_off = np.inf, None, 0
    options = {"maxiter": 300, "ftol": 1e-14, "gtol": 1e-8}
    for i in range(starts):
        size = SCALES[i % len(SCALES)]
        start = T_to_theta([np.tril(size * random.normal(size=(k, k))) for k in columns])
        end = scipy.optimize.minimize(
            objective, start, jac=True, method="L-BFGS-B", options=options
        )
        if end.fun >= 1e9:
            continue
        if evaluate(A, theta_to_T(end.x, columns), m.reml).sigma2 < NO_RESIDUAL:
            ran_off += 1
        elif end.fun + offset < best:
            best, where = float(end.fun + offset), theta_to_T(end.x, columns)
    if where is None:
        return Best(np.inf, np.inf, ran_off)
    user = [A.basis.relative_factor(t, T) for t, T in enumerate(where)]
    return Best(best, dense_criterion(m, user), ran_off)


def survey(numbers: Iterable[int], starts: int = 12, verbose: bool = False) -> Counter[str]:
    """Counts over designs."""
    counts: Counter[str] = Counter()
    for number in numbers:
        design = small_design(number)
        counts["designs"] += 1
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                m = me.lmer(design.formula, design.data, reml=design.reml)
            except me.ModelError:
                counts["refused"] += 1
                continue
        counts["fitted"] += 1
        counts["singular"] += m.is_singular
        counts["with several optima"] += m.optimum.agreed < m.optimum.starts
        alarms = [w for w in caught if w.category is me.ConvergenceWarning]
        best = best_of_many(m, starts)
        counts["no maximum"] += m.optimum.unbounded
        above = m.criterion - best.criterion
        if abs(best.checked - best.criterion) > 1e-4:
            counts["reference not confirmed by dense algebra"] += 1
        elif above > 1e-4:
            counts["above the best, warned" if alarms else "above the best"] += 1
            if verbose:
                print(f"design {number}, {design.formula}: {above:.4f} above", flush=True)
        elif above < -1e-4:
            counts["below the best of the references"] += 1
        real = m.optimum.unbounded or m.optimum.undetermined
        if alarms and above <= 1e-4 and not real:
            counts["warned at an optimum"] += 1
            if verbose:
                print(f"design {number}, {design.formula}: {alarms[0].message}", flush=True)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="designs to fit")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--starts", type=int, default=12, help="random starts of the reference")
    options = parser.parse_args()
    began = time.perf_counter()
    numbers = range(options.first, options.first + options.count)
    for what, count in survey(numbers, options.starts, verbose=True).items():
        print(f"{count:8,}  {what}")
    print(f"{time.perf_counter() - began:8.0f}  seconds")


if __name__ == "__main__":
    main()
