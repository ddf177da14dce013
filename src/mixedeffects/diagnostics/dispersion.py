"""Whether responses vary as the family says: Pearson's chi-square among data sets drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.options import entropy_of
from mixedeffects.diagnostics.check_statistics import two_sided
from mixedeffects.diagnostics.drawn_again import DrawnAgain
from mixedeffects.diagnostics.generalized_residuals import generalized_residuals
from mixedeffects.errors import ModelError
from mixedeffects.fitting.generalized import GeneralizedFit
from mixedeffects.simulation.responses import checked_count

__all__ = ["DispersionTest", "dispersion_test", "no_dispersion"]

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class DispersionTest:
    """Pearson's chi-square beside those of data sets drawn from the model.

    Attributes
    ----------
    statistic : float
        Sum of squared Pearson residuals, given the conditional modes.
    expected : float
        Its mean among the data sets drawn.
    ratio : float
        The statistic over that: above one responses vary more than the family says, below it less.
    p_value : float
        Share of the data sets as far from their mean, in either direction.
    df : int
        Rows less parameters. The effects of levels, which take up variation too, are not in it.
    draws : int
        How many data sets.
    """

    statistic: float
    expected: float
    ratio: float
    p_value: float
    df: int
    draws: int

    def __repr__(self) -> str:
        p = f"{self.p_value:.4g}"
        return (
            f"Pearson's chi-square {self.statistic:.5g}, {self.ratio:.4g} times that of data sets "
            f"drawn from the model ({self.expected:.5g}); p = {p} ({self.draws:,} draws)"
        )


def no_dispersion(fit: GeneralizedFit) -> ModelError | None:
    """Why the family's variance cannot be put to a test; None if it can."""
    if fit.family.parameter_name == "dispersion":
        return ModelError(
            f"The dispersion of the {fit.family.name} family is estimated, m.phi, so there is none "
            "to be put to a test."
        )
    trials = fit.response.trials
    if fit.family.takes_trials and (trials is None or bool((trials == 1.0).all())):
        return ModelError(
            "Single successes and failures have no variance besides that of their mean, so they "
            "cannot be over- or underdispersed; m.resid('simulated') and m.check() show other "
            "things that may be wrong."
        )
    return None


def dispersion_test(fit: GeneralizedFit, draws: Any, seed: Any) -> DispersionTest:
    """See `GeneralizedLinearMixedModel.dispersion_test`."""
    count = checked_count(draws, "draws, the number of data sets drawn,")
    refused = no_dispersion(fit)
    if refused:
        raise refused
    own = float(np.sum(generalized_residuals(fit, "scaled") ** 2))
    again = DrawnAgain(fit, entropy_of(seed))
    drawn = np.array([each.chi_square for each in again.outcomes(count)])
    expected = float(drawn[np.isfinite(drawn)].mean())
    return DispersionTest(own, expected, own / expected, two_sided(own, drawn), fit.df_resid, count)
