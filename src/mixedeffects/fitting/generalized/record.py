"""The record of a generalized fit: what a linear one knows, read from another optimum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.arrays import read_only
from mixedeffects.base.caching import cached_property
from mixedeffects.base.options import checked_choice
from mixedeffects.engine import Optimum
from mixedeffects.engine.factorisation import Factorisation
from mixedeffects.engine.generalized import GeneralizedEvaluation, GeneralizedOptimum
from mixedeffects.errors import ModelError
from mixedeffects.families import Family, Response
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.request import Request
from mixedeffects.frame.model_frame import ModelFrame

__all__ = ["GeneralizedFit", "generalized"]

Matrix = NDArray[np.float64]

#: Rows that a message lists.
_SHOWN = 5


@dataclass(frozen=True, eq=False, repr=False)
class GeneralizedFit(Fit):
    """What the fit of a generalized linear mixed model knows.

    ``crossproducts`` and ``factorisation`` are those of the *working model* at the conditional
    modes, ``z = X beta + Z b + W^-1 r``: its V is ``Z G Z' + W^-1`` on the scale of the link. The
    fit's own beta and modes are not the solution of that system, and so are read from the
    evaluation.

    Notes
    -----
    G is absolute on the scale of the link, ``T T'`` block by block, with no sigma in front of it.
    """

    kind = "generalized"
    has_degrees_of_freedom = False
    has_link = True
    covariance_kinds: ClassVar[dict[str, str]] = {
        "model": "z-tests, from the joint Hessian",
        "conditional": "z-tests, the covariances of the random effects taken as known",
    }

    @classmethod
    def of(cls, frame: ModelFrame, found: GeneralizedOptimum, request: Request) -> GeneralizedFit:
        """The record of an optimum.

        Parameters
        ----------
        frame : ModelFrame
            The rows used.
        found : GeneralizedOptimum
            Where the search ended; it has the names of a linear model's wherever the idea is the
            same.
        request : Request
            What was asked for.
        """
        return cls(frame, found.evaluation.A, cast(Optimum, found), False, request)

    def __repr__(self) -> str:
        return f"Fit({self.formula!r}, {self.nobs:,} rows, {self.family}: {self.optimum.message})"

    # --- what it is of -------------------------------------------------------------------

    @property
    def family(self) -> Family:
        """Distribution of the response, with its link."""
        assert self.request.family is not None
        return self.request.family

    @property
    def nagq(self) -> int:
        """Quadrature points per random effect; 1 is Laplace's approximation."""
        return self.found.nagq

    @property
    def response(self) -> Response:
        """The response with its trials and weights."""
        assert self.frame.response is not None
        return self.frame.response

    @cached_property
    def prior_weights(self) -> Matrix:
        """Trials times weights, shape (n,)."""
        response = self.response
        out = np.ones(response.n) if response.trials is None else response.trials
        return read_only(out if response.weights is None else out * response.weights)

    @property
    def found(self) -> GeneralizedOptimum:
        """The optimum, as what it is."""
        return cast(GeneralizedOptimum, self.optimum)

    @property
    def evaluation(self) -> GeneralizedEvaluation:
        """Criterion, modes, rows and working model at the optimum."""
        return self.found.evaluation

    @property
    def n_parameters(self) -> int:
        """Number of parameters: fixed effects, covariance parameters, and that of the family."""
        return len(self.fixef_names) + self.optimum.n_parameters + self.family.has_parameter

    # --- estimates -----------------------------------------------------------------------

    @cached_property
    def beta(self) -> Matrix:
        """Fixed effects, shape (p,), on the scale of the link per unit of the column."""
        return read_only(self.found.beta)

    @property
    def family_parameter(self) -> str | None:
        """Name of the parameter of the family, where it is estimated."""
        return self.family.parameter_name if self.family.has_parameter else None

    @cached_property
    def search_phi(self) -> float | None:
        """The family parameter where the search has it; None where there is none."""
        return self.found.phi

    @cached_property
    def phi(self) -> float | None:
        """The family parameter by its own name: theta, precision or dispersion; None without."""
        found = self.search_phi
        return None if found is None else float(self.family.natural(found))

    @property
    def family_value(self) -> float | None:
        """The estimate of `family_parameter`."""
        return self.phi

    @property
    def estimation(self) -> str:
        """By which criterion, in a word for tables."""
        return "ML, Laplace" if self.nagq == 1 else f"ML, AGQ {self.nagq}"

    @property
    def family_estimate(self) -> tuple[str, float] | None:
        """Name and value of the family's parameter, where it is estimated."""
        if self.phi is None or self.family.parameter_name is None:
            return None
        return self.family.parameter_name, self.phi

    @cached_property
    def sigma(self) -> float:
        """Root of the dispersion; 1 where the family has none."""
        if self.family.parameter_name != "dispersion" or self.phi is None:
            return 1.0
        return float(np.sqrt(self.phi))

    @cached_property
    def G_blocks(self) -> list[Matrix]:
        """Covariance matrix of the effects of one level of each term, (k, k), absolute."""
        return read_only([T @ T.T for T in self.T])

    @cached_property
    def vcov(self) -> Matrix:
        """Covariance matrix of the fixed effects from the joint Hessian, shape (p, p)."""
        return read_only(self.found.beta_covariance)

    def fixed_covariance(self, kind: str) -> Matrix:
        """Covariance matrix of the fixed effects by name, shape (p, p)."""
        kind = checked_choice(kind, "vcov kind", [*self.covariance_kinds])
        if kind == "model":
            return self.vcov
        return self.found.conditional_beta_covariance

    @cached_property
    def modes(self) -> list[Matrix]:
        """Conditional modes of the random effects of each term, (l, k), on the link's scale."""
        found = zip(self.evaluation.modes, self.evaluation.design.basis.terms, strict=True)
        return read_only([b @ C.T for b, C in found])

    @property
    def factorisation_at_modes(self) -> Factorisation:
        """The factor of M with the observed weights, without fixed effects."""
        return self.evaluation.mode.factorisation

    # --- the mean ------------------------------------------------------------------------

    @property
    def eta(self) -> Matrix:
        """Linear predictor at the modes, offset included, shape (n,)."""
        return self.evaluation.eta

    @cached_property
    def mu(self) -> Matrix:
        """Mean of the response at the modes, shape (n,); of a proportion for successes."""
        return read_only(np.asarray(self.family.link.inverse(self.eta)))

    def residuals_at(self, eta: Matrix) -> Matrix:
        """Working residuals ``(y - mu) / mu'`` about a linear predictor, on its scale, (n,)."""
        mean, slope = self.family.link.mean(eta, 1)
        return np.asarray((self.response.y - mean) / slope)

    # --- the working model ---------------------------------------------------------------

    @property
    def residual_sigma(self) -> float | None:
        """None: random effects are on the link's scale, where there is no residual."""
        return None

    @property
    def working_sigma(self) -> float:
        """Standard deviation of the working residuals at unit weight: one."""
        return 1.0

    @cached_property
    def working_weights(self) -> Matrix:
        """Weights W of the working model, shape (n,), all positive.

        Raises
        ------
        ModelError
            If a row has none: its mean is at the end of its range.
        """
        W = self.evaluation.working_weights
        bad = np.flatnonzero(~(W > 0.0))
        if len(bad):
            shown = ", ".join(str(self.frame.index[i]) for i in bad[:_SHOWN])
            raise ModelError(
                f"The working model of these estimates has rows without weight ({shown}): their "
                "fitted means are at the end of the range, so the working variance is infinite."
            )
        return read_only(W)

    @property
    def working_name(self) -> str:
        """What V and R are called."""
        return "working covariance, link scale"

    # --- the criterion -------------------------------------------------------------------

    @property
    def approximation(self) -> str:
        """How the likelihood is approximated."""
        if self.nagq == 1:
            return "Laplace approximation"
        return f"adaptive Gauss-Hermite quadrature, {self.nagq} points"

    @cached_property
    def criterion(self) -> float:
        """-2 log-likelihood, all constants included."""
        return float(self.found.criterion)


def generalized(fit: Any) -> GeneralizedFit:
    """A record that is one of a generalized fit.

    Raises
    ------
    ModelError
        If it is another.
    """
    if not isinstance(fit, GeneralizedFit):
        raise ModelError(f"This is for fits by mixedeffects.glmer, not {fit!r:.60}.")
    return fit
