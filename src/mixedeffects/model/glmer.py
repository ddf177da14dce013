"""`glmer`, which fits a generalized linear mixed model."""

from __future__ import annotations

from typing import Any, Literal

from mixedeffects.base.habits import explained
from mixedeffects.engine import Control
from mixedeffects.families import Family
from mixedeffects.fitting.generalized.fitting import fit_generalized_formula
from mixedeffects.model.generalized_linear_mixed_model import GeneralizedLinearMixedModel
from mixedeffects.model.shared.held import held_by
from mixedeffects.progress import ProgressOption

__all__ = ["glmer"]


@explained
def glmer(
    formula: str,
    data: Any,
    family: str | Family | None = None,
    *,
    weights: Any = None,
    offset: Any = None,
    exposure: Any = None,
    nagq: int = 1,
    contrasts: dict[str, Any] | None = None,
    start: Any = None,
    control: Control | None = None,
    double_bar: Literal["lme4", "separate"] = "lme4",
    progress: ProgressOption = None,
) -> GeneralizedLinearMixedModel:
    """Fit a generalized linear mixed model, ``g(E(y | b)) = X beta + Z b + offset``.

    Parameters
    ----------
    formula : str
        In lme4's grammar. For a binomial response its left side is ``cbind(successes, failures)``,
        a proportion ``successes / trials`` with its trials as weights, a factor or text of two
        levels of which the first is a failure, true and false, or 0 and 1.
    data : DataFrame
        pandas, polars or pyarrow table, or a mapping of names to arrays.
    family : str or Family
        Distribution of the response: ``"binomial"``, ``"poisson"``, ``"negative_binomial"``,
        ``"gamma"``, ``"inverse_gaussian"``, ``"beta"``, ``"gaussian"``, with their default links;
        or one of `mixedeffects.families`, such as ``me.families.Binomial("probit")``. There is no
        default.
    weights : str or array, shape (n,), optional
        Positive weights, which multiply the log-likelihood of each row; of a proportion the number
        of its trials.
    offset : str or array, shape (n,), optional
        Known part of the linear predictor.
    exposure : str or array, shape (n,), optional
        What the mean is proportional to, such as hours of observation; with a log link. The same
        as ``offset`` of its logarithm.
    nagq : int
        Quadrature points per random effect. 1 is Laplace's approximation.
    contrasts : dict, optional
        Coding of categorical columns, as for `lmer`.
    start : array or dict, optional
        Starting value of theta; or of ``"theta"``, ``"beta"`` and ``"phi"``, as far as given. By
        default estimates that need no derivative of the criterion.
    control : Control, optional
        Tolerance and limit of evaluations.
    double_bar : {"lme4", "separate"}
        What ``(f || g)`` means for a factor f, as for `lmer`.
    progress : bool, callable or None
        As for `lmer`.

    Returns
    -------
    GeneralizedLinearMixedModel
        The fitted model.

    Raises
    ------
    FormulaError
        If the formula cannot be read or has no random term.
    DataError
        If the data do not fit the formula or the family, with the rows: counts that are none,
        proportions without trials, values outside the support.
    ModelError
        If the model cannot be identified from these data, some fixed effect has no finite estimate
        (separation), or an argument is not what it should be.

    Warns
    -----
    ConvergenceWarning
        If the optimiser stopped before the gradient vanished.
    DataWarning
        If a function in the formula has no value in some rows, so that they are left out.

    Notes
    -----
    The criterion is -2 log L with all constants, the random effects integrated out by Laplace's
    approximation with the observed second derivatives. G, the covariance of the random effects, is
    absolute, on the scale of the link, for every family.

    References
    ----------
    Breslow, N. E. and Clayton, D. G. (1993). Approximate inference in generalized linear mixed
    models. Journal of the American Statistical Association 88, 9-25.

    Examples
    --------
    >>> import mixedeffects as me
    >>> cbpp = me.load_dataset("cbpp")
    >>> m = me.glmer(
    ...     "cbind(incidence, size - incidence) ~ period + (1 | herd)", cbpp, family="binomial"
    ... )
    >>> m.fixef.round(2)
    (Intercept)   -1.40
    period2       -0.99
    period3       -1.13
    period4       -1.58
    Name: Estimate, dtype: float64
    """
    return held_by(
        GeneralizedLinearMixedModel,
        lambda: fit_generalized_formula(
            formula,
            data,
            family=family,
            weights=weights,
            offset=offset,
            exposure=exposure,
            nagq=nagq,
            contrasts=contrasts,
            start=start,
            control=control,
            double_bar=double_bar,
            progress=progress,
        ),
    )
