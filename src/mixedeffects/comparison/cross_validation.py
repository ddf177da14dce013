"""Cross-validation of fitted models, by rows or by whole groups.

The predictive density of the rows left out given the others is that of the fit to the others,

    log p(y_out | y_in) = log N(y; X beta, V) - log N(y_in; X_in beta, V_in),

so it counts how the rows left out vary together, not only how far off each one is.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.habits import explained
from mixedeffects.base.options import entropy_of
from mixedeffects.comparison.comparable import fits_of
from mixedeffects.covariance import MarginalCovariance
from mixedeffects.covariance.design import z_times
from mixedeffects.covariance.of_fit import V_of, V_of_rows
from mixedeffects.covariance.of_residuals import V_at
from mixedeffects.diagnostics.deletion_refit import refit_rows
from mixedeffects.display.comparison_table import comparison_table
from mixedeffects.display.lettering import wrapped
from mixedeffects.display.result_table import ResultTable
from mixedeffects.display.tables import DEFAULT_WIDTH
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit, HoldsFit, refuse_other_kinds
from mixedeffects.inference.cluster_factor import read_levels
from mixedeffects.progress import ProgressOption, Unfinished
from mixedeffects.simulation.responses import checked_count

if TYPE_CHECKING:
    from mixedeffects.display.tables import Table

__all__ = ["CrossValidation", "cross_validate"]

Matrix = NDArray[np.float64]


class CrossValidation:
    """How well models predict rows they were not fitted to; made by `cross_validate`.

    Attributes
    ----------
    seed : int
        For the same folds again.
    folds : ndarray of int, shape (n,)
        Fold of each row.
    predictions : DataFrame, n rows
        What each model predicts for each row when fitted without its fold; NaN where it could not
        be.
    by_fold : DataFrame
        One row per model and fold: ``model``, ``fold``, ``n``, ``rmse``, ``mae``, ``elpd``, the log
        predictive density of its rows, and ``note``.
    """

    def __init__(
        self,
        formulas: Sequence[str],
        described: str,
        seed: int,
        folds: NDArray[np.int64],
        predictions: pd.DataFrame,
        observed: Matrix,
        by_fold: pd.DataFrame,
    ) -> None:
        self.seed = seed
        self.folds = folds
        self.predictions = predictions
        self.by_fold = by_fold
        self._formulas = list(formulas)
        self._described = described
        self._observed = observed

    def to_frame(self) -> pd.DataFrame:
        """One row per model, in the order given.

        Returns
        -------
        DataFrame
            ``rmse`` and ``mae``: root mean square and mean absolute error, in units of the
            response; ``elpd``: log predictive density of all rows; ``elpd_diff``: less that of the
            best model, with ``se_diff``, its standard error from the differences by fold;
            ``failed``: folds that could not be predicted.
        """
        rows = {}
        densities = self.by_fold.set_index(["fold", "model"])["elpd"].unstack()  # noqa: PD010
        usable = densities.dropna()
        best = usable.sum().idxmax() if len(usable) else None
        for name in self.predictions:
            error = self._observed - self.predictions[name].to_numpy()
            difference = usable[name] - usable[best] if best is not None else usable[name]
            count = len(difference)
            spread = float(difference.std(ddof=1)) * count**0.5 if count > 1 else np.nan
            rows[name] = (
                float(np.sqrt(np.nanmean(error**2))),
                float(np.nanmean(np.abs(error))),
                float(usable[name].sum()),
                float(difference.sum()),
                spread if name != best else np.nan,
                int(densities[name].isna().sum()),
            )
        columns = ["rmse", "mae", "elpd", "elpd_diff", "se_diff", "failed"]
        return ResultTable.of(pd.DataFrame.from_dict(rows, orient="index", columns=columns))

    def _table(self) -> Table:
        shown = self.to_frame()
        if not shown["failed"].any():
            shown = shown.drop(columns="failed")
        return comparison_table(shown)

    def _lines(self) -> list[str]:
        names = [
            f"{name}: {formula}"
            for name, formula in zip(self.predictions, self._formulas, strict=True)
        ]
        return [f"Cross-validation: {self._described}", *names]

    def __repr__(self) -> str:
        notes = [
            f"{fit}, fold {fold}: {note}"
            for fit, fold, note in self.by_fold[["model", "fold", "note"]].to_numpy().tolist()
            if note
        ]
        more = [f"and {len(notes) - 5} more notes in by_fold"] if len(notes) > 5 else []
        above = [line for text in self._lines() for line in wrapped(text, DEFAULT_WIDTH)]
        return "\n".join([*above, str(self._table()), *notes[:5], *more])

    def _repr_html_(self) -> str:
        head = "".join(f"<p>{escape(line)}</p>" for line in self._lines())
        return head + self._table()._repr_html_()


@explained
def cross_validate(
    *models: HoldsFit,
    by: Any = None,
    folds: int | None = None,
    seed: Any = None,
    progress: ProgressOption = None,
) -> CrossValidation:
    """Predict each part of the data from the model fitted to the rest.

    Parameters
    ----------
    *models : LinearMixedModel
        One or more fits to the same rows.
    by : str or array of shape (n,), optional
        Whole levels of this grouping factor or column are left out together, so the question is
        how well new groups are predicted. By default single rows are: new rows of known groups.
    folds : int, optional
        Number of parts, made at random. By default each level is a part with ``by``; 10 without.
    seed : int, Generator or None
        The same seed gives the same folds.
    progress : bool, callable or None
        True shows count, rate and time left on standard error; a callable gets each `Repetitions`;
        None shows them after some seconds on a terminal or in a notebook.

    Returns
    -------
    CrossValidation
        With ``to_frame()``, ``by_fold`` and ``predictions``.

    Raises
    ------
    ModelError
        If an argument is not a fit, the fits are not to the same rows, or there are fewer rows or
        levels than folds.
    DataError
        If ``by`` cannot be read.
    Interrupted
        On Ctrl-C, with the folds that are done.

    References
    ----------
    Roberts, D. R. et al. (2017). Cross-validation strategies for data with temporal, spatial,
    hierarchical, or phylogenetic structure. Ecography 40, 913-929.

    Examples
    --------
    >>> import mixedeffects as me
    >>> sleep = me.load_dataset("sleepstudy")
    >>> slopes = me.lmer("Reaction ~ Days + (Days | Subject)", sleep)
    >>> intercepts = me.lmer("Reaction ~ Days + (1 | Subject)", sleep)
    >>> found = me.cross_validate(slopes, intercepts, by="Subject")
    >>> found.to_frame()[["rmse", "elpd_diff"]]
         rmse elpd_diff
    m1 49.604       0.0
    m2 49.604     -17.2
    """
    fits = _fits_to_the_same_rows(models)
    first = fits[0]
    entropy = entropy_of(seed)
    codes, described = _folds(first, by, folds, entropy)
    count = int(codes.max()) + 1
    names = [f"m{i + 1}" for i in range(len(fits))]
    columns = ["model", "fold", "n", "rmse", "mae", "elpd", "note"]

    def step(number: int) -> tuple[tuple[Any, ...], NDArray[np.bool_], Matrix]:
        m, fold = divmod(number, count)
        fit, out = fits[m], codes == fold
        rmse = mae = density = np.nan
        note = ""
        values = np.full(int(out.sum()), np.nan)
        try:
            others, said = refit_rows(fit, np.flatnonzero(~out))
            note = said or ""
            mean, density = _predict(fit, others, out)
            values = mean[out]
            error = fit.frame.y[out] - values
            rmse, mae = float(np.sqrt(np.mean(error**2))), float(np.mean(np.abs(error)))
        except ModelError as problem:
            note = str(problem)
        return (names[m], fold, len(values), rmse, mae, density, note), out, values

    def finish(
        folds: list[tuple[tuple[Any, ...], NDArray[np.bool_], Matrix]],
    ) -> CrossValidation:
        predictions = pd.DataFrame(np.nan, index=first.frame.index, columns=names)
        for row, out, values in folds:
            predictions.loc[out, row[0]] = values
        return CrossValidation(
            [fit.formula for fit in fits],
            described,
            entropy,
            codes,
            predictions,
            first.frame.y,
            pd.DataFrame([row for row, _, _ in folds], columns=columns),
        )

    return Unfinished("fold", count * len(fits), step, finish).resume(progress)


def _fits_to_the_same_rows(models: Sequence[Any]) -> list[Fit]:
    if not models:
        raise ModelError("Give at least one fitted model.")
    fits = fits_of("me.cross_validate", models)
    for i, fit in enumerate(fits):
        refuse_other_kinds(fit, f"Argument {i + 1} of me.cross_validate")
    first = fits[0]
    for i, fit in enumerate(fits):
        same = np.array_equal(fit.frame.positions, first.frame.positions)
        if not same or not np.array_equal(fit.frame.y, first.frame.y):
            raise ModelError(
                f"Model {i + 1} was not fitted to the same rows and response as the first "
                f"({fit.nobs:,} rows, {first.nobs:,} there). Drop rows with missing values "
                "in any of their variables before fitting."
            )
    return fits


def _folds(fit: Fit, by: Any, folds: int | None, entropy: int) -> tuple[NDArray[np.int64], str]:
    """Fold of each row, and what is left out in words."""
    if by is None:
        units = np.arange(fit.nobs)
        count, what = fit.nobs, "rows"
        folds = 10 if folds is None else folds
    else:
        factor = read_levels(fit, by, "by", "groups")
        units = np.asarray(factor.codes, dtype=np.int64)
        count, what = len(factor.levels), f"levels of {factor.name}"
        folds = count if folds is None else folds
    folds = checked_count(folds, "folds, the number of parts,")
    if not 2 <= folds <= count:
        raise ModelError(
            f"folds must be at least 2 and no more than the {count:,} {what} there are to divide; "
            f"got {folds}."
        )
    if folds == count:
        return units.astype(np.int64), f"{count:,} {what} left out one at a time"
    rng = np.random.default_rng(entropy)
    fold_of_unit = rng.permutation(np.arange(count) % folds)
    return fold_of_unit[units].astype(
        np.int64
    ), f"{count:,} {what} in {folds} parts, seed {entropy}"


def _predict(fit: Fit, others: Fit, out: NDArray[np.bool_]) -> tuple[Matrix, float]:
    """Predictions for all rows from the fit to those not left out, and the density of the rest."""
    if fit.residual is not None:
        return _predict_structured(fit, others, out)
    beta = others.beta
    fixed = fit.frame.X @ beta
    if fit.frame.offset is not None:
        fixed = fixed + fit.frame.offset
    mean = fixed[:, None].copy()
    modes = others.modes
    for term, kept, own in zip(fit.frame.terms, others.frame.terms, modes, strict=True):
        effects = np.zeros((term.n_levels, term.n_columns, 1))
        effects[term.levels.get_indexer(kept.levels), :, 0] = own
        z_times(term, effects, mean)
    V = V_of_rows(fit.frame.terms, others.T, others.sigma, fit.frame.weights)
    whole = _log_density(V, fit.frame.y - fixed)
    part = _log_density(V_of(others), others.frame.y - others.fixed_part)
    return mean[:, 0], whole - part


def _predict_structured(fit: Fit, others: Fit, out: NDArray[np.bool_]) -> tuple[Matrix, float]:
    """The same where residuals are correlated: from V of all rows at the others' parameters."""
    fixed = fit.frame.X @ others.beta
    if fit.frame.offset is not None:
        fixed = fixed + fit.frame.offset
    V, kept, left = V_at(fit, others), np.flatnonzero(~out), np.flatnonzero(out)
    r = fit.frame.y - fixed
    # V between the rows left out and the others, times V^-1 of the others.
    weights = np.zeros(fit.nobs)
    weights[kept] = V_of(others).solve(r[kept])
    mean = fixed.copy()
    mean[left] += (V @ weights)[left]
    density = _log_density(V, r) - _log_density(V_of(others), r[kept])
    return mean, density


def _log_density(V: MarginalCovariance, residual: Matrix) -> float:
    constant = len(residual) * float(np.log(2.0 * np.pi))
    return -0.5 * (constant + float(V.logdet()) + float(V.quad(residual)))
