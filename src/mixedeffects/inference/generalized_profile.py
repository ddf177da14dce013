"""Profile likelihood of a generalized fit: Laplace's approximation, or quadrature, profiled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.options import checked_level
from mixedeffects.display.result_table import ResultTable
from mixedeffects.display.vocabulary import INTERVAL
from mixedeffects.engine.constrained import Constrained
from mixedeffects.engine.generalized import GeneralizedOptimum, find_generalized_optimum
from mixedeffects.engine.generalized.constrained import (
    AtConstraint,
    GeneralizedConstrained,
    HeldCoefficient,
    HeldCorrelation,
    HeldDeviation,
    HeldOfStructures,
    HeldPhi,
)
from mixedeffects.engine.generalized.design import GeneralizedDesign
from mixedeffects.engine.parameterisation import StructuredTerm, UnstructuredTerm, parameterise
from mixedeffects.engine.structures import CovarianceStructure
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.generalized import GeneralizedFit, generalized
from mixedeffects.fitting.natural import estimated_parameters, natural_parameters
from mixedeffects.fitting.parameter_keys import chosen_positions, parameter_keys
from mixedeffects.inference.profile import Profile, snap_entries
from mixedeffects.inference.profile_curve import ProfileCurve
from mixedeffects.inference.profiling import Profiling
from mixedeffects.progress import ProgressOption

__all__ = ["GeneralizedProfile", "generalized_profile"]

Matrix = NDArray[np.float64]

#: Share of a standard error that the first step is.
_FIRST = 0.4
#: Standard deviation in an orthonormal basis that is little.
_LITTLE = 0.1
#: Any covariance of two columns is of this structure; and where its parameters stand there.
_PAIR, _IN_PAIR = CovarianceStructure("cs", 2, homogeneous=False), [0, 2, 1]
#: Parameter of the negative binomial family from which on it is Poisson's.
_POISSON = 1e6


def generalized_profile(
    fit: Fit, parameters: Any, level: float, progress: ProgressOption
) -> Profile:
    """See `GeneralizedLinearMixedModel.profile`."""
    checked_level(level)
    record = generalized(fit)
    names = parameter_keys(list(estimated_parameters(fit).index), fit.fixef_names)
    chosen = chosen_positions(parameters, names, fit.fixef_names)
    _refuse_correlated(fit, names, chosen)
    return _GeneralizedProfiling(record, names, chosen, float(level)).work().resume(progress)


def _refuse_correlated(fit: Fit, names: list[str], chosen: list[int]) -> None:
    """Refuse parameters of terms of several columns beside a structure."""
    parameterisation = fit.optimum.parameterisation
    if not fit.frame.structured_terms or parameterisation is None:
        return
    several = [
        isinstance(term, UnstructuredTerm) and term.k > _PAIR.k
        for term in parameterisation.terms
        for _ in range(term.n_parameters)
    ]
    bad = [names[i] for i in chosen if i < len(several) and several[i]]
    if bad:
        raise ModelError(
            f"Profiles of {', '.join(bad)} are not available: three or more random effects with "
            "any covariance beside the covariance structures of "
            f"{', '.join(fit.frame.structured_terms)}. Name the others as parameters=, and take "
            "confint(method='wald') or confint(method='boot') for these."
        )


class _GeneralizedProfiling(Profiling):
    """The work on a profile of a generalized fit."""

    def __init__(
        self, fit: GeneralizedFit, names: list[str], chosen: list[int], level: float
    ) -> None:
        super().__init__(fit, names, chosen, level)
        self._own, self._from = fit, fit.found

    def _made(self) -> Profile:
        return GeneralizedProfile(self._own, self._from, self._names, self._chosen, self._level)

    def _start_from(self, found: Constrained) -> None:
        assert isinstance(found, GeneralizedConstrained)
        start: dict[str, Any] = {"T": list(found.T), "beta": found.beta}
        if self._own.family.has_parameter:
            start["phi"] = found.phi
        self._from = find_generalized_optimum(
            self._own.found.design,
            nagq=self._own.nagq,
            start=start,
            control=self._own.request.control,
        )

    def _criterion(self, found: Constrained) -> float:
        return found.deviance


class GeneralizedProfile(Profile):
    """Profile likelihood of a generalized model, made by its ``profile``; see `Profile`."""

    def __init__(
        self,
        fit: GeneralizedFit,
        optimum: GeneralizedOptimum,
        names: list[str],
        chosen: list[int],
        level: float,
    ) -> None:
        design = _with_pairs(optimum.design)
        self.level = level
        self._A, self._given = design.skeleton, optimum.design.parameterisation
        self._design, self._nodes, self._X = design, optimum.nagq, fit.frame.X
        self._family = fit.family
        self._refitted = False
        self._residual = None
        self._random = design.parameterisation.n_parameters
        self._names, self._chosen = names, chosen
        self._fixed_at = len(names) - len(fit.fixef_names)
        own = optimum if optimum is not fit.found else fit.found
        self._se = np.sqrt(np.maximum(np.diag(own.beta_covariance), 0.0))
        self._phi_se = math.sqrt(max(own.phi_variance or 0.0, 0.0))
        self._levels = [term.n_levels for term in fit.frame.terms]
        evaluation = optimum.evaluation
        self._at = AtConstraint(tuple(optimum.T), optimum.beta, evaluation.phi, evaluation.mode.c)
        self._optimum = GeneralizedConstrained(
            math.nan,
            evaluation.criterion,
            tuple(optimum.T),
            1.0,
            optimum.beta,
            np.empty(0),
            optimum.evaluations,
            optimum.converged,
            phi=evaluation.phi,
        )
        self._estimates = self._natural(self._optimum)
        self._curves = [self._curve(i) for i in chosen]

    def _natural(self, minimum: Constrained) -> Matrix:
        assert isinstance(minimum, GeneralizedConstrained)
        values: list[Matrix] = []
        p = self._design.parameterisation
        for C, T, term in zip(self._A.basis.terms, minimum.T, p.terms, strict=True):
            if isinstance(term, StructuredTerm):
                own = term.natural(term.nearest(T))
                own[term.structure.unidentified(own)] = np.nan
                own = own[self._order(len(values))]
            else:
                own = natural_parameters([C @ T], 1.0)[:-1]
                snap_entries(own, C, T)
            values.append(own)
        phi = [self._family.natural(minimum.phi)] if self._family.has_parameter else []
        return np.concatenate([*values, phi, minimum.beta])

    def _curve(self, i: int) -> ProfileCurve | None:
        design, nodes, at = self._design, self._nodes, self._at
        estimate = float(self._estimates[i])
        low, high, positive = -math.inf, math.inf, False
        held: HeldCoefficient | HeldPhi | HeldDeviation | HeldCorrelation | HeldOfStructures
        if i >= self._fixed_at:
            j = i - self._fixed_at
            held = HeldCoefficient(design, nodes, at, self._X, j)
            step = self._se[j] if self._se[j] > 0.0 else max(abs(estimate), 1.0)
        elif self._family.has_parameter and i == self._fixed_at - 1:
            held = HeldPhi(design, nodes, at)
            step = estimate * min(max(self._phi_se, 1e-3), 1.0) or estimate
            low, positive = 0.0, True
            if self._family.name == "negative_binomial":
                high = max(_POISSON, estimate)
        elif design.is_structured:
            if math.isnan(estimate):
                return None
            held, step, low, high = self._structured(i, estimate)
        else:
            t, row, column = self._entry(i)
            levels = self._levels[t]
            if row == column:
                held = HeldDeviation(design, nodes, at, t, row)
                least = _LITTLE * float(np.linalg.norm(self._A.basis.terms[t][row]))
                step, low = max(estimate / math.sqrt(2.0 * levels), 0.2 * least), 0.0
            elif math.isnan(estimate):
                return None
            else:
                held = HeldCorrelation(design, nodes, at, t, (row, column))
                step = max(1.0 - estimate**2, 0.01) / math.sqrt(levels)
                low, high = -1.0, 1.0
        optimum = GeneralizedConstrained(
            estimate,
            self._optimum.deviance,
            at.T,
            1.0,
            at.beta,
            held.start(at),
            0,
            True,
            phi=at.phi,
        )
        return ProfileCurve(
            held,
            optimum,
            _FIRST * float(step),
            low,
            high,
            positive=positive,
            has_rivals=design.is_structured and design.parameterisation.has_correlation,
        )

    def _structured(self, i: int, estimate: float) -> tuple[HeldOfStructures, float, float, float]:
        """What holds a covariance parameter where some term has a structure; a step, and limits."""
        p = self._design.parameterisation
        t = next(t for t, at in enumerate(p.places) if i < at.stop)
        term, levels = p.terms[t], self._levels[t]
        j = self._order(t)[i - p.places[t].start]
        low, high = 0.0, math.inf
        if isinstance(term, StructuredTerm) and j >= term.structure.n_sd:
            scale = 1.0
            low, high = term.structure.correlation_range
            step = max(1.0 - estimate**2, 0.01) / math.sqrt(levels)
        else:
            scale = float(
                term.scale[j]
                if isinstance(term, StructuredTerm)
                else 1.0 / abs(self._A.basis.terms[t][0, 0])
            )
            step = max(estimate / math.sqrt(2.0 * levels), 0.2 * _LITTLE / scale)
        held = HeldOfStructures(self._design, self._nodes, self._at, p.places[t].start + j, scale)
        return held, step, low, high

    def _order(self, t: int) -> list[int]:
        """Where the parameters of a term stand in the search, in the order of their names."""
        given = self._given.terms[t]
        if self._design.is_structured and isinstance(given, UnstructuredTerm) and given.k == 2:
            return _IN_PAIR
        return list(range(given.n_parameters))

    def confint(self, level: float = 0.95, *, _report: bool = True) -> ResultTable:
        """Profile-likelihood intervals; see `Profile.confint`.

        The parameter of a negative binomial family has no upper end where the likelihood of
        Poisson's is not far enough below.
        """
        table = super().confint(level, _report=_report)
        name = self._names[self._fixed_at - 1]
        is_poisson = self._family.name == "negative_binomial" and name in table.index
        if not (is_poisson and table.loc[name, INTERVAL[1]] == _POISSON):
            return table
        notes = [note for note in table.notes if not note.startswith(f"{name}: ")]
        notes.append(f"{name}: no upper end; the likelihood of Poisson's family is not far below")
        own = pd.DataFrame(table)
        own.loc[name, INTERVAL[1]] = math.inf
        return ResultTable.of(own, tuple(notes))

    @property
    def _offset(self) -> float:
        return 0.0


def _with_pairs(design: GeneralizedDesign) -> GeneralizedDesign:
    """With structures, the same design whose terms of two columns have one too."""
    if not design.is_structured:
        return design
    structures = [
        term.structure if isinstance(term, StructuredTerm) else (_PAIR if term.k == 2 else None)
        for term in design.parameterisation.terms
    ]
    own = parameterise(design.basis, design.term_columns, structures)
    return design.changed(parameterisation=own)
