"""`lmer`, which fits a linear mixed model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

from mixedeffects.base.habits import explained
from mixedeffects.engine import Control
from mixedeffects.fitting.lazy_fitting import fit_any_table
from mixedeffects.frame.known_covariance import KnownCovariance
from mixedeffects.lazy.statistics import SufficientStatistics
from mixedeffects.model.linear_mixed_model import LinearMixedModel
from mixedeffects.model.residual_habits import explains_structures
from mixedeffects.model.shared.held import held_by
from mixedeffects.progress import ProgressOption

__all__ = ["lmer"]


@explains_structures
@explained
def lmer(
    formula: str | SufficientStatistics,
    data: Any = None,
    *,
    reml: bool = True,
    weights: Any = None,
    offset: Any = None,
    contrasts: dict[str, Any] | None = None,
    start: Sequence[float] | None = None,
    control: Control | None = None,
    double_bar: Literal["lme4", "separate"] = "lme4",
    residual: str | KnownCovariance | None = None,
    variance: str | None = None,
    sigma: float | None = None,
    rows: Literal["auto", "collect", "push"] = "auto",
    scratch: str | os.PathLike[str] | None = None,
    progress: ProgressOption = None,
) -> LinearMixedModel:
    """Fit a linear mixed model, ``y = X beta + Z b + e``.

    Parameters
    ----------
    formula : str or SufficientStatistics
        In lme4's grammar, for example ``"Reaction ~ Days + (Days | Subject)"``. Only known
        functions are called: a formula runs no code of its own. Or the sums
        of a table, of which `sufficient` makes; these have the formula, the weights and all else of
        the data.
    data : DataFrame
        pandas, polars or pyarrow table, or a mapping of names to arrays; or a table that its engine
        has not computed: a DuckDB relation, a polars LazyFrame, a Dask, Spark or Ibis table. See
        ``rows``. None for sums.
    reml : bool
        Restricted maximum likelihood (default), or maximum likelihood.
    weights : str or array, shape (n,), optional
        Prior weights, positive: the residual variance of row i is ``sigma^2 / w_i``.
    offset : str or array, shape (n,), optional
        Known part of the linear predictor.
    contrasts : dict, optional
        Coding of categorical columns in the fixed and the random part, for example
        ``{"group": "sum"}``: ``"treatment"``, ``"sum"``, ``"helmert"``, ``"poly"``, ``"sdif"``
        (each level less the one before), ``"sas"`` (against the last level), the label of the
        reference level, or a matrix with a row for each level, as `contrast_matrix` makes it.
    start : sequence of float, optional
        Starting value of theta, the only one then; by default a moment estimate, and further ones
        where evaluations are cheap. The factor of a term with a
        covariance structure is brought into the structure.
    control : Control, optional
        Tolerance and limit of evaluations.
    double_bar : {"lme4", "separate"}
        What ``(f || g)`` means for a factor f. lme4 separates f from the intercept and leaves the
        effects of its levels correlated, with as many variances as levels; the summary says so.
        ``"separate"`` makes ``diag(f | g)`` of it: an independent effect for each column that f is
        coded by. For numbers both are the same.
    residual : str or KnownCovariance, optional
        How residuals of one group are correlated, ``"STRUCTURE(position | group)"``, for example
        ``"ar1(week | id)"``; see the notes. Or `known` with their covariance matrix.
    variance : str, optional
        What the size of the residuals follows: terms of a log-linear model of their standard
        deviation, for example ``"sex"`` (one for each level) or ``"log(age)"`` (a power of age).
    sigma : float, optional
        The residual standard deviation at unit weight, where it is known, as in a meta-analysis:
        ``weights="1 / vi", sigma=1``.
    rows : {"auto", "collect", "push"}
        What happens to the rows of a table that its engine has not computed. ``"push"`` leaves them
        there: the engine sums products by level, and the same optimum is found from the sums;
        ``"collect"`` brings the columns of the model into memory; ``"auto"`` collects up to a
        million complete rows and pushes down beyond. A table in memory stays as it is.
    scratch : str or path, optional
        A folder for what there is for each level of the largest grouping factor, where that is
        more than memory holds; the rows then stay in the table. The files have no name, take as
        much of the disk as the model lives, and go with it. By default all is in memory.
    progress : bool, callable or None
        True prints one line per iteration on standard error, and one per pass over a table that
        stays in its engine; a callable gets each `Progress` and `TablePass`; None shows the last
        one after some seconds on a terminal or in a notebook; False is silent.

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

    ``residual=`` takes a structure in the same manner, for the rows of a group. With ``residual=``
    or ``variance=`` the formula may have no random-effects term. A position that is a factor counts
    its declared levels, also those without rows; a missing row is a gap and is never closed up.

    * ``ar1(t | g)``: correlation ``rho^h`` between rows h steps apart; ``ar1(1 | g)`` counts the
      rows in their order. ``car1(t | g)``: ``exp(-h / range)``, for times that are any numbers.
    * ``cs(1 | g)``: one correlation for all pairs, which may be negative.
    * ``us(t | g)``: any covariance matrix of the common times; ``toep(t | g)``: a correlation for
      each lag; ``ante(t | g)``: one for each pair of neighbouring times; ``diag(t | g)``: none, but
      a variance for each time.
    * ``exp(x + y | g)``, ``gau(x + y | g)``: correlations that fall with the distance,
      ``exp(-d / range)`` and ``exp(-(d / range)^2)``; with ``nugget = TRUE`` a share of the
      variance is not correlated.

    All rows have one variance unless ``hom = FALSE`` gives each common time its own (``diag`` and
    ``us`` always do); ``by = s`` gives each level of s parameters of its own.

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
    return held_by(
        LinearMixedModel,
        lambda: fit_any_table(
            formula,
            data,
            reml=reml,
            weights=weights,
            offset=offset,
            contrasts=contrasts,
            start=start,
            control=control,
            double_bar=double_bar,
            residual=residual,
            variance=variance,
            sigma=sigma,
            rows=rows,
            scratch=scratch,
            progress=progress,
        ),
    )
