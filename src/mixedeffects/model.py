"""`lmer()` and the fitted model: a thin facade over the rooms that do the work."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.arrays import number_array, read_only
from mixedeffects.assembly import assemble, covariance_structures, engine_terms
from mixedeffects.caching import cached_property
from mixedeffects.covariance import (
    MarginalCovariance,
    RandomEffectsCovariance,
    ResidualCovariance,
    VarCorr,
)
from mixedeffects.covariance.components import read_theta
from mixedeffects.covariance.conditioned import conditioned_terms
from mixedeffects.covariance.design import random_effects_matrix
from mixedeffects.engine import (
    Control,
    CrossProducts,
    Optimum,
)
from mixedeffects.engine.basis import lower_factor
from mixedeffects.engine.curvature import (
    changes_of_sigma,
    fixed_effects_covariance,
    vcov_along_null_directions,
    vcov_jacobian,
)
from mixedeffects.engine.parameters import T_to_theta, theta_to_T
from mixedeffects.engine.refinement import find_refined_optimum, residual_share
from mixedeffects.engine.responses import replace_response
from mixedeffects.engine.subsample import subsample_start
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.errors import (
    ConvergenceWarning,
    DataWarning,
    IdentifiabilityWarning,
    ModelError,
)
from mixedeffects.formula.syntax import quote_name
from mixedeffects.frame import build_model_frame
from mixedeffects.frame.estimable import Estimability
from mixedeffects.frame.ingest import detached, values_of_rows
from mixedeffects.frame.model_frame import Dropped, ModelFrame, RandomTerm
from mixedeffects.frame.structures import one_row_each
from mixedeffects.inference.conditional import RandomEffects, conditional_modes
from mixedeffects.inference.kenward_roger import KenwardRoger, kenward_roger
from mixedeffects.inference.natural import covariance_parameters, structures_at_bounds
from mixedeffects.inference.satterthwaite import Satterthwaite
from mixedeffects.inference.variance import fixed_effects_variance
from mixedeffects.inference.wald import anova_table, wald_test
from mixedeffects.inference.wald_result import WaldTest
from mixedeffects.options import checked_flag
from mixedeffects.progress import ProgressOption
from mixedeffects.refitting import UNCHANGED, Unchanged
from mixedeffects.searching import Searching
from mixedeffects.undetermined import hardly_determined, with_identification
from mixedeffects.variogram import Variogram

if TYPE_CHECKING:
    from mixedeffects.conditional_aic import ConditionalAIC
    from mixedeffects.inference.bootstrap import Bootstrap
    from mixedeffects.inference.cluster_robust import RobustCovariance
    from mixedeffects.inference.marginal_means import MarginalMeans
    from mixedeffects.inference.profile import Profile
    from mixedeffects.influence import Influence
    from mixedeffects.ranova import RandomEffectsTests
    from mixedeffects.variance_explained import ICC, R2
    from mixedeffects.without_data import Remembered

__all__ = ["LinearMixedModel", "lmer"]

Matrix = NDArray[np.float64]

#: Relative standard deviation, in an orthonormal basis, to start from at most.
_FARTHEST = 1e3
#: Standard deviation, relative to the largest response, that is rounding.
_PRECISION = 1e-13
#: Residual variance, relative to that of least squares, below which there may be none, and there is
#: none if the residuals' share of the penalised sum of squares is as little.
_NO_RESIDUAL, _LITTLE_SHARE = 1e-12, 1e-6


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
    progress: ProgressOption = None,
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
        Starting value of theta, the only one then; by default a moment estimate, and further ones
        where evaluations are cheap. The factor of a term with a
        covariance structure is brought into the structure.
    control : Control, optional
        Tolerance and limit of evaluations.
    progress : bool, callable or None
        True prints one line per iteration on standard error; a callable gets each `Progress`; None
        shows the last one after some seconds on a terminal or in a notebook; False is silent.

    Returns
    -------
    LinearMixedModel
        The fitted model.

    Raises
    ------
    FormulaError
        If the formula cannot be read or has no random term.
    DataError
        If the data do not fit the formula: missing columns, infinite values, wrong types.
    ModelError
        If the model cannot be identified from these data, or ``start`` does not fit it.

    Warns
    -----
    ConvergenceWarning
        If the optimiser stopped before the gradient vanished, or a structured term has taken the
        residual variance.
    DataWarning
        If a function in the formula has no value in some rows, as the root of a negative number,
        so that they are left out.

    Notes
    -----
    The covariance matrix of a term's effects can have a structure, written around the term as in
    lme4 2:

    * ``us(x | g)``, the same as ``(x | g)``: any covariance matrix.
    * ``diag(x | g)``: independent effects, each with its variance. The same as ``(x || g)`` for
      numbers; for a factor, ``diag(0 + f | g)`` has one variance for each level.
    * ``cs(x | g)``: compound symmetry, one correlation for all pairs.
    * ``ar1(0 + f | g)``: first-order autoregression over the levels of a factor in their order,
      correlation ``rho^|i - j|`` between levels i and j. Levels that occur in no row are left out,
      so they count for nothing in ``|i - j|``.

    With ``hom = TRUE`` all effects of a term have one variance, with ``hom = FALSE`` each has its
    own; the latter is the default of ``diag`` and ``cs``, the former that of ``ar1``.

    References
    ----------
    Bates, D., Maechler, M., Bolker, B. and Walker, S. (2015). Fitting linear mixed-effects models
    using lme4. Journal of Statistical Software 67(1).

    Pinheiro, J. C. and Bates, D. M. (2000). Mixed-Effects Models in S and S-PLUS. Springer. For
    the structures.

    Examples
    --------
    >>> import mixedeffects as me
    >>> sleep = me.load_dataset("sleepstudy")
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", sleep)
    >>> m.fixef.round(2)
    (Intercept)    251.41
    Days            10.47
    Name: Estimate, dtype: float64

    Reaction times of one subject that are more alike on neighbouring days:

    >>> m = me.lmer("Reaction ~ Days + ar1(0 + factor(Days) | Subject)", sleep)
    >>> m.covariance_parameters.round(2)
    sd|Subject     47.34
    cor|Subject     0.88
    sigma          15.13
    Name: Estimate, dtype: float64
    """
    return _fit(
        *_prepared(formula, data, reml, weights, offset, contrasts, {}, start, control, progress)
    )


def _prepared(
    formula: str,
    data: Any,
    reml: bool,
    weights: Any,
    offset: Any,
    contrasts: dict[str, Any] | None,
    inherited: dict[str, Any],
    start: Sequence[float] | None,
    control: Control | None,
    progress: ProgressOption,
) -> tuple[Any, ...]:
    """The arguments of `_fit` from those of `lmer`, and codings that need not have a factor."""
    reml = checked_flag(reml, "reml")
    if control is not None and not isinstance(control, Control):
        raise ModelError(f"control must be a mixedeffects.Control, not {control!r:.60}.")
    name = getattr(data, "attrs", {}).get("name")
    with one_blas_thread():
        frame = build_model_frame(
            formula, data, weights=weights, offset=offset, contrasts=contrasts, inherited=inherited
        )
        for sentence in frame.dropped.lost:
            warnings.warn(sentence, DataWarning, stacklevel=3)
        y = _less_offset(frame)
        A = assemble(y, frame.X, frame.terms, frame.weights)
        if start is None:
            terms = engine_terms(frame.terms)
            structures = covariance_structures(frame.terms)
            factors = subsample_start(A, y, frame.X, terms, frame.weights, bool(reml), structures)
        else:
            factors = _starting_factors(A, read_theta(frame.terms, start, "start").tolist())
    assert frame.fixed_encoder is not None
    factors_here = frame.fixed_encoder.factors
    own = {n: c for n, c in inherited.items() if n in factors_here or quote_name(n) in factors_here}
    spare = {name: coding for name, coding in inherited.items() if name not in own}
    settings = {
        "weights": detached(weights),
        "offset": detached(offset),
        "contrasts": (own | (contrasts or {})) or contrasts,
        "inherited": spare,
        "control": control,
    }
    # A start that the user chose is where the search is wanted.
    further = start is None
    data = detached(data)
    return frame, A, bool(reml), factors, control, progress, data, settings, name, further


def _less_offset(frame: ModelFrame) -> Matrix:
    return frame.y if frame.offset is None else frame.y - frame.offset


def _fit(
    frame: ModelFrame,
    A: CrossProducts,
    reml: bool,
    start: Sequence[Matrix] | None,
    control: Control | None,
    progress: ProgressOption,
    data: Any,
    settings: dict[str, Any],
    data_name: str | None,
    further: bool = True,
    identified: bool = False,
) -> LinearMixedModel:
    y = _less_offset(frame)
    precision = _PRECISION * float(np.abs(y).max())
    fixed_only = A.provisional is None and A.remainder.response_square == 0.0
    if fixed_only or A.basis.response_scale <= precision:
        raise ModelError(
            "The fixed effects reproduce the response exactly (it may be constant), so there is no "
            "variance left to divide among random effects and residual."
        )
    structures = covariance_structures(frame.terms)
    search = Searching(reml, control, structures, progress, further)
    blocks = A
    try:
        with one_blas_thread(A.remainder.core_size):
            A, optimum = find_refined_optimum(
                A, y, frame.X, engine_terms(frame.terms), frame.weights, start, search.find
            )
    except KeyboardInterrupt:
        raise search.interrupted(
            start,
            lambda start, progress: _fit(
                frame,
                blocks,
                reml,
                start,
                control,
                progress,
                data,
                settings,
                data_name,
                further,
                identified,
            ),
        ) from None
    finally:
        search.close()
    endless = optimum is not None and optimum.unbounded and not optimum.converged
    if optimum is None or endless or _has_no_residual(optimum, A, precision):
        raise ModelError(
            "Fixed and random effects together reproduce the response exactly, so there is no "
            "residual variance to estimate. Is the response constant within the levels of "
            f"{', '.join(dict.fromkeys(t.group for t in frame.terms))}?"
        )
    bounds = structures_at_bounds(frame.terms, optimum)
    if bounds:
        optimum.message += f": {', '.join(bounds)}"
    if not optimum.converged:
        warnings.warn(
            f"The fit {optimum.message}. See m.optimum; try more evaluations with "
            "control=mixedeffects.Control(max_evaluations=...) or another start=.",
            ConvergenceWarning,
            stacklevel=3,
        )
    if not identified:
        with one_blas_thread(A.remainder.core_size):
            optimum = with_identification(frame, A, optimum)
    if optimum.undetermined:
        warnings.warn(
            f"The data do not determine all parameters: {' '.join(optimum.reasons)}",
            IdentifiabilityWarning,
            stacklevel=3,
        )
    if optimum.unbounded:
        warnings.warn(
            "The likelihood has no maximum: fixed and random effects together can reproduce the "
            "response, and it grows without bound as the residual variance goes to zero. The fit "
            "is the best local optimum found beside that. Fit fewer random or fixed effects.",
            ConvergenceWarning,
            stacklevel=3,
        )
    model = LinearMixedModel(frame, A, optimum, reml, data, settings, data_name)
    if optimum.converged and not optimum.residual_vanishes:
        weak = hardly_determined(A, optimum)
        if len(weak):
            parameters = model.covariance_parameters.index[weak]
            listed = ", ".join(f"`{name}`" for name in parameters)
            certificate = optimum.certificate
            warnings.warn(
                f"The likelihood is as good as flat along {listed}: its smallest curvature, "
                f"{certificate.smallest_curvature:.1e} where one is full, is not above "
                f"{certificate.least_curvature:.0e}. The data hardly determine these; leave out a "
                "term or an effect that they belong to.",
                IdentifiabilityWarning,
                stacklevel=3,
            )
    if optimum.residual_vanishes and not optimum.unbounded:
        _warn_without_residual(model)
    return model


def _has_no_residual(optimum: Optimum, A: CrossProducts, precision: float) -> bool:
    """Whether what is left beside fixed and random effects is nothing, or rounding of y."""
    sigma2 = optimum.evaluation.sigma2
    if A.basis.response_scale * np.sqrt(sigma2) <= precision:
        return True
    return sigma2 < _NO_RESIDUAL and residual_share(optimum) < _LITTLE_SHARE


def _warn_without_residual(model: LinearMixedModel) -> None:
    """Say what it means that the residual variance goes to zero."""
    taken = [term for term in model.frame.terms if term.structure != "us" and one_row_each(term)]
    if taken:
        effects = " and of ".join(f"`{term.structure}` on `{term.group}`" for term in taken)
        groups = " and ".join(f"`{term.group}`" for term in taken)
        why = f"every row has its own effect of {effects}, which takes the residual error too"
        limit = (
            f"in which the covariance of {groups} is that of the rows, and neither variance can be "
            "read alone"
        )
    else:
        why = "the random effects alone can reproduce every row"
        limit = "in which the random effects leave nothing over"
    warnings.warn(
        f"The residual standard deviation is estimated at {model.sigma:.2g}, next to nothing: "
        f"{why}. The likelihood goes on rising, by next to nothing, as long as it goes to zero; "
        f"its limit is the model without residual variance, {limit}.",
        ConvergenceWarning,
        stacklevel=4,
    )


def _starting_factors(A: CrossProducts, start: Sequence[float]) -> list[Matrix]:
    """The user's start in the fitting basis, no farther out than a search finds its way back."""
    factors = []
    for t, T in enumerate(theta_to_T(np.asarray(start), A.term_columns)):
        # Scaled, because products of numbers of any size may be no numbers.
        size = float(np.abs(T).max(initial=0.0)) or 1.0
        left, values, right = np.linalg.svd(A.basis.engine_factor(t, T / size))
        with np.errstate(over="ignore"):
            values = values * size
        if values[0] > _FARTHEST:
            T_star = (left * np.minimum(values, _FARTHEST)) @ right
        else:
            T_star = A.basis.engine_factor(t, T)
        factors.append(lower_factor(T_star))
    return factors


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
    >>> m.optimum.certificate.holds
    True
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
        self.optimum = optimum
        optimum.term_names = tuple(term.group for term in frame.terms)
        self._A: CrossProducts = crossproducts
        self._given = data
        self._settings = settings
        #: What a fit without its data keeps of them; None where they are there.
        self._remembered: Remembered | None = None

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
        """Number of levels of each grouping factor, in lme4's term order.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
        >>> m.ngroups
        {'tch.cl:sch.cl': 30, 'sch.cl': 10}
        """
        return {term.group: term.n_levels for term in self.frame.terms}

    @property
    def dropped(self) -> Dropped:
        """Rows removed for missing values, columns removed for rank deficiency.

        Examples
        --------
        >>> import mixedeffects as me
        >>> sleep = me.load_dataset("sleepstudy")
        >>> m = me.lmer("Reaction ~ Days + I(2 * Days) + (1 | Subject)", sleep)
        >>> m.dropped.columns
        ('I(2 * Days)',)
        """
        return self.frame.dropped

    @property
    def converged(self) -> bool:
        """Whether gradient and null-space conditions hold at the optimum; see `Certificate`.

        False as well where the data do not determine all variance parameters:
        ``m.optimum.undetermined`` names them and ``m.optimum.reasons`` says why.
        """
        return self.optimum.converged

    @property
    def is_singular(self) -> bool:
        """Whether some combination of random effects is estimated to have no variance.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff2"))
        >>> m.is_singular, m.theta
        (True, array([0.]))
        """
        return self.optimum.singular

    # --- estimates -----------------------------------------------------------------------

    @property
    def fixef(self) -> pd.Series:
        """Fixed effects, a Series of length p with R's names, in units of y per unit of the column.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.fixef.round(2)
        (Intercept)    251.41
        Days            10.47
        Name: Estimate, dtype: float64
        """
        beta = self._A.basis.beta(self._solution.beta)
        return pd.Series(beta, index=list(self.frame.fixef_names), name="Estimate")

    @property
    def se(self) -> pd.Series:
        """Standard errors of the fixed effects, a Series of length p in the units of `fixef`.

        They take the estimated V as known, as lme4 does.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.se.round(2)
        (Intercept)    6.82
        Days           1.55
        Name: Std. Error, dtype: float64
        """
        return pd.Series(
            np.sqrt(np.diag(self._vcov)), index=list(self.frame.fixef_names), name="Std. Error"
        )

    @property
    def sigma(self) -> float:
        """Residual standard deviation (at unit prior weight), in units of the response."""
        return self._A.basis.sigma(float(np.sqrt(self.optimum.evaluation.sigma2)))

    @property
    def theta(self) -> Matrix:
        """Relative covariance parameters, shape (m,), in lme4's order; without units.

        For each term the lower triangle of its factor T, column by column, where
        ``sigma^2 T T'`` is the covariance matrix of the term's effects. With a covariance structure
        these are more than there are parameters; see `covariance_parameters`.

        References
        ----------
        Bates, D., Maechler, M., Bolker, B. and Walker, S. (2015). Fitting linear mixed-effects
        models using lme4. Journal of Statistical Software 67(1).

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.theta.round(3)
        array([0.967, 0.015, 0.231])
        """
        return T_to_theta(self._T)

    @property
    def covariance_parameters(self) -> pd.Series:
        """The parameters of the random effects' covariance as they are reported; sigma last.

        Standard deviations in units of the response per unit of the column, and correlations. A
        term with a structure has only the parameters of its structure, ``sd|g`` for the standard
        deviation common to all columns and ``cor|g`` for the one correlation; `theta` has the
        entries of every T all the same.

        Returns
        -------
        Series
            A correlation is NaN where there are not two columns with variance.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cake = me.load_dataset("cake")
        >>> m = me.lmer("angle ~ recipe * temperature + cs(0 + recipe | replicate)", cake)
        >>> m.covariance_parameters.round(2)
        sd_recipeA|replicate    5.12
        sd_recipeB|replicate    6.78
        sd_recipeC|replicate    7.27
        cor|replicate           0.95
        sigma                   4.54
        Name: Estimate, dtype: float64
        """
        return covariance_parameters(self.frame.terms, self._T, self.sigma, self.optimum)

    @property
    def criterion(self) -> float:
        """REML criterion, or -2 log-likelihood for a maximum-likelihood fit; constants included.

        Examples
        --------
        The likelihood depends on the data through V alone:

        >>> import numpy as np
        >>> import mixedeffects as me
        >>> sleep = me.load_dataset("sleepstudy")
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", sleep, reml=False)
        >>> by_hand = m.nobs * np.log(2 * np.pi) + m.V.logdet() + m.V.quad(m.resid("marginal"))
        >>> round(m.criterion, 4), round(float(by_hand), 4)
        (1751.9393, 1751.9393)
        """
        A = self._A
        return self.optimum.evaluation.deviance + A.basis.deviance_offset(A.n, A.p, self.reml)

    @property
    def loglik(self) -> float:
        """Log-likelihood (restricted for a REML fit), ``-criterion / 2``."""
        return -0.5 * self.criterion

    def loglik_at(self, theta: Any, sigma: float | None = None, reml: bool | None = None) -> float:
        """Log-likelihood of these data at other parameters, maximised over the fixed effects.

        Parameters
        ----------
        theta : array, shape (m,)
            Relative covariance parameters, in the order of `theta`.
        sigma : float, optional
            Residual standard deviation, in units of the response; by default the one that
            maximises the likelihood at theta.
        reml : bool, optional
            Restricted likelihood or likelihood; by default that of the fit.

        Returns
        -------
        float
            The logarithm, constants included.

        Raises
        ------
        ModelError
            If theta has the wrong length, a value is not finite, or sigma is not positive.

        References
        ----------
        Bates, D., Maechler, M., Bolker, B. and Walker, S. (2015). Fitting linear mixed-effects
        models using lme4. Journal of Statistical Software 67(1). The restricted likelihood is
        normalised as there, without ``log |X'X| / 2``.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> round(m.loglik_at(m.theta), 3), round(m.loglik, 3)
        (-871.814, -871.814)
        >>> round(m.loglik_at([1, 0, 0], sigma=30.0), 3)
        -894.179
        """
        from mixedeffects.likelihood import loglik_at

        return loglik_at(self, theta, sigma, reml)

    @property
    def n_parameters(self) -> int:
        """Number of parameters: fixed effects, covariance parameters, and sigma.

        The covariance parameters are the entries of `theta`, but for a term with a structure the
        parameters of the structure.
        """
        return len(self.frame.fixef_names) + self.optimum.n_parameters + 1

    @property
    def aic(self) -> float:
        """Akaike's information criterion, ``criterion + 2 n_parameters``.

        References
        ----------
        Akaike, H. (1974). A new look at the statistical model identification. IEEE Transactions
        on Automatic Control 19, 716-723.
        """
        return self.criterion + 2.0 * self.n_parameters

    @property
    def bic(self) -> float:
        """Schwarz's information criterion, ``criterion + log(nobs) n_parameters``, as in lme4.

        References
        ----------
        Schwarz, G. (1978). Estimating the dimension of a model. Annals of Statistics 6, 461-464.
        """
        return self.criterion + float(np.log(self.nobs)) * self.n_parameters

    @property
    def df_resid(self) -> int:
        """Residual degrees of freedom, ``nobs - n_parameters``, as in lme4."""
        return self.nobs - self.n_parameters

    @cached_property
    def varcorr(self) -> VarCorr:
        """Variances and correlations of the random effects; see `VarCorr`.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.varcorr
         Groups   Name        Std.Dev. Corr
         Subject  (Intercept) 24.7405
                  Days         5.9221  0.066
         Residual             25.5918
        """
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
            A dict of DataFrames, l x k, one for each grouping factor with l levels and k
            effects, in units of the response per unit of the column; with ``cond_var=True`` its
            ``cond_var`` holds arrays (l, k, k).

        References
        ----------
        Robinson, G. K. (1991). That BLUP is a good thing: the estimation of random effects.
        Statistical Science 6, 15-32. As ``ranef(m, condVar = TRUE)`` in R's lme4.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.ranef()["Subject"].head(2).round(2)
             (Intercept)  Days
        308         2.26  9.20
        309       -40.40 -8.62
        >>> m.ranef(cond_var=True).cond_var["Subject"].shape
        (18, 2, 2)
        """
        return conditional_modes(
            self.frame, self.optimum.evaluation.factorisation, self.sigma, cond_var
        )

    def coef(self) -> dict[str, pd.DataFrame]:
        """Coefficients of each level: fixed effects plus that level's random effects.

        Returns
        -------
        dict of DataFrame
            For each grouping factor one row per level and one column per coefficient, as lme4's
            ``coef()``; a random effect without a fixed one stands alone.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.coef()["Subject"].head(2).round(2)
             (Intercept)   Days
        308       253.66  19.67
        309       211.01   1.85
        """
        fixed = self.fixef
        tables = {}
        for group, modes in self.ranef().items():
            names = list(dict.fromkeys([*fixed.index, *modes.columns]))
            table = pd.DataFrame(0.0, index=modes.index, columns=names)
            table += fixed.reindex(names, fill_value=0.0)
            tables[group] = table.add(modes.T.groupby(level=0).sum().T, fill_value=0.0)[names]
        return tables

    # --- matrices: the post, line by line ------------------------------------------------

    @property
    def X(self) -> Matrix:
        """Fixed-effects model matrix, n x p and read-only; ``fixef.index`` names its columns."""
        return self.frame.X

    @property
    def y(self) -> Matrix:
        """Response, ndarray of shape (n,), read-only, without the rows in `dropped`."""
        return self.frame.y

    @property
    def Z(self) -> scipy.sparse.csc_array:
        """Random-effects model matrix, sparse n x q, laid out as lme4 does.

        Terms in order, the levels of a term one after another, the columns within a level;
        ``G.labels()`` names each column.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.Z.shape
        (180, 36)
        >>> m.Z[:3, :4].toarray()
        array([[1., 0., 0., 0.],
               [1., 1., 0., 0.],
               [1., 2., 0., 0.]])
        """
        return self._Z.copy()

    @cached_property
    def G(self) -> RandomEffectsCovariance:
        """Covariance matrix of the random effects, q x q; see `RandomEffectsCovariance`.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.G.blocks().to_numpy().round(1)
        array([[612.1,   9.6],
               [  9.6,  35.1]])
        >>> m.G.sparse().shape
        (36, 36)
        """
        return RandomEffectsCovariance(self.frame.terms, self._G_blocks)

    @cached_property
    def R(self) -> ResidualCovariance:
        """Covariance matrix of the residual errors, n x n; see `ResidualCovariance`.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.R
        R: 180 x 180, diagonal: 654.941
        """
        return ResidualCovariance(self.sigma, self.frame.weights, self.nobs)

    @cached_property
    def V(self) -> MarginalCovariance:
        """Marginal covariance matrix of the response, ``Z G Z' + R``; see `MarginalCovariance`.

        References
        ----------
        Laird, N. M. and Ware, J. H. (1982). Random-effects models for longitudinal data.
        Biometrics 38, 963-974.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.V.gls(m.X, m.y).coef.round(2).tolist()  # the fixed effects again
        [251.41, 10.47]
        >>> float(abs(m.V.sparse() - (m.Z @ m.G.sparse() @ m.Z.T + m.R.sparse())).max()) < 1e-9
        True
        """
        return MarginalCovariance(
            self.frame.terms,
            self._G_blocks,
            self.sigma,
            self.frame.weights,
            self.optimum.evaluation.factorisation,
            self.frame.index,
        )

    def getme(self, name: str) -> Any:
        """Any component that lme4's ``getME`` knows, under the same name.

        Indices (``Lind``, ``Gp``, ``Tp``) count from zero. ``L`` is the Cholesky factor of
        ``Lambda'Z'WZ Lambda + I`` in Z's column order, without a permutation.

        Parameters
        ----------
        name : str
            One of the names in `getme_names`.

        Returns
        -------
        array, sparse array, Series, DataFrame, dict, number or function
            What ``getME`` returns, in the matching Python type.

        Raises
        ------
        ModelError
            If the name is not known, or ``L``, ``RZX`` or ``RX`` would be too large.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.getme("theta").round(3)
        Subject.(Intercept)         0.967
        Subject.Days.(Intercept)    0.015
        Subject.Days                0.231
        dtype: float64
        >>> L = m.getme("Lambda")
        >>> float(abs(m.sigma**2 * L @ L.T - m.G.sparse()).max()) < 1e-9
        True
        """
        from mixedeffects.getme import component

        return component(self, name)

    @staticmethod
    def getme_names() -> list[str]:
        """Names that `getme` takes, a list of str.

        Examples
        --------
        >>> import mixedeffects as me
        >>> me.LinearMixedModel.getme_names()[:5]
        ['X', 'Z', 'Zt', 'Ztlist', 'mmList']
        """
        from mixedeffects.getme import COMPONENTS

        return list(COMPONENTS)

    # --- fitted values and residuals -----------------------------------------------------

    @property
    def fitted(self) -> pd.Series:
        """Fitted values ``X beta + Z b``, offset included: a Series of length n, in units of y.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.fitted.head(2).round(1)
        0    253.7
        1    273.3
        Name: fitted, dtype: float64
        """
        return pd.Series(self._fitted.copy(), index=self.frame.index, name="fitted")

    def resid(self, kind: str = "response") -> pd.Series:
        """Residuals.

        Parameters
        ----------
        kind : {"response", "pearson", "scaled", "studentized", "marginal", "cholesky", \
"symmetric"}
            ``response``: ``y - fitted``; ``pearson``: times the root of the prior weights;
            ``scaled``: that over sigma; ``studentized``: ``y - fitted`` over its estimated
            standard deviation ``sigma sqrt((1 - h) / w)``, with the leverage h and the prior
            weight w; ``marginal``: ``y - X beta``; ``cholesky`` and ``symmetric``: marginal
            residuals whitened with V, see `MarginalCovariance.whiten`.

        Returns
        -------
        Series, length n
            With the data's row labels. ``response`` and ``marginal`` are in units of the response;
            ``pearson`` too, at unit weight; the others have no units. A studentized residual is
            NaN where the leverage is one: such a row determines its own fitted value.

        Raises
        ------
        ModelError
            If the kind is not known.

        References
        ----------
        Houseman, E. A., Ryan, L. M. and Coull, B. A. (2004). Cholesky residuals for assessing
        normal errors in a linear model with correlated outcomes. Journal of the American
        Statistical Association 99, 383-394. ``response``, ``pearson`` and ``scaled`` are those of
        R's lme4. ``studentized``: Nobre, J. S. and Singer, J. M. (2007). Residual analysis for
        linear mixed models. Biometrical Journal 49, 863-875; sigma is estimated from all rows
        (internally studentized), as in ``rstandard`` of R.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.resid("scaled").agg(["min", "median", "max"]).round(3).tolist()
        [-3.954, 0.023, 5.179]
        >>> whitened = m.resid("cholesky")
        >>> round(float(whitened @ whitened), 6)  # REML makes it n - p
        178.0
        """
        from mixedeffects.residuals import residuals

        return pd.Series(residuals(self, kind), index=self.frame.index, name=f"{kind} residual")

    def predict(
        self,
        newdata: Any = None,
        re: Any = "all",
        interval: str | None = None,
        level: float = 0.95,
        new_levels: str = "error",
        se: bool = False,
        *,
        ddf: str | None = None,
        vcov: str = "model",
        cluster: Any = None,
        weights: Any = None,
        offset: Any = None,
        chunk_size: int = 100_000,
    ) -> Any:
        """Predictions, with standard errors and intervals.

        Transforms (``poly``, ``scale``), factor levels and ``offset()`` are those of the fit.

        Parameters
        ----------
        newdata : DataFrame or iterator of DataFrames, optional
            pandas, polars or pyarrow table, or a mapping of names to arrays, with the columns that
            this prediction needs: not the response, and grouping factors only if their effects are
            in. By default the rows used in the fit.
        re : "all", None, str or list of str
            Random effects that the prediction conditions on. None or ``"none"``: the population
            mean ``X beta``. Otherwise names of grouping factors or labels of terms, or a formula
            with terms of the model such as ``"~ (1 | sch)"`` or ``"~0"``.
        interval : {"confidence", "prediction"}, optional
            ``"confidence"``: for ``x'beta + z'b``. ``"prediction"``: for a new observation, which
            adds its residual variance and that of random effects not in ``re``, for these are then
            drawn anew: with ``re=None`` a row whose groups are all new.
        level : float
            Probability that the interval covers.
        new_levels : {"error", "population"}
            What to do with levels that the fit did not see: refuse them, or predict them with
            effects of zero whose variance counts in standard errors and intervals.
        se : bool
            Add the standard error of ``x'beta + z'b``; an interval comes with that of its own
            (for ``"prediction"``, residual included).
        ddf : {"satterthwaite", "kr", "residual", "inf"}, optional
            Degrees of freedom of the intervals of population predictions, by default
            Satterthwaite's: a mean has the interval that `emmeans` gives it, a new observation that
            of its whole variance (there ``"kr"`` is not defined). ``"inf"`` is the normal
            distribution, which intervals of predictions with random effects always use. ``"kr"``
            brings its covariance matrix.
        vcov, cluster
            Covariance matrix of the fixed effects for population means, as for `coef_table`; a
            robust one has its own degrees of freedom.
        weights : float, str or array, optional
            Prior weights of the new rows, for ``interval="prediction"``: a number, a column, or
            one value for each row. By default one; for the rows of the fit those of the fit.
        offset : float, str or array, optional
            In place of the offset= of the fit, which is used again if it named a column.
        chunk_size : int
            Rows worked on at a time, which bounds the memory.

        Returns
        -------
        Series, or DataFrame
            In units of the response, of the kind given (a mapping gives pandas, a lazy frame an
            eager one, pyarrow without an interval an array), in the order of the rows. With an
            interval the columns ``fit``, ``se``, ``lower`` and ``upper``; with ``se`` alone
            ``fit`` and ``se``. A row with a missing value in a column needed is NaN. An iterator
            of frames gives a generator of results.

        Raises
        ------
        DataError
            If a column is missing or has the wrong type, a value is infinite, a level is not
            known, or a column was dropped from the fit as a linear combination of others and is
            none in the new rows.
        ModelError
            If an argument is not what it should be.

        Notes
        -----
        The variance takes the estimated variance parameters as known and the fixed effects and the
        random effects as jointly estimated: it is ``[x; z]'`` times ``sigma^2`` times the inverse
        of the coefficient matrix of Henderson's equations times ``[x; z]``. Effects of terms left
        out count in it as the unknowns they are. That the variance parameters are estimated is in
        the degrees of freedom, ``2 v^2 / Var(v)`` for an error with variance v, and for
        predictions with random effects left out: with few groups their intervals are somewhat
        short.

        References
        ----------
        Henderson, C. R. (1975). Best linear unbiased estimation and prediction under a selection
        model. Biometrics 31, 423-447. McLean, R. A., Sanders, W. L. and Stroup, W. W. (1991). A
        unified approach to mixed linear models. The American Statistician 45, 54-64. The fitted
        values are those of ``predict`` in R's lme4, with ``re.form`` for ``re``.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.predict({"Days": [10, 10], "Subject": [308, 309]}).round(1)
        0    450.3
        1    229.5
        Name: fit, dtype: float64

        The mean of all subjects, and where a new observation of a new subject will lie:

        >>> m.predict({"Days": [10]}, re=None, interval="confidence").round(1)
             fit    se  lower  upper
        0  356.1  16.0  322.3  389.9
        >>> m.predict({"Days": [10]}, re=None, interval="prediction").round(1)
             fit    se  lower  upper
        0  356.1  72.3  205.1  507.1
        """
        from mixedeffects.prediction import PredictionOptions, predict

        options = PredictionOptions(
            re, interval, level, new_levels, se, ddf, vcov, cluster, weights, offset, chunk_size
        )
        return predict(self, newdata, options)

    def leverage(self, kind: str = "total") -> pd.Series:
        """Leverages: the diagonal of the matrix that maps the response to the fitted values.

        Parameters
        ----------
        kind : {"total", "fixed", "random"}
            ``total``: of the fitted values ``X beta + Z b``, ``hatvalues`` in R's lme4; ``fixed``:
            of ``X beta``, the diagonal of ``X (X'V^-1X)^-1 X'V^-1``; ``random``: of ``Z b``,
            their difference.

        Returns
        -------
        Series, length n
            With the data's row labels, without units: the change of a row's fitted value per unit
            change of its response, the variances taken as known. ``total`` lies between 0 and 1
            and sums to the effective number of parameters; ``fixed`` sums to p.

        Raises
        ------
        ModelError
            If the kind is not known.

        References
        ----------
        Demidenko, E. and Stukel, T. A. (2005). Influence analysis for linear mixed-effects models.
        Statistics in Medicine 24, 893-909. Nobre, J. S. and Singer, J. M. (2011). Leverage
        analysis for linear mixed models. Journal of Applied Statistics 38, 1063-1072.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.leverage().head(3).round(3).tolist()
        [0.229, 0.17, 0.127]
        >>> round(float(m.leverage("fixed").sum()), 6)
        2.0
        """
        from mixedeffects.leverage import leverage

        return pd.Series(leverage(self, kind), index=self.frame.index, name=f"{kind} leverage")

    def influence(
        self, by: Any = None, refit: bool = False, progress: ProgressOption = None
    ) -> Influence:
        """Deletion diagnostics: what changes when a level of a factor, or a row, is left out.

        With d the change ``beta - beta(-j)`` and C, C(-j) the covariance matrices ``vcov`` with and
        without level j:

        * ``dfbeta`` is d, ``dfbetas`` d over the standard errors without the level,
        * ``cooks_d`` is ``d' C^-1 d / p``, ``mdffits`` is ``d' C(-j)^-1 d / p``,
        * ``covtrace`` is ``|trace(C^-1 C(-j)) - p|``, ``covratio`` is ``det C(-j) / det C``.

        Parameters
        ----------
        by : str or array, shape (n,), optional
            What to leave out: the levels of a grouping factor (``"sch"``, ``"tch:sch"``) or of a
            column of the data, or of values, one for each row; by default the single rows. V need
            not be block-diagonal by it.
        refit : bool
            False: theta and sigma are held at their estimates, and ``beta(-j)`` is generalized
            least squares on the other rows with their part of V, computed exactly without fitting
            again. True: the model is fitted to the other rows, starting from these estimates, and
            the change of the variance parameters is given too. Columns of X and Z stay what they
            are.
        progress : bool, callable or None
            True shows count, rate and time left on standard error; a callable gets each
            `Repetitions`; None shows them after some seconds on a terminal or in a notebook.

        Returns
        -------
        Influence
            ``to_frame()`` gives the table, ``plot()`` draws the most influential levels. A level
            without which the model is not identified has NaN and an entry in ``notes``.

        Raises
        ------
        DataError
            If there is no such column, the length is wrong, or values are missing.
        ModelError
            If there is one level only, or no fixed effects and no refit.

        Notes
        -----
        Single rows take about as long as `leverage`, and so do levels that cut no other level.
        Otherwise the work for a level grows with its rows, times the number of random effects that
        it shares with other rows, and with the cube of that number; or is one factorisation of the
        other rows, if that is less. Large problems are divided to keep to about a gigabyte.

        References
        ----------
        Demidenko, E. and Stukel, T. A. (2005). Influence analysis for linear mixed-effects models.
        Statistics in Medicine 24, 893-909. Christensen, R., Pearson, L. M. and Johnson, W. (1992).
        Case-deletion diagnostics for mixed models. Technometrics 34, 38-45. Names as in Loy, A. and
        Hofmann, H. (2014). HLMdiag: a suite of diagnostics for hierarchical linear models in R.
        Journal of Statistical Software 56(5).

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> subjects = m.influence("Subject")
        >>> subjects.cooks_distance.nlargest(3).round(3)
        Subject
        309    0.149
        335    0.129
        337    0.126
        Name: cooks_d, dtype: float64
        >>> m.influence("Subject", refit=True).variance_change.loc["332"].round(2)
        sd_(Intercept)|Subject         -2.01
        cor_Days.(Intercept)|Subject    0.07
        sd_Days|Subject                -0.39
        sigma                           3.79
        Name: 332, dtype: float64
        """
        from mixedeffects.influence import influence

        return influence(self, by, refit, progress)

    def variogram(
        self,
        distance: Any,
        by: str | None = None,
        kind: str = "marginal",
        bins: int | Sequence[float] | None = None,
        max_pairs: int = 2_000_000,
    ) -> Variogram:
        """Semivariogram of the residuals within clusters, beside the one that V implies.

        Where they differ systematically, V has the wrong form: residuals that grow more alike with
        nearness than V allows, for instance, call for serial correlation or random slopes.

        Parameters
        ----------
        distance : str or array, shape (n,)
            Position of each row, such as a time: a column of the data or numbers. The distance of
            two rows is the absolute difference.
        by : str, optional
            Pairs are those within a level of this grouping factor. By default within the connected
            blocks of V, or the outermost factor if all rows are connected.
        kind : {"marginal", "cholesky", "symmetric"}
            Which residuals, see `resid`; whitened ones have the implied semivariogram 1.
        bins : int or sequence of float, optional
            Number of bins of equal width, or their edges. By default up to 20 different distances
            have one bin each, and more are put into 12 bins.
        max_pairs : int
            If there are more pairs, so many are drawn, the same at every call; the object says so.

        Returns
        -------
        Variogram
            Its ``table`` has the columns ``distance``, ``n_pairs``, ``empirical`` and ``implied``;
            ``plot()`` draws them.

        Raises
        ------
        DataError
            If the distances are missing, not finite or not numbers.
        ModelError
            If another argument is not what it should be, or no cluster has two rows.

        References
        ----------
        Diggle, P. J., Heagerty, P., Liang, K.-Y. and Zeger, S. L. (2002). Analysis of Longitudinal
        Data, 2nd ed., section 3.4. Oxford University Press. For whitened residuals: Fitzmaurice,
        G. M., Laird, N. M. and Ware, J. H. (2011). Applied Longitudinal Analysis, 2nd ed., chapter
        10. Wiley.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.variogram("Days").table.head(3).round(1)
           distance  n_pairs  empirical  implied
        0       1.0      162      485.4    672.5
        1       2.0      144      733.9    725.1
        2       3.0      126      919.4    812.8
        """
        from mixedeffects.variogram import variogram

        return variogram(self, distance, by, kind, bins, max_pairs)

    def plot(self, kind: str = "panel", *, ax: Any = None, **options: Any) -> Any:
        """Diagnostic pictures of the fit.

        Parameters
        ----------
        kind : {"panel", "residuals", "scale", "qq", "groups", "leverage", "influence", \
"caterpillar", "ranef_qq", "ranef_pairs"}
            ``panel``: six pictures together; ``residuals``: against fitted values or a variable;
            ``scale``: root of absolute residuals against fitted values; ``qq``: normal quantiles of
            residuals with a band; ``groups``: residuals of the levels with the largest ones;
            ``leverage``: residuals against leverages; ``influence``: what changes without a row or
            level; ``caterpillar``: conditional modes with intervals; ``ranef_qq``: their normal
            quantiles; ``ranef_pairs``: pairs of them with the ellipse of their covariance.
        ax : matplotlib Axes or several, optional
            Where to draw; by default a new figure.
        **options
            Those of the function of the same name in `mixedeffects.plot`.

        Returns
        -------
        matplotlib Axes, or an array of them
            An array if there are several pictures.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ModelError
            If the picture or an option is not known, or has a value that it cannot have.

        Examples
        --------
        >>> from matplotlib.figure import Figure
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> ax = m.plot("qq", resid="studentized", ax=Figure().subplots())
        >>> ax.get_ylabel()
        'studentized residual'
        """
        from mixedeffects.display.diagnostics import draw

        return draw(self, kind, ax, options)

    # --- inference -----------------------------------------------------------------------

    def vcov(self, kind: str = "model", cluster: Any = None) -> pd.DataFrame:
        """Covariance matrix of the fixed effects.

        Parameters
        ----------
        kind : {"model", "kr", "CR0", "CR1", "CR1p", "CR1S", "CR2", "CR3"}
            ``"model"`` is ``(X'V^-1X)^-1`` with the estimated V taken as known; ``"kr"`` Kenward
            and Roger's, adjusted for V being estimated; the others are robust, see `robust`.
        cluster
            For the robust kinds, as for `robust`.

        Returns
        -------
        DataFrame, p x p
            In products of the units of `fixef`.

        Raises
        ------
        ModelError
            If the kind is not known, or it is ``"kr"`` and the fit by maximum likelihood.

        References
        ----------
        Kenward, M. G. and Roger, J. H. (1997). Small sample inference for fixed effects from
        restricted maximum likelihood. Biometrics 53, 983-997.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.vcov().round(2)
                     (Intercept)  Days
        (Intercept)        46.57 -1.45
        Days               -1.45  2.39
        """
        names = list(self.frame.fixef_names)
        covariance = fixed_effects_variance(self, kind, "inf", cluster).vcov
        return pd.DataFrame(covariance, index=names, columns=names)

    def coef_table(
        self,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        level: float | None = 0.95,
        cluster: Any = None,
    ) -> pd.DataFrame:
        """Estimates, standard errors, degrees of freedom, tests and intervals.

        Parameters
        ----------
        ddf : {"satterthwaite", "kr", "residual", "inf"}
            Degrees of freedom: Satterthwaite's method, Kenward-Roger's with its covariance matrix,
            ``n - p``, or the normal distribution.
        vcov : {"model", "kr", "CR0", "CR1", "CR1p", "CR1S", "CR2", "CR3"}
            Covariance matrix of the fixed effects, as for `vcov`; ``"kr"`` brings its own degrees
            of freedom in place of Satterthwaite's, a robust one always has its own.
        level : float or None
            Confidence level of the interval columns; None leaves them out.
        cluster
            For the robust kinds, as for `robust`.

        Returns
        -------
        DataFrame, p rows
            Columns ``Estimate``, ``Std. Error``, ``df``, ``t value``, ``Pr(>|t|)`` and the
            interval's bounds.

        Raises
        ------
        ModelError
            If ``ddf`` or ``vcov`` is not known, the level is not between 0 and 1, or
            Kenward-Roger's method is asked of a maximum-likelihood fit.

        References
        ----------
        Kuznetsova, A., Brockhoff, P. B. and Christensen, R. H. B. (2017). lmerTest package: tests
        in linear mixed effects models. Journal of Statistical Software 82(13).

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.coef_table().loc["Days"].round(2)
        Estimate      10.47
        Std. Error     1.55
        df            17.00
        t value        6.77
        Pr(>|t|)       0.00
        2.5 %          7.21
        97.5 %        13.73
        Name: Days, dtype: float64
        """
        from mixedeffects.inference.coefficients import coefficient_tests

        return coefficient_tests(self, ddf, vcov, level, cluster)

    def robust(
        self,
        kind: str = "CR2",
        cluster: Any = None,
        level: float | None = 0.95,
        *,
        crossed: bool = False,
    ) -> RobustCovariance:
        """Cluster-robust covariance of the fixed effects, with degrees of freedom and tests.

        Right in the limit of many clusters whatever the covariance within them; V is the working
        model that weighs the rows and, for CR2, makes the matrix unbiased if it holds.

        Parameters
        ----------
        kind : {"CR2", "CR0", "CR1", "CR1p", "CR1S", "CR3"}
            ``CR0``: no correction; ``CR1``: times ``J / (J - 1)`` for J clusters; ``CR1p``: times
            ``J / (J - p)``; ``CR1S``: times ``J (n - 1) / ((J - 1) (n - p))``; ``CR2``: unbiased
            if V holds; ``CR3``: nearly the jackknife over clusters.
        cluster : str, array of shape (n,), or list of these, optional
            A grouping factor, a column of the data (several joined by ``:``), or one value for
            each row. V must be zero between clusters. By default the outermost grouping factor.
            Several factors are clustered multiway, by inclusion and exclusion, for crossed
            designs; the kinds are then CR0, CR1, CR1p and CR1S.
        level : float or None
            Confidence level of the intervals in its table; None leaves them out.
        crossed : bool
            Whether one factor will do between whose levels V is *not* zero.

        Returns
        -------
        RobustCovariance
            With ``table``, ``vcov``, ``df`` and ``test(hypothesis)``.

        Raises
        ------
        DataError
            If the clusters have missing values, the wrong length or an unknown name.
        ModelError
            If the kind is not known, V is not zero between clusters, or there is only one; for
            CR3 if a cluster alone determines a coefficient.

        Warns
        -----
        ClusterWarning
            If single clusters determine a coefficient or a part of it, such as the mean of a
            treatment that one cluster had: its variance is NaN, that of others is not. With
            ``crossed=True``, if V is not zero between clusters.

        References
        ----------
        Pustejovsky, J. E. and Tipton, E. (2018). Small-sample methods for cluster-robust variance
        estimation and hypothesis testing in fixed effects models. Journal of Business and Economic
        Statistics 36, 672-683. Cameron, A. C., Gelbach, J. B. and Miller, D. L. (2011). Robust
        inference with multiway clustering. Journal of Business and Economic Statistics 29, 238-249.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
        >>> m.robust("CR2", cluster="sch.cl").table[["Std. Error", "df"]].round(3)
                     Std. Error     df
        (Intercept)       0.299  9.000
        x1                0.097  8.013
        """
        from mixedeffects.inference.cluster_robust import robust_covariance

        with one_blas_thread():
            return robust_covariance(self, kind, cluster, level, crossed)

    def wald(
        self,
        hypothesis: Any,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        test: str = "F",
        cluster: Any = None,
    ) -> WaldTest:
        """Test that fixed effects, or linear combinations of them, are all zero.

        Parameters
        ----------
        hypothesis : str, list of str, array, Series or DataFrame, shape (r, p)
            Name of a term, names of coefficients, or contrasts: one row each, one column per fixed
            effect. A DataFrame goes by the names of its columns and a Series by its labels, those
            they lack being zero.
        ddf, vcov
            As for `coef_table`. Satterthwaite's joint test is Fai and Cornelius's, Kenward-Roger's
            scales the statistic, and so does that of a robust covariance matrix, HTZ.
        test : {"F", "chi2"} or a robust test
            F test, or chi-squared test without degrees of freedom; with a cluster-robust ``vcov``
            also the tests of `RobustCovariance.test`, such as ``"HTZ"``, which is its F test.
        cluster
            For the robust kinds, as for `robust`.

        Returns
        -------
        WaldTest
            With ``statistic``, ``num_df``, ``den_df`` and ``p``.

        Raises
        ------
        ModelError
            If a name is not known, the contrasts do not fit the fixed effects or are linearly
            dependent, or Kenward-Roger's method is asked of a maximum-likelihood fit.

        References
        ----------
        Fai, A. H.-T. and Cornelius, P. L. (1996). Approximate F-tests of multiple degree of freedom
        hypotheses in generalized least squares analyses of unbalanced split-plot experiments.
        Journal of Statistical Computation and Simulation 54, 363-378.

        Kenward, M. G. and Roger, J. H. (1997). Small sample inference for fixed effects from
        restricted maximum likelihood. Biometrics 53, 983-997.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.wald("Days")
        F(1, 17.0) = 45.85, p = 3.264e-06
        >>> m.wald([[1, 0], [0, 1]], ddf="kr")
        F(2, 16.0) = 705.8, p = 2.488e-16
        """
        return wald_test(self, hypothesis, ddf, vcov, test, cluster)

    def contrast(
        self,
        hypothesis: Any,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        cluster: Any = None,
        level: float = 0.95,
    ) -> pd.DataFrame:
        """Estimate and test linear combinations of the fixed effects, each by itself.

        Parameters
        ----------
        hypothesis : str, list of str, array or DataFrame of shape (r, p), or mapping
            As for `wald`; or a mapping of labels to contrasts, each a mapping of names of
            coefficients to numbers, or a vector of p numbers. The contrasts may depend on each
            other.
        ddf, vcov, cluster, level
            As for `coef_table`.

        Returns
        -------
        DataFrame, one row per contrast
            Columns as of `coef_table`, in units of the response per unit of the contrast. Rows
            have the labels given, or names of coefficients, or numbers counted from 1.

        Raises
        ------
        ModelError
            If a name is not known or the contrasts do not fit the fixed effects.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.contrast({"day 5": {"(Intercept)": 1, "Days": 5}, "a week": {"Days": 7}}).round(1)
                Estimate  Std. Error    df  t value  Pr(>|t|)  2.5 %  97.5 %
        day 5      303.7         9.6  17.0     31.7       0.0  283.5   324.0
        a week      73.3        10.8  17.0      6.8       0.0   50.4    96.1
        """
        from mixedeffects.inference.linear_functions import contrast_table

        return contrast_table(self, hypothesis, ddf, vcov, cluster, level)

    def emmeans(
        self,
        specs: str | Sequence[str],
        by: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        weights: Literal["equal", "proportional", "cells"] = "equal",
        level: float = 0.95,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        cluster: Any = None,
        adjust: str = "none",
    ) -> MarginalMeans:
        """Estimated marginal means: predictions over a reference grid, averaged.

        Parameters
        ----------
        specs : str or list of str
            Columns of the data whose levels the means belong to; none (``[]``) for one mean of
            all.
        by : str or list of str, optional
            Further columns, within whose levels means are compared.
        at : mapping, optional
            For some columns the levels to keep, or the values of a number.
        weights : {"equal", "proportional", "cells"}
            How predictions are averaged over the factors not named: equally, by the number of rows
            of the combinations averaged over, or by that of each cell.
        level : float
            Confidence level.
        ddf, vcov, cluster
            As for `coef_table`.
        adjust : {"none", "bonferroni", "sidak", "mvt"}
            For intervals that hold for all means of a group together.

        Returns
        -------
        MarginalMeans
            With ``.to_frame()``, ``.contrasts()``, ``.plot()`` and ``.L``.

        Raises
        ------
        ModelError
            If a variable is not in the fixed part, or a level, value or option is not known.

        Notes
        -----
        The grid is R's emmeans': every level of a factor that occurs in the rows used, numbers at
        their mean (each row counting once), and numbers with only two values at both. A number in
        ``factor()`` is a factor. Expressions are evaluated at these values: ``log(x)`` at the log
        of the mean.

        An offset is part of the predictions: one in the formula, or given by name, is evaluated in
        the grid like other columns; of one given as an array the mean is added. It cancels in
        differences.

        A mean which the data do not determine, as in an empty cell of an interaction, is NaN, and
        a note says how many; differences are checked by themselves. ``weights="cells"`` averages
        over the cells that have rows.

        Nested factors are found as emmeans finds them: a factor each of whose levels occurs with
        one level of another only, such as strains of genotypes, or one without an effect of its
        own, such as b of ``a / b``. A note says so. Averages over a nested factor go over the
        levels that occur in each of those that contain it, and its own means come with these.

        References
        ----------
        Searle, S. R., Speed, F. M. and Milliken, G. A. (1980). Population marginal means in the
        linear model: an alternative to least squares means. The American Statistician 34, 216-221.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cake = me.load_dataset("cake")
        >>> m = me.lmer("angle ~ recipe + temperature + (1 | recipe:replicate)", cake)
        >>> m.emmeans("recipe", ddf="kr")
        recipe emmean     SE   df  2.5 % 97.5 %
        A      33.122  1.737 42.0 29.617 36.627
        B      31.644  1.737 42.0 28.139 35.150
        C      31.600  1.737 42.0 28.095 35.105
        ---
        averaged over temperature, with equal weights
        95 % intervals; t-tests use Kenward-Roger's method
        """
        from mixedeffects.inference.marginal_means import marginal_means

        return marginal_means(self, specs, by, at, weights, level, ddf, vcov, cluster, adjust)

    def emtrends(
        self,
        specs: str | Sequence[str],
        var: str,
        by: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        weights: Literal["equal", "proportional", "cells"] = "equal",
        level: float = 0.95,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        cluster: Any = None,
        adjust: str = "none",
    ) -> MarginalMeans:
        """Estimated marginal slopes of a number, at each level of other columns.

        Parameters
        ----------
        specs : str or list of str
            Columns of the data whose levels the slopes belong to; none (``[]``) for one slope.
        var : str
            The column whose slope is wanted. Its terms may be curved; the slope is then that at its
            mean, or at the values in ``at``.
        by, at, weights, level, ddf, vcov, cluster, adjust
            As for `emmeans`.

        Returns
        -------
        MarginalMeans
            Slopes in units of the response per unit of ``var``, as column ``<var>.trend``.

        Raises
        ------
        ModelError
            As for `emmeans`, and if ``var`` is categorical.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("distance ~ age * Sex + (age | Subject)", me.load_dataset("orthodont"))
        >>> m.emtrends("Sex", "age").to_frame().round(3)
              Sex  age.trend     SE    df  2.5 %  97.5 %
        0    Male      0.784  0.086  25.0  0.607   0.961
        1  Female      0.480  0.104  25.0  0.266   0.693
        """
        from mixedeffects.inference.marginal_means import marginal_means

        return marginal_means(self, specs, by, at, weights, level, ddf, vcov, cluster, adjust, var)

    def anova(
        self,
        type: int | str = 3,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        cluster: Any = None,
    ) -> pd.DataFrame:
        """F tests of the terms of the fixed part, in lmerTest's layout.

        For one fit; to compare several, `mixedeffects.anova`.

        Parameters
        ----------
        type : {3, 2, 1}
            Hypotheses as lmerTest defines them. Type 3 does not depend on how factors are coded;
            type 2 adjusts a term for all but those that contain it; type 1 goes term by term.
        ddf, vcov, cluster
            As for `wald`: with a robust ``vcov`` the tests are HTZ.

        Returns
        -------
        DataFrame, one row per term
            Columns ``Sum Sq``, ``Mean Sq``, ``NumDF``, ``DenDF``, ``F value`` and ``Pr(>F)``; NaN
            for a term without columns.

        Raises
        ------
        ModelError
            If ``type``, ``ddf`` or ``vcov`` is not known, or Kenward-Roger's method is asked of a
            maximum-likelihood fit.

        References
        ----------
        Kuznetsova, A., Brockhoff, P. B. and Christensen, R. H. B. (2017). lmerTest package: tests
        in linear mixed effects models. Journal of Statistical Software 82(13).

        Examples
        --------
        >>> import mixedeffects as me
        >>> cake = me.load_dataset("cake")
        >>> m = me.lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", cake)
        >>> m.anova()[["NumDF", "DenDF", "F value"]].round(2)
                            NumDF  DenDF  F value
        recipe                  2   42.0     0.25
        temperature             5  210.0    20.52
        recipe:temperature     10  210.0     1.01
        """
        return anova_table(self, type, ddf, vcov, cluster)

    def ranova(
        self,
        boundary: bool = False,
        reduce_terms: bool = True,
        *,
        progress: ProgressOption = None,
    ) -> RandomEffectsTests:
        """Likelihood-ratio tests of the random effects, each taken out in turn, as lmerTest's.

        The smaller models are fitted by the criterion of this one, to the same rows. Where the last
        random term goes, what is left is the linear model by least squares.

        Parameters
        ----------
        boundary : bool
            Where one variance is taken out, with its covariances with q other effects of its
            term, take the p-value from the even mixture of chi-squared distributions with q and
            q + 1 degrees of freedom, because a variance cannot be negative. Where it does not
            apply, the usual p-value stays, and a note says why.
        reduce_terms : bool
            Take out the variables of a random term one by one, ``(Days | Subject)`` to
            ``(1 | Subject)``, but none that is part of an interaction there. False takes out
            whole terms.
        progress : bool, callable or None
            True shows count, rate and time left on standard error; a callable gets each
            `Repetitions`; None shows them after some seconds on a terminal or in a notebook.

        Returns
        -------
        RandomEffectsTests
            One row for each smaller model, in the order of ``m.ngroups``.

        Raises
        ------
        ModelError
            If an option is neither True nor False, or a smaller model cannot be fitted.

        References
        ----------
        Kuznetsova, A., Brockhoff, P. B. and Christensen, R. H. B. (2017). lmerTest package: tests
        in linear mixed effects models. Journal of Statistical Software 82(13).

        Stram, D. O. and Lee, J. W. (1994). Variance components testing in the longitudinal mixed
        effects model. Biometrics 50, 1171-1177.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.ranova(boundary=True)
        Random effects taken out one at a time, by REML
        Model: Reaction ~ Days + (Days | Subject)
                                 npar  logLik    AIC    LRT Df Pr(>Chisq)
        <none>                      6 -871.81 1755.6
        Days in (Days | Subject)    4 -893.23 1794.5 42.837  2  2.793e-10 ***
        ---
        Signif. codes:  0 '***' 0.001 '**' 0.01 '*' 0.05 '.' 0.1 ' ' 1
        Pr(>Chisq) of Days in (Days | Subject): 50:50 mixture of chi-squared with 1 and 2 df.
        """
        from mixedeffects.ranova import random_effects_tests

        return random_effects_tests(self, boundary, reduce_terms, progress)

    def icc(self, by_group: bool = False) -> ICC:
        """Intraclass correlation: the random effects' share of the variance.

        Adjusted, of the variance that the fixed effects leave, and unadjusted, of all variance. The
        variance of the random effects is the mean over the rows of ``z_i'G z_i``, so that random
        slopes count with the size of their variable. That of the residual is the mean of
        ``sigma^2 / w_i``. Offsets count as known and have no part in any variance.

        These are ratios of means over the rows; ``m.V.parts.share()`` is the mean over the rows of
        each row's ratio, which with random slopes is another number.

        Parameters
        ----------
        by_group : bool
            Also the share of each grouping factor, adjusted; they sum to the adjusted ICC.

        Returns
        -------
        ICC
            With ``adjusted``, ``unadjusted`` and ``by_group``. Also at a singular fit.

        Raises
        ------
        ModelError
            If ``by_group`` is neither True nor False.

        References
        ----------
        Nakagawa, S., Johnson, P. C. D. and Schielzeth, H. (2017). The coefficient of determination
        R2 and intra-class correlation coefficient from generalized linear mixed-effects models
        revisited and expanded. Journal of the Royal Society Interface 14, 20170213.

        Johnson, P. C. D. (2014). Extension of Nakagawa and Schielzeth's R2GLMM to random slopes
        models. Methods in Ecology and Evolution 5, 944-946.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
        >>> m.icc(by_group=True)
        Intraclass correlation: adjusted 0.6266, unadjusted 0.5999
          tch.cl:sch.cl 0.4667
          sch.cl        0.1599
        """
        from mixedeffects.variance_explained import intraclass_correlation

        return intraclass_correlation(self, by_group)

    def r2(self) -> R2:
        """Nakagawa and Schielzeth's R2: shares of the variance that the model explains.

        Marginal, by the fixed effects; conditional, by fixed and random effects. The variance of
        the fixed part is the sample variance of ``X beta``; the other two are those of `icc`.
        Offsets count as known and have no part in any variance.

        Returns
        -------
        R2
            With ``marginal`` and ``conditional``. Also at a singular fit.

        References
        ----------
        Nakagawa, S. and Schielzeth, H. (2013). A general and simple method for obtaining R2 from
        generalized linear mixed-effects models. Methods in Ecology and Evolution 4, 133-142.

        Johnson, P. C. D. (2014). Extension of Nakagawa and Schielzeth's R2GLMM to random slopes
        models. Methods in Ecology and Evolution 5, 944-946.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.r2()
        R2: marginal 0.2787, conditional 0.7992
        """
        from mixedeffects.variance_explained import r_squared

        return r_squared(self)

    def caic(self, *, progress: ProgressOption = None) -> ConditionalAIC:
        """Conditional AIC, for comparing models by how they predict for the same levels.

        The likelihood is that of the response given the random effects, and the degrees of freedom
        are Greven and Kneib's: the derivatives of the fitted values in their own responses, theta
        estimated anew, and one for sigma. `aic` is about new levels and counts parameters.

        Parameters
        ----------
        progress : bool, callable or None
            True shows count, rate and time left on standard error; a callable gets each
            `Repetitions`; None shows them after some seconds on a terminal or in a notebook.

        Returns
        -------
        ConditionalAIC
            With ``caic``, ``loglik`` and ``df``. At a singular fit, effects without variance take
            no degrees of freedom.

        References
        ----------
        Greven, S. and Kneib, T. (2010). On the behaviour of marginal and conditional AIC in linear
        mixed models. Biometrika 97, 773-789.

        Vaida, F. and Blanchard, S. (2005). Conditional Akaike information for mixed-effects models.
        Biometrika 92, 351-370.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> smaller = m.update("Reaction ~ Days + (1 | Subject)")
        >>> round(m.caic().caic, 1), round(smaller.caic().caic, 1)
        (1711.5, 1767.1)
        """
        from mixedeffects.conditional_aic import conditional_aic

        return conditional_aic(self, progress)

    @cached_property
    def satterthwaite(self) -> Satterthwaite:
        """Derivatives behind Satterthwaite's degrees of freedom; see ``Satterthwaite.df``.

        Examples
        --------
        Degrees of freedom of the mean on day 5:

        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.satterthwaite.df([[1, 5]]).round(1)
        array([17.])
        """
        return Satterthwaite(
            self._vcov,
            vcov_jacobian(self.optimum),
            self.optimum.curvature,
            vcov_along_null_directions(self.optimum),
            self.frame.fixef_names,
        )

    @cached_property
    def kenward_roger(self) -> KenwardRoger:
        """Kenward and Roger's adjusted covariance of the fixed effects and degrees of freedom.

        For ``ar1``, and ``cs`` with a variance for each column, V is not linear in its parameters.
        The term of the adjusted covariance with second derivatives of V is then left out, because
        it depends on how V is described; SAS calls that the first-order version.

        Raises
        ------
        ModelError
            If the fit is by maximum likelihood, if so much is crossed that it would not fit into
            memory, or if standard errors depend on what the data do not determine.

        References
        ----------
        Kenward, M. G. and Roger, J. H. (1997). Small sample inference for fixed effects from
        restricted maximum likelihood. Biometrics 53, 983-997.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.kenward_roger.df([[1, 5]]).round(1)
        array([17.])
        """
        if not self.reml:
            raise ModelError(
                "Kenward-Roger's method is defined for REML fits and this one is by maximum "
                "likelihood; fit it again with m.update(reml=True)."
            )
        null = self.optimum.null_directions
        with one_blas_thread(self._A.remainder.core_size):
            found = kenward_roger(
                self.optimum.evaluation.factorisation,
                self.sigma,
                directions=self.optimum.variance_directions,
                null=None if null is None else (changes_of_sigma(self.optimum), null[:, -1]),
            )
        found = dataclasses.replace(found, names=self.frame.fixef_names)
        depends = found.depends(np.eye(len(found.vcov)))
        if depends.any():
            names = [name for name, own in zip(self.fixef.index, depends, strict=True) if own]
            raise ModelError(
                "Kenward-Roger's adjustment does not exist for this fit: the standard errors of "
                f"{', '.join(f'`{name}`' for name in names)} depend on variances that the data "
                f"do not determine. {' '.join(self.optimum.reasons)}"
            )
        return found

    def profile(
        self, parameters: Any = None, level: float = 0.99, *, progress: ProgressOption = None
    ) -> Profile:
        """Profile likelihood of standard deviations, correlations, sigma and fixed effects.

        Each parameter is held at values around its estimate while -2 log L is minimised over all
        others. It is the likelihood that is profiled, as in lme4: a REML fit is first fitted again
        by maximum likelihood.

        Parameters
        ----------
        parameters : str or list of str, optional
            Names as in ``profile.parameters``, or ``"fixed"`` or ``"random"``; by default all.
        level : float
            Each profile goes as far as the ends of intervals of this level.
        progress : bool, callable or None
            True shows count, rate and time left on standard error; a callable gets each
            `Repetitions`; None shows them after some seconds on a terminal or in a notebook.

        Returns
        -------
        Profile
            With ``confint(level)``, ``to_frame()``, ``zeta(parameter, value)`` and ``plot()``.

        Raises
        ------
        ModelError
            If a parameter is not known, the level is not between 0 and 1, or profiling finds
            better and better fits.

        Warns
        -----
        ConvergenceWarning
            If profiling finds a better fit than this one, from which it then starts again, or a
            minimisation does not converge; the point is named.

        References
        ----------
        Bates, D., Maechler, M., Bolker, B. and Walker, S. (2015). Fitting linear mixed-effects
        models using lme4. Journal of Statistical Software 67(1), section 5.1.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.profile("random").confint().round(2)
                                       2.5 %  97.5 %
        sd_(Intercept)|Subject         14.38   37.72
        cor_Days.(Intercept)|Subject   -0.48    0.69
        sd_Days|Subject                 3.80    8.75
        sigma                          22.90   28.86
        """
        from mixedeffects.inference.profile import profile

        return profile(self, parameters, level, progress)

    def confint(
        self,
        method: Literal["wald", "profile", "boot"] = "wald",
        parameters: Any = None,
        level: float = 0.95,
        *,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        cluster: Any = None,
        n: int = 1000,
        seed: Any = None,
        kind: str = "percentile",
        progress: ProgressOption = None,
    ) -> pd.DataFrame:
        """Confidence intervals for fixed effects, standard deviations, correlations and sigma.

        Parameters
        ----------
        method : {"wald", "profile", "boot"}
            ``wald``: t intervals for the fixed effects; for the others normal intervals for the
            logarithm of a standard deviation and Fisher's z of a correlation, from the observed
            curvature of the criterion (NaN beside a singular covariance). ``profile``: by profile
            likelihood, see `profile`. ``boot``: parametric bootstrap, see `bootstrap`.
        parameters : str or list of str, optional
            Names, or ``"fixed"`` (``"beta_"``) or ``"random"`` (``"theta_"``); by default all.
        level : float
            Confidence level.
        ddf, vcov, cluster
            For ``wald``, as for `coef_table`.
        n, seed, kind
            For ``boot``: number of refits, seed, and kind of interval as for its ``confint``.
        progress : bool, callable or None
            For ``profile`` and ``boot``, as there.

        Returns
        -------
        DataFrame, one row per parameter
            Columns named after the percentiles, such as ``2.5 %`` and ``97.5 %``; in the units of
            the parameters. A fixed effect called like a variance parameter, such as ``sigma``, is
            ``beta_sigma`` here, and two of one name are ``x (1)`` and ``x (2)``.

        Raises
        ------
        ModelError
            If a method or parameter is not known, the level is not between 0 and 1, or the method
            has no use for an argument given.

        References
        ----------
        Pinheiro, J. C. and Bates, D. M. (2000). Mixed-Effects Models in S and S-PLUS. Springer,
        section 2.4.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.confint().round(2)
                                       2.5 %  97.5 %
        sd_(Intercept)|Subject         15.58   39.28
        cor_Days.(Intercept)|Subject   -0.52    0.61
        sd_Days|Subject                 3.92    8.95
        sigma                          22.80   28.72
        (Intercept)                   237.01  265.80
        Days                            7.21   13.73
        >>> m.confint("profile", "Days").round(2)
              2.5 %  97.5 %
        Days   7.36   13.58
        """
        from mixedeffects.inference.intervals import confidence_intervals

        return confidence_intervals(
            self,
            method,
            parameters,
            level,
            ddf=ddf,
            vcov=vcov,
            cluster=cluster,
            n=n,
            seed=seed,
            kind=kind,
            progress=progress,
        )

    def simulate(self, n: int = 1, seed: Any = None, re: Any = None) -> pd.DataFrame:
        """Draw responses from the fitted model, ``offset + X beta + Z b + e``.

        Parameters
        ----------
        n : int
            Number of draws.
        seed : int, Generator or None
            The same seed gives the same draws, however many are asked for; None takes a fresh one.
        re : None, "all", str or list of str
            None draws all random effects anew. ``"all"`` keeps their conditional modes, so only
            the residuals are drawn; a list does so for these terms or grouping factors.

        Returns
        -------
        DataFrame, n rows used x draws
            Columns ``sim_1``, ``sim_2``, ...; the data's row labels; in units of the response.

        Raises
        ------
        ModelError
            If an argument is not what it should be.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.simulate(3, seed=1).shape
        (180, 3)
        """
        from mixedeffects.simulation import simulate

        return simulate(self, n, seed, re)

    def bootstrap(
        self,
        n: int = 1000,
        seed: Any = None,
        *,
        re: Any = None,
        statistic: Callable[[LinearMixedModel], Any] | None = None,
        workers: int | None = None,
        progress: ProgressOption = None,
    ) -> Bootstrap:
        """Parametric bootstrap: fit the model again to responses drawn from it.

        Ctrl-C raises `Interrupted`, which keeps what is done; ``partial.resume()`` goes on from
        there.

        Parameters
        ----------
        n : int
            Number of refits.
        seed : int, Generator or None
            Refit i depends on the seed and on i alone; None takes a fresh seed, which the result
            shows.
        re : None, "all", str or list of str
            As for `simulate`.
        statistic : callable, optional
            A function of a fitted model that returns a number, an array, a Series or a dict of
            numbers; by default the estimates of all parameters.
        workers : int, optional
            Refits at a time, in threads; by default the number of processors, or one if a refit
            needs much memory or there is a ``statistic``.
        progress : bool, callable or None
            True shows count, rate and time left on standard error; a callable gets each
            `Repetitions`; None shows them after some seconds on a terminal or in a notebook.

        Returns
        -------
        Bootstrap
            With ``draws``, ``confint(level, kind)`` and ``plot()``.

        Raises
        ------
        ModelError
            If an argument is not what it should be.

        References
        ----------
        Davison, A. C. and Hinkley, D. V. (1997). Bootstrap Methods and their Application. Cambridge
        University Press.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> boot = m.bootstrap(500, seed=1)
        >>> boot.confint().loc[["sigma", "Days"]].round(0)
               2.5 %  97.5 %
        sigma   22.0    28.0
        Days     7.0    14.0
        """
        from mixedeffects.inference.bootstrap import bootstrap

        return bootstrap(self, n, seed, re, statistic, workers, progress)

    # --- tables --------------------------------------------------------------------------

    def summary(self, ddf: str = "satterthwaite", vcov: str = "model", cluster: Any = None) -> Any:
        """Summary in lme4's layout; text when printed, HTML in notebooks.

        Parameters
        ----------
        ddf, vcov, cluster
            As for `coef_table`.

        Returns
        -------
        Summary
            ``str()`` gives the text.

        Raises
        ------
        ModelError
            If ``ddf`` or ``vcov`` is not known.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> m.summary()
        Linear mixed model fit by REML. t-tests use Satterthwaite's method
        Formula: Yield ~ 1 + (1 | Batch)
           Data: dyestuff
        ...
        Random effects:
         Groups   Name        Variance Std.Dev.
         Batch    (Intercept) 1764     42.00
         Residual             2451     49.51
        Number of obs: 30, groups:  Batch, 6
        ...
        """
        from mixedeffects.display.model_summary import summarise

        return summarise(self, ddf, vcov, cluster)

    def tidy(
        self,
        effects: str | Sequence[str] = ("fixed", "ran_pars"),
        *,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        cluster: Any = None,
        level: float | None = None,
    ) -> pd.DataFrame:
        """One row per parameter, with broom's column names, dots written as underscores.

        Parameters
        ----------
        effects : {"fixed", "ran_pars", "ran_vals"} or several of them
            Fixed effects, standard deviations and correlations, conditional modes; named as in R's
            broom.mixed.
        ddf, vcov, cluster
            For the fixed effects, as for `coef_table`.
        level : float, optional
            Confidence level of the fixed effects' intervals; by default there are none.

        Returns
        -------
        DataFrame
            Columns ``effect``, ``group``, ``term``, ``estimate``, ``std_error``; for fixed effects
            also ``statistic``, ``df``, ``p_value``, and ``conf_low``, ``conf_high`` if a level is
            given; for conditional modes also ``level``.

        Raises
        ------
        ModelError
            If an effect is not known.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.tidy("ran_pars")[["group", "term", "estimate"]].round(2)
              group                   term  estimate
        0   Subject        sd__(Intercept)     24.74
        1   Subject               sd__Days      5.92
        2   Subject  cor__(Intercept).Days      0.07
        3  Residual        sd__Observation     25.59
        """
        from mixedeffects.display.tidy import tidy

        return tidy(self, effects, ddf, vcov, cluster, level)

    def glance(self) -> pd.DataFrame:
        """One row about the whole fit, with the column names of R's broom.mixed.

        Returns
        -------
        DataFrame, one row
            Columns ``nobs``, ``sigma``, ``logLik``, ``AIC``, ``BIC``, ``REMLcrit`` (``deviance``
            for maximum likelihood) and ``df_residual``.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.glance()[["nobs", "logLik", "AIC"]].round(1)
           nobs  logLik     AIC
        0   180  -871.8  1755.6
        """
        from mixedeffects.display.tidy import glance

        return glance(self)

    def augment(self) -> pd.DataFrame:
        """The data used, with fitted values and residuals beside them.

        Returns
        -------
        DataFrame, n rows
            The variables of the model, and in units of the response ``_fitted``, ``_resid`` and
            ``_fixed``: fitted values, residuals, and the part from fixed effects and offset.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.augment().head(2).round(1)
           Reaction  Days Subject  _fitted  _resid  _fixed
        0     249.6   0.0     308    253.7    -4.1   251.4
        1     258.7   1.0     308    273.3   -14.6   261.9
        """
        from mixedeffects.display.tidy import augment

        return augment(self)

    def report(
        self,
        path: str | os.PathLike[str],
        title: str | None = None,
        *,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        cluster: Any = None,
    ) -> Path:
        """Write a report as one HTML file: what was fitted, tables, and pictures.

        It has the data used and left out, coefficients with intervals, tests of the terms, the
        random effects with their shares of the variance, the certificate of the optimum,
        diagnostics, conditional modes, and pictures of V and Z. The file needs nothing from
        outside. It is there whole or not at all. Without matplotlib it has no pictures.

        Parameters
        ----------
        path : str or path
            Where to write; a file of that name is replaced.
        title : str, optional
            Heading; by default it names the data.
        ddf, vcov, cluster
            As for `coef_table`.

        Returns
        -------
        Path
            Where it is.

        Raises
        ------
        DataError
            If the folder does not exist, or the path is a folder.
        ModelError
            If an argument is not what it should be.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = m.report(pathlib.Path(folder) / "dyestuff.html")
        ...     path.read_text(encoding="utf-8")[:15]
        '<!doctype html>'
        """
        from mixedeffects.report import write_report

        return write_report(self, path, title, ddf, vcov, cluster)

    def to_dict(
        self,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        cluster: Any = None,
        *,
        ranef: bool = False,
    ) -> dict[str, Any]:
        """The fit as plain data: dicts, lists, text and numbers, under a schema with a version.

        The same as ``mixedeffects fit --json`` prints. The keys are listed in the module
        ``mixedeffects.fit_document``.

        Parameters
        ----------
        ddf, vcov, cluster
            As for `coef_table`.
        ranef : bool
            Also the conditional modes of the random effects.

        Returns
        -------
        dict
            Numbers in full precision; None for one that is not finite.

        Raises
        ------
        ModelError
            If an argument is not what it should be.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> d = m.to_dict()
        >>> d["schema"], d["schema_version"], d["ngroups"], round(d["criterion"], 2)
        ('mixedeffects.fit', 1, {'Subject': 18}, 1743.63)
        """
        from mixedeffects.fit_document import fit_document

        return fit_document(self, ddf, vcov, cluster, ranef)

    def to_json(
        self,
        path: Any = None,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        cluster: Any = None,
        *,
        ranef: bool = False,
    ) -> str | None:
        """The fit as JSON; see `to_dict` for what is in it.

        Parameters
        ----------
        path : str or path, optional
            File to write, whole or not at all; without one the text is returned.
        ddf, vcov, cluster, ranef
            As for `to_dict`.

        Returns
        -------
        str or None
            The text, if it was not written to a file.

        Raises
        ------
        DataError
            If the path is a folder, or in none.
        ModelError
            If another argument is not what it should be.

        Examples
        --------
        >>> import json
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> round(json.loads(m.to_json())["varcorr"]["Batch"][0][0], 1)
        1764.0
        """
        from mixedeffects.fit_document import fit_document, json_text, write_json

        document = fit_document(self, ddf, vcov, cluster, ranef)
        if path is None:
            return json_text(document)
        write_json(document, path)
        return None

    def marginaleffects(
        self,
        vcov: str = "model",
        ddf: str = "satterthwaite",
        cluster: Any = None,
        df: float = np.inf,
    ) -> Any:
        """The model in the form that the Python package marginaleffects takes.

        ``predictions``, ``comparisons``, ``slopes``, ``hypotheses`` and their averages take it in
        place of a model. Predictions are for the population, without random effects. They are
        linear in the coefficients, so ``eps_vcov=1`` makes the numerical derivatives behind its
        standard errors exact; by default they are good to about three digits for slopes.

        Parameters
        ----------
        vcov, ddf, cluster
            As for `coef_table`. marginaleffects itself uses the same degrees of freedom for all
            tests; those by ``ddf`` are in the table that ``tests(result)`` of the adapter makes.
        df : float
            Degrees of freedom for marginaleffects' own tests and intervals; infinite for normal
            ones.

        Returns
        -------
        object
            A ``marginaleffects.classes.ModelAbstract``.

        Raises
        ------
        ImportError
            If marginaleffects is not installed.
        ModelError
            If an argument is not what it should be, the model has no fixed effects, or its offset
            cannot be known for new rows.

        References
        ----------
        Arel-Bundock, V., Greifer, N. and Heiss, A. (2024). How to interpret statistical models
        using marginaleffects for R and Python. Journal of Statistical Software 111(9).

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> adapter = m.marginaleffects(vcov="CR2")  # doctest: +SKIP
        >>> slopes = marginaleffects.avg_slopes(  # doctest: +SKIP
        ...     adapter, variables="Days", eps_vcov=1
        ... )
        >>> adapter.tests(slopes)[["estimate", "std_error", "df"]]  # doctest: +SKIP
            estimate  std_error    df
        0  10.467286   1.545789  17.0
        """
        from mixedeffects.adapters.marginaleffects import adapter

        return adapter(self, vcov, ddf, cluster, df)

    # The plug-in format of the package maketables.

    @property
    def __maketables_coef_table__(self) -> pd.DataFrame:
        from mixedeffects.adapters.maketables import coefficients

        return coefficients(self)

    def __maketables_stat__(self, key: str) -> Any:
        from mixedeffects.adapters.maketables import statistic

        return statistic(self, key)

    @property
    def __maketables_depvar__(self) -> str:
        return self.frame.formula.response

    @property
    def __maketables_vcov_info__(self) -> dict[str, Any]:
        return {"vcov_type": "model", "clustervar": None}

    @property
    def __maketables_stat_labels__(self) -> dict[str, str]:
        from mixedeffects.adapters.maketables import STATISTIC_LABELS

        return dict(STATISTIC_LABELS)

    @property
    def __maketables_default_stat_keys__(self) -> list[str]:
        from mixedeffects.adapters.maketables import default_statistics

        return default_statistics(self)

    def without_data(self) -> LinearMixedModel:
        """The fit without its data, for storing: its size does not grow with the rows.

        Loading a pickle can run code of whoever wrote it: load those you trust, and exchange
        `to_json` with strangers.

        Kept is all that needs no rows: estimates, `vcov`, tests and tables with their degrees of
        freedom, `anova`, `ranef`, `varcorr`, `summary`, `icc`, `r2`, `predict` for new data, and
        ``update(data=...)``. What needs rows, such as `fitted`, `V` or `robust`, raises an error
        that says so. The labels of the grouping factors' levels are kept, and those of rows that
        were dropped.

        Returns
        -------
        LinearMixedModel
            This one stays as it is.

        Examples
        --------
        >>> import pickle
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> stored = pickle.dumps(m.without_data())
        >>> pickle.loads(stored).coef_table().equals(m.coef_table())
        True
        """
        from mixedeffects.without_data import without_data

        return without_data(self)

    def __getstate__(self) -> dict[str, Any]:
        from mixedeffects.pickling import state_of

        return state_of(self)

    def __setstate__(self, state: Any) -> None:
        from mixedeffects.pickling import restore

        restore(self, state)

    def __copy__(self) -> LinearMixedModel:
        """Another object with the same parts."""
        out = object.__new__(type(self))
        out.__dict__.update(self.__dict__)
        return out

    def __repr__(self) -> str:
        return str(self._default_summary)

    def _repr_html_(self) -> str:
        return str(self._default_summary._repr_html_())

    # --- fitting again -------------------------------------------------------------------

    def refit(self, y: Any, *, progress: ProgressOption = None) -> LinearMixedModel:
        """Fit the same model to another response.

        Parameters
        ----------
        y : array or Series, shape (n,)
            New response for the rows used. A Series goes by its row labels; an array may also have
            a value for every row of the data, those dropped included.
        progress : bool, callable or None
            As for `lmer`.

        Returns
        -------
        LinearMixedModel
            The model fitted to the new response.

        Raises
        ------
        ModelError
            If the response has another length, is not finite, or leaves no variance to divide.

        Notes
        -----
        In whatever is done with the fit returned (`update`, `augment`, pickles) the new response
        takes the place of the column that was the response: ``update("y ~ x + (1 | g)")`` means the
        new ``y``, and another name means that column of the data. Of an expression such as
        ``log(y)`` the new values are a column of that name, as the formula of the fit then shows.

        Examples
        --------
        Half a parametric bootstrap: a response drawn from the model, and its fit.

        >>> import numpy as np
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> rng = np.random.default_rng(1)
        >>> root = np.linalg.cholesky(m.V.dense())
        >>> drawn = m.refit(m.X @ m.fixef + root @ rng.standard_normal(m.nobs))
        >>> drawn.nobs, drawn.converged
        (180, True)
        """
        from mixedeffects.refitting import with_response

        response = self._new_response(y)
        frame, data = with_response(self, response, y)
        A = replace_response(
            self._A, _less_offset(frame), frame.X, engine_terms(frame.terms), frame.weights
        )
        # Whether V determines its parameters is not up to the response, nor, where V is linear in
        # them, to the estimates.
        identified = not self.optimum.undetermined and self.optimum.parameterisation is None
        return _fit(
            frame,
            A,
            self.reml,
            self.optimum.restart,
            None,
            progress,
            data,
            self._settings,
            self.data_name,
            identified=identified,
        )

    def _new_response(self, y: Any) -> Matrix:
        """A response for the rows used: by label for a Series, else by position."""
        frame, what = self.frame, "the new response"
        n_rows = self.nobs + len(frame.dropped.rows)
        given = values_of_rows(
            what, y, frame.index, frame.positions, n_rows, ModelError, "numbers, "
        )
        response = number_array(given, what, ModelError)
        if not np.isfinite(response).all():
            count = int((~np.isfinite(response)).sum())
            raise ModelError(f"The new response has {count} values that are not finite.")
        return response

    def update(
        self,
        formula: str | None = None,
        data: Any = None,
        reml: bool | None = None,
        *,
        weights: Any = UNCHANGED,
        offset: Any = UNCHANGED,
        contrasts: dict[str, Any] | Unchanged | None = UNCHANGED,
        start: Sequence[float] | None = None,
        control: Control | Unchanged | None = UNCHANGED,
        progress: ProgressOption = None,
    ) -> LinearMixedModel:
        """Fit again with a changed formula, other data, the other criterion or other options.

        Parameters
        ----------
        formula : str, optional
            A ``.`` stands for what was there, as a whole: ``". ~ . + Sex"``, ``". / 10 ~ ."``,
            ``"~ . - (1 | site)"``. Without a left-hand side the response stays.
        data : DataFrame, optional
            New data. Weights and an offset that were given as values belong to the rows they were
            given with: a Series goes by its labels if these say which rows are meant; otherwise
            they must be given again.
        reml : bool, optional
            REML or maximum likelihood.
        weights, offset, contrasts, control
            As for `lmer`; by default as they were. A coding of a factor that the changed formula
            does not have is kept in mind and not used.
        start, progress
            As for `lmer`.

        Returns
        -------
        LinearMixedModel
            The model fitted again; this one stays as it is. After `refit` the new response stays,
            unless there are new data: those have their own.

        Raises
        ------
        FormulaError, DataError, ModelError
            As for `lmer`; also if weights or an offset given as values cannot be matched to the
            rows of new data.

        Examples
        --------
        A likelihood-ratio statistic for a fixed effect needs maximum likelihood:

        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> full = m.update(reml=False)
        >>> round(full.update(". ~ . - Days").criterion - full.criterion, 2)
        23.54
        """
        from mixedeffects.formula.update import update_formula
        from mixedeffects.refitting import NewResponse, are_the_same_rows, values_for_rows
        from mixedeffects.without_data import LeftOut, refitting_settings

        given = self._given
        text = self.formula
        if data is not None and isinstance(given, NewResponse):
            # New data have a response of their own.
            text = given.formula
        changed = {"weights": weights, "offset": offset, "control": control}
        settings = self._settings | {k: v for k, v in changed.items() if v is not UNCHANGED}
        inherited: dict[str, Any] = {}
        if contrasts is UNCHANGED:
            inherited = settings.get("inherited", {}) | (settings.get("contrasts") or {})
            contrasts = None
        for role in ("weights", "offset"):
            kept = settings[role]
            own = given.data if isinstance(given, NewResponse) else given
            if changed[role] is not UNCHANGED or kept is None or isinstance(kept, (str, LeftOut)):
                continue
            if data is not None and not are_the_same_rows(data, own):
                settings[role] = values_for_rows(role, kept, data)
        settings = refitting_settings(settings)
        return _fit(
            *_prepared(
                text if formula is None else update_formula(text, formula),
                self._data if data is None else data,
                self.reml if reml is None else reml,
                settings["weights"],
                settings["offset"],
                contrasts,
                inherited,
                start,
                settings.get("control"),
                progress,
            )
        )

    # --- shared pieces, computed once ----------------------------------------------------

    @property
    def _data(self) -> Any:
        from mixedeffects.without_data import LeftOut, left_out

        if isinstance(self._given, LeftOut):
            raise left_out("the data frame")
        from mixedeffects.refitting import NewResponse

        return self._given.table if isinstance(self._given, NewResponse) else self._given

    @property
    def _solution(self) -> Any:
        return self.optimum.evaluation.factorisation.solution

    @cached_property
    def _T(self) -> list[Matrix]:
        basis = self._A.basis
        return read_only([basis.relative_factor(t, T) for t, T in enumerate(self.optimum.T)])

    @cached_property
    def _estimability(self) -> Estimability:
        """How columns dropped for rank follow from those kept."""
        known = None if self._remembered is None else self._remembered.estimability
        return Estimability(self.frame) if known is None else known

    @property
    def _conditioned_terms(self) -> tuple[list[RandomTerm], list[Matrix]]:
        """Terms and covariance matrices for products of the two; see `conditioned_terms`."""
        factorisation = self.optimum.evaluation.factorisation
        terms, blocks, _ = conditioned_terms(
            self.frame.terms, self._G_blocks, factorisation, self.sigma
        )
        return terms, blocks

    @cached_property
    def _G_blocks(self) -> list[Matrix]:
        return read_only([self.sigma**2 * (T @ T.T) for T in self._T])

    @cached_property
    def _Z(self) -> scipy.sparse.csc_array:
        return random_effects_matrix(self.frame.terms)

    @cached_property
    def _fitted(self) -> Matrix:
        from mixedeffects.residuals import fitted_values

        return read_only(fitted_values(self))

    @cached_property
    def _vcov(self) -> Matrix:
        factorisation = self.optimum.evaluation.factorisation
        return read_only(fixed_effects_covariance(factorisation, self.sigma))

    @cached_property
    def _default_summary(self) -> Any:
        return self.summary()
