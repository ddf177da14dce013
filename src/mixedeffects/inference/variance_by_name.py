"""The covariance matrix of the fixed effects, with its degrees of freedom, that a user names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.options import checked_choice, member, plain
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.generalized import GeneralizedFit, generalized
from mixedeffects.inference.cluster_robust import robust_covariance
from mixedeffects.inference.generalized_prediction_variance import joint_root
from mixedeffects.inference.kenward_roger import kenward_roger_observed_of, kenward_roger_of
from mixedeffects.inference.satterthwaite import satterthwaite_of
from mixedeffects.inference.score_robust import score_robust_covariance
from mixedeffects.inference.variance import (
    DDF_METHODS,
    VCOV_KINDS,
    FixedDf,
    FixedEffectsVariance,
    check_normal,
    ddf_name,
    is_robust,
)

__all__ = ["fixed_effects_variance"]

Matrix = NDArray[np.float64]

_KENWARD_ROGER = {"kr": kenward_roger_of, "kr-observed": kenward_roger_observed_of}


def fixed_effects_variance(
    fit: Fit, vcov: Any, ddf: Any, cluster: Any = None
) -> FixedEffectsVariance:
    """Covariance matrix and degrees of freedom by name.

    Parameters
    ----------
    fit : Fit
        The fit.
    vcov : {"model", "kr", "kr-observed", "CR0", "CR1", "CR1p", "CR1S", "CR2", "CR3"}
        Kind of covariance matrix. ``"kr"`` and ``"kr-observed"`` bring their own degrees of freedom
        in place of Satterthwaite's; a robust one always has its own.
    ddf : {"satterthwaite", "kr", "kr-observed", "residual", "inf"}
        Method for the degrees of freedom. The two of Kenward and Roger imply their covariance
        matrix.
    cluster
        For the robust kinds, as for `LinearMixedModel.robust`.

    Raises
    ------
    ModelError
        If a name is not known, or Kenward-Roger's method cannot be had for this fit.
    """
    if not fit.has_degrees_of_freedom:
        check_normal(ddf)
        return _normal(fit, vcov, cluster)
    method = ddf_name(ddf)
    if is_robust(vcov):
        return robust_covariance(fit, vcov, cluster).variance()
    kind = _known(vcov, "vcov kind", VCOV_KINDS, " and the cluster-robust 'CR0' to 'CR3'")
    if cluster is not None:
        raise ModelError(
            f"cluster= is for robust covariance matrices, such as 'CR2'; not {kind!r}."
        )
    # The degrees of freedom bring their covariance matrix, and it brings them.
    named = method if method in _KENWARD_ROGER else kind
    if named in _KENWARD_ROGER and (named == method or method == "satterthwaite"):
        kr = _KENWARD_ROGER[named](fit)
        return FixedEffectsVariance(kr.vcov, kr.df, kr.f_test, DDF_METHODS[named])
    covariance = _KENWARD_ROGER[kind](fit).vcov if kind in _KENWARD_ROGER else fit.vcov
    if method == "satterthwaite":
        satterthwaite = satterthwaite_of(fit)
        return FixedEffectsVariance(
            covariance,
            satterthwaite.df,
            partial(_unscaled, satterthwaite.f_df),
            DDF_METHODS[method],
        )
    depends = satterthwaite_of(fit).depends if fit.optimum.undetermined else None
    fixed = FixedDf(np.inf if method == "inf" else float(fit.nobs - len(covariance)), depends)
    return FixedEffectsVariance(covariance, fixed.df, fixed.f_test, DDF_METHODS[method])


def _normal(fit: Fit, vcov: Any, cluster: Any) -> FixedEffectsVariance:
    """Of a fit whose tests are normal, from one of its own covariance matrices."""
    if is_robust(vcov):
        return score_robust_covariance(generalized(fit), vcov, cluster).variance()
    kinds = fit.covariance_kinds
    kind = _known(vcov, "vcov kind", tuple(kinds), " and the cluster-robust 'CR0' and 'CR1'")
    if cluster is not None:
        raise ModelError(
            f"cluster= is for robust covariance matrices, such as 'CR1'; not {kind!r}."
        )
    fixed = FixedDf(np.inf)
    roots = partial(_root_of, generalized(fit), kind) if fit.has_link else None
    return FixedEffectsVariance(
        fit.fixed_covariance(kind), fixed.df, fixed.f_test, kinds[kind], None, True, roots
    )


def _root_of(fit: GeneralizedFit, kind: str) -> Matrix:
    """A root of the covariance of all parameters; the conditional one knows all but beta."""
    if kind == "model":
        return joint_root(fit)
    joint = fit.found.joint
    out = np.zeros((len(joint.covariance), joint.p))
    own = np.linalg.cholesky(fit.fixed_covariance(kind))
    out[joint.fixed] = np.linalg.solve(fit.crossproducts.basis.fixed, own)
    return out


def _unscaled(f_df: Callable[[Matrix], float], L: Matrix) -> tuple[float, float]:
    """An F statistic that is taken as it is."""
    return f_df(L), 1.0


def _known(name: Any, what: str, known: tuple[str, ...], more: str = "") -> str:
    name = plain(name)
    lowered = name.lower() if isinstance(name, str) else name
    return lowered if member(lowered, known) else checked_choice(name, what, known, more)
