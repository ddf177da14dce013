"""`mmrm`, which fits a mixed model for repeated measures."""

from __future__ import annotations

from typing import Any

from mixedeffects.base.habits import explained
from mixedeffects.engine import Control
from mixedeffects.fitting.fitting import fit_formula
from mixedeffects.formula.mmrm import split_mmrm
from mixedeffects.model.linear_mixed_model import LinearMixedModel
from mixedeffects.model.shared.held import held_by
from mixedeffects.progress import ProgressOption

__all__ = ["mmrm"]


@explained
def mmrm(
    formula: str,
    data: Any,
    *,
    reml: bool = True,
    weights: Any = None,
    contrasts: dict[str, Any] | None = None,
    control: Control | None = None,
    progress: ProgressOption = None,
) -> LinearMixedModel:
    """Fit a mixed model for repeated measures: visits of a patient with a covariance matrix.

    The formula is that of R's mmrm: the covariance structure of a patient's visits is one of its
    terms, and there are no random effects. It is the model that `lmer` fits with ``residual=``,
    with other degrees of freedom in its tables.

    Parameters
    ----------
    formula : str
        For example ``"FEV1 ~ RACE + ARMCD * AVISIT + us(AVISIT | USUBJID)"``; the structures are
        in the notes.
    data : DataFrame
        pandas, polars or pyarrow table, or a mapping of names to arrays: a row for each patient
        and visit. Rows without a response are left out and counted in ``m.dropped``.
    reml : bool
        Restricted maximum likelihood (default), or maximum likelihood.
    weights : str or array, shape (n,), optional
        Prior weights, positive: the variance of row i is divided by ``w_i``.
    contrasts, control, progress
        As for `lmer`.

    Returns
    -------
    LinearMixedModel
        The fitted model. Where no ``ddf=`` is given its tables have Kenward and Roger's standard
        errors and degrees of freedom with the observed information, ``ddf="kr-observed"``.

    Raises
    ------
    FormulaError
        If the formula cannot be read, has not one covariance structure, or has random effects.
    DataError
        If the data do not fit the formula: two rows of one patient at one visit, missing columns.
    ModelError
        If the data cannot tell the covariance: a pair of visits that nobody has both of.

    Warns
    -----
    ConvergenceWarning
        If the optimiser stopped before the gradient vanished.

    Notes
    -----
    ``us(visit | id)`` is any covariance matrix of the visits. ``cs``, ``ar1``, ``toep`` and ``ad``
    (first-order antedependence) have one variance for all visits; ``csh``, ``ar1h``, ``toeph`` and
    ``adh`` have one for each. ``sp_exp(x, y | id)`` has correlations that fall exponentially with
    the distance. ``us(visit | arm / id)`` has parameters of its own in each arm, and so have the
    others. Visits are the levels of the factor in their order, also those that a patient lacks.

    The estimates are those of the likelihood of what was measured. They need no imputation where
    responses are missing at random: given a patient's other measurements and the columns of the
    formula, whether one is missing does not depend on its value.

    Standard errors and degrees of freedom are those of SAS's ``DDFM=KR(FIRSTORDER)`` and of R's
    mmrm with ``vcov = "Kenward-Roger-Linear"``. For ``us``, ``cs`` and ``toep`` they are SAS's
    ``DDFM=KR`` too, for there V is linear in its parameters. ``ddf="kr"`` has the expected
    information instead, as Kenward and Roger's paper and R's pbkrtest.

    References
    ----------
    Mallinckrodt, C. H., Lane, P. W., Schnell, D., Peng, Y. and Mancuso, J. P. (2008).
    Recommendations for the primary analysis of continuous endpoints in longitudinal clinical
    trials. Drug Information Journal 42, 303-319.

    Kenward, M. G. and Roger, J. H. (1997). Small sample inference for fixed effects from restricted
    maximum likelihood. Biometrics 53, 983-997.

    Examples
    --------
    >>> import mixedeffects as me
    >>> fev = me.load_dataset("fev")
    >>> m = me.mmrm("FEV1 ~ RACE + SEX + ARMCD * AVISIT + us(AVISIT | USUBJID)", fev)
    >>> m.nobs, round(m.criterion, 4), m.R.structure
    (537, 3386.4499, 'us(AVISIT | USUBJID)')
    >>> m.coef_table().loc["ARMCDTRT", ["Estimate", "Std. Error", "df"]].round(3).tolist()
    [3.774, 1.082, 145.547]
    >>> m.R.covariance.round(2)
           VIS1   VIS2   VIS3   VIS4
    VIS1  40.55  14.40   4.98  13.38
    VIS2  14.40  26.57   2.78   7.48
    VIS3   4.98   2.78  14.90   0.90
    VIS4  13.38   7.48   0.90  95.56
    """
    fixed, residual = split_mmrm(formula)
    return held_by(
        LinearMixedModel,
        lambda: fit_formula(
            fixed,
            data,
            reml=reml,
            weights=weights,
            contrasts=contrasts,
            control=control,
            residual=residual,
            ddf="kr-observed",
            progress=progress,
        ),
    )
