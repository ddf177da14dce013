"""What this package raises; every message says what is wrong, where, and what to do."""

from __future__ import annotations

from typing import Any

__all__ = [
    "ClusterWarning",
    "ConvergenceWarning",
    "CostWarning",
    "DataError",
    "DataWarning",
    "FileError",
    "FormulaError",
    "IdentifiabilityWarning",
    "Interrupted",
    "MixedEffectsError",
    "ModelError",
]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with what was done until then; a KeyboardInterrupt.

    Raised by everything that takes long and has something to keep: fits, `bootstrap`, `profile`,
    ``influence(refit=True)``, `ranova`, `confint`, `cross_validate` and `power`.

    Attributes
    ----------
    partial : object
        Its method ``resume(progress=...)`` goes on from there and returns what the function that
        was interrupted would have returned.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
    >>> def stop(line):
    ...     raise KeyboardInterrupt  # as Ctrl-C does
    >>> try:
    ...     boot = m.bootstrap(100, seed=1, progress=stop)
    ... except me.Interrupted as stopped:
    ...     boot = stopped.partial.resume()
    >>> boot.draws.equals(m.bootstrap(100, seed=1).draws)
    True
    """

    def __init__(self, message: str = "", partial: Any = None) -> None:
        super().__init__(message)
        self.partial = partial


class MixedEffectsError(ValueError):
    """Base class of the errors of this package; a ValueError.

    Examples
    --------
    >>> import mixedeffects as me
    >>> try:
    ...     me.lmer("Reaction ~ Hours + (1 | Subject)", me.load_dataset("sleepstudy"))
    ... except me.MixedEffectsError as error:
    ...     print(error)
    There is no column `Hours` in the data. The columns are: Reaction, Days, Subject.
    """


class FormulaError(MixedEffectsError):
    """The formula cannot be read, or is not that of a mixed model.

    Raised by `lmer` and `LinearMixedModel.update` before the data are used; a part that cannot be
    read is marked in the message.

    Examples
    --------
    >>> import mixedeffects as me
    >>> me.lmer("Reaction ~ (Days | Subject", me.load_dataset("sleepstudy"))
    Traceback (most recent call last):
        ...
    mixedeffects.errors.FormulaError: This '(' is never closed.
    ...
    """


class DataError(MixedEffectsError):
    """The data do not fit: missing columns, infinite values, wrong types or shapes.

    Raised by `lmer` for data that do not fit the formula, by `gls` and the methods of
    `MarginalCovariance` for arrays that do not fit each other, and by `load_dataset` for an
    unknown name.

    Examples
    --------
    >>> import mixedeffects as me
    >>> me.load_dataset("sleep")
    Traceback (most recent call last):
        ...
    mixedeffects.errors.DataError: There is no bundled data set called 'sleep'. ...
    """


class FileError(DataError, OSError):
    """A file cannot be read or written; a DataError and an OSError.

    Raised by everything that writes files, and by the command line for data that cannot be read. A
    file that could not be written whole is not there, and what was there before is as it was.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
    >>> m.to_json("estimates" * 100 + ".json")
    Traceback (most recent call last):
        ...
    mixedeffects.errors.FileError: '...' cannot be written: File name too long. ...
    """


class ModelError(MixedEffectsError):
    """The model cannot be identified from these data, or an argument does not fit the model.

    Raised by `lmer` where variances cannot be told apart, and by the methods of a fitted model
    for unknown levels, terms and options and for matrices that would be too large.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> m.V.block("399")
    Traceback (most recent call last):
        ...
    mixedeffects.errors.ModelError: There is no level '399' among the 18 levels of 'Subject'; ...
    """


class ConvergenceWarning(UserWarning):
    """The optimiser stopped before it reached an optimum.

    Given by `lmer` and `LinearMixedModel.refit`; the fit is returned all the same.

    Examples
    --------
    >>> import warnings
    >>> import mixedeffects as me
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     m = me.lmer(
    ...         "Reaction ~ Days + (Days | Subject)",
    ...         me.load_dataset("sleepstudy"),
    ...         control=me.Control(max_evaluations=2),
    ...     )
    >>> caught[0].category.__name__, m.converged
    ('ConvergenceWarning', False)
    """


class DataWarning(UserWarning):
    """Something about the data that is hardly meant.

    Given by `lmer`, `LinearMixedModel.update` and `marginal_covariance` where rows are left out
    because a function in the formula has no value for them, where text among the fixed effects is
    rather numbers or dates, and where levels differ only in blanks or capitals; by `read_table`
    where a column of numbers is text. Values that are missing in the data bring no warning, see
    `LinearMixedModel.dropped`.

    Examples
    --------
    >>> import warnings
    >>> import mixedeffects as me
    >>> sleep = me.load_dataset("sleepstudy")
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     m = me.lmer("Reaction ~ sqrt(Days - 1) + (1 | Subject)", sleep)
    >>> print(caught[0].message)
    `sqrt(Days - 1)` has no value in 18 of 180 rows, where `Days - 1` is -1; these rows were left
    out. Mend the column, or mark the values as missing.
    """


class IdentifiabilityWarning(ConvergenceWarning):
    """Some variance or correlation is not determined by the data; a ConvergenceWarning.

    Given by `lmer` and `LinearMixedModel.refit` where the likelihood is the same for any value, or
    along some combination of values; with the names of the parameters, the reason, and what to do.
    The fit is one of many that fit equally well.

    Examples
    --------
    >>> import warnings
    >>> import mixedeffects as me
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     m = me.lmer("Reaction ~ Subject + (1 | Subject)", me.load_dataset("sleepstudy"))
    >>> caught[0].category.__name__, m.converged, m.optimum.undetermined
    ('IdentifiabilityWarning', False, ('sd_(Intercept)|Subject',))
    """


class CostWarning(UserWarning):
    """What was asked for fits into the memory allowed, but takes long.

    Given by `MarginalCovariance.whiten` before the work starts, with rows, gigabytes and
    operations, where a connected block of V is large.

    Examples
    --------
    To stop instead of waiting:

    >>> import warnings
    >>> import mixedeffects as me
    >>> m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", me.CostWarning)
    ...     whitened = m.V.whiten(m.y)  # ten blocks of 15 rows: no warning
    """


class ClusterWarning(UserWarning):
    """Clusters of a robust covariance matrix are correlated with each other under the model.

    Given by `LinearMixedModel.robust` with ``crossed=True``, where V is not zero between clusters.

    Examples
    --------
    >>> import warnings
    >>> import mixedeffects as me
    >>> m = me.lmer(
    ...     "diameter ~ 1 + (1 | plate) + (1 | sample)", me.load_dataset("penicillin")
    ... )
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     robust = m.robust("CR0", cluster="plate", crossed=True)
    >>> caught[0].category.__name__
    'ClusterWarning'
    """
