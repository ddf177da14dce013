"""The parametric bootstrap of a generalized fit: each refit starts from the fit's estimates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.options import entropy_of
from mixedeffects.base.workers import Workers
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.generalized import GeneralizedFit, generalized
from mixedeffects.fitting.generalized.refitting import fit_of_response, optimum_of_response
from mixedeffects.fitting.natural import reported_parameters
from mixedeffects.inference.bootstrap import Bootstrap, Statistic, checked_statistic
from mixedeffects.simulation.generalized_responses import GeneralizedSampler
from mixedeffects.simulation.responses import Sampler, checked_count

if TYPE_CHECKING:
    from mixedeffects.engine.crossproducts import CrossProducts
    from mixedeffects.engine.responses import Responses

__all__ = ["GeneralizedBootstrap", "generalized_bootstrap"]

Matrix = NDArray[np.float64]


def generalized_bootstrap(
    fit: Fit,
    n: Any,
    seed: Any,
    re: Any,
    statistic: Statistic | None,
    workers: Workers,
    progress: Any,
) -> Bootstrap:
    """See `GeneralizedLinearMixedModel.bootstrap`."""
    checked_statistic(statistic)
    count = checked_count(n, "n, the number of refits,")
    made = GeneralizedBootstrap(generalized(fit), entropy_of(seed), re, statistic)
    return made.resume(count, workers, progress)


class GeneralizedBootstrap(Bootstrap):
    """Estimates from refits to responses drawn from a generalized model; see `Bootstrap`.

    A response without finite estimates, such as one with separation, is a refit that failed.
    """

    @staticmethod
    def _new_sampler(fit: Fit, seed: int, re: Any) -> Sampler:
        return GeneralizedSampler(generalized(fit), seed, re)

    @staticmethod
    def _gives_parameters(fit: Fit) -> bool:
        return True

    def _usual_workers(self) -> int:
        return 1

    def _prepared(self, Y: Matrix) -> Responses | None:
        return None

    def _refit(self, A: CrossProducts | None, y: Matrix) -> tuple[Matrix, Matrix] | None:
        fit = cast(GeneralizedFit, self._fit)
        try:
            found = optimum_of_response(fit, np.ascontiguousarray(y))
            if found is None:
                return None
            facts = np.array([found.criterion, found.singular, found.converged])
            if self._statistic is not None:
                return self._evaluate(fit_of_response(fit, y, found)), facts
        except (ArithmeticError, ModelError, np.linalg.LinAlgError):
            return None
        basis = found.design.basis
        T = [basis.relative_factor(t, own) for t, own in enumerate(found.T)]
        own = reported_parameters(fit.frame.terms, T, 1.0, cast(Any, found)).to_numpy()[:-1]
        phi = [] if found.phi is None else [float(fit.family.natural(found.phi))]
        return np.concatenate([own, phi, found.beta]), facts
