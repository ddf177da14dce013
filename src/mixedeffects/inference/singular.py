"""Whether Satterthwaite's degrees of freedom can be believed where the fit is singular.

Satterthwaite's method takes the uncertainty of the variances from the *observed* curvature of the
likelihood. At a singular fit the criterion is flat along the directions without variance, and
lmerTest's definition leaves them out, as if these variances were known: degrees of freedom can then
exceed by far what the clusters provide. The *expected* information of the design does not do that:
it knows how much these data could say about each variance, whatever the estimate. For a single
contrast, degrees of freedom from it are Kenward and Roger's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit, once_per_fit
from mixedeffects.inference.kenward_roger import (
    expected_by_blocks,
    kenward_roger,
    kenward_roger_of,
)

__all__ = ["doubtful_degrees_of_freedom", "expected_degrees_of_freedom"]

#: Observed and expected information differ by chance, but hardly by this factor.
_FACTOR = 2.0
#: Largest component to compute the expected information for unasked; see `pair_sums`.
_LARGEST = 1_500


def doubtful_degrees_of_freedom(fit: Fit, df: NDArray[np.float64]) -> NDArray[np.bool_] | None:
    """Which of Satterthwaite's degrees of freedom are more than twice what the design gives.

    Parameters
    ----------
    fit : Fit
        A singular fit.
    df : ndarray, shape (p,)
        Satterthwaite's degrees of freedom of its coefficients.

    Returns
    -------
    ndarray of bool, shape (p,), or None
        None where finding out would take long, or cannot be done: this is advice beside a summary,
        and must not stop it.
    """
    expected = expected_degrees_of_freedom(fit)
    return None if expected is None else np.asarray(df > _FACTOR * expected)


@once_per_fit("expected degrees of freedom")
def expected_degrees_of_freedom(fit: Fit) -> NDArray[np.float64] | None:
    """Those of the coefficients by the expected information; None where it takes long."""
    if kenward_roger_of.is_known(fit):
        expected = kenward_roger_of(fit)
    else:
        factorisation = fit.factorisation
        try:
            # The expected information is there for maximum-likelihood fits as well.
            if fit.residual is not None:
                expected = expected_by_blocks(fit, _LARGEST)
            else:
                expected = kenward_roger(
                    factorisation, fit.sigma, _LARGEST, fit.optimum.variance_directions
                )
        except (ModelError, ArithmeticError, np.linalg.LinAlgError):
            return None
    return np.asarray(expected.df(np.eye(len(fit.beta))))
