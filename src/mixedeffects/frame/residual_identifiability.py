"""Whether the data tell the parameters of the residuals' covariance from each other.

The parameters can be told apart at almost every value if the derivatives of V with respect to them
are linearly independent at one value that is nothing special (Rothenberg 1971, Econometrica 39,
577-591). Only the blocks of V within residual groups are looked at, and of the random effects only
those whose levels lie within the groups: what others do is seen between groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from mixedeffects import _kernels
from mixedeffects.frame.model_frame import RandomTerm
from mixedeffects.frame.residual_term import ResidualTerm, VarianceTerm

__all__ = ["MOST_PARAMETERS", "Confounded", "confounded", "within_groups"]

#: More parameters than this are not looked at.
MOST_PARAMETERS = 200
#: Groups, and rows of a group, from which the derivatives are made.
_MOST_GROUPS, _MOST_ROWS = 5000, 30
_FIRST_GROUPS = 8
#: Smallest singular value of the scaled derivatives that is more than rounding.
_DEPENDENT = 1e-9
#: Size of a member of a null vector that counts.
_PART = 1e-4

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Confounded:
    """Which parameters cannot be told apart.

    Attributes
    ----------
    excess : int
        How many parameters there are too many.
    residual : bool
        Whether parameters of the structure are among them.
    variance : tuple of str
        Columns of the variance that are.
    random : tuple of int
        Numbers of the random-effects terms that are.
    """

    excess: int
    residual: bool
    variance: tuple[str, ...]
    random: tuple[int, ...]


def within_groups(term: ResidualTerm, random: RandomTerm) -> bool:
    """Whether every level of a random-effects term lies within one residual group."""
    if random.n_levels < term.n_levels:
        return False
    return bool(len(_kernels.nesting_parents(random.codes, random.n_levels, term.codes)))


class _Derivatives:
    """Derivatives of V's blocks at one value of the parameters, one group after another."""

    def __init__(
        self,
        term: ResidualTerm,
        random: Sequence[tuple[int, RandomTerm]],
        variance: VarianceTerm | None,
        weights: Matrix | None,
    ) -> None:
        self.term, self.random, self.variance = term, random, variance
        n = len(term.codes)
        rng = np.random.default_rng(0)
        self.order = np.argsort(term.codes, kind="stable")
        self.starts = np.r_[0, np.cumsum(np.bincount(term.codes, minlength=term.n_levels))]
        self.stratum = np.zeros(n, dtype=np.int64) if term.stratum is None else term.stratum
        cell = self.stratum.astype(np.int64)
        if not term.homogeneous and term.steps is not None:
            cell = term.steps * term.n_strata + cell
        used, self.cell = np.unique(cell, return_inverse=True)
        self.n_cells = len(used)
        self.n_variance = 0 if variance is None else variance.n_columns
        self.n_correlations = self._count_correlations()
        self.pairs = [(t, self._pairs(r)) for t, r in random]
        self.n = (
            self.n_cells
            + self.n_variance
            + term.n_strata * self.n_correlations
            + sum(len(pairs) for _, pairs in self.pairs)
        )
        log_sd = rng.uniform(-0.3, 0.3, self.n_cells)[self.cell]
        if variance is not None:
            spread = np.maximum(np.abs(variance.v).max(axis=0), 1e-300)
            self.v = variance.v / spread
            log_sd = log_sd + self.v @ rng.uniform(-0.3, 0.3, self.n_variance)
        self.sd = np.exp(log_sd) / (1.0 if weights is None else np.sqrt(weights))
        self.zeta = rng.uniform(0.3, 0.7, (term.n_strata, max(self.n_correlations, 1)))
        self.places = self._scaled_places()

    def _count_correlations(self) -> int:
        times = self.term.n_times
        by_kind = {"diag": 0, "us": times * (times - 1) // 2, "toep": times - 1, "ante": times - 1}
        return by_kind.get(self.term.kind, 1 + self.term.nugget)

    def _scaled_places(self) -> Matrix | None:
        """Coordinates in units of a usual distance within groups."""
        term = self.term
        if term.kind not in ("ar1", "car1", "exp", "gau"):
            return None
        places = term.coordinates
        if places is None or term.kind == "ar1":
            assert term.steps is not None
            places = term.steps[:, None].astype(np.float64)
        apart = np.linalg.norm(np.diff(places[self.order], axis=0), axis=1)
        inside = np.diff(term.codes[self.order]) == 0
        inside &= apart > 0
        return places / float(np.median(apart[inside])) if inside.any() else places

    @staticmethod
    def _pairs(random: RandomTerm) -> list[tuple[tuple[int, int], ...]]:
        """Pairs of columns whose products belong to one parameter."""
        k = range(random.n_columns)
        diagonal = tuple((a, a) for a in k)
        if random.structure == "us":
            return [((a, b),) for a in k for b in range(a + 1)]
        if random.structure == "diag":
            return [diagonal] if random.homogeneous else [(each,) for each in diagonal]
        if random.structure == "cs" and random.homogeneous:
            return [diagonal, tuple((a, b) for a in k for b in range(a))]
        # Not linear in its parameters.
        return []

    def of_group(self, group: int) -> Matrix:
        """Derivatives of the lower triangle of a group's block, one row for each parameter."""
        rows = self.order[self.starts[group] : self.starts[group + 1]]
        if len(rows) > _MOST_ROWS:
            rows = np.random.default_rng(group).choice(rows, _MOST_ROWS, replace=False)
        a, b = (rows[i] for i in np.tril_indices(len(rows)))
        stratum = int(self.stratum[rows[0]])
        C, dC = self._correlations(a, b, self.zeta[stratum])
        scale = self.sd[a] * self.sd[b]
        S = scale * C
        out = np.zeros((self.n, len(a)))
        for side in (a, b):
            np.add.at(out, (self.cell[side], np.arange(len(a))), S)
        at = self.n_cells
        if self.n_variance:
            out[at : at + self.n_variance] = (self.v[a] + self.v[b]).T * S
            at += self.n_variance
        first = at + stratum * self.n_correlations
        out[first : first + self.n_correlations] = dC * scale
        at += self.term.n_strata * self.n_correlations
        for (_, random), (_, pairs) in zip(self.random, self.pairs, strict=True):
            z, same = random.z, random.codes[a] == random.codes[b]
            for pair in pairs:
                for j, k in pair:
                    out[at] += same * (z[a, j] * z[b, k] + z[a, k] * z[b, j])
                at += 1
        return out

    def _correlations(
        self, a: NDArray[np.intp], b: NDArray[np.intp], zeta: Matrix
    ) -> tuple[Matrix, Matrix]:
        """Correlations of pairs of rows, and their derivatives by each parameter."""
        kind, off = self.term.kind, a != b
        if kind == "diag":
            return 1.0 * ~off, np.zeros((0, len(a)))
        if kind == "cs":
            return np.where(off, zeta[0], 1.0), 1.0 * off[None]
        if self.places is not None:
            distance = np.linalg.norm(self.places[a] - self.places[b], axis=1)
            if kind == "gau":
                distance = distance**2
            C = np.exp(-distance)
            if not self.term.nugget:
                return C, (distance * C)[None]
            share = np.where(off, 1.0 - zeta[1], 1.0)
            return share * C, np.stack([share * distance * C, -1.0 * off * C])
        assert self.term.steps is not None
        early = np.minimum(self.term.steps[a], self.term.steps[b])
        late = np.maximum(self.term.steps[a], self.term.steps[b])
        numbers = np.arange(self.n_correlations)[:, None]
        if kind == "ante":
            between = (early <= numbers) & (numbers < late)
            C = np.where(between, zeta[:, None], 1.0).prod(axis=0)
            return C, between * C / zeta[:, None]
        number = late - early - 1 if kind == "toep" else late * (late - 1) // 2 + early
        C = np.where(off, zeta[np.where(off, number, 0)], 1.0)
        return C, 1.0 * (off & (numbers == number))


def confounded(
    term: ResidualTerm,
    terms: Sequence[RandomTerm],
    variance: VarianceTerm | None,
    weights: Matrix | None,
) -> Confounded | None:
    """Find parameters of the residuals' covariance that the data cannot tell apart.

    Parameters
    ----------
    term : ResidualTerm
        The structure on the rows used.
    terms : sequence of RandomTerm
        All random-effects terms.
    variance : VarianceTerm or None
        What the residual standard deviation follows.
    weights : ndarray, shape (n,), or None
        Prior weights.

    Returns
    -------
    Confounded or None
        None if all can be told apart, or there are more than `MOST_PARAMETERS`.
    """
    random = [(t, each) for t, each in enumerate(terms) if within_groups(term, each)]
    made = _Derivatives(term, random, variance, weights)
    if made.n > MOST_PARAMETERS:
        return None
    groups = np.random.default_rng(1).permutation(term.n_levels)[:_MOST_GROUPS]
    triangle = np.zeros((0, made.n))
    start, stop = 0, _FIRST_GROUPS
    while start < len(groups):
        parts = [made.of_group(int(group)).T for group in groups[start:stop]]
        triangle = np.asarray(linalg.qr(np.concatenate([triangle, *parts]), mode="r")[0])
        triangle = triangle[: made.n]
        size = np.linalg.norm(triangle, axis=0)
        _, values, vectors = linalg.svd(triangle / np.where(size > 0, size, 1.0))
        rank = int((values > _DEPENDENT * max(values[0], 1e-300)).sum())
        if rank == made.n:
            return None
        start, stop = stop, 4 * stop
    null = np.abs(vectors[rank:]).max(axis=0) > _PART
    sizes = [made.n_cells, made.n_variance, term.n_strata * made.n_correlations]
    of_sd, columns, of_correlations, _ = np.split(null, np.cumsum(sizes))
    involved, at = [], sum(sizes)
    for t, pairs in made.pairs:
        if null[at : at + len(pairs)].any():
            involved.append(t)
        at += len(pairs)
    return Confounded(
        excess=made.n - rank,
        residual=bool(of_sd.any() or of_correlations.any()),
        variance=tuple(
            name
            for name, is_in in zip(() if variance is None else variance.names, columns, strict=True)
            if is_in
        ),
        random=tuple(involved),
    )
