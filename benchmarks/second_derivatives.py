"""What a printout costs beside the fit, and how exact the second derivatives behind it are.

python second_derivatives.py            seconds of processor time
python second_derivatives.py errors     against 50 digits, on twenty designs (needs mpmath)
"""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import mixedeffects as me
from mixedeffects.engine import curvature
from mixedeffects.engine.trace_forms import are_worth_forming, trace_forms

Matrix = NDArray[np.float64]


def design(
    seed: int, levels: list[int], columns: list[int], n: int, ratio: float = 1.0
) -> tuple[str, pd.DataFrame]:
    """Crossed factors with as many levels and random effects each."""
    rng = np.random.default_rng(seed)
    widest = max(columns)
    X = np.column_stack([np.ones(n), rng.normal(size=(n, widest - 1))])
    data = pd.DataFrame({f"x{i}": X[:, i] for i in range(1, widest)}, index=range(n))
    y, bars = X.sum(axis=1) + rng.normal(size=n), []
    for f, (count, k) in enumerate(zip(levels, columns, strict=True)):
        codes = rng.integers(0, count, n)
        y = y + ratio * (X[:, :k] * rng.normal(size=(count, k))[codes]).sum(axis=1)
        data[f"g{f}"] = codes
        bars.append(f"({' + '.join(['1', *(f'x{i}' for i in range(1, k))])} | g{f})")
    fixed = " + ".join(["1", *(f"x{i}" for i in range(1, widest))])
    return f"y ~ {fixed} + {' + '.join(bars)}", data.assign(y=y)


def seconds() -> None:
    one = design(1, [500], [8], 10_000)
    cases = {
        "8 effects of 50 levels": design(1, [50], [8], 1_000),
        "8 effects of 500 levels": one,
        "6, cs": (one[0].replace("(1", "cs(1"), one[1]),
        "4 + 4 effects": design(2, [40, 30], [4, 4], 2_400),
        "6 + 6 effects": design(3, [40, 30], [6, 6], 2_400),
        "8 + 8 effects": design(4, [40, 30], [8, 8], 2_400),
        "3,000 x 1,000 intercepts": design(5, [3_000, 1_000], [1, 1], 60_000),
        "insteval": (
            "y ~ service + (1 | s) + (1 | d) + (1 | dept)",
            me.load_dataset("insteval"),
        ),
    }
    print(f"{'':26}{'fit':>8}{'print':>8}{'differences':>13}")
    for name, (formula, data) in cases.items():
        fits, prints = [], []
        for _ in range(3):
            began = time.process_time()
            m = me.lmer(formula, data)
            fits.append(time.process_time() - began)
            began = time.process_time()
            str(m.summary())
            prints.append(time.process_time() - began)
        formed, curvature.are_worth_forming = are_worth_forming, lambda *_: False
        began = time.process_time()
        curvature.observed_curvature(m.fit.crossproducts, m.optimum, m.reml)
        differences = time.process_time() - began
        curvature.are_worth_forming = formed
        print(f"{name:26}{np.median(fits):8.3f}{np.median(prints):8.3f}{differences:13.3f}")


def exactly(m: Any, directions: list[Matrix], digits: int = 50) -> Matrix:
    """``tr(P K_r P K_s)`` from the blocks, whose floating-point numbers are taken for exact."""
    from mpmath import mp, mpf

    from mixedeffects.engine.further_starts import _all_products

    mp.dps = digits
    A = m.fit.crossproducts
    blocks = _all_products(A)
    q, p = A.q, A.p
    high = mp.matrix(blocks[: q + p, : q + p].tolist())
    ZZ, ZX, XX = high[:q, :q], high[:q, q:], high[q:, q:]
    left = ZZ - ZX * mp.inverse(XX) * ZX.T if m.reml and p else ZZ
    Sigma, K = mp.zeros(q), []
    spans, at = {}, 0
    for f in A.factors:
        for member in f.members:
            spans[member.term] = (at + member.columns.start, f.k, f.n_levels)
        at += f.k * f.n_levels
    for t, E in enumerate(directions):
        start, step, count = spans[t]
        own = mp.matrix(m.optimum.T[t].tolist())
        own = own * own.T
        k = len(m.optimum.T[t])
        for i in range(count):
            for a in range(k):
                for b in range(k):
                    Sigma[start + i * step + a, start + i * step + b] = own[a, b]
        for each in E:
            whole = mp.zeros(q)
            for i in range(count):
                for a in range(k):
                    for b in range(k):
                        whole[start + i * step + a, start + i * step + b] = mpf(each[a, b])
            K.append(whole)
    H = mp.inverse(mp.eye(q) + left * Sigma) * left
    HK = [H * each for each in K]
    out = np.empty((len(K), len(K)))
    for r, a in enumerate(HK):
        for s, b in enumerate(HK[: r + 1]):
            out[r, s] = out[s, r] = float(
                sum(a[i, j] * b[j, i] for i in range(q) for j in range(q))
            )
    return out


def along(m: Any) -> tuple[Any, list[Matrix]]:
    """The Hessian from traces that are formed, and the directions that these are taken along."""
    given: list[list[Matrix]] = []

    def noted(*arguments: Any) -> Matrix:
        given.append(arguments[2])
        return trace_forms(*arguments)

    curvature.are_worth_forming, curvature.trace_forms = (lambda *_: True), noted
    try:
        found = curvature.observed_curvature(m.fit.crossproducts, m.optimum, m.reml)
    finally:
        curvature.are_worth_forming, curvature.trace_forms = are_worth_forming, trace_forms
    return found, given[0]


def errors() -> None:
    worst = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        factors = 1 + seed % 3
        levels = rng.integers(4, 9, factors).tolist()
        columns = rng.integers(1, 3, factors).tolist()
        ratio = float(10.0 ** rng.uniform(-1.0, 1.3))
        m = me.lmer(*design(seed, levels, columns, 120, ratio), reml=bool(seed % 2))
        A, optimum = m.fit.crossproducts, m.optimum
        if A.provisional is not None:
            continue
        exact, directions = along(m)
        curvature.are_worth_forming = lambda *_: False
        differences = curvature.observed_curvature(A, optimum, m.reml)
        curvature.are_worth_forming = are_worth_forming
        truth = exactly(m, directions)
        formed = trace_forms(m.fit.factorisation, optimum.T, directions, m.reml)
        changed = exact.natural - differences.natural
        # One level's worth is one; where a variance is zero, there is nothing.
        size = np.sqrt(np.maximum(np.diag(truth), 1.0))
        scale = np.outer(size, size)
        now = float(np.abs((formed - truth) / scale).max())
        before = float(np.abs((formed + changed[:-1, :-1] - truth) / scale).max())
        worst.append((now, before))
        print(f"{seed:3d}  {len(truth):2d} parameters  ratio {ratio:5.1f}  {now:.1e}  {before:.1e}")
    print("largest, formed and by differences:", *(f"{each:.1e}" for each in np.max(worst, axis=0)))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1:] == ["errors"]:
        errors()
    else:
        seconds()
