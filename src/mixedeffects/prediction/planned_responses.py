"""Responses of a generalized model in a design: drawn from given values, and fitted again."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.covariance.components import read_components
from mixedeffects.covariance.design import z_times
from mixedeffects.covariance.of_fit import varcorr_of
from mixedeffects.covariance.roots import covariance_root
from mixedeffects.errors import ConvergenceWarning, ModelError
from mixedeffects.families import Response
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.generalized import GeneralizedFit, generalized
from mixedeffects.fitting.generalized.assembly import generalized_design
from mixedeffects.fitting.generalized.fitting import fit_generalized_frame
from mixedeffects.fitting.generalized.means import drawn_means
from mixedeffects.fitting.generalized.refitting import fit_of_response, optimum_of_response
from mixedeffects.formula.update import update_formula
from mixedeffects.frame import build_model_frame
from mixedeffects.prediction.drawn_covariance import DrawnCovariance
from mixedeffects.prediction.planned import check_structures

__all__ = ["DrawnFromFamily", "PlannedResponses", "fixed_mean"]

Matrix = NDArray[np.float64]

_RESPONSE, _TRIALS = "simulated_response", "simulated_trials"
_WEIGHTS, _OFFSET = "simulated_weights", "simulated_offset"


def fixed_mean(fit: Fit, data: pd.DataFrame, beta: Matrix) -> Matrix:
    """``X beta`` with the model's own coding: transforms must not adapt to the new design."""
    encoder = fit.frame.fixed_encoder
    if encoder is None:
        return np.zeros(len(data))
    X, _ = encoder.encode(data)
    return np.asarray(X @ beta)


@dataclass(frozen=True, eq=False)
class DrawnFromFamily(DrawnCovariance):
    """What responses of a generalized model in a design are drawn from.

    Attributes
    ----------
    phi : float or None
        Parameter of the family on its search scale.
    """

    phi: float | None = None

    @cached_property
    def own(self) -> GeneralizedFit:
        """The fit, as what it is."""
        return generalized(self.fit)

    def rows(self) -> pd.DataFrame:
        """The variables of the fit, and what each row has beside them: its trials and the like."""
        data, response = super().rows(), self.own.response
        beside = {
            _RESPONSE: response.y,
            _TRIALS: response.trials,
            _WEIGHTS: response.weights,
            _OFFSET: self.fit.frame.offset,
        }
        for name, values in beside.items():
            if values is not None:
                data[name] = values
        return data


class PlannedResponses:
    """Responses in one design.

    Parameters
    ----------
    drawn_from : DrawnFromFamily
        Fit, variances and parameter of the family.
    data : DataFrame
        Rows of the design, made of those of `DrawnFromFamily.rows`.
    beta : ndarray, shape (p,)
        Fixed effects.

    Raises
    ------
    ModelError
        If the variances given are not those of the model.
    """

    def __init__(self, drawn_from: DrawnFromFamily, data: pd.DataFrame, beta: Matrix) -> None:
        fit = self._fit = drawn_from.own
        self._phi, self._beta = drawn_from.phi, beta
        taken = {name: data[name].to_numpy(np.float64) for name in data if name in _BESIDE}
        y, trials = taken[_RESPONSE], taken.get(_TRIALS)
        self._frame = build_model_frame(
            update_formula(fit.formula, f"{_RESPONSE} ~ ."),
            data,
            weights=None if trials is None else _TRIALS,
            contrasts=fit.request.contrasts,
            inherited=fit.request.inherited,
            family=fit.family,
        )
        # Weights, and offsets of every origin, are those of the rows that these are copies of.
        self._response = Response(y, trials, taken.get(_WEIGHTS))
        offset = taken.get(_OFFSET)
        self._frame = replace(self._frame, response=self._response, offset=offset)
        terms = self._frame.terms
        varcorr = varcorr_of(fit) if drawn_from.varcorr is None else drawn_from.varcorr
        blocks = read_components(terms, varcorr)
        check_structures(terms, blocks)
        self._roots = [covariance_root(block) for block in blocks]
        self._linear = fixed_mean(fit, data, beta) + (0.0 if offset is None else offset)
        self._design = generalized_design(self._frame, fit.family)
        self._blocks = blocks
        self._first: GeneralizedFit | None = None

    def draw(self, count: int, rng: np.random.Generator) -> Matrix:
        """Responses as columns, shape (n, count)."""
        out = np.empty((len(self._linear), count))
        for j in range(count):
            eta = self._linear[:, None].copy()
            for term, root in zip(self._frame.terms, self._roots, strict=True):
                standard = rng.standard_normal((term.n_levels, root.shape[1]))
                z_times(term, np.ascontiguousarray(standard @ root.T)[:, :, None], eta)
            mu = drawn_means(self._fit.family, eta[:, 0])
            out[:, j] = self._fit.family.simulate(rng, mu, self._response, self._phi)
        return out

    def fitted(self, y: Matrix) -> GeneralizedFit:
        """The fit to one response: the first from the values drawn with, the others from it.

        Raises
        ------
        ModelError
            If there are no finite estimates.
        """
        y = np.ascontiguousarray(y)
        if self._first is None:
            response = Response(y, self._response.trials, self._response.weights)
            frame = replace(self._frame, y=y, response=response, response_levels=())
            design = self._design.changed(response=response)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                self._first = fit_generalized_frame(
                    frame, design, self._fit.request, self._start(), False
                )
            return self._first
        found = optimum_of_response(self._first, y)
        if found is None:
            raise ModelError("The response drawn has no finite estimates.")
        return fit_of_response(self._first, y, found)

    def _start(self) -> dict[str, Any]:
        """The values drawn with, as far as a search can start there."""
        own = self._fit.fixef_names == self._frame.fixef_names
        start: dict[str, Any] = {"beta": self._beta} if own else {}
        if self._phi is not None:
            start["phi"] = self._phi
        if all(root.shape[1] == len(root) for root in self._roots):
            basis = self._design.basis
            factors = [np.linalg.cholesky(G).astype(np.float64) for G in self._blocks]
            start["T"] = [basis.engine_factor(t, factor) for t, factor in enumerate(factors)]
        return start


_BESIDE = (_RESPONSE, _TRIALS, _WEIGHTS, _OFFSET)
