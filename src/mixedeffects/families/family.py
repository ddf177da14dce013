"""What a generalized model knows of the distribution of its response."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.options import checked_choice
from mixedeffects.errors import DataError, ModelError
from mixedeffects.families.jets import Jet
from mixedeffects.families.links import LINKS, Link
from mixedeffects.families.response import (
    CHUNK,
    Array,
    Derivatives,
    Response,
    RowTerms,
    row_terms,
)

__all__ = ["Family", "refuse_rows"]

_ROWS_SHOWN = 5


@dataclass(frozen=True, init=False, repr=False)
class Family:
    r"""A distribution with a link, by which a generalized model knows its response.

    A family of your own is a subclass in plain NumPy: it says its `name`, the names of the links
    that make sense (the first is the default), what its parameter is called if it has one, and
    `log_density` and `variance`. The derivatives that a fit needs, up to the fourth by the linear
    predictor, come from `log_density` itself, exactly; write it with NumPy's and SciPy's
    elementwise functions. For speed, or where a formula cancels far out, give `derivatives` too;
    `simulate` and `cdf` are needed only by what draws from the family or asks for quantile
    residuals.

    Parameters
    ----------
    link : str or Link, optional
        One of the names in `links`, or a Link of your own.

    Attributes
    ----------
    name : str
        What the family is called.
    link : Link
        The link.
    parameter_name : str or None
        ``"theta"``, ``"precision"`` or ``"dispersion"``: the parameter besides the mean. A fit
        searches for `phi`, the logarithm of a theta or precision, minus that of a dispersion.
    takes_trials : bool
        Whether a row is a proportion of successes, of one trial or several.

    Examples
    --------
    The geometric distribution, by its mean:

    >>> import numpy as np
    >>> from mixedeffects.families import Family, Response
    >>> class Geometric(Family):
    ...     name = "geometric"
    ...     links = ("log",)
    ...     mean_range = (0.0, np.inf)
    ...     discrete = True
    ...
    ...     def log_density(self, y, mu, phi, trials):
    ...         return y * np.log(mu) - (y + 1) * np.log1p(mu)
    ...
    ...     def variance(self, mu, phi=None):
    ...         return mu * (1 + mu)
    >>> Geometric()
    Family: geometric (link: log)
    >>> at = Geometric().rows(Response(np.array([0.0, 3.0])), np.log([1.0, 2.0]))
    >>> at.r.round(4).tolist(), at.W.round(4).tolist()
    ([-0.5, 0.3333], [0.25, 0.8889])
    """

    link: Link

    name: ClassVar[str] = ""
    links: ClassVar[tuple[str, ...]] = ("identity",)
    canonical_link: ClassVar[str | None] = None
    parameter_name: ClassVar[str | None] = None
    mean_range: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    discrete: ClassVar[bool] = False
    takes_trials: ClassVar[bool] = False

    def __init__(self, link: str | Link | None = None) -> None:
        if not isinstance(link, Link):
            name = self.links[0] if link is None else link
            link = LINKS[checked_choice(name, f"Link of the {self.name} family", self.links)]
        object.__setattr__(self, "link", link)

    def __repr__(self) -> str:
        return f"Family: {self.name} (link: {self.link.name})"

    # --- the parameter --------------------------------------------------------------------------

    @property
    def canonical(self) -> bool:
        """Whether observed and expected weights are the same."""
        return self.link.name == self.canonical_link

    @property
    def has_parameter(self) -> bool:
        """Whether a fit estimates a parameter besides the mean."""
        return self.parameter_name is not None

    def natural(self, phi: Any) -> Any:
        """The family's parameter, from where the search has it."""
        return np.exp(-phi) if self.parameter_name == "dispersion" else np.exp(phi)

    def search(self, value: Any) -> Any:
        """Where the search has a value of the family's parameter."""
        return -np.log(value) if self.parameter_name == "dispersion" else np.log(value)

    # --- the distribution -----------------------------------------------------------------------

    def log_density(self, y: Any, mu: Any, phi: Any, trials: Any) -> Any:
        """Logarithm of the density or probability of y, elementwise, with all constants.

        Parameters
        ----------
        y, mu : ndarray, shape (n,)
            Response and mean.
        phi : float or None
            The family parameter on the scale of the search: ``self.natural(phi)`` is its value.
        trials : ndarray, shape (n,), or None
            Of proportions.
        """
        raise self._lacks("log_density")

    def variance(self, mu: Any, phi: float | None = None) -> Any:
        """Variance of a row of weight 1 (of one trial) as a function of its mean."""
        raise self._lacks("variance")

    def simulate(
        self, generator: np.random.Generator, mu: Array, response: Response, phi: float | None
    ) -> Array:
        """A new response; its trials are those of `response`."""
        raise self._lacks("simulate")

    def cdf(
        self, y: Array, mu: Array, response: Response, phi: float | None, strict: bool = False
    ) -> Array:
        """Probability of a response up to y; below y if `strict`."""
        raise self._lacks("cdf")

    def _lacks(self, method: str) -> ModelError:
        return ModelError(
            f"The {self.name} family has no {method}(), which is needed here. Define it in "
            f"{type(self).__name__}, with the arguments of mixedeffects.families.Family.{method}."
        )

    # --- the rows -------------------------------------------------------------------------------

    def rows(
        self,
        response: Response,
        eta: Array,
        phi: float | None = None,
        order: int = 1,
        parameter: bool = True,
    ) -> RowTerms:
        """The log-likelihood of every row with its derivatives.

        Parameters
        ----------
        response : Response
            The response.
        eta : ndarray, shape (n,)
            Linear predictor.
        phi : float, optional
            The family parameter on the scale of the search.
        order : {1, 2}
            Derivatives of the weights: 2 gives W2 too.
        parameter : bool
            Whether the derivatives by phi are wanted, if there is a phi.

        Returns
        -------
        RowTerms
        """
        wanted = parameter and self.has_parameter
        compiled = self._compiled_rows(response, eta, order)
        if compiled is not None:
            return compiled
        with np.errstate(all="ignore"):
            if response.n <= CHUNK:
                return self._terms(response, eta, phi, order, wanted)
            names = ["d", "r", "W", "W1", *(["W2"] if order > 1 else [])]
            if wanted:
                names += ["d_phi", "r_phi", "W_phi", "d_phiphi"]
            out = {name: np.empty(response.n) for name in names}
            for part, of_part in response.chunks():
                terms = self._terms(of_part, eta[part], phi, order, wanted)
                for name, values in out.items():
                    values[part] = getattr(terms, name)
        return RowTerms(**out)

    def _compiled_rows(self, response: Response, eta: Array, order: int) -> RowTerms | None:
        """The terms by a compiled pass over the rows, where the family has one."""
        return None

    def _terms(
        self, response: Response, eta: Array, phi: float | None, order: int, parameter: bool
    ) -> RowTerms:
        return row_terms(self.derivatives(response, eta, phi, order, parameter), response.weights)

    def derivatives(
        self, response: Response, eta: Array, phi: float | None, order: int, parameter: bool
    ) -> Derivatives:
        """Unweighted log-likelihood of the rows and its derivatives; NaN where not defined.

        Of a family of your own they come from `log_density`; faster or more accurate formulas may
        take their place.
        """
        at = Jet.variable(eta)
        mu = self.link.inverse(at)
        jet = self.log_density(
            response.y, mu, Jet.variable(phi, 1) if parameter else phi, response.trials
        )
        value = np.where(self.valid(eta), jet.derivative(0), np.nan)
        by_eta = (value, *(jet.derivative(k) for k in range(1, order + 3)))
        if not parameter:
            return Derivatives(by_eta)
        by_phi = [np.broadcast_to(jet.derivative(i, j), value.shape) for i, j in _BY_PHI]
        return Derivatives(by_eta, (by_phi[0], by_phi[1], by_phi[2], by_phi[3]))

    def valid(self, eta: Array) -> NDArray[np.bool_]:
        """Whether the mean lies inside its range, row by row."""
        with np.errstate(all="ignore"):
            mu = self.link.inverse(eta)
        low, high = self.mean_range
        # Where a mean rounds to the end of its range the linear predictor is still valid.
        inside: NDArray[np.bool_] = (mu >= low) & (mu <= high) & self.link.valid(eta)
        return inside

    def deviance(self, response: Response, eta: Array, phi: float | None = None) -> Array:
        """-2 log-likelihood of every row, shape (n,)."""
        return self.rows(response, eta, phi, parameter=False).d

    def expected_weights(self, response: Response, eta: Array, phi: float | None = None) -> Array:
        """Expected second derivative of half the deviance by the linear predictor, shape (n,)."""
        with np.errstate(all="ignore"):
            out = self._information(response, eta, phi)
        if response.weights is not None:
            out = out * response.weights
        return np.where(np.isfinite(out), out, 0.0)

    def _information(self, response: Response, eta: Array, phi: float | None) -> Array:
        mu, slope = self.link.mean(eta, 1)
        information: Array = slope * slope / self.variance(mu, phi)
        return information if response.trials is None else information * response.trials

    # --- beginnings and ends of a fit -----------------------------------------------------------

    def check(self, response: Response, row_labels: Sequence[Any] | None = None) -> None:
        """Refuse a response outside the support.

        Raises
        ------
        DataError
            With the rows.
        """

    def start_mu(self, response: Response) -> Array:
        """Means to begin with, near the response and inside the range."""
        return response.y

    def start_phi(self, response: Response, mu: Array) -> float:
        """A first guess of phi at these means, by moments."""
        return 0.0

    def latent_variance(self, method: str, mu: Any, phi: float | None = None) -> Any:
        """The family's own variance on the scale of the link, for intraclass correlations and R2.

        Parameters
        ----------
        method : str
            ``"delta"``: the variance at `mu` over the squared derivative of the mean. Of families
            with a log link also ``"lognormal"`` and ``"trigamma"``, of binomial ones
            ``"theoretical"``.
        mu : float or ndarray
            Mean.
        phi : float, optional
            The family parameter on the scale of the search.

        References
        ----------
        Nakagawa, Johnson and Schielzeth (2017), J. R. Soc. Interface 14, 20170213.
        """
        known = self._latent_variances()
        checked_choice(method, f"Method for {self.name} with link {self.link.name},", list(known))
        return known[method](mu, phi)

    def _latent_variances(self) -> dict[str, Callable[[Any, float | None], Any]]:
        return {"delta": self._delta_variance}

    def _delta_variance(self, mu: Any, phi: float | None) -> Any:
        at = np.atleast_1d(np.asarray(mu, dtype=np.float64))
        slope = self.link.mean(np.asarray(self.link.link(at)), 1)[1]
        out = self.variance(at, phi) / slope**2
        return out if np.ndim(mu) else float(out[0])


_BY_PHI = ((0, 1), (1, 1), (2, 1), (0, 2))


def refuse_rows(
    bad: NDArray[np.bool_], values: Array, labels: Sequence[Any] | None, needed: str
) -> None:
    """Raise an error that lists the rows that are not what is needed.

    Raises
    ------
    DataError
        If there are any.
    """
    rows = np.flatnonzero(bad)
    if not rows.size:
        return
    shown = ", ".join(
        f"{row if labels is None else labels[row]} ({values[row]:.6g})"
        for row in rows[:_ROWS_SHOWN].tolist()
    )
    more = f" and {rows.size - _ROWS_SHOWN} more" if rows.size > _ROWS_SHOWN else ""
    raise DataError(f"{needed} Rows that are not so, with their values: {shown}{more}.")
