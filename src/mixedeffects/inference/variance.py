"""A covariance matrix of the fixed effects together with the degrees of freedom that go with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.arrays import ReadOnlyArrays
from mixedeffects.base.caching import cached_property
from mixedeffects.base.options import checked_choice, member, plain
from mixedeffects.errors import ModelError
from mixedeffects.inference.unseen import Unseen

__all__ = [
    "DDF_METHODS",
    "VCOV_KINDS",
    "FixedDf",
    "FixedEffectsVariance",
    "check_normal",
    "ddf_name",
    "is_robust",
]

Matrix = NDArray[np.float64]

#: Methods for denominator degrees of freedom, and how a summary names them.
DDF_METHODS = {
    "satterthwaite": "t-tests use Satterthwaite's method",
    "kr": "t-tests use Kenward-Roger's method",
    "kr-observed": "t-tests use Kenward-Roger's method with the observed information",
    "residual": "t-tests use n - p degrees of freedom",
    "inf": "tests use the normal distribution",
}
#: What lmerTest, emmeans and others call them.
_DDF_ELSEWHERE = {
    "kenward-roger": "kr",
    "kenwardroger": "kr",
    "kenward roger": "kr",
    "kenward-roger-linear": "kr-observed",
    "asymptotic": "inf",
    "normal": "inf",
    "lme4": "inf",
    "z": "inf",
}
VCOV_KINDS = ("model", "kr", "kr-observed")


def ddf_name(ddf: Any) -> str:
    """A method for degrees of freedom by its name here, or by that of other packages, in any case.

    Raises
    ------
    ModelError
        If there is none of that name.

    Examples
    --------
    >>> ddf_name("Kenward-Roger"), ddf_name("Satterthwaite")
    ('kr', 'satterthwaite')
    """
    given = plain(ddf)
    lowered = given.lower() if isinstance(given, str) else given
    if isinstance(lowered, str) and lowered in _DDF_ELSEWHERE:
        return _DDF_ELSEWHERE[lowered]
    return checked_choice(lowered if member(lowered, DDF_METHODS) else ddf, "ddf", [*DDF_METHODS])


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
    normal : bool
        Whether the model has no degrees of freedom at all: its tables have z and chi-square.
    joint_root : callable, optional
        Of a generalized model: makes a root, shape (r, s), of the covariance of all its parameters,
        covariances, fixed effects and phi, in the engine's basis.
    """

    vcov: Matrix
    df: Callable[[Matrix], Matrix]
    f_test: Callable[[Matrix], tuple[float, float]]
    method: str
    unseen: Unseen | None = None
    normal: bool = False
    joint_root: Callable[[], Matrix] | None = None

    def hides(self, L: Matrix) -> NDArray[np.bool_]:
        """Which of the contrasts (r, p) have no known variance, shape (r,)."""
        return np.zeros(len(L), dtype=np.bool_) if self.unseen is None else self.unseen.hides(L)

    def variances(self, L: Matrix) -> Matrix:
        """Variance of each contrast (r, p), NaN where it is not known; shape (r,)."""
        square = np.einsum("rp,pq,rq->r", L, self.seen, L, optimize=True)
        return np.where(self.hides(L), np.nan, np.maximum(square, 0.0))

    def covariance(self, L: Matrix) -> Matrix:
        """Covariance matrix (r, r) of contrasts (r, p), none of them hidden."""
        return np.asarray(L @ self.seen @ L.T)

    @property
    def seen(self) -> Matrix:
        """The covariance matrix without NaN: of what the clusters show, shape (p, p)."""
        return self.vcov if self.unseen is None else self.unseen.seen

    @cached_property
    def root(self) -> Matrix:
        """Factor of the covariance matrix of what is seen, ``root root'``, shape (p, p)."""
        size = np.sqrt(np.diag(self.seen))
        size = np.where(size > 0.0, size, 1.0)
        values, vectors = np.linalg.eigh(self.seen / np.outer(size, size))
        return np.asarray(size[:, None] * vectors * np.sqrt(np.maximum(values, 0.0)))


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


def is_robust(vcov: Any) -> bool:
    """Whether a kind of covariance matrix is a cluster-robust one."""
    return isinstance(vcov, str) and vcov.upper().startswith("CR")


def check_normal(ddf: Any) -> None:
    """Refuse degrees of freedom.

    Raises
    ------
    ModelError
        If a method other than ``"inf"`` is asked for.
    """
    given = plain(ddf)
    lowered = given.lower() if isinstance(given, str) else given
    if lowered != "inf" and not (isinstance(lowered, str) and _DDF_ELSEWHERE.get(lowered) == "inf"):
        raise ModelError(
            f"ddf={ddf!r} is for linear mixed models. Tests of a generalized model use the normal "
            "distribution, ddf='inf'."
        )
