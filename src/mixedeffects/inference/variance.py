"""A covariance matrix of the fixed effects together with the degrees of freedom that go with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.arrays import ReadOnlyArrays
from mixedeffects.caching import cached_property
from mixedeffects.errors import ModelError
from mixedeffects.inference.unseen import Unseen
from mixedeffects.options import checked_choice, member, plain

if TYPE_CHECKING:
    from mixedeffects.model import LinearMixedModel

__all__ = [
    "DDF_METHODS",
    "VCOV_KINDS",
    "FixedDf",
    "FixedEffectsVariance",
    "fixed_effects_variance",
    "is_robust",
]

Matrix = NDArray[np.float64]

#: Methods for denominator degrees of freedom, and how a summary names them.
DDF_METHODS = {
    "satterthwaite": "t-tests use Satterthwaite's method",
    "kr": "t-tests use Kenward-Roger's method",
    "residual": "t-tests use n - p degrees of freedom",
    "inf": "tests use the normal distribution",
}
VCOV_KINDS = ("model", "kr")


@dataclass(frozen=True, eq=False)
class FixedEffectsVariance(ReadOnlyArrays):
    """What a test of fixed effects needs besides the estimates.

    Attributes
    ----------
    vcov : ndarray, shape (p, p)
        Covariance matrix of the fixed effects.
    df : callable
        From contrasts (r, p) to the degrees of freedom of each, shape (r,).
    f_test : callable
        From q linearly independent contrasts (q, p) to the denominator degrees of freedom of their
        joint F test and the factor that scales the statistic.
    method : str
        For the heading of a summary.
    unseen : Unseen, optional
        Of a robust covariance matrix, the functions whose variance the clusters cannot show; in
        ``vcov`` the coefficients among them are NaN.
    """

    vcov: Matrix
    df: Callable[[Matrix], Matrix]
    f_test: Callable[[Matrix], tuple[float, float]]
    method: str
    unseen: Unseen | None = None

    def hides(self, L: Matrix) -> NDArray[np.bool_]:
        """Which of the contrasts (r, p) have no known variance, shape (r,)."""
        return np.zeros(len(L), dtype=np.bool_) if self.unseen is None else self.unseen.hides(L)

    def variances(self, L: Matrix) -> Matrix:
        """Variance of each contrast (r, p), NaN where it is not known; shape (r,)."""
        square = np.einsum("rp,pq,rq->r", L, self._seen, L, optimize=True)
        return np.where(self.hides(L), np.nan, np.maximum(square, 0.0))

    def covariance(self, L: Matrix) -> Matrix:
        """Covariance matrix (r, r) of contrasts (r, p), none of them hidden."""
        return np.asarray(L @ self._seen @ L.T)

    @property
    def _seen(self) -> Matrix:
        return self.vcov if self.unseen is None else self.unseen.seen

    @cached_property
    def root(self) -> Matrix:
        """Factor of the covariance matrix of what is seen, ``root root'``, shape (p, p)."""
        size = np.sqrt(np.diag(self._seen))
        size = np.where(size > 0.0, size, 1.0)
        values, vectors = np.linalg.eigh(self._seen / np.outer(size, size))
        return np.asarray(size[:, None] * vectors * np.sqrt(np.maximum(values, 0.0)))


def fixed_effects_variance(
    model: LinearMixedModel, vcov: Any, ddf: Any, cluster: Any = None
) -> FixedEffectsVariance:
    """Covariance matrix and degrees of freedom by name.

    Parameters
    ----------
    model : LinearMixedModel
        The fit.
    vcov : {"model", "kr", "CR0", "CR1", "CR1p", "CR1S", "CR2", "CR3"}
        Kind of covariance matrix. ``"kr"`` brings its own degrees of freedom in place of
        Satterthwaite's; a robust one always has its own.
    ddf : {"satterthwaite", "kr", "residual", "inf"}
        Method for the degrees of freedom. ``"kr"`` implies its covariance matrix.
    cluster
        For the robust kinds, as for `LinearMixedModel.robust`.

    Raises
    ------
    ModelError
        If a name is not known, or Kenward-Roger's method cannot be had for this fit.
    """
    method = _known(ddf, "ddf", tuple(DDF_METHODS))
    if is_robust(vcov):
        return model.robust(vcov, cluster).variance()
    kind = _known(vcov, "vcov kind", VCOV_KINDS, " and the cluster-robust 'CR0' to 'CR3'")
    if cluster is not None:
        raise ModelError(
            f"cluster= is for robust covariance matrices, such as 'CR2'; not {kind!r}."
        )
    if method == "kr" or (kind == "kr" and method == "satterthwaite"):
        kr = model.kenward_roger
        return FixedEffectsVariance(kr.vcov, kr.df, kr.f_test, DDF_METHODS["kr"])
    covariance = model.kenward_roger.vcov if kind == "kr" else model._vcov
    if method == "satterthwaite":
        satterthwaite = model.satterthwaite
        return FixedEffectsVariance(
            covariance,
            satterthwaite.df,
            partial(_unscaled, satterthwaite.f_df),
            DDF_METHODS[method],
        )
    depends = model.satterthwaite.depends if model.optimum.undetermined else None
    fixed = FixedDf(np.inf if method == "inf" else float(model.nobs - len(covariance)), depends)
    return FixedEffectsVariance(covariance, fixed.df, fixed.f_test, DDF_METHODS[method])


@dataclass(frozen=True)
class FixedDf:
    """The same degrees of freedom for all contrasts.

    Attributes
    ----------
    value : float
        The number; may be infinite.
    depends : callable or None
        From contrasts (r, p) to whether the variance of each depends on parameters that the data
        do not determine, and is any number; None if no variance does.
    """

    value: float
    depends: Callable[[Matrix], Any] | None = None

    def df(self, L: Matrix) -> Matrix:
        """See `FixedEffectsVariance`."""
        out = np.full(len(L), self.value)
        return out if self.depends is None else np.where(self.depends(L), np.nan, out)

    def f_test(self, L: Matrix) -> tuple[float, float]:
        """See `FixedEffectsVariance`."""
        return float(self.df(L).min()), 1.0


def _unscaled(f_df: Callable[[Matrix], float], L: Matrix) -> tuple[float, float]:
    """An F statistic that is taken as it is."""
    return f_df(L), 1.0


def is_robust(vcov: Any) -> bool:
    """Whether a kind of covariance matrix is a cluster-robust one."""
    return isinstance(vcov, str) and vcov.upper().startswith("CR")


def _known(name: Any, what: str, known: tuple[str, ...], more: str = "") -> str:
    name = plain(name)
    lowered = name.lower() if isinstance(name, str) else name
    return lowered if member(lowered, known) else checked_choice(name, what, known, more)
