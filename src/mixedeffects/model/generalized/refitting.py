"""Fitting again."""

from __future__ import annotations

from typing import Any, Self

from mixedeffects.engine import Control
from mixedeffects.fitting.refitting import UNCHANGED, Unchanged
from mixedeffects.model.generalized.of_record import OfRecord
from mixedeffects.progress import ProgressOption

__all__ = ["GeneralizedRefitting"]


class GeneralizedRefitting(OfRecord):
    """Fitting again."""

    def refit(self, y: Any, *, progress: ProgressOption = None) -> Self:
        """Fit the same model to another response, from the estimates of this one.

        Parameters
        ----------
        y : array or Series, shape (n,)
            New response for the rows used; of successes among trials the proportions. A Series goes
            by its row labels; an array may also have a value for every row of the data, those
            dropped included.
        progress : bool, callable or None
            As for `glmer`.

        Returns
        -------
        GeneralizedLinearMixedModel
            The model fitted to the new response, with the same trials and weights.

        Raises
        ------
        DataError
            If the family does not have such a response.
        ModelError
            If the response has another length, or is not finite.

        Notes
        -----
        As for `LinearMixedModel.refit` the new response takes the place of the column that was the
        response; of an expression the new values are a column of that name.

        Examples
        --------
        >>> import mixedeffects as me
        >>> ticks = me.load_dataset("grouseticks")
        >>> m = me.glmer("TICKS ~ cHEIGHT + (1 | BROOD)", ticks, family="poisson")
        >>> m.refit(m.simulate(seed=1)["sim_1"]).nobs
        403
        """
        from mixedeffects.fitting.generalized.refitting import refit_generalized

        return self._wrapped(lambda: refit_generalized(self._record, y, progress))

    def update(
        self,
        formula: str | None = None,
        data: Any = None,
        *,
        family: Any = UNCHANGED,
        weights: Any = UNCHANGED,
        offset: Any = UNCHANGED,
        exposure: Any = UNCHANGED,
        nagq: int | Unchanged = UNCHANGED,
        contrasts: dict[str, Any] | Unchanged | None = UNCHANGED,
        start: Any = None,
        control: Control | Unchanged | None = UNCHANGED,
        progress: ProgressOption = None,
    ) -> Self:
        """Fit again with a changed formula, other data, another family or other options.

        Parameters
        ----------
        formula : str, optional
            A ``.`` stands for what was there, as a whole: ``". ~ . + Sex"``,
            ``"~ . - (1 | site)"``. Without a left-hand side the response stays.
        data : DataFrame, optional
            New data. Weights, offset and exposure that were given as values belong to the rows they
            were given with: a Series goes by its labels if these say which rows are meant;
            otherwise they must be given again.
        family, weights, offset, exposure, nagq, contrasts, control
            As for `glmer`; by default as they were, and None takes them away (but family and nagq).
        start, progress
            As for `glmer`.

        Returns
        -------
        GeneralizedLinearMixedModel
            The model fitted again; this one stays as it is.

        Raises
        ------
        FormulaError, DataError, ModelError
            As for `glmer`; also if weights, offset or exposure given as values cannot be matched
            to the rows of new data.

        Examples
        --------
        A likelihood-ratio statistic of the period:

        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> round(m.update("~ . - period").criterion - m.criterion, 2)
        25.61
        """
        from mixedeffects.fitting.generalized.refitting import update_generalized

        return self._wrapped(
            lambda: update_generalized(
                self._record,
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
                progress=progress,
            )
        )

    def without_data(self) -> Self:
        """The fit without its data, for storing: its size does not grow with the rows.

        Loading a pickle can run code of whoever wrote it: load those you trust, and exchange
        `to_json` with strangers.

        Kept is all that needs no rows: estimates, `vcov`, tests and tables, `anova`, `ranef`,
        `varcorr`, `summary` with its check of Laplace's approximation, `predict` for new data, and
        ``update(data=...)``. What needs rows, such as `fitted`, `V`, `loglik_at` or `robust`,
        raises an error that says so. With a random effect for each row it is as large as the data.

        Returns
        -------
        GeneralizedLinearMixedModel
            This one stays as it is.

        Examples
        --------
        >>> import pickle
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> stored = pickle.dumps(m.without_data())
        >>> pickle.loads(stored).coef_table().equals(m.coef_table())
        True
        """
        from mixedeffects.storage.without_data import without_data

        fit = without_data(self.fit)
        return self if fit is self.fit else type(self)(fit)
