"""Fitting again, and storing a fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from mixedeffects.engine import Control
from mixedeffects.fitting.refitting import UNCHANGED, Unchanged
from mixedeffects.model.shared.held import Held
from mixedeffects.progress import ProgressOption

__all__ = ["Refitting"]


class Refitting(Held):
    """Fitting again, and storing a fit."""

    def refit(self, y: Any, *, progress: ProgressOption = None) -> Self:
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
        from mixedeffects.fitting.refitting import refit

        return self._wrapped(lambda: refit(self.fit, y, progress))

    def update(
        self,
        formula: str | None = None,
        data: Any = None,
        reml: bool | None = None,
        *,
        weights: Any = UNCHANGED,
        offset: Any = UNCHANGED,
        contrasts: dict[str, Any] | Unchanged | None = UNCHANGED,
        residual: str | Unchanged | None = UNCHANGED,
        variance: str | Unchanged | None = UNCHANGED,
        sigma: float | Unchanged | None = UNCHANGED,
        start: Sequence[float] | None = None,
        control: Control | Unchanged | None = UNCHANGED,
        progress: ProgressOption = None,
    ) -> Self:
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
        weights, offset, contrasts, residual, variance, sigma, control
            As for `lmer`; by default as they were, and None takes them away. A coding of a factor
            that the changed formula does not have is kept in mind and not used.
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
        from mixedeffects.fitting.refitting import update

        return self._wrapped(
            lambda: update(
                self.fit,
                formula,
                data,
                reml,
                weights=weights,
                offset=offset,
                contrasts=contrasts,
                residual=residual,
                variance=variance,
                sigma=sigma,
                start=start,
                control=control,
                progress=progress,
            )
        )

    def without_data(self) -> Self:
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

        Notes
        -----
        With ``residual=``, ``variance=`` or ``sigma=`` other parameters need the rows. The observed
        information at the estimates is kept, so that Satterthwaite's degrees of freedom and Wald's
        intervals stay, and of Kenward and Roger's method what the tables of the fit have by
        default, as those of `mmrm`. ``predict(..., residual=True)`` needs the rows.

        Examples
        --------
        >>> import pickle
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> stored = pickle.dumps(m.without_data())
        >>> pickle.loads(stored).coef_table().equals(m.coef_table())
        True
        """
        from mixedeffects.storage.without_data import without_data

        fit = without_data(self.fit)
        return self if fit is self.fit else type(self)(fit)
