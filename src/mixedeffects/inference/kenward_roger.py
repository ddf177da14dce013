"""Kenward and Roger's adjusted covariance of the fixed effects and their degrees of freedom.

V is linear in its variance components, ``V = sum_r gamma_r K_r``: for each term the entries of
``G_t``, and the residual variance with ``K = W^-1``. Neither the adjusted covariance nor the
degrees of freedom depend on the basis of that linear space, so in place of ``W^-1`` the last
direction is V itself, ``W^-1 = (V - Z G Z') / sigma^2``: its products with ``V^-1`` are known, and
prior weights need no care. Everything else is in ``Z'V^-1X`` and ``Z'V^-1Z``.

Where a covariance has a structure, the directions are those the structure leaves. ``diag``, and
``cs`` with one variance, are linear again. With ``ar1``, and ``cs`` with a variance for each
column, V is not linear in its parameters: the directions are then the tangent space at the
estimates, and the term with the second derivatives of V in Kenward and Roger's adjusted covariance
is left out. That term depends on the parameters chosen to describe V; all else here does not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from mixedeffects.base.arrays import ReadOnlyArrays
from mixedeffects.engine.at_optimum import changes_of_sigma
from mixedeffects.engine.covariance_changes import fixed_effects_covariance, natural_changes
from mixedeffects.engine.factorisation import Factorisation
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit, once_per_fit
from mixedeffects.inference.contrasts import contrast_rows
from mixedeffects.inference.information_parts import (
    InformationParts,
    coordinates,
    expected_covariance,
)
from mixedeffects.inference.pair_sums import pair_sums
from mixedeffects.inference.residual_information import residual_information_parts
from mixedeffects.inference.satterthwaite import in_standard_errors, satterthwaite_of

__all__ = [
    "KenwardRoger",
    "expected_by_blocks",
    "kenward_roger",
    "kenward_roger_observed_of",
    "kenward_roger_of",
]

Matrix = NDArray[np.float64]

#: Relative change of a variance along a direction without information that is more than rounding.
_DEPENDS = 1e-6


@dataclass(frozen=True, eq=False)
class KenwardRoger(ReadOnlyArrays):
    """Kenward and Roger's covariance matrix of the fixed effects, and its degrees of freedom.

    Attributes
    ----------
    vcov : ndarray, shape (p, p)
        Adjusted covariance matrix of the fixed effects, in products of their units.
    model_vcov : ndarray, shape (p, p)
        ``Phi = (X'V^-1X)^-1``.
    jacobian : ndarray, shape (m, p, p)
        Derivatives of Phi along m directions of V, ``-Phi P_r Phi`` in Kenward and Roger's symbols.
    parameter_covariance : ndarray, shape (m, m)
        Inverse of the expected information of the restricted likelihood along the same directions.
    undetermined : ndarray, shape (r, m)
        Combinations of the directions that the restricted likelihood does not depend on at all.
    names : sequence of str, length p
        Names of the fixed effects, where they are known.

    References
    ----------
    Kenward, M. G. and Roger, J. H. (1997). Small sample inference for fixed effects from restricted
    maximum likelihood. Biometrics 53, 983-997.

    Halekoh, U. and Hojsgaard, S. (2014). A Kenward-Roger approximation and parametric bootstrap
    methods for tests in linear mixed models: the R package pbkrtest. Journal of Statistical
    Software 59(9).
    """

    vcov: Matrix
    model_vcov: Matrix
    jacobian: Matrix
    parameter_covariance: Matrix
    undetermined: Matrix
    names: Sequence[str] = ()

    def _rows(self, contrasts: Any) -> Matrix:
        names = self.names or [str(i + 1) for i in range(len(self.vcov))]
        return contrast_rows(contrasts, names)

    def depends(self, contrasts: Matrix) -> NDArray[np.bool_]:
        """Whether the variance of each contrast depends on what the data do not determine.

        Parameters
        ----------
        contrasts : ndarray, shape (r, p)
            One contrast a row.

        Returns
        -------
        ndarray of bool, shape (r,)

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
        >>> m.kenward_roger.depends([[1, 0], [0, 1]])
        array([False, False])
        """
        L = self._rows(contrasts)
        along = np.einsum("km,mpq->kpq", self.undetermined, self.jacobian)
        change = np.abs(np.einsum("rp,kpq,rq->rk", L, along, L))
        variance = np.einsum("rp,pq,rq->r", L, self.model_vcov, L)
        return np.asarray((change > _DEPENDS * variance[:, None]).any(axis=1))

    def df(self, contrasts: Matrix) -> Matrix:
        """Denominator degrees of freedom of each contrast, one test each.

        Parameters
        ----------
        contrasts : array or DataFrame, shape (r, p)
            One contrast a row; a DataFrame goes by the names of its columns.

        Returns
        -------
        ndarray, shape (r,)
            NaN where the variance depends on what the data do not determine.

        Raises
        ------
        ModelError
            If there are not p columns, or a column is no fixed effect.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
        >>> m.kenward_roger.df([[1, 0], [0, 1]]).round(1)
        array([  9. , 124.7])
        """
        L = self._rows(contrasts)
        unit = in_standard_errors(L, self.model_vcov)
        gradient = np.einsum("rp,mpq,rq->rm", unit, self.jacobian, unit)
        spread = np.einsum("rm,mk,rk->r", gradient, self.parameter_covariance, gradient)
        with np.errstate(divide="ignore"):
            df = 2.0 / spread
        return np.where(self.depends(L), np.nan, df)

    def f_test(self, contrasts: Matrix) -> tuple[float, float]:
        """Denominator degrees of freedom of a joint F test and the factor to scale it with.

        Parameters
        ----------
        contrasts : array or DataFrame, shape (q, p)
            Linearly independent contrasts, tested together.

        Returns
        -------
        df : float
        scaling : float
            ``scaling * beta'L'(L vcov L')^-1 L beta / q`` is referred to F(q, df). Both are NaN
            where it depends on what the data do not determine.

        Raises
        ------
        ModelError
            As for `df`.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> df, scaling = m.kenward_roger.f_test([[1, 0], [0, 1]])
        >>> round(df, 2), round(scaling, 4)
        (16.0, 0.9412)
        """
        L = self._rows(contrasts)
        q = len(L)
        # Combinations of contrasts as well: a change of their covariance alone is one.
        pairs = L[:, None, :] + L[None, :, :]
        if self.depends(np.vstack([L, pairs.reshape(q * q, -1)])).any():
            return np.nan, np.nan
        theta = L.T @ np.linalg.solve(L @ self.model_vcov @ L.T, L)
        u = theta @ self.jacobian
        traces = np.einsum("mpp->m", u)
        W = self.parameter_covariance
        A1 = float(traces @ W @ traces)
        A2 = float(np.sum(W * np.einsum("mpq,kqp->mk", u, u)))
        B = (A1 + 6.0 * A2) / (2.0 * q)
        g = ((q + 1) * A1 - (q + 4) * A2) / ((q + 2) * A2)
        c1, c2, c3 = (c / (3.0 * q + 2.0 * (1.0 - g)) for c in (g, q - g, q + 2.0 - g))
        V0, V1, V2 = 1.0 + c1 * B, 1.0 - c2 * B, 1.0 - c3 * B
        # These vanish together in the exact cases that Kenward and Roger match.
        V0 = 0.0 if abs(V0) < 1e-10 else V0
        mean = 1.0 - A2 / q
        ratio = 1.0 if abs(mean) < 1e-14 and abs(V1) < 1e-14 else mean / V1
        rho = ratio**2 * V0 / (V2 * q)
        df = 4.0 + (q + 2.0) / (q * rho - 1.0)
        scaling = 1.0 if abs(df - 2.0) < 0.01 else df * mean / (df - 2.0)
        return df, scaling


def _inverse_root(H: Matrix) -> Matrix:
    """M with ``M H M' = I``; scaled only where H is not numerically positive definite."""
    size = np.sqrt(np.maximum(np.diag(H), np.finfo(np.float64).tiny))
    try:
        root = np.linalg.cholesky(H / np.outer(size, size))
    except np.linalg.LinAlgError:
        root = np.eye(len(H))
    return np.asarray(np.linalg.inv(root) / size)


def _directions(k: int) -> list[Matrix]:
    """Derivatives of a symmetric k x k matrix in its entries on and below the diagonal."""
    directions = []
    for c in range(k):
        for r in range(c, k):
            E = np.zeros((k, k))
            E[r, c] = E[c, r] = 1.0
            directions.append(E)
    return directions


def kenward_roger(
    factorisation: Factorisation,
    sigma: float,
    largest: int | None = None,
    directions: Sequence[Matrix | None] | None = None,
    null: tuple[Sequence[Matrix], Matrix] | None = None,
) -> KenwardRoger:
    """Kenward and Roger's adjustment at the parameters of a factorisation.

    Parameters
    ----------
    factorisation : Factorisation
        M at the estimates.
    sigma : float
        The user's residual standard deviation.
    largest : int, optional
        Rows that dense matrices may have; by default what fits into memory.
    directions : sequence of ndarray (r, k, k) or None, optional
        For each term the directions that its covariance can take, in the engine's basis; by default
        and for None all.
    null : tuple, optional
        Directions that are known to be without information: for each term the changes of Sigma,
        arrays (r, k, k), and the multiples of V, shape (r,), that add up to them. Others are found.

    Returns
    -------
    KenwardRoger
        In the user's columns.

    Raises
    ------
    ModelError
        If the design is crossed in so large a component that it would not fit into memory.
    """
    found, members = information_parts(factorisation, largest, directions)
    known = np.zeros((0, found.m + 1))
    if null is not None:
        changes, last = null
        known = coordinates(members, changes, np.zeros((len(last), 0)), last)
    return in_users_columns(
        found, factorisation, sigma, *expected_covariance(found, factorisation, known)
    )


def in_users_columns(
    found: InformationParts,
    factorisation: Factorisation,
    sigma: float,
    W: Matrix,
    undetermined: Matrix,
) -> KenwardRoger:
    """The adjustment that follows from the covariance W of the parameters, shape (m + 1, m + 1)."""
    basis = factorisation.A.basis
    scale = sigma**2 / basis.weight_scale
    fixed = basis.fixed
    vcov = scale * (fixed @ found.adjusted(W) @ fixed.T)
    return KenwardRoger(
        0.5 * (vcov + vcov.T),
        fixed_effects_covariance(factorisation, sigma),
        scale * (fixed @ found.jacobian @ fixed.T),
        W,
        undetermined,
    )


def information_parts(
    factorisation: Factorisation,
    largest: int | None = None,
    directions: Sequence[Matrix | None] | None = None,
) -> tuple[InformationParts, list[tuple[int, Matrix]]]:
    """Products of V's directions where residuals are independent; and each term's directions.

    Parameters
    ----------
    factorisation, largest, directions
        As for `kenward_roger`.

    Notes
    -----
    With ``S = Z'V^-1X``, ``H = Z'V^-1Z`` and E_r the direction of a term's G, summing over its
    levels, ``P_r = -S'E_r S``, ``Q_rs = S'E_r H E_s S`` and
    ``tr(V^-1K_r V^-1K_s) = tr(E_r H E_s H)``.
    """
    A, p = factorisation.A, factorisation.A.p
    zeros = [np.zeros((f.n_levels, f.k, p)) for f in A.factors]

    def times_H(blocks: list[Matrix]) -> list[Matrix]:
        border = np.zeros((p + 1, blocks[0].shape[2]))
        product, _ = A.multiply(blocks, border)
        effects, _ = factorisation.solve(product, border[:0])
        taken, _ = A.multiply(effects, border)
        return [a - b for a, b in zip(product, taken, strict=True)]

    unit = np.vstack([np.eye(p), np.zeros((1, p))])
    ZX, _ = A.multiply(zeros, unit)
    effects, _ = factorisation.solve(ZX, np.zeros((0, p)))
    taken, _ = A.multiply(effects, np.zeros((p + 1, p)))
    S = [a - b for a, b in zip(ZX, taken, strict=True)]
    # Phi of V0 = V / sigma^2, and everything below, in the engine's columns.
    Phi = scipy.linalg.cho_solve((factorisation.fixed_root, True), np.eye(p))

    inverse = factorisation.selected_inverse(with_fixed=False)
    owners: list[int] = []
    E: list[Matrix] = []
    members: list[tuple[int, Matrix]] = []
    for f, factor in enumerate(A.factors):
        for member in factor.members:
            width = member.columns.stop - member.columns.start
            # Any basis of the directions will do; in this one H is of size one, so that they can be
            # told apart numerically wherever the data can.
            own = None if directions is None else directions[member.term]
            if own is None:
                M = _inverse_root(inverse.B[f][member.columns, member.columns])
                own = np.array([M.T @ direction @ M for direction in _directions(width)])
            members.append((member.term, own))
            for direction in own:
                embedded = np.zeros((factor.k, factor.k))
                embedded[member.columns, member.columns] = direction
                owners.append(f)
                E.append(embedded)
    m = len(E)
    ES = [np.einsum("ab,ibp->iap", E[r], S[f]) for r, f in enumerate(owners)]
    SES = np.array([np.einsum("iap,iaq->pq", S[f], ES[r]) for r, f in enumerate(owners)])

    sums = pair_sums(A, factorisation.T, largest)
    traces = np.empty((m, m))
    for r in range(m):
        for s in range(r, m):
            F = sums[owners[r], owners[s]]
            traces[r, s] = traces[s, r] = np.einsum("ba,abcd,cd->", E[r], F, E[s])
    Q = np.empty((m, m, p, p))
    for s in range(m):
        blocks = [z if f != owners[s] else ES[s] for f, z in enumerate(zeros)]
        HES = times_H(blocks)
        for r in range(m):
            Q[r, s] = np.einsum("iap,iaq->pq", ES[r], HES[owners[r]])

    trace = np.array([float(np.sum(E[r] * inverse.B[f])) for r, f in enumerate(owners)])
    return InformationParts(Phi, SES, Q, traces, trace, A.n, tuple(owners)), members


@once_per_fit("Kenward-Roger")
def kenward_roger_of(fit: Fit) -> KenwardRoger:
    """Kenward and Roger's method for a fit.

    Raises
    ------
    ModelError
        If the fit is by maximum likelihood, or standard errors depend on what the data do not
        determine, or it would not fit into memory.
    """
    _refuse_maximum_likelihood(fit)
    found = dataclasses.replace(_by_expected_information(fit), names=fit.fixef_names)
    return _checked(fit, found)


@once_per_fit("Kenward-Roger, observed information")
def kenward_roger_observed_of(fit: Fit) -> KenwardRoger:
    """The same with the observed information about the parameters of V, as Satterthwaite's method.

    Degrees of freedom of a single contrast are Satterthwaite's; parameters at a bound are taken as
    known, as there.

    Raises
    ------
    ModelError
        As for `kenward_roger_of`.
    """
    _refuse_maximum_likelihood(fit)
    satterthwaite = satterthwaite_of(fit)
    n_residual = 0 if fit.residual is None else len(fit.residual.phi)
    found, members = _parts_of(fit)
    natural = natural_changes(fit.optimum, fit.optimum.curvature, n_residual)
    along = coordinates(members, *natural)
    if fit.factorisation.A.known_variance is not None:
        along[:, -1] = 0.0
    W = along.T @ satterthwaite.natural_covariance @ along
    flat = satterthwaite.flat @ along
    adjusted = in_users_columns(found, fit.factorisation, fit.sigma, W, flat)
    return _checked(fit, dataclasses.replace(adjusted, names=fit.fixef_names))


def expected_by_blocks(fit: Fit, most_rows: int | None = None) -> KenwardRoger:
    """Kenward and Roger's adjustment where residuals are correlated, or of several variances.

    Parameters
    ----------
    fit : Fit
        By either criterion.
    most_rows : int, optional
        Rows that a connected block of V may have.
    """
    found, _ = residual_information_parts(fit, *([] if most_rows is None else [most_rows]))
    W, undetermined = expected_covariance(found, fit.factorisation, np.zeros((0, found.m + 1)))
    return in_users_columns(found, fit.factorisation, fit.sigma, W, undetermined)


def _parts_of(fit: Fit) -> tuple[InformationParts, list[tuple[int, Matrix]]]:
    if fit.residual is not None:
        with one_blas_thread():
            return residual_information_parts(fit)
    with one_blas_thread(fit.crossproducts.remainder.core_size):
        return information_parts(fit.factorisation, directions=fit.optimum.variance_directions)


def _by_expected_information(fit: Fit) -> KenwardRoger:
    if fit.residual is not None:
        with one_blas_thread():
            return expected_by_blocks(fit)
    null = fit.optimum.null_directions
    with one_blas_thread(fit.crossproducts.remainder.core_size):
        return kenward_roger(
            fit.factorisation,
            fit.sigma,
            directions=fit.optimum.variance_directions,
            null=None if null is None else (changes_of_sigma(fit.optimum), null[:, -1]),
        )


def _refuse_maximum_likelihood(fit: Fit) -> None:
    if not fit.reml:
        raise ModelError(
            "Kenward-Roger's method is defined for REML fits and this one is by maximum "
            "likelihood; fit it again with m.update(reml=True)."
        )


def _checked(fit: Fit, found: KenwardRoger) -> KenwardRoger:
    depends = found.depends(np.eye(len(found.vcov)))
    if depends.any():
        names = [name for name, own in zip(fit.fixef_names, depends, strict=True) if own]
        raise ModelError(
            "Kenward-Roger's adjustment does not exist for this fit: the standard errors of "
            f"{', '.join(f'`{name}`' for name in names)} depend on variances that the data "
            f"do not determine. {' '.join(fit.optimum.reasons)}"
        )
    return found
