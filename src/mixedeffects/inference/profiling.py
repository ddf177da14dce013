"""The work on a profile of the likelihood, step by step, from a better fit where one is found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.options import checked_level
from mixedeffects.base.warning import warn
from mixedeffects.engine.basis import lower_factor
from mixedeffects.engine.constrained import Constrained
from mixedeffects.engine.constrained_residual import optimum_from
from mixedeffects.engine.finding import find_optimum
from mixedeffects.engine.optimum import Optimum
from mixedeffects.engine.residual_point import searched_rows
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.errors import ConvergenceWarning, ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.natural import covariance_parameters
from mixedeffects.fitting.parameter_keys import chosen_positions, parameter_keys
from mixedeffects.fitting.refitting import by_maximum_likelihood
from mixedeffects.inference.profile import BetterFitError, Profile
from mixedeffects.progress import ProgressOption, StartAgain, Unfinished

__all__ = ["Profiling", "profile"]

Matrix = NDArray[np.float64]

_MAX_RESTARTS = 3


def profile(fit: Fit, parameters: Any, level: float, progress: ProgressOption) -> Profile:
    """See `LinearMixedModel.profile`."""
    checked_level(level)
    if fit.frame.structured_terms:
        raise ModelError(
            "Profiles are not available for covariance structures, which this model has in "
            f"{', '.join(fit.frame.structured_terms)}; confint(method='wald') and "
            "confint(method='boot') are."
        )
    coefficients = fit.frame.fixef_names
    names = parameter_keys(list(covariance_parameters(fit).index), coefficients)
    chosen = chosen_positions(parameters, names, coefficients)
    return Profiling(fit, names, chosen, float(level)).work().resume(progress)


class Profiling:
    """The work on a profile: one side of one parameter after the other.

    It starts again where it finds a better fit than the one it started from.
    """

    def __init__(self, fit: Fit, names: list[str], chosen: list[int], level: float) -> None:
        self._fit, self._names, self._chosen, self._level = fit, names, chosen, level
        self._profile: Profile | None = None
        self._optimum: Optimum | None = None if fit.reml else fit.optimum
        self._start: Sequence[Matrix] | None = fit.optimum.restart
        self._better: Constrained | None = None
        self._restarts = _MAX_RESTARTS

    def work(self) -> Unfinished[None, Profile]:
        """The steps, for each parameter below and above its estimate."""
        return Unfinished(
            "side of a profile",
            2 * len(self._chosen),
            self._walk,
            self._finish,
            detail=lambda step: self._names[self._chosen[step // 2]],
        )

    def _walk(self, step: int) -> None:
        with one_blas_thread(self._fit.crossproducts.remainder.core_size):
            if self._profile is None:
                self._profile = self._made()
            try:
                self._profile._walk(step // 2, 2 * (step % 2) - 1)
            except BetterFitError as better:
                self._again(better)
            except (ArithmeticError, np.linalg.LinAlgError):
                raise ModelError(
                    "The likelihood cannot be computed at values that the profile needs: there "
                    "effects and residual error differ too much in size. Use "
                    "confint(method='wald') or confint(method='boot')."
                ) from None

    def _made(self) -> Profile:
        """The profile before any step, from the best fit known."""
        if self._optimum is None:
            self._optimum = self._found()
        return Profile(self._fit, self._optimum, self._names, self._chosen, self._level)

    def _found(self) -> Optimum:
        """The fit by maximum likelihood, from a better point if one was found."""
        fit = self._fit
        if fit.residual is None:
            return find_optimum(fit.crossproducts, False, start=self._start)
        if self._better is not None:
            return optimum_from(searched_rows(fit.residual.design), self._better)
        return by_maximum_likelihood(fit).optimum

    def _start_from(self, found: Constrained) -> None:
        """Take another point as where to start."""
        self._start, self._better = [lower_factor(T) for T in found.T], found
        self._optimum = None

    def _criterion(self, found: Constrained) -> float:
        """-2 log L of a point."""
        A = self._fit.crossproducts
        return found.deviance + A.basis.deviance_offset(A.n, A.p, False)

    def _finish(self, steps: list[None]) -> Profile:
        assert self._profile is not None
        try:
            self._profile._finish()
        except BetterFitError as better:
            self._again(better)
        return self._profile

    def _again(self, better: BetterFitError) -> NoReturn:
        if self._fit.residual is None:
            warn(
                f"{better.sentence} The profile starts again from the better fit; fit the model "
                "again with another start=.",
                ConvergenceWarning,
            )
        else:
            # No start can be chosen there.
            warn(
                f"{better.sentence} The profile starts again from the better fit; the model's own "
                "is not at the highest maximum of its likelihood.",
                ConvergenceWarning,
            )
        self._start_from(better.found)
        self._profile = None
        self._restarts -= 1
        if not self._restarts:
            criterion = self._criterion(better.found)
            if self._fit.residual is not None:
                raise ModelError(
                    f"Profiling went on finding better fits (-2 log L {criterion:.4f}): the "
                    "likelihood has several maxima. Simplify the random effects or the structure "
                    "of the residuals."
                )
            raise ModelError(
                f"Profiling went on finding better fits (-2 log L {criterion:.4f}): the likelihood "
                "has several maxima. Simplify the random effects, or fit again with another start=."
            )
        raise StartAgain
