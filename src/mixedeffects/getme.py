"""``m.getme(name)``: the components that lme4's ``getME`` gives, under its names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.covariance.components import read_theta, theta_names
from mixedeffects.covariance.design import z_transpose_times
from mixedeffects.engine.factorisation import Factorisation
from mixedeffects.engine.objective import deviance
from mixedeffects.engine.parameters import lower_entries, n_parameters, theta_to_T
from mixedeffects.errors import ModelError
from mixedeffects.inference.conditional import term_modes
from mixedeffects.options import member

if TYPE_CHECKING:
    from mixedeffects.model import LinearMixedModel

__all__ = ["COMPONENTS", "component"]

Matrix = NDArray[np.float64]

#: Above this many random effects the Cholesky factor L is not formed as one matrix.
_LARGEST_L = 10_000


def component(model: LinearMixedModel, name: str) -> Any:
    """One component by its name in ``getME``; see `LinearMixedModel.getme`.

    Raises
    ------
    ModelError
        If the name is not known.
    """
    if not member(name, COMPONENTS):
        raise ModelError(
            f"There is no component {name!r:.60}; there are {', '.join(sorted(COMPONENTS))}."
        )
    return COMPONENTS[name](model)


def _relative_factors(model: LinearMixedModel) -> list[Matrix]:
    return theta_to_T(model.theta, [t.n_columns for t in model.frame.terms])


def _lambda(model: LinearMixedModel) -> scipy.sparse.csc_array:
    blocks = [
        scipy.sparse.kron(
            scipy.sparse.eye_array(term.n_levels), np.tril(np.ones_like(T)), format="csc"
        )
        for term, T in zip(model.frame.terms, _relative_factors(model), strict=True)
    ]
    # Built from a pattern of ones first: a zero in theta stays a stored entry, as in lme4.
    pattern = scipy.sparse.csc_array(scipy.sparse.block_diag(blocks))
    pattern.data = np.concatenate(
        [
            np.tile(T[lower_entries(len(T))], term.n_levels)
            for term, T in zip(model.frame.terms, _relative_factors(model), strict=True)
        ]
    )
    return pattern


def _lind(model: LinearMixedModel) -> NDArray[np.intp]:
    """For each stored entry of Lambdat (column by column), its place in theta."""
    out, start = [], 0
    for term in model.frame.terms:
        rows, columns = np.tril_indices(term.n_columns)
        position = {rc: j for j, rc in enumerate(zip(*lower_entries(term.n_columns), strict=True))}
        own = [start + position[rc] for rc in zip(rows, columns, strict=True)]
        out.append(np.tile(np.asarray(own, dtype=np.intp), term.n_levels))
        start += len(own)
    return np.concatenate(out)


def _weights(model: LinearMixedModel) -> Matrix:
    weights = model.frame.weights
    return np.ones(model.nobs) if weights is None else weights


def _system(model: LinearMixedModel) -> tuple[Matrix, Matrix, Matrix]:
    """L, RZX and RX of ``[Z Lambda, X]'W[Z Lambda, X] + blockdiag(I, 0)``."""
    q = model.Z.shape[1]
    if q > _LARGEST_L:
        raise ModelError(
            f"L, RZX and RX are formed as dense {q:,} x {q:,} matrices and only up to "
            f"{_LARGEST_L:,} random effects; m.V.solve works at any size."
        )
    U = scipy.sparse.csc_array(model.Z @ _lambda(model))
    W = _weights(model)[:, None]
    UW = scipy.sparse.csc_array(U.multiply(W))
    M = (UW.T @ U).toarray() + np.eye(q)
    L = scipy.linalg.cholesky(M, lower=True)
    RZX = scipy.linalg.solve_triangular(L, UW.T @ model.X, lower=True)
    RX = scipy.linalg.cholesky(model.X.T @ (W * model.X) - RZX.T @ RZX, lower=False)
    return L, RZX, RX


def _u(model: LinearMixedModel) -> Matrix:
    """Spherical random effects ``u = Lambda'Z'W(y - X beta - Zb)``, right at a singular T too."""
    residual = (_weights(model) * model.resid().to_numpy())[:, None]
    parts = [
        np.matmul(T.T, z_transpose_times(term, residual)).ravel()
        for term, T in zip(model.frame.terms, _relative_factors(model), strict=True)
    ]
    return np.concatenate(parts)


def _b(model: LinearMixedModel) -> Matrix:
    modes = term_modes(model.frame, model.optimum.evaluation.factorisation)
    return np.concatenate([b.ravel() for b in modes])


def _ztlist(model: LinearMixedModel) -> dict[str, scipy.sparse.csc_array]:
    out, start = {}, 0
    for term in model.frame.terms:
        stop = start + term.n_levels * term.n_columns
        for a, column in enumerate(term.columns):
            picked = model.Z[:, start + a : stop : term.n_columns]
            out[f"{term.label}.{column}"] = scipy.sparse.csc_array(picked.T)
        start = stop
    return out


def _st(model: LinearMixedModel) -> dict[str, Matrix]:
    """Each T as S on the diagonal and the unit lower triangle below, as in ``getME(., "ST")``."""
    out = {}
    for term, T in zip(model.frame.terms, _relative_factors(model), strict=True):
        S = np.diag(T).copy()
        safe = np.where(S == 0.0, 1.0, S)
        ST = T / safe
        np.fill_diagonal(ST, S)
        out[term.label] = ST
    return out


def _devcomp(model: LinearMixedModel) -> dict[str, dict[str, float]]:
    factorisation = model.optimum.evaluation.factorisation
    A = factorisation.A
    logdet_x = factorisation.logdet_with_fixed - factorisation.logdet_random
    u = _u(model)
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
            "REML" if model.reml else "dev": model.criterion,
            "sigmaREML" if model.reml else "sigmaML": model.sigma,
        },
        "dims": {
            "N": model.nobs,
            "n": model.nobs,
            "p": A.p,
            "nmp": model.nobs - A.p,
            "q": A.q,
            "nth": len(model.theta),
            "REML": A.p if model.reml else 0,
        },
    }


def _devfun(model: LinearMixedModel) -> Callable[[Matrix], float]:
    """The profiled deviance as a function of theta."""
    A = model.optimum.evaluation.factorisation.A

    def profiled(theta: Matrix) -> float:
        T = theta_to_T(read_theta(model.frame.terms, theta), A.term_columns)
        factors = [A.basis.engine_factor(t, factor) for t, factor in enumerate(T)]
        offset = A.basis.deviance_offset(A.n, A.p, model.reml)
        return deviance(Factorisation(A, factors), model.reml) + offset

    return profiled


def _pointers(sizes: list[int]) -> NDArray[np.intp]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.intp)


def _per_term(
    value: Callable[[Any], int],
) -> Callable[[LinearMixedModel], pd.Series]:
    def collect(model: LinearMixedModel) -> pd.Series:
        terms = model.frame.terms
        return pd.Series([value(t) for t in terms], index=[t.label for t in terms])

    return collect


def _lower_bounds(model: LinearMixedModel) -> Matrix:
    bounds = []
    for term in model.frame.terms:
        rows, columns = lower_entries(term.n_columns)
        bounds.append(np.where(rows == columns, 0.0, -np.inf))
    return np.concatenate(bounds)


#: Every name of lme4's ``getME`` and how it is made here.
COMPONENTS: dict[str, Callable[[LinearMixedModel], Any]] = {
    "X": lambda m: m.X,
    "Z": lambda m: m.Z,
    "Zt": lambda m: scipy.sparse.csc_array(m.Z.T),
    "Ztlist": _ztlist,
    "mmList": lambda m: {
        t.label: pd.DataFrame(t.z, columns=list(t.columns), index=m.frame.index)
        for t in m.frame.terms
    },
    "y": lambda m: m.y,
    "mu": lambda m: m.fitted.to_numpy(),
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
        (_lambda(m).T @ m.Z.T).multiply(np.sqrt(_weights(m))[None, :])
    ),
    "RX": lambda m: _system(m)[2],
    "RZX": lambda m: _system(m)[1],
    "sigma": lambda m: m.sigma,
    "flist": lambda m: pd.DataFrame(
        {t.group: pd.Categorical.from_codes(t.codes, t.levels) for t in m.frame.terms},
        index=m.frame.index,
    ),
    "fixef": lambda m: m.fixef,
    "beta": lambda m: m.fixef.to_numpy(),
    "theta": lambda m: pd.Series(m.theta, index=theta_names(m.frame.terms)),
    "ST": _st,
    "REML": lambda m: len(m.frame.fixef_names) if m.reml else 0,
    "is_REML": lambda m: m.reml,
    "n_rtrms": lambda m: len(m.frame.terms),
    "n_rfacs": lambda m: len(m.ngroups),
    "N": lambda m: m.nobs,
    "n": lambda m: m.nobs,
    "p": lambda m: len(m.frame.fixef_names),
    "q": lambda m: m._A.q,
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
