"""Cross-validation of fitted models, by rows or by whole groups."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.habits import explained
from mixedeffects.base.options import entropy_of
from mixedeffects.comparison.comparable import (
    check_same_thing,
    check_same_trials,
    fits_of,
    model_text,
)
from mixedeffects.comparison.generalized_held_out import predict_generalized_held_out, trials_of
from mixedeffects.comparison.held_out import predict_held_out
from mixedeffects.display.comparison_table import comparison_table
from mixedeffects.display.lettering import wrapped
from mixedeffects.display.result_table import ResultTable
from mixedeffects.display.tables import DEFAULT_WIDTH
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit, HoldsFit
from mixedeffects.inference.cluster_factor import read_levels
from mixedeffects.progress import ProgressOption, Unfinished
from mixedeffects.simulation.responses import checked_count

if TYPE_CHECKING:
    from mixedeffects.display.tables import Table

__all__ = ["CrossValidation", "cross_validate"]

Matrix = NDArray[np.float64]

#: How rows left out are predicted, by the kind of fit.
_PREDICTED = {"linear": predict_held_out, "generalized": predict_generalized_held_out}


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
        One row per model and fold: ``model``, ``fold``, ``n``, ``rmse``, ``mae``, of a binomial
        response ``brier``, ``elpd``, the log predictive density of its rows, and ``note``.
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
        trials: Matrix | None = None,
    ) -> None:
        self.seed = seed
        self.folds = folds
        self.predictions = predictions
        self.by_fold = by_fold
        self._formulas = list(formulas)
        self._described = described
        self._observed = observed
        self._trials = trials

    def to_frame(self) -> pd.DataFrame:
        """One row per model, in the order given.

        Returns
        -------
        DataFrame
            ``rmse`` and ``mae``: root mean square and mean absolute error, in units of the
            response; ``brier``, of a binomial response: mean square of the difference between each
            trial, 0 or 1, and its predicted probability; ``elpd``: log predictive density of all
            rows, of a discrete response log probability; ``elpd_diff``: less that of the
            best model, with ``se_diff``, its standard error from the differences by fold;
            ``failed``: folds that could not be predicted.
        """
        rows = {}
        densities = self.by_fold.set_index(["fold", "model"])["elpd"].unstack()  # noqa: PD010
        usable = densities.dropna()
        best = usable.sum().idxmax() if len(usable) else None
        for name in self.predictions:
            errors = _errors(self._observed, self._trials, self.predictions[name].to_numpy())
            difference = usable[name] - usable[best] if best is not None else usable[name]
            count = len(difference)
            spread = float(difference.std(ddof=1)) * count**0.5 if count > 1 else np.nan
            rows[name] = {
                **errors,
                "elpd": float(usable[name].sum()),
                "elpd_diff": float(difference.sum()),
                "se_diff": spread if name != best else np.nan,
                "failed": int(densities[name].isna().sum()),
            }
        return ResultTable.of(pd.DataFrame.from_dict(rows, orient="index"))

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
    *models : LinearMixedModel or GeneralizedLinearMixedModel
        One or more fits to the same rows; generalized ones all of probabilities, or all of
        densities.
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
        If an argument is not a fit, the fits are not to the same rows or are of different things,
        or there are fewer rows or levels than folds.
    DataError
        If ``by`` cannot be read.
    Interrupted
        On Ctrl-C, with the folds that are done.

    Notes
    -----
    A generalized model predicts the mean of the response over what is not known of the random
    effects: ``E g^-1(eta + N(0, v))`` with eta and v from the conditional modes and variances given
    the other rows, so of a new level ``v = z'Gz``. The predictive density of the rows left out, of
    a discrete response their probability, is the difference of the log-likelihoods of all rows and
    of the others, at the estimates from the others: the random effects are integrated out, so that
    rows of one group count together. That is by quadrature, whatever the fit is by, with one
    grouping factor and up to three random effects, else by Laplace's approximation.

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

    New districts, of which only the distribution is known:

    >>> data = me.load_dataset("contraception")
    >>> formula = "use ~ age + urban + livch + (1 | district)"
    >>> m = me.glmer(formula, data, family="binomial")
    >>> me.cross_validate(m, by="district", folds=6, seed=1).to_frame()[["brier", "elpd"]]
         brier    elpd
    m1 0.22537 -1215.1
    """
    fits = _fits_to_the_same_rows(models)
    first = fits[0]
    entropy = entropy_of(seed)
    codes, described = _folds(first, by, folds, entropy)
    count = int(codes.max()) + 1
    names = [f"m{i + 1}" for i in range(len(fits))]
    trials = trials_of(first)

    def step(number: int) -> tuple[dict[str, Any], NDArray[np.bool_], Matrix]:
        m, fold = divmod(number, count)
        fit, out = fits[m], codes == fold
        density, note = np.nan, ""
        values = np.full(int(out.sum()), np.nan)
        try:
            values, density, note = _PREDICTED[fit.kind](fit, out)
        except ModelError as problem:
            note = str(problem)
        errors = _errors(fit.frame.y[out], None if trials is None else trials[out], values)
        row = {"model": names[m], "fold": fold, "n": len(values), **errors}
        return {**row, "elpd": density, "note": note}, out, values

    def finish(
        folds: list[tuple[dict[str, Any], NDArray[np.bool_], Matrix]],
    ) -> CrossValidation:
        predictions = pd.DataFrame(np.nan, index=first.frame.index, columns=names)
        for row, out, values in folds:
            predictions.loc[out, row["model"]] = values
        return CrossValidation(
            [model_text(fit) for fit in fits],
            described,
            entropy,
            codes,
            predictions,
            first.frame.y,
            pd.DataFrame([row for row, _, _ in folds]),
            trials,
        )

    return Unfinished("fold", count * len(fits), step, finish).resume(progress)


def _fits_to_the_same_rows(models: Sequence[Any]) -> list[Fit]:
    if not models:
        raise ModelError("Give at least one fitted model.")
    fits = fits_of("me.cross_validate", models)
    first = fits[0]
    for i, fit in enumerate(fits):
        if fit.rows is not None:
            raise ModelError(
                f"me.cross_validate predicts rows one by one, and those of model {i + 1} stayed in "
                f"the table ({fit.rows.model.table.engine}). Fit with rows='collect', or to a "
                "sample of whole groups; m.influence(by, refit=True) has what changes without each "
                "group."
            )
        check_same_thing("Model 1", first, f"model {i + 1}", fit, True)
        check_same_trials("Model 1", first, f"model {i + 1}", fit)
        same = np.array_equal(fit.frame.positions, first.frame.positions)
        if not same or not np.array_equal(fit.frame.y, first.frame.y):
            raise ModelError(
                f"Model {i + 1} was not fitted to the same rows and response as the first "
                f"({fit.nobs:,} rows, {first.nobs:,} there). Drop rows with missing values "
                "in any of their variables before fitting."
            )
    return fits


def _errors(observed: Matrix, trials: Matrix | None, predicted: Matrix) -> dict[str, float]:
    """Root mean square and mean absolute error, and Brier's of single trials; of what there is."""
    known = ~np.isnan(predicted)
    observed, predicted = observed[known], predicted[known]
    error = observed - predicted
    nothing = not len(error)
    found = {
        "rmse": np.nan if nothing else float(np.sqrt(np.mean(error**2))),
        "mae": np.nan if nothing else float(np.mean(np.abs(error))),
    }
    if trials is not None:
        each = observed * (1.0 - predicted) ** 2 + (1.0 - observed) * predicted**2
        found["brier"] = np.nan if nothing else float(np.average(each, weights=trials[known]))
    return found


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
