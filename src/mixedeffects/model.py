"""`lmer()` and the fitted model: a thin facade over the rooms that do the work."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.covariance import (
    MarginalCovariance,
    RandomEffectsCovariance,
    ResidualCovariance,
    VarCorr,
)
from mixedeffects.covariance.design import random_effects_matrix
from mixedeffects.engine import (
    Control,
    CrossProducts,
    EngineTerm,
    Optimum,
    Progress,
    find_optimum,
    make_crossproducts,
)
from mixedeffects.engine.basis import lower_factor
from mixedeffects.engine.curvature import (
    Curvature,
    fixed_effects_covariance,
    observed_curvature,
    vcov_jacobian,
)
from mixedeffects.engine.parameters import T_to_theta, n_parameters, theta_to_T
from mixedeffects.errors import ConvergenceWarning, ModelError
from mixedeffects.frame import build_model_frame
from mixedeffects.frame.model_frame import Dropped, ModelFrame
from mixedeffects.inference.conditional import RandomEffects, conditional_modes
from mixedeffects.inference.satterthwaite import Satterthwaite

__all__ = ["LinearMixedModel", "lmer"]

Matrix = NDArray[np.float64]
ProgressOption = bool | Callable[[Progress], None]


def lmer(
    formula: str,
    data: Any,
    *,
    reml: bool = True,
    weights: Any = None,
    offset: Any = None,
    contrasts: dict[str, Any] | None = None,
    start: Sequence[float] | None = None,
    control: Control | None = None,
    progress: ProgressOption = False,
) -> LinearMixedModel:
    """Fit a linear mixed model, ``y = X beta + Z b + e``.

    Parameters
    ----------
    formula : str
        In lme4's grammar, for example ``"Reaction ~ Days + (Days | Subject)"``. Only known
        functions are called: a formula runs no code of its own.
    data : DataFrame
        pandas, polars or pyarrow table, or a mapping of names to arrays.
    reml : bool
        Restricted maximum likelihood (default), or maximum likelihood.
    weights : str or array, shape (n,), optional
        Prior weights, positive: the residual variance of row i is ``sigma^2 / w_i``.
    offset : str or array, shape (n,), optional
        Known part of the linear predictor.
    contrasts : dict, optional
        Coding of categorical columns, for example ``{"group": "sum"}``.
    start : sequence of float, optional
        Starting value of theta; by default a moment estimate.
    control : Control, optional
        Tolerance and limit of evaluations.
    progress : bool or callable
        True prints one line per iteration on standard error; a callable gets each `Progress`.

    Returns
    -------
    LinearMixedModel

    Raises
    ------
    FormulaError
        If the formula cannot be read or has no random term.
    DataError
        If the data do not fit the formula: missing columns, infinite values, wrong types.
    ModelError
        If the model cannot be identified from these data.

    References
    ----------
    Bates, D., Maechler, M., Bolker, B. and Walker, S. (2015). Fitting linear mixed-effects models
    using lme4. Journal of Statistical Software 67(1).

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> m.fixef.round(2)
    (Intercept)    251.41
    Days            10.47
    Name: Estimate, dtype: float64
    """
    frame = build_model_frame(formula, data, weights=weights, offset=offset, contrasts=contrasts)
    settings = {"weights": weights, "offset": offset, "contrasts": contrasts}
    name = getattr(data, "attrs", {}).get("name")
    return _fit(frame, reml, start, control, progress, data, settings, name)


def _engine_terms(frame: ModelFrame) -> list[EngineTerm]:
    numbers = {group: i for i, group in enumerate(dict.fromkeys(t.group for t in frame.terms))}
    return [EngineTerm(t.codes, t.n_levels, t.z, numbers[t.group]) for t in frame.terms]


def _fit(
    frame: ModelFrame,
    reml: bool,
    start: Sequence[float] | None,
    control: Control | None,
    progress: ProgressOption,
    data: Any,
    settings: dict[str, Any],
    data_name: str | None,
) -> LinearMixedModel:
    y = frame.y if frame.offset is None else frame.y - frame.offset
    A = make_crossproducts(y, frame.X, _engine_terms(frame), frame.weights)
    exact = A.remainder[-1, -1] == 0.0 or A.basis.response_scale <= 1e-13 * np.abs(y).max()
    if exact:
        raise ModelError(
            "The fixed effects reproduce the response exactly (it may be constant), so there is no "
            "variance left to divide among random effects and residual."
        )
    factors = None if start is None else _starting_factors(A, start)
    report = _print_progress if progress is True else progress or None
    optimum = find_optimum(A, reml, start=factors, control=control, progress=report)
    if not optimum.converged:
        warnings.warn(
            f"The fit {optimum.message}. See m.optimum; try more evaluations with "
            "control=mixedeffects.Control(max_evaluations=...) or another start=.",
            ConvergenceWarning,
            stacklevel=3,
        )
    return LinearMixedModel(frame, A, optimum, reml, data, settings, data_name)


def _starting_factors(A: CrossProducts, start: Sequence[float]) -> list[Matrix]:
    theta = np.asarray(start, dtype=np.float64).reshape(-1)
    expected = n_parameters(A.term_columns)
    if len(theta) != expected or not np.isfinite(theta).all():
        raise ModelError(
            f"start must be {expected} finite numbers, one for each entry of theta; "
            f"got {len(theta)}: {theta.tolist()}."
        )
    factors = theta_to_T(theta, A.term_columns)
    return [lower_factor(A.basis.engine_factor(t, T)) for t, T in enumerate(factors)]


def _print_progress(line: Progress) -> None:
    print(line, file=sys.stderr, flush=True)


class LinearMixedModel:
    """A fitted linear mixed model, made by `lmer`.

    Printing it gives the summary. Its attributes are grouped as lme4's users know them: estimates
    (``fixef``, ``ranef``, ``varcorr``, ``sigma``, ``theta``), the matrices of the model (``X``,
    ``Z``, ``G``, ``R``, ``V``), tests and tables (``coef_table``, ``summary``, ``tidy``).

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> m.nobs, m.ngroups, round(m.criterion, 1)
    (180, {'Subject': 18}, 1743.6)
    """

    def __init__(
        self,
        frame: ModelFrame,
        crossproducts: CrossProducts,
        optimum: Optimum,
        reml: bool,
        data: Any,
        settings: dict[str, Any],
        data_name: str | None,
    ) -> None:
        #: What the formula made of the data.
        self.frame: ModelFrame = frame
        #: Whether the fit is by restricted maximum likelihood.
        self.reml: bool = reml
        #: Name of the data, where they have one.
        self.data_name = data_name
        #: How the optimiser got there and the evidence for it; an `Optimum`.
        self.optimum = dataclasses.replace(optimum, curvature=self._smallest_curvature)
        self._A = crossproducts
        self._data = data
        self._settings = settings

    # --- what was fitted -----------------------------------------------------------------

    @property
    def formula(self) -> str:
        """The formula as given."""
        return self.frame.formula.text

    @property
    def nobs(self) -> int:
        """Number of rows used."""
        return self.frame.nobs

    @property
    def ngroups(self) -> dict[str, int]:
        """Number of levels of each grouping factor, in lme4's term order."""
        return {term.group: term.n_levels for term in self.frame.terms}

    @property
    def dropped(self) -> Dropped:
        """Rows removed for missing values, columns removed for rank deficiency."""
        return self.frame.dropped

    @property
    def converged(self) -> bool:
        """Whether gradient and null-space conditions hold at the optimum."""
        return self.optimum.converged

    @property
    def is_singular(self) -> bool:
        """Whether some combination of random effects is estimated to have no variance."""
        return self.optimum.singular

    # --- estimates -----------------------------------------------------------------------

    @cached_property
    def fixef(self) -> pd.Series:
        """Fixed effects, indexed by R-style names."""
        beta = self._A.basis.beta(self._solution.beta)
        return pd.Series(beta, index=list(self.frame.fixef_names), name="Estimate")

    @cached_property
    def se(self) -> pd.Series:
        """Standard errors of the fixed effects, from the model-based covariance."""
        return pd.Series(
            np.sqrt(np.diag(self._vcov)), index=list(self.frame.fixef_names), name="Std. Error"
        )

    @cached_property
    def sigma(self) -> float:
        """Residual standard deviation (at unit prior weight), in units of the response."""
        return self._A.basis.sigma(float(np.sqrt(self.optimum.evaluation.sigma2)))

    @cached_property
    def theta(self) -> Matrix:
        """Relative covariance parameters, in lme4's order."""
        return T_to_theta(self._T)

    @property
    def criterion(self) -> float:
        """REML criterion, or -2 log-likelihood for a maximum-likelihood fit."""
        A = self._A
        return self.optimum.evaluation.deviance + A.basis.deviance_offset(A.n, A.p, self.reml)

    @property
    def loglik(self) -> float:
        """Log-likelihood (restricted for a REML fit)."""
        return -0.5 * self.criterion

    @property
    def n_parameters(self) -> int:
        """Fixed effects, variance parameters and sigma."""
        return len(self.frame.fixef_names) + len(self.theta) + 1

    @property
    def aic(self) -> float:
        """Akaike's information criterion."""
        return self.criterion + 2.0 * self.n_parameters

    @property
    def bic(self) -> float:
        """Schwarz's information criterion."""
        return self.criterion + float(np.log(self.nobs)) * self.n_parameters

    @property
    def df_resid(self) -> int:
        """Rows less parameters."""
        return self.nobs - self.n_parameters

    @cached_property
    def varcorr(self) -> VarCorr:
        """Variances and correlations of the random effects."""
        return VarCorr(self.frame.terms, self._G_blocks, self.sigma)

    def ranef(self, cond_var: bool = False) -> RandomEffects:
        """Conditional modes of the random effects.

        Parameters
        ----------
        cond_var : bool
            Also compute each level's conditional covariance matrix, given beta and theta.

        Returns
        -------
        RandomEffects
            A dict of DataFrames, one for each grouping factor, with one row per level; with
            ``cond_var=True`` its ``cond_var`` holds arrays (l, k, k).

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.ranef()["Subject"].head(2).round(2)
             (Intercept)  Days
        308         2.26  9.20
        309       -40.40 -8.62
        """
        return conditional_modes(
            self.frame, self.optimum.evaluation.factorisation, self.sigma, cond_var
        )

    # --- matrices: the post, line by line ------------------------------------------------

    @property
    def X(self) -> Matrix:
        """Fixed-effects model matrix, n x p."""
        return self.frame.X

    @property
    def y(self) -> Matrix:
        """Response, shape (n,)."""
        return self.frame.y

    @cached_property
    def Z(self) -> scipy.sparse.csc_array:
        """Random-effects model matrix, n x q, laid out as lme4 does."""
        return random_effects_matrix(self.frame.terms)

    @cached_property
    def G(self) -> RandomEffectsCovariance:
        """Covariance matrix of the random effects."""
        return RandomEffectsCovariance(self.frame.terms, self._G_blocks)

    @cached_property
    def R(self) -> ResidualCovariance:
        """Covariance matrix of the residual errors."""
        return ResidualCovariance(self.sigma, self.frame.weights, self.nobs)

    @cached_property
    def V(self) -> MarginalCovariance:
        """Marginal covariance matrix of the response, ``Z G Z' + R``, as an operator."""
        return MarginalCovariance(
            self.frame.terms,
            self._G_blocks,
            self.sigma,
            self.frame.weights,
            self.optimum.evaluation.factorisation,
            self.frame.index,
        )

    def getme(self, name: str) -> Any:
        """Any component that lme4's ``getME`` knows, under the same name; see `getme_names`."""
        from mixedeffects.getme import component

        return component(self, name)

    @staticmethod
    def getme_names() -> list[str]:
        """Names that `getme` takes."""
        from mixedeffects.getme import COMPONENTS

        return list(COMPONENTS)

    # --- fitted values and residuals -----------------------------------------------------

    @cached_property
    def fitted(self) -> pd.Series:
        """Fitted values, random effects and offset included."""
        from mixedeffects.residuals import fitted_values

        return pd.Series(fitted_values(self), index=self.frame.index, name="fitted")

    def resid(self, kind: str = "response") -> pd.Series:
        """Residuals.

        Parameters
        ----------
        kind : {"response", "pearson", "scaled", "marginal", "cholesky", "symmetric"}
            ``response``: ``y - fitted``; ``pearson``: times the root of the prior weights;
            ``scaled``: that over sigma; ``marginal``: ``y - X beta``; ``cholesky`` and
            ``symmetric``: marginal residuals whitened with V.

        Returns
        -------
        Series, length n
        """
        from mixedeffects.residuals import residuals

        return pd.Series(residuals(self, kind), index=self.frame.index, name=f"{kind} residual")

    # --- inference -----------------------------------------------------------------------

    def vcov(self, kind: Literal["model"] = "model") -> pd.DataFrame:
        """Covariance matrix of the fixed effects, p x p."""
        if kind != "model":
            raise ModelError(f"vcov kind {kind!r} is not known; there is 'model'.")
        names = list(self.frame.fixef_names)
        return pd.DataFrame(self._vcov, index=names, columns=names)

    def coef_table(
        self, ddf: str = "satterthwaite", vcov: str = "model", level: float | None = 0.95
    ) -> pd.DataFrame:
        """Estimates, standard errors, degrees of freedom, tests and intervals.

        Parameters
        ----------
        ddf : {"satterthwaite", "residual", "inf"}
            Degrees of freedom: Satterthwaite's method, ``n - p``, or the normal distribution.
        vcov : {"model"}
            Covariance matrix of the fixed effects.
        level : float or None
            Confidence level of the interval columns; None leaves them out.

        Returns
        -------
        DataFrame, p rows
            Columns ``Estimate``, ``Std. Error``, ``df``, ``t value``, ``Pr(>|t|)`` and the
            interval's bounds.
        """
        from mixedeffects.inference.coefficients import coefficient_tests

        return coefficient_tests(self, ddf, vcov, level)

    @cached_property
    def satterthwaite(self) -> Satterthwaite:
        """Derivatives behind Satterthwaite's degrees of freedom, for any contrast."""
        return Satterthwaite(self._vcov, vcov_jacobian(self.optimum), self._curvature.hessian)

    # --- tables --------------------------------------------------------------------------

    def summary(self, ddf: str = "satterthwaite", vcov: str = "model") -> Any:
        """Summary in lme4's layout; text when printed, HTML in notebooks.

        Parameters
        ----------
        ddf, vcov
            As for `coef_table`.
        """
        from mixedeffects.display.model_summary import summarise

        return summarise(self, ddf, vcov)

    def tidy(self, effects: str | Sequence[str] = ("fixed", "ran_pars")) -> pd.DataFrame:
        """One row per parameter, with broom's column names; effects as in broom.mixed.

        Parameters
        ----------
        effects : {"fixed", "ran_pars", "ran_vals"} or several of them
            Fixed effects, standard deviations and correlations, conditional modes.
        """
        from mixedeffects.display.tidy import tidy

        return tidy(self, effects)

    def glance(self) -> pd.DataFrame:
        """One row about the whole fit, with broom's column names."""
        from mixedeffects.display.tidy import glance

        return glance(self)

    def augment(self) -> pd.DataFrame:
        """The data used, with fitted values and residuals beside them."""
        from mixedeffects.display.tidy import augment

        return augment(self)

    def __repr__(self) -> str:
        return str(self._default_summary)

    def _repr_html_(self) -> str:
        return str(self._default_summary._repr_html_())

    # --- fitting again -------------------------------------------------------------------

    def refit(self, y: Any, *, progress: ProgressOption = False) -> LinearMixedModel:
        """Fit the same model to another response.

        Parameters
        ----------
        y : array or Series, shape (n,)
            New response for the rows used.
        progress : bool or callable
            As for `lmer`.
        """
        response = np.asarray(y, dtype=np.float64).reshape(-1)
        if response.shape != self.y.shape or not np.isfinite(response).all():
            raise ModelError(
                f"The new response must be {self.nobs} finite numbers, one for each row used; got "
                f"{len(response)}, {int((~np.isfinite(response)).sum())} of them not finite."
            )
        frame = dataclasses.replace(self.frame, y=response)
        return _fit(frame, self.reml, None, None, progress, self._data, self._settings, None)

    def update(
        self, formula: str | None = None, data: Any = None, reml: bool | None = None
    ) -> LinearMixedModel:
        """Fit again with a changed formula, other data, or the other criterion.

        Parameters
        ----------
        formula : str, optional
            A ``.`` stands for what was there: ``". ~ . + Sex"``.
        data : DataFrame, optional
            New data; weights and offset given as arrays must then be given again with `lmer`.
        reml : bool, optional
            REML or maximum likelihood.
        """
        from mixedeffects.formula.update import update_formula

        text = self.formula if formula is None else update_formula(self.formula, formula)
        return lmer(
            text,
            self._data if data is None else data,
            reml=self.reml if reml is None else reml,
            **self._settings,
        )

    # --- shared pieces, computed once ----------------------------------------------------

    @property
    def _solution(self) -> Any:
        return self.optimum.evaluation.factorisation.solution

    @cached_property
    def _T(self) -> list[Matrix]:
        return [self._A.basis.relative_factor(t, T) for t, T in enumerate(self.optimum.T)]

    @cached_property
    def _G_blocks(self) -> list[Matrix]:
        return [self.sigma**2 * (T @ T.T) for T in self._T]

    @cached_property
    def _vcov(self) -> Matrix:
        return fixed_effects_covariance(self.optimum.evaluation.factorisation, self.sigma)

    @cached_property
    def _curvature(self) -> Curvature:
        return observed_curvature(self._A, self.optimum, self.reml)

    def _smallest_curvature(self) -> float:
        return self._curvature.smallest_eigenvalue(self._curvature.interior(self._A))

    @cached_property
    def _default_summary(self) -> Any:
        return self.summary()
