"""The record of a fit: what it knows, and the few quantities that everything else derives from.

Whoever computes something from a fit takes this record and nothing more. What takes long and is
asked for again is kept with it, by the function that computes it; see `once_per_fit`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Concatenate, Generic, NoReturn, ParamSpec, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.arrays import read_only
from mixedeffects.base.caching import cached_property
from mixedeffects.engine import CrossProducts, Optimum
from mixedeffects.engine.covariance_changes import fixed_effects_covariance
from mixedeffects.engine.factorisation import Factorisation
from mixedeffects.engine.parameters import T_to_theta
from mixedeffects.engine.residual_objective import ResidualEvaluation
from mixedeffects.errors import ModelError
from mixedeffects.fitting.modes import term_modes
from mixedeffects.fitting.request import LEFT_OUT, Request, with_data
from mixedeffects.frame.model_frame import ModelFrame
from mixedeffects.frame.without_rows import FrameWithoutRows
from mixedeffects.lazy.sums import RowsInTable

__all__ = [
    "Fit",
    "HoldsFit",
    "OncePerFit",
    "fit_of",
    "once_per_fit",
    "refuse_other_kinds",
]

Matrix = NDArray[np.float64]
Value = TypeVar("Value")
Arguments = ParamSpec("Arguments")


@dataclass(frozen=True, eq=False, repr=False)
class Fit:
    """What a fit knows.

    Attributes
    ----------
    frame : ModelFrame
        The rows used: response, fixed-effects matrix, random-effects terms and their labels.
    crossproducts : CrossProducts
        Their blocks, in the basis the model was fitted in.
    optimum : Optimum
        Where the search ended, and the evidence for it.
    reml : bool
        Whether the criterion is the restricted likelihood.
    request : Request
        What was asked for: the data as given and the options, for fitting again.
    remembered : dict
        What was worked out from the rows before they were left out; empty where they are there. See
        `once_per_fit`.
    is_as_requested : bool
        Whether the same request gives this fit again: no start was chosen, and no response put in
        place of that of the data. Not known of a stored fit.

    rows : RowsInTable, optional
        Where the rows stayed in a table of their engine: what further passes over it need. Not
        known of a stored fit.

    Notes
    -----
    Letters as in the literature: ``y = X beta + Z b + e`` with ``Var(b) = G = sigma^2 T T'``, block
    by block, and ``Var(e) = R``.
    """

    frame: ModelFrame
    crossproducts: CrossProducts
    optimum: Optimum
    reml: bool
    request: Request
    remembered: dict[Any, Any] = field(default_factory=dict)
    is_as_requested: bool = False
    rows: RowsInTable | None = None
    _kept: dict[Any, Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.optimum.term_names = tuple(term.group for term in self.frame.terms)

    def __getstate__(self) -> dict[str, Any]:
        own = ("frame", "crossproducts", "optimum", "reml", "request", "remembered")
        state = {name: getattr(self, name) for name in own}
        if self.rows is not None and isinstance(self.frame, FrameWithoutRows):
            # A table stays where it is.
            state["frame"] = self.frame.away_from_table()
            state["request"] = with_data(self.request, LEFT_OUT)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({"rows": None}, **state, _kept={})

    def __repr__(self) -> str:
        criterion = "REML" if self.reml else "maximum likelihood"
        return f"Fit({self.formula!r}, {self.nobs:,} rows, by {criterion}: {self.optimum.message})"

    #: Which record this is: what a pickle says, and what a user reads.
    kind = "linear"
    #: Whether tests of fixed effects have degrees of freedom, or are normal ones.
    has_degrees_of_freedom = True
    #: Whether the mean of the response is a function of the linear predictor other than itself.
    has_link = False
    #: Covariance matrices of the fixed effects for normal tests, and how a table names these.
    covariance_kinds: ClassVar[dict[str, str]] = {"model": "tests use the normal distribution"}

    # --- counts and names ----------------------------------------------------------------

    def __call__(self, *_arguments: Any, **_options: Any) -> NoReturn:
        """Refuse ``m.fit()``, which others write.

        Raises
        ------
        TypeError
            Always.
        """
        raise TypeError(
            "A model is fitted when me.lmer returns it, so there is no m.fit() to call; m.fit is "
            "the record of the fit. With other data: m.update(data=...)."
        )

    @property
    def formula(self) -> str:
        """The formula as given."""
        return self.frame.formula.text

    @property
    def nobs(self) -> int:
        """Number of rows used, n."""
        return self.frame.nobs

    @property
    def fixef_names(self) -> tuple[str, ...]:
        """Names of the fixed effects, length p."""
        return self.frame.fixef_names

    @property
    def ngroups(self) -> dict[str, int]:
        """Number of levels of each grouping factor, in lme4's term order."""
        return {term.group: term.n_levels for term in self.frame.terms}

    @property
    def n_parameters(self) -> int:
        """Number of parameters: fixed effects, covariance parameters, and sigma if not known."""
        is_known = self.crossproducts.known_variance is not None
        return len(self.fixef_names) + self.optimum.n_parameters + (not is_known)

    @property
    def residual(self) -> ResidualEvaluation | None:
        """Where residuals are correlated, or of several variances: their parameters and rows."""
        return self.optimum.residual

    # --- estimates -----------------------------------------------------------------------

    @property
    def factorisation(self) -> Factorisation:
        """The factor of the penalised system at the optimum."""
        return self.optimum.evaluation.factorisation

    @property
    def factorisation_at_modes(self) -> Factorisation:
        """The factor from which the conditional covariances of the random effects come."""
        return self.factorisation

    @property
    def residual_sigma(self) -> float | None:
        """Sigma beside the variances of the random effects; None where they have no residual."""
        return self.sigma

    @property
    def working_sigma(self) -> float:
        """Standard deviation of R at unit weight: sigma."""
        return self.sigma

    @property
    def working_weights(self) -> Matrix | None:
        """Weights in R: the prior ones."""
        return self.frame.weights

    @property
    def family_parameter(self) -> str | None:
        """Name of the parameter of the family, where there is one that is estimated."""
        return None

    @property
    def family_value(self) -> float | None:
        """The estimate of `family_parameter`."""
        return None

    @property
    def working_name(self) -> str:
        """What V and R are called beside their letters; nothing where they are the response's."""
        return ""

    @property
    def estimation(self) -> str:
        """By which criterion, in a word for tables."""
        return "REML" if self.reml else "ML"

    @property
    def family_estimate(self) -> tuple[str, float] | None:
        """Name and value of a parameter of the response's distribution beside sigma."""
        return None

    @cached_property
    def beta(self) -> Matrix:
        """Fixed effects, shape (p,), in units of y per unit of the column."""
        solution = self.factorisation.solution
        return read_only(self.crossproducts.basis.beta(solution.beta))

    @cached_property
    def sigma(self) -> float:
        """Residual standard deviation at unit prior weight, in units of the response."""
        return self.crossproducts.basis.sigma(float(np.sqrt(self.optimum.evaluation.sigma2)))

    @cached_property
    def T(self) -> list[Matrix]:
        """Relative covariance factor of each term, lower triangular, (k, k)."""
        basis = self.crossproducts.basis
        return read_only([basis.relative_factor(t, T) for t, T in enumerate(self.optimum.T)])

    @property
    def theta(self) -> Matrix:
        """Their lower entries, shape (m,), in lme4's order."""
        return T_to_theta(self.T)

    @cached_property
    def G_blocks(self) -> list[Matrix]:
        """Covariance matrix of the effects of one level of each term, (k, k)."""
        return read_only([self.sigma**2 * (T @ T.T) for T in self.T])

    @cached_property
    def vcov(self) -> Matrix:
        """Covariance matrix of the fixed effects with V taken as known, shape (p, p)."""
        return read_only(fixed_effects_covariance(self.factorisation, self.sigma))

    def fixed_covariance(self, kind: str) -> Matrix:
        """Covariance matrix of the fixed effects by one of `covariance_kinds`, shape (p, p)."""
        assert kind == "model"
        return self.vcov

    @cached_property
    def modes(self) -> list[Matrix]:
        """Conditional modes of the random effects of each term, (l, k), in units of y."""
        return read_only(term_modes(self.factorisation))

    # --- the response and its mean -------------------------------------------------------

    def residuals_at(self, eta: Matrix) -> Matrix:
        """Residuals about a linear predictor on its own scale, shape (n,)."""
        return np.asarray(self.frame.y - eta)

    @property
    def fixed_part(self) -> Matrix:
        """``X beta`` plus the offset, shape (n,)."""
        fixed: Matrix = self.frame.X @ self.beta
        return fixed if self.frame.offset is None else fixed + self.frame.offset

    # --- the criterion -------------------------------------------------------------------

    @cached_property
    def criterion(self) -> float:
        """REML criterion, or -2 log-likelihood; constants included."""
        A = self.crossproducts
        return self.optimum.evaluation.deviance + A.basis.deviance_offset(A.n, A.p, self.reml)

    @property
    def approximation(self) -> str:
        """How the likelihood is approximated; nothing where it is exact."""
        return ""

    @property
    def loglik(self) -> float:
        """Log-likelihood (restricted for a REML fit)."""
        return -0.5 * self.criterion

    @property
    def aic(self) -> float:
        """Akaike's information criterion."""
        return self.criterion + 2.0 * self.n_parameters

    @property
    def bic(self) -> float:
        """Schwarz's information criterion."""
        return self.criterion + float(np.log(self.nobs)) * self.n_parameters

    @property
    def df_resid(self) -> int:
        """Residual degrees of freedom, ``nobs - n_parameters``."""
        return self.nobs - self.n_parameters


class HoldsFit(Protocol):
    """What a user holds: a model made of a fit, such as `LinearMixedModel`."""

    def __init__(self, fit: Fit) -> None:
        """A model of a fit."""

    @property
    def fit(self) -> Fit:
        """The record."""
        ...


def fit_of(model: Any, what: str, *, any_kind: bool = False) -> Fit:
    """The record in what a user holds.

    Parameters
    ----------
    model : LinearMixedModel, GeneralizedLinearMixedModel or Fit
        What was given.
    what : str
        What the message calls it.
    any_kind : bool
        Whether it may be another than that of a linear mixed model.

    Raises
    ------
    ModelError
        If it is no fitted model, or not of a kind that may be.
    """
    held = model if isinstance(model, Fit) else getattr(model, "fit", None)
    if not isinstance(held, Fit):
        shown = repr(model)
        # A table is told by its kind, not by the beginning of its rows.
        shown = f"a {type(model).__name__}" if "\n" in shown else f"{shown:.60}"
        raise ModelError(f"{what} must be a fitted model, not {shown}.")
    if not any_kind:
        refuse_other_kinds(held, what)
    return held


def refuse_other_kinds(fit: Fit, what: str) -> None:
    """Say that something takes fits of linear mixed models only, so far.

    Raises
    ------
    ModelError
        If the fit is one of another kind.
    """
    if fit.kind != "linear":
        raise ModelError(
            f"{what} must be a linear mixed model so far: this is a {fit.kind} one, for which the "
            "answer would be wrong."
        )


class OncePerFit(Generic[Arguments, Value]):
    """A function decorated by `once_per_fit`."""

    def __init__(self, name: str, function: Callable[Concatenate[Fit, Arguments], Value]) -> None:
        self.name, self._function = name, function
        functools.update_wrapper(self, function)

    def __call__(self, fit: Fit, *arguments: Arguments.args, **options: Arguments.kwargs) -> Value:
        """The value, computed the first time."""
        key = self.key(*arguments, **options)
        for known in (fit.remembered, fit._kept):
            if key in known:
                return known[key]  # type: ignore[no-any-return]
        value = fit._kept[key] = self._function(fit, *arguments, **options)
        return value

    def key(self, *arguments: Any, **options: Any) -> tuple[Any, ...]:
        """Under what the value is kept."""
        return (self.name, *arguments, *options.items())

    def is_known(self, fit: Fit) -> bool:
        """Whether it has been computed, with no further arguments."""
        return (self.name,) in fit.remembered or (self.name,) in fit._kept


def once_per_fit(
    name: str,
) -> Callable[[Callable[Concatenate[Fit, Arguments], Value]], OncePerFit[Arguments, Value]]:
    """Decorator for what is computed from a fit, and further arguments, once and kept with it.

    Parameters
    ----------
    name : str
        What it is called among what a fit without its rows remembers, in every version.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
    >>> @once_per_fit("number of levels")
    ... def number_of_levels(fit):
    ...     print("counted")
    ...     return sum(term.n_levels for term in fit.frame.terms)
    >>> number_of_levels(m.fit), number_of_levels(m.fit)
    counted
    (6, 6)
    """
    return lambda function: OncePerFit(name, function)
