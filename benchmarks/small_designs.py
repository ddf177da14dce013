"""Small designs of many kinds, each drawn from its number: where likelihoods have several optima.

Few rows, few and unbalanced levels, up to four correlated columns, responses whose true covariance
is singular, or nothing but noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

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
