"""``m.getme(name)``: the components that lme4's ``getME`` gives, under its names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.base.options import member
from mixedeffects.covariance.design import z_transpose_times
from mixedeffects.covariance.of_fit import Z_of, fitted_values
from mixedeffects.engine.factorisation import Factorisation
from mixedeffects.engine.objective import deviance
from mixedeffects.engine.parameters import lower_entries, n_parameters, theta_to_T
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.generalized import GeneralizedFit
from mixedeffects.fitting.theta import read_theta, theta_names

__all__ = ["COMPONENTS", "GENERALIZED_COMPONENTS", "component", "generalized_component"]

Matrix = NDArray[np.float64]

#: Above this many random effects the Cholesky factor L is not formed as one matrix.
_LARGEST_L = 10_000
#: What is not defined where residuals have a covariance structure.
_OF_INDEPENDENT_RESIDUALS = frozenset({"u", "L", "A", "RX", "RZX", "devcomp", "devfun"})
#: What is not defined without random effects.
_OF_RANDOM_EFFECTS = frozenset(
    {"Z", "Zt", "Ztlist", "mmList", "b", "Gp", "Tp", "Lambda", "Lambdat", "Lind", "Tlist", "flist"}
    | {"theta", "ST", "p_i", "l_i", "q_i", "m_i", "cnms", "lower"}
)


def component(fit: Fit, name: str) -> Any:
    """One component by its name in ``getME``; see `Fit.getme`.

    Raises
    ------
    ModelError
        If the name is not known.
    """
    if not member(name, COMPONENTS):
        raise ModelError(
            f"There is no component {name!r:.60}; there are {', '.join(sorted(COMPONENTS))}."
        )
    if fit.residual is not None and name in _OF_INDEPENDENT_RESIDUALS:
        raise ModelError(
            f"`getme({name!r})` is made of the weighted rows of lme4's penalised least squares, "
            "which takes residuals to be independent, and this model has `residual=`, `variance=` "
            "or `sigma=`. m.V.solve(x), m.V.logdet(), m.R and m.criterion answer in its place."
        )
    if not fit.frame.terms and name in _OF_RANDOM_EFFECTS:
        raise ModelError(f"The model has no random effects, so there is no `getme({name!r})`.")
    return COMPONENTS[name](fit)


def _relative_factors(fit: Fit) -> list[Matrix]:
    return theta_to_T(fit.theta, [t.n_columns for t in fit.frame.terms])


def _lambda(fit: Fit) -> scipy.sparse.csc_array:
    blocks = [
        scipy.sparse.kron(
            scipy.sparse.eye_array(term.n_levels), np.tril(np.ones_like(T)), format="csc"
        )
        for term, T in zip(fit.frame.terms, _relative_factors(fit), strict=True)
    ]
    # Built from a pattern of ones first: a zero in theta stays a stored entry, as in lme4.
    pattern = scipy.sparse.csc_array(scipy.sparse.block_diag(blocks))
    pattern.data = np.concatenate(
        [
            np.tile(T[lower_entries(len(T))], term.n_levels)
            for term, T in zip(fit.frame.terms, _relative_factors(fit), strict=True)
        ]
    )
    return pattern


def _lind(fit: Fit) -> NDArray[np.intp]:
    """For each stored entry of Lambdat (column by column), its place in theta."""
    out, start = [], 0
    for term in fit.frame.terms:
        rows, columns = np.tril_indices(term.n_columns)
        position = {rc: j for j, rc in enumerate(zip(*lower_entries(term.n_columns), strict=True))}
        own = [start + position[rc] for rc in zip(rows, columns, strict=True)]
        out.append(np.tile(np.asarray(own, dtype=np.intp), term.n_levels))
        start += len(own)
    return np.concatenate(out)


def _weights(fit: Fit) -> Matrix:
    weights = fit.working_weights
    return np.ones(fit.nobs) if weights is None else weights


def _system(fit: Fit) -> tuple[Matrix, Matrix, Matrix]:
    """L, RZX and RX of ``[Z Lambda, X]'W[Z Lambda, X] + blockdiag(I, 0)``."""
    q = Z_of(fit).shape[1]
    if q > _LARGEST_L:
        raise ModelError(
            f"L, RZX and RX are formed as dense {q:,} x {q:,} matrices and only up to "
            f"{_LARGEST_L:,} random effects; m.V.solve works at any size."
        )
    U = scipy.sparse.csc_array(Z_of(fit) @ _lambda(fit))
    W = _weights(fit)[:, None]
    UW = scipy.sparse.csc_array(U.multiply(W))
    M = (UW.T @ U).toarray() + np.eye(q)
    L = scipy.linalg.cholesky(M, lower=True)
    RZX = scipy.linalg.solve_triangular(L, UW.T @ fit.frame.X, lower=True)
    RX = scipy.linalg.cholesky(fit.frame.X.T @ (W * fit.frame.X) - RZX.T @ RZX, lower=False)
    return L, RZX, RX


def _u(fit: Fit) -> Matrix:
    """Spherical random effects ``u = Lambda'Z'W(y - X beta - Zb)``, right at a singular T too."""
    residual = (_weights(fit) * (fit.frame.y - fitted_values(fit)))[:, None]
    parts = [
        np.matmul(T.T, z_transpose_times(term, residual)).ravel()
        for term, T in zip(fit.frame.terms, _relative_factors(fit), strict=True)
    ]
    return np.concatenate(parts)


def _b(fit: Fit) -> Matrix:
    return np.concatenate([b.ravel() for b in fit.modes])


def _ztlist(fit: Fit) -> dict[str, scipy.sparse.csc_array]:
    out, start = {}, 0
    for term in fit.frame.terms:
        stop = start + term.n_levels * term.n_columns
        for a, column in enumerate(term.columns):
            picked = Z_of(fit)[:, start + a : stop : term.n_columns]
            out[f"{term.label}.{column}"] = scipy.sparse.csc_array(picked.T)
        start = stop
    return out


def _st(fit: Fit) -> dict[str, Matrix]:
    """Each T as S on the diagonal and the unit lower triangle below, as in ``getME(., "ST")``."""
    out = {}
    for term, T in zip(fit.frame.terms, _relative_factors(fit), strict=True):
        S = np.diag(T).copy()
        safe = np.where(S == 0.0, 1.0, S)
        ST = T / safe
        np.fill_diagonal(ST, S)
        out[term.label] = ST
    return out


def _devcomp(fit: Fit) -> dict[str, dict[str, float]]:
    factorisation = fit.factorisation
    A = factorisation.A
    logdet_x = factorisation.logdet_with_fixed - factorisation.logdet_random
    u = _u(fit)
    rho2 = factorisation.rho2 * A.basis.response_scale**2 * A.basis.weight_scale
    ussq = float(u @ u)
    log_scale = float(np.log(A.basis.weight_scale)) * A.p
    return {
        "cmp": {
            "ldL2": factorisation.logdet_random,
            "ldRX2": logdet_x - 2.0 * A.basis.log_det_fixed + log_scale,
            "wrss": rho2 - ussq,
            "ussq": ussq,
            "pwrss": rho2,
            "REML" if fit.reml else "dev": fit.criterion,
            "sigmaREML" if fit.reml else "sigmaML": fit.sigma,
        },
        "dims": {
            "N": fit.nobs,
            "n": fit.nobs,
            "p": A.p,
            "nmp": fit.nobs - A.p,
            "q": A.q,
            "nth": len(fit.theta),
            "REML": A.p if fit.reml else 0,
        },
    }


def _devfun(fit: Fit) -> Callable[[Matrix], float]:
    """The profiled deviance as a function of theta."""
    A = fit.factorisation.A

    def profiled(theta: Matrix) -> float:
        T = theta_to_T(read_theta(fit.frame.terms, theta), A.term_columns)
        factors = [A.basis.engine_factor(t, factor) for t, factor in enumerate(T)]
        offset = A.basis.deviance_offset(A.n, A.p, fit.reml)
        return deviance(Factorisation(A, factors), fit.reml) + offset

    return profiled


def _pointers(sizes: list[int]) -> NDArray[np.intp]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.intp)


def _per_term(
    value: Callable[[Any], int],
) -> Callable[[Fit], pd.Series]:
    def collect(fit: Fit) -> pd.Series:
        terms = fit.frame.terms
        return pd.Series([value(t) for t in terms], index=[t.label for t in terms])

    return collect


def _lower_bounds(fit: Fit) -> Matrix:
    bounds = []
    for term in fit.frame.terms:
        rows, columns = lower_entries(term.n_columns)
        bounds.append(np.where(rows == columns, 0.0, -np.inf))
    return np.concatenate(bounds)


def _score_u(fit: GeneralizedFit) -> Matrix:
    """Spherical random effects at the modes, ``u = Lambda'Z'r``."""
    r = fit.evaluation.rows.r[:, None]
    parts = [
        np.matmul(T.T, z_transpose_times(term, r)).ravel()
        for term, T in zip(fit.frame.terms, _relative_factors(fit), strict=True)
    ]
    return np.concatenate(parts)


#: Every name of lme4's ``getME`` and how it is made here.
COMPONENTS: dict[str, Callable[[Fit], Any]] = {
    "X": lambda m: m.frame.X,
    "Z": lambda m: Z_of(m).copy(),
    "Zt": lambda m: scipy.sparse.csc_array(Z_of(m).T),
    "Ztlist": _ztlist,
    "mmList": lambda m: {
        t.label: pd.DataFrame(t.z, columns=list(t.columns), index=m.frame.index)
        for t in m.frame.terms
    },
    "y": lambda m: m.frame.y,
    "mu": lambda m: fitted_values(m),
    "u": _u,
    "b": _b,
    "Gp": lambda m: _pointers([t.n_levels * t.n_columns for t in m.frame.terms]),
    "Tp": lambda m: _pointers([n_parameters([t.n_columns]) for t in m.frame.terms]),
    "L": lambda m: scipy.sparse.csc_array(_system(m)[0]),
    "Lambda": _lambda,
    "Lambdat": lambda m: scipy.sparse.csc_array(_lambda(m).T),
    "Lind": _lind,
    "Tlist": lambda m: dict(
        zip([t.label for t in m.frame.terms], _relative_factors(m), strict=True)
    ),
    "A": lambda m: scipy.sparse.csc_array(
        (_lambda(m).T @ Z_of(m).T).multiply(np.sqrt(_weights(m))[None, :])
    ),
    "RX": lambda m: _system(m)[2],
    "RZX": lambda m: _system(m)[1],
    "sigma": lambda m: m.sigma,
    "flist": lambda m: pd.DataFrame(
        {t.group: pd.Categorical.from_codes(t.codes, t.levels) for t in m.frame.terms},
        index=m.frame.index,
    ),
    "fixef": lambda m: pd.Series(m.beta.copy(), index=list(m.fixef_names), name="Estimate"),
    "beta": lambda m: m.beta,
    "theta": lambda m: pd.Series(m.theta, index=theta_names(m.frame.terms)),
    "ST": _st,
    "REML": lambda m: len(m.fixef_names) if m.reml else 0,
    "is_REML": lambda m: m.reml,
    "n_rtrms": lambda m: len(m.frame.terms),
    "n_rfacs": lambda m: len(m.ngroups),
    "N": lambda m: m.nobs,
    "n": lambda m: m.nobs,
    "p": lambda m: len(m.fixef_names),
    "q": lambda m: m.crossproducts.q,
    "p_i": _per_term(lambda t: t.n_columns),
    "l_i": _per_term(lambda t: t.n_levels),
    "q_i": _per_term(lambda t: t.n_levels * t.n_columns),
    "k": lambda m: len(m.frame.terms),
    "m_i": _per_term(lambda t: n_parameters([t.n_columns])),
    "m": lambda m: len(m.theta),
    "cnms": lambda m: {t.label: list(t.columns) for t in m.frame.terms},
    "devcomp": _devcomp,
    "offset": lambda m: np.zeros(m.nobs) if m.frame.offset is None else m.frame.offset,
    "lower": _lower_bounds,
    "devfun": _devfun,
}

#: Those of a generalized model. Its deviance is not made of lme4's parts, nor a function of theta.
GENERALIZED_COMPONENTS: dict[str, Callable[[GeneralizedFit], Any]] = {
    **{name: make for name, make in COMPONENTS.items() if name not in ("devcomp", "devfun")},
    "mu": lambda m: m.mu,
    "u": _score_u,
}


def generalized_component(fit: GeneralizedFit, name: str) -> Any:
    """One component of a generalized model by its name in ``getME``.

    Raises
    ------
    ModelError
        If the name is not known, or not defined for a generalized model.
    """
    if member(name, GENERALIZED_COMPONENTS):
        return GENERALIZED_COMPONENTS[name](fit)
    if member(name, COMPONENTS):
        raise ModelError(
            f"`getme({name!r})` is made of lme4's penalised least squares, from which the "
            "criterion of a generalized model does not follow. m.criterion and m.loglik_at(...) "
            "answer in its place."
        )
    raise ModelError(
        f"There is no component {name!r:.60}; there are "
        f"{', '.join(sorted(GENERALIZED_COMPONENTS))}."
    )
