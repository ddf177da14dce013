"""Adaptive Gauss-Hermite quadrature: the likelihood by integration, level by level.

For random effects of one grouping factor, k a level, and points z_j with weights w_j of the product
rule for the normal distribution,

    M_i = I + T'A_i T = L L'      u_ij = u_i + L^-T z_j      f_i(u) = sum d + u'u
    D_i = log |M_i| - 2 log sum_j w_j exp(|z_j|^2 / 2 - f_i(u_ij) / 2)

with u_i the mode, ``A_i = Z_i'WZ_i`` there. One point is Laplace's approximation. Let pi_ij be the
summands divided by their sum, g_ij the gradient of f_i at u_ij, r_j the scores of the rows there,
and

    alpha_i = sum_j pi g    Q_i = sum_j pi z_j (L^-1 g)'    S = (Phi(Q) + Phi(Q)') / 2
    H_i = M^-1 - L^-T S L^-1     t = (z'T H_i T'z) W'        v_i = M^-1 (T'Z't + alpha_i)

where Phi takes the lower triangle with half the diagonal and t is a number for every row. Then

    dD/dbeta = X'(t - W Z T v) - 2 sum_j X'(pi r_j)
    dD/dphi  = sum_j pi d_phi(u_ij) + h'W_phi + (Z T v)'r_phi,         h = z'T H_i T'z
    dD/dT    = sum_i 2 A_i T H_i + Z'(t - W Z T v) u_i' + c v' - 2 sum_j pi (Z'r_j) u_ij'

The grid turns with the root T of Sigma, so T is the lower triangular one here, whatever root is
given: D is then a function of Sigma. Its matrix score F is that of the exact likelihood,
``sum_ij pi (Z'W_j Z - Z'r_j r_j'Z)``, changed as little as makes ``2 F T`` the derivative above; so
it also says what a variance would do in a direction that has none.

References
----------
Pinheiro, J. C. and Bates, D. M. (1995). Approximations to the log-likelihood function in the
nonlinear mixed-effects model. Journal of Computational and Graphical Statistics 4, 12-35.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.engine.basis import lower_factor
from mixedeffects.engine.factorisation import factor_T
from mixedeffects.engine.generalized.design import GeneralizedDesign
from mixedeffects.engine.generalized.laplace import (
    GeneralizedEvaluation,
    LogDetGradient,
    evaluate_laplace,
)
from mixedeffects.engine.parameters import lower_entries, symmetric_directions
from mixedeffects.errors import ModelError
from mixedeffects.families import Response, RowTerms

__all__ = [
    "MOST_EFFECTS",
    "adaptive_quadrature",
    "check_quadrature",
    "evaluate_criterion",
    "fine_nodes",
    "most_nodes",
    "quadrature_parts",
    "scores_of_levels",
]

Matrix = NDArray[np.float64]
Blocks = tuple[Matrix, ...]

#: Random effects a level, points of one rule, and points a level.
MOST_EFFECTS, _MOST_NODES, _MOST_POINTS = 3, 100, 2_000
#: Values of rows at once.
_CHUNK = 20_000
#: Standard deviation, on the scale of eta, that is none when the score is told from dD/dT, and what
#: a direction may contribute less than the largest does.
_NO_DEVIATION, _SMALLEST = 1e-8, 1e-11
#: Points of a rule that is to be exact.
_FINE = 25


@cache
def _rule(nodes: int, k: int) -> tuple[Matrix, Matrix]:
    """Points (m, k) of the product rule, and ``log w + |z|^2 / 2``."""
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    one = np.log(w) - 0.5 * np.log(2.0 * np.pi) + 0.5 * z * z
    grid = np.meshgrid(*[np.arange(nodes)] * k, indexing="ij")
    at = np.stack([axis.ravel() for axis in grid], axis=1)
    return np.ascontiguousarray(z[at]), np.asarray(one[at].sum(axis=1))


def most_nodes(k: int) -> int:
    """The most points of one rule, for so many random effects a level."""
    return min(int(_MOST_POINTS ** (1.0 / k) + 1e-9), _MOST_NODES)


def fine_nodes(design: GeneralizedDesign) -> int:
    """Points per random effect of a rule for one value that is to be exact; 1 where there is none.

    Parameters
    ----------
    design : GeneralizedDesign
        The model.
    """
    factors = design.skeleton.factors
    if len(factors) > 1 or factors[0].k > MOST_EFFECTS:
        return 1
    return min(_FINE, most_nodes(factors[0].k))


def check_quadrature(design: GeneralizedDesign, nodes: int) -> None:
    """Refuse what adaptive quadrature is not for.

    Parameters
    ----------
    design : GeneralizedDesign
        The model.
    nodes : int
        Points per random effect.

    Raises
    ------
    ModelError
        With several grouping factors, more than three random effects a level, or too many points.
    """
    if isinstance(nodes, bool) or not isinstance(nodes, int | np.integer) or nodes < 1:
        raise ModelError(f"nagq must be a whole number from 1, not {nodes!r:.40}.")
    if nodes == 1:
        return
    factors = design.skeleton.factors
    if len(factors) > 1:
        raise ModelError(
            f"nagq={nodes} integrates over the random effects of each level by itself, which needs "
            f"one grouping factor; the formula has {len(factors)}. Take nagq=1, Laplace's "
            "approximation."
        )
    k = factors[0].k
    if k > MOST_EFFECTS:
        raise ModelError(
            f"nagq={nodes} is for at most {MOST_EFFECTS} random effects a level, and the formula "
            f"has {k}. Take nagq=1, Laplace's approximation, or fewer random effects."
        )
    most = most_nodes(k)
    if nodes > most:
        raise ModelError(
            f"nagq={nodes} makes {nodes**k:,} quadrature points a level. With {k} random "
            f"effect{'' if k == 1 else 's'} a level nagq can be at most {most}."
        )


def evaluate_criterion(
    design: GeneralizedDesign,
    T: Sequence[Matrix],
    beta: Matrix,
    phi: float,
    *,
    nodes: int = 1,
    near: GeneralizedEvaluation | None = None,
    c: Sequence[Matrix] | None = None,
) -> GeneralizedEvaluation:
    """Laplace's criterion with its gradient, or that of quadrature with more nodes.

    Parameters and errors are those of `evaluate_laplace`.
    """
    at_modes = evaluate_laplace(design, T, beta, phi, near=near, c=c)
    return at_modes if nodes == 1 else adaptive_quadrature(at_modes, nodes)


def adaptive_quadrature(evaluation: GeneralizedEvaluation, nodes: int) -> GeneralizedEvaluation:
    """Criterion and gradient by quadrature, at the parameters and modes of an evaluation.

    Parameters
    ----------
    evaluation : GeneralizedEvaluation
        By Laplace's approximation, of a model that `check_quadrature` accepts.
    nodes : int
        Points per random effect.

    Returns
    -------
    GeneralizedEvaluation
        The same with another ``criterion``, ``score``, ``beta_gradient`` and ``phi_gradient``;
        ``logdet`` is what they have beyond the derivatives of f*.
    """
    design, rows = evaluation.design, evaluation.rows
    parts = quadrature_parts(evaluation, nodes)
    beta_gradient = design.X.T @ parts.rows
    phi_gradient = 0.0 if parts.phi is None else float(parts.phi.sum())
    score = tuple(
        _score(own, F, lower_factor(T))
        for own, F, T in zip(
            design.by_term([parts.of_T.sum(axis=0)]),
            design.by_term([parts.exact.sum(axis=0)]),
            evaluation.T,
            strict=True,
        )
    )
    d_phi = 0.0 if rows.d_phi is None else float(rows.d_phi.sum())
    beyond = LogDetGradient(
        tuple(F + cc for F, cc in zip(score, evaluation.outer_products, strict=True)),
        beta_gradient + 2.0 * (design.X.T @ rows.r),
        phi_gradient - d_phi,
    )
    return replace(
        evaluation,
        criterion=float(parts.criterion.sum()),
        score=score,
        beta_gradient=beta_gradient,
        phi_gradient=phi_gradient,
        logdet=beyond,
        nodes=nodes,
    )


@dataclass(frozen=True, eq=False)
class QuadratureParts:
    """Criterion and gradient by quadrature, level by level and row by row.

    Attributes
    ----------
    criterion : ndarray, shape (l,)
        D of each level.
    rows : ndarray, shape (n,)
        What X' makes dD/dbeta of.
    phi : ndarray, shape (n,), or None
        Parts of dD/dphi; what belongs to a level is divided among its rows.
    of_T, exact : ndarray, shape (l, k, k)
        dD/dT of each level for the lower triangular root, and the score in Sigma of the exact
        likelihood.
    """

    criterion: Matrix
    rows: Matrix
    phi: Matrix | None
    of_T: Matrix
    exact: Matrix


def quadrature_parts(evaluation: GeneralizedEvaluation, nodes: int) -> QuadratureParts:
    """Parts of criterion and gradient; see `adaptive_quadrature`."""
    design, rows = evaluation.design, evaluation.rows
    (factor,) = design.skeleton.factors
    root = factor_T(factor, [lower_factor(T) for T in evaluation.T])
    at = _Levels(evaluation, root)
    sums = _summed(at, nodes)
    criterion = at.logdet + at.f - 2.0 * np.log(sums.total)

    z_mean = sums.z / sums.total[:, None]
    rho = sums.rho / sums.total[:, None]
    zz, z_rho, rho_rho = (
        own / sums.total[:, None, None] for own in (sums.zz, sums.z_rho, sums.rho_rho)
    )
    # Means over the points of z u' and of Z'r u', and of u itself.
    z_u = z_mean[:, :, None] * at.u[:, None, :] + zz @ at.L_inverse
    rho_u = rho[:, :, None] * at.u[:, None, :] + z_rho.transpose(0, 2, 1) @ at.L_inverse
    u = at.u + np.einsum("lba,lb->la", at.L_inverse, z_mean)
    alpha = 2.0 * (u - rho @ root)
    Q = 2.0 * (z_u - z_rho @ root) @ at.L_inverse.transpose(0, 2, 1)
    lower = np.tril(Q)
    np.einsum("lii->li", lower)[:] *= 0.5
    S = 0.5 * (lower + lower.transpose(0, 2, 1))
    inner = np.eye(at.k) - S
    H = at.L_inverse.transpose(0, 2, 1) @ inner @ at.L_inverse
    h = at.quadratic(root @ H @ root.T)
    t = h * rows.W1
    v = np.einsum("lab,lb->la", at.M_inverse, at.sums(t) @ root + alpha)
    v_rows = at.expand(v @ root.T)
    a = t - rows.W * v_rows

    r = sums.r / sums.total[at.codes]
    of_phi = None
    if rows.r_phi is not None and rows.W_phi is not None:
        count = np.bincount(at.codes, minlength=at.n_levels)
        of_phi = (sums.d_phi / sums.total / np.maximum(count, 1))[at.codes]
        of_phi = of_phi + h * rows.W_phi + v_rows * rows.r_phi
    of_T = (
        2.0 * at.A @ (root @ H)
        + at.sums(a)[:, :, None] * at.u[:, None, :]
        + at.c[:, :, None] * v[:, None, :]
        - 2.0 * rho_u
    )
    W = sums.W / sums.total[at.codes]
    exact = at.sums(W[:, None] * at.z) - rho_rho
    return QuadratureParts(criterion, a - 2.0 * r, of_phi, of_T, exact)


def scores_of_levels(
    design: GeneralizedDesign, parts: QuadratureParts, roots: Sequence[Matrix]
) -> Matrix:
    """Score in Sigma of each level, shape (l, k, k); they sum to that of the evaluation.

    Parameters
    ----------
    design : GeneralizedDesign
        The model.
    parts : QuadratureParts
        What they are made of.
    roots : sequence of ndarray (k, k)
        Lower triangular root of Sigma of each term.
    """
    out = np.zeros_like(parts.of_T)
    (factor,) = design.skeleton.factors
    for member in factor.members:
        at = (slice(None), member.columns, member.columns)
        out[at] = _score(parts.of_T[at], parts.exact[at], roots[member.term])
    return out


class _Levels:
    """The levels of the one factor at their modes, for a lower triangular root of Sigma."""

    def __init__(self, evaluation: GeneralizedEvaluation, root: Matrix) -> None:
        design, mode = evaluation.design, evaluation.mode
        self.design, self.root, self.phi = design, root, evaluation.phi
        (factor,) = design.skeleton.factors
        self.k, self.n_levels = factor.k, factor.n_levels
        self.codes = design.terms[0].codes
        self.z = np.ascontiguousarray(np.hstack(design.z))
        self.eta, rows = mode.eta, mode.rows
        self.c = mode.c[0]
        self.u = self.c @ root
        self.A = self.sums(rows.W[:, None] * self.z)
        M = np.eye(self.k) + root.T @ self.A @ root
        L = np.linalg.cholesky(0.5 * (M + M.transpose(0, 2, 1)))
        self.logdet = 2.0 * np.log(np.einsum("lii->li", L)).sum(axis=1)
        self.L_inverse = np.linalg.inv(L)
        self.M_inverse = self.L_inverse.transpose(0, 2, 1) @ self.L_inverse
        self.f = self.totals(rows.d) + np.einsum("la,la->l", self.u, self.u)

    def sums(self, values: Matrix) -> Matrix:
        """``Z'v`` by level: (l, k) for v of shape (n,), (l, k, m) for (n, m)."""
        return self.design.sums(values)[0]

    def expand(self, effects: Matrix) -> Matrix:
        """``Z b`` by row, for b of shape (l, k) or (l, k, m)."""
        return self.design.expand([effects])

    def totals(self, values: Matrix) -> Matrix:
        """Sums over the rows of each level: (l,) for shape (n,), (l, m) for (n, m)."""
        wide = np.ascontiguousarray(values.reshape(len(values), -1))
        out = np.zeros((self.n_levels, 1, wide.shape[1]))
        _kernels.group_sums(self.codes, np.ones((len(values), 1)), wide, out)
        return out[:, 0, 0] if values.ndim == 1 else out[:, 0]

    def quadratic(self, B: Matrix) -> Matrix:
        """``z'Bz`` of each row, for B of shape (l, k, k)."""
        return np.asarray(np.einsum("na,nab,nb->n", self.z, B[self.codes], self.z))


@dataclass(eq=False)
class _Sums:
    """Sums over the points of summands times what the gradient needs, per level; r, W per row."""

    total: Matrix
    z: Matrix
    zz: Matrix
    rho: Matrix
    z_rho: Matrix
    rho_rho: Matrix
    d_phi: Matrix
    r: Matrix
    W: Matrix


def _summed(at: _Levels, nodes: int) -> _Sums:
    """Go through the points, as many at once as the chunk holds."""
    levels, k, n = at.n_levels, at.k, len(at.codes)
    square = (levels, k, k)
    out = _Sums(
        np.zeros(levels),
        np.zeros((levels, k)),
        np.zeros(square),
        np.zeros((levels, k)),
        np.zeros(square),
        np.zeros(square),
        np.zeros(levels),
        np.zeros(n),
        np.zeros(n),
    )
    points, logs = _rule(nodes, k)
    step = max(1, min(_CHUNK // max(n, 1), len(points)))
    for start in range(0, len(points), step):
        _add(out, at, points[start : start + step], logs[start : start + step])
    return out


def _add(out: _Sums, at: _Levels, z: Matrix, logs: Matrix) -> None:
    """Add some points; the summands are at most about one, so nothing is rescaled."""
    m, n = len(z), len(at.codes)
    du = np.einsum("lba,mb->lam", at.L_inverse, z)
    eta = at.eta[:, None] + at.expand(np.einsum("ab,lbm->lam", at.root, du))
    rows = _rows(at, eta)
    u = at.u[:, :, None] + du
    rise = at.totals(rows.d.reshape(n, m)) + np.einsum("lam,lam->lm", u, u) - at.f[:, None]
    share = np.exp(logs - 0.5 * rise)
    # Where the mean is outside its range nothing is added.
    share[~np.isfinite(rise)] = 0.0
    r = rows.r.reshape(n, m)
    rho = at.sums(r)
    by_row = share[at.codes]
    weighted = rho * share[:, None, :]
    out.total += share.sum(axis=1)
    out.z += share @ z
    out.zz += np.einsum("lm,ma,mb->lab", share, z, z)
    out.rho += weighted.sum(axis=2)
    out.z_rho += np.einsum("ma,lbm->lab", z, weighted)
    out.rho_rho += np.einsum("lam,lbm->lab", weighted, rho)
    out.r += np.einsum("nm,nm->n", by_row, r)
    out.W += np.einsum("nm,nm->n", by_row, rows.W.reshape(n, m))
    if rows.d_phi is not None:
        out.d_phi += np.einsum("lm,lm->l", share, at.totals(rows.d_phi.reshape(n, m)))


def _rows(at: _Levels, eta: Matrix) -> RowTerms:
    """Row terms at several linear predictors (n, m), those of a row one after the other."""
    design = at.design
    response, family = design.response, design.family
    n, m = eta.shape
    repeated: Response = response.remember(f"repeated {m} times", lambda: _repeated(response, m))
    known = at.phi if family.has_parameter else None
    return family.rows(repeated, eta.reshape(n * m), known, 1, family.has_parameter)


def _repeated(response: Response, m: int) -> Response:
    def each(values: Matrix | None) -> Matrix | None:
        return None if values is None else np.repeat(values, m)

    return Response(np.repeat(response.y, m), each(response.trials), each(response.weights))


def _score(of_T: Matrix, exact: Matrix, T: Matrix) -> Matrix:
    """The symmetric F nearest to another with ``2 F T`` as given, on and below the diagonal.

    Directions in which T has no variance are left as they are. Matrices may be stacked.
    """
    rows, columns = lower_entries(len(T))
    every = symmetric_directions(len(T))
    every = every / np.linalg.norm(every.reshape(len(every), -1), axis=1)[:, None, None]
    F = 0.5 * (exact + np.swapaxes(exact, -1, -2))
    missing = (of_T - 2.0 * F @ T)[..., rows, columns]
    products = 2.0 * np.stack([(own @ T)[rows, columns] for own in every], axis=1)
    left, values, right = np.linalg.svd(products)
    kept = (values > _SMALLEST * values[0]) & (values[0] > _NO_DEVIATION)
    by_direction = ((missing @ left[:, kept]) / values[kept]) @ right[kept]
    return np.asarray(F + np.einsum("...r,rab->...ab", by_direction, every))
