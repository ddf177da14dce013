"""What every fitted model holds: the fit, and what was fitted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from mixedeffects.engine import Optimum
from mixedeffects.errors import Interrupted
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.searching import UnfinishedFit
from mixedeffects.frame.model_frame import Dropped, ModelFrame

__all__ = ["Held", "OfModel", "held_by"]

Model = TypeVar("Model", bound="Held")


def held_by(kind: type[Model], fit: Callable[[], Fit]) -> Model:
    """A model of that kind of the fit that is made; so is what is left after Ctrl-C resumed."""
    try:
        return kind(fit())
    except Interrupted as stopped:
        if isinstance(stopped.partial, UnfinishedFit):
            stopped.partial = stopped.partial.then(kind)
        raise


@dataclass(frozen=True)
class OfModel:
    """A user's function of a model, as one of its fit.

    Attributes
    ----------
    function : callable
        Of a model.
    kind : type
        Class of the model.
    """

    function: Callable[[Any], Any]
    kind: type[Held]

    def __call__(self, fit: Fit) -> Any:
        """The function of the model that holds the fit."""
        return self.function(self.kind(fit))


class Held:
    """What every fitted model holds: the fit, and what was fitted.

    Parameters
    ----------
    fit : Fit
        The record.
    """

    def __init__(self, fit: Fit) -> None:
        self._fit = fit

    @property
    def fit(self) -> Fit:
        """What the fit knows, from which everything here is computed; see `Fit`.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> m.fit.crossproducts.n, m.fit.beta
        (30, array([1527.5]))
        """
        return self._fit

    def __copy__(self) -> Self:
        """Another object with the same parts."""
        out = object.__new__(type(self))
        out.__dict__.update(self.__dict__)
        return out

    @property
    def frame(self) -> ModelFrame:
        """What the formula made of the data; a `ModelFrame`."""
        return self.fit.frame

    @property
    def data_name(self) -> str | None:
        """Name of the data, where they have one."""
        return self.fit.request.data_name

    @property
    def optimum(self) -> Optimum:
        """How the optimiser got there and the evidence for it; an `Optimum`."""
        return self.fit.optimum

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
        return self.fit.ngroups

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

    def _wrapped(self, fit: Callable[[], Fit]) -> Self:
        return held_by(type(self), fit)
