"""The response of a generalized model, and what its log-likelihood says row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CHUNK",
    "NONE",
    "Array",
    "Derivatives",
    "Response",
    "RowTerms",
    "compiled_terms",
    "row_terms",
]

Array = NDArray[np.float64]

#: Rows whose terms are computed together: fewer cost calls, more cost memory traffic.
CHUNK = 8192

#: What a kernel takes for an array that there is not.
NONE: Array = np.empty(0)


@dataclass(frozen=True, eq=False)
class Response:
    """What the rows of a generalized model are about.

    Parameters
    ----------
    y : ndarray, shape (n,)
        The response; the proportion of successes for binomial rows.
    trials : ndarray, shape (n,), optional
        How many trials each proportion is of; None where every row is one trial, or has none.
    weights : ndarray, shape (n,), optional
        Each multiplies the log-likelihood of its row.

    Examples
    --------
    >>> import numpy as np
    >>> herd = Response(np.array([0.25, 0.5]), trials=np.array([8.0, 2.0]))
    >>> herd.n, herd.binary
    (2, False)
    """

    y: Array
    trials: Array | None = None
    weights: Array | None = None
    _remembered: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.y)

    @property
    def binary(self) -> bool:
        """Whether every row is one trial, a success or a failure."""
        return self.trials is None and bool(
            self.remember("binary", lambda: np.all((self.y == 0.0) | (self.y == 1.0)))
        )

    def remember(self, what: str, compute: Callable[[], Any]) -> Any:
        """What depends on the response alone, computed when it is asked for the first time."""
        if what not in self._remembered:
            self._remembered[what] = compute()
        return self._remembered[what]

    def take(self, rows: NDArray[Any] | slice) -> Response:
        """Some of the rows, by their positions, a mask or a slice."""
        return Response(
            self.y[rows],
            None if self.trials is None else self.trials[rows],
            None if self.weights is None else self.weights[rows],
        )

    def chunks(self) -> list[tuple[slice, Response]]:
        """The rows in parts that stay in the cache of a processor, each with what it remembers."""
        starts = range(0, self.n, CHUNK)
        parts = [slice(start, min(start + CHUNK, self.n)) for start in starts]
        out: list[tuple[slice, Response]] = self.remember(
            "chunks", lambda: [(part, self.take(part)) for part in parts]
        )
        return out

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_remembered": {}}


@dataclass(frozen=True, eq=False)
class RowTerms:
    """The log-likelihood of every row at a linear predictor, with its derivatives.

    Parameters
    ----------
    d : ndarray, shape (n,)
        -2 log-likelihood with all constants; infinite where the mean is outside its range, and
        there everything else is 0.
    r, W, W1, W2 : ndarray, shape (n,)
        ``-d'/2``, ``d''/2`` (the observed weight) and the weight's first and second derivative by
        the linear predictor; `W2` is None if it was not asked for.
    d_phi, r_phi, W_phi, d_phiphi : ndarray, shape (n,)
        Derivatives by the family parameter on the scale of its search; None without one.
    """

    d: Array
    r: Array
    W: Array
    W1: Array
    W2: Array | None = None
    d_phi: Array | None = None
    r_phi: Array | None = None
    W_phi: Array | None = None
    d_phiphi: Array | None = None


@dataclass(frozen=True, eq=False)
class Derivatives:
    """The log-likelihood of every row, not yet weighted, and its derivatives.

    Parameters
    ----------
    by_eta : tuple of ndarray, shape (n,)
        Log-likelihood and its first, second, third and, if asked for, fourth derivative by the
        linear predictor.
    by_phi : tuple of ndarray, shape (n,), optional
        Derivatives by phi; by phi and once, and twice, the linear predictor; twice by phi.
    """

    by_eta: tuple[Array, ...]
    by_phi: tuple[Array, Array, Array, Array] | None = None


def row_terms(derivatives: Derivatives, weights: Array | None) -> RowTerms:
    """Weighted, on the scale of the deviance, and infinite where the mean is not valid."""
    double, once, minus = _factors(weights)
    by_eta = derivatives.by_eta
    d, r, W, W1 = double * by_eta[0], once * by_eta[1], minus * by_eta[2], minus * by_eta[3]
    W2 = minus * by_eta[4] if len(by_eta) > 4 else None
    by_phi: tuple[Array | None, ...] = (None, None, None, None)
    if derivatives.by_phi is not None:
        d_phi, r_phi, W_phi, d_phiphi = derivatives.by_phi
        by_phi = (double * d_phi, once * r_phi, minus * W_phi, double * d_phiphi)
    # A sum is infinite or NaN if any of its terms is: one pass in place of a mask.
    if not np.isfinite(d.sum()):
        outside = ~np.isfinite(d)
        d[outside] = np.inf
        for each in (r, W, W1, W2, *by_phi):
            if each is not None:
                each[outside] = 0.0
    return RowTerms(d, r, W, W1, W2, *by_phi)


def compiled_terms(
    kernel: Callable[..., None], response: Response, given: Sequence[Array], eta: Array, order: int
) -> RowTerms:
    """What a kernel writes for every row; `given` is what it reads before weights and eta."""
    n = response.n
    eta = np.ascontiguousarray(eta, dtype=np.float64)
    if len(eta) != n:
        raise ValueError(f"eta has {len(eta)} rows and the response {n}.")
    d, r, W, W1 = (np.empty(n) for _ in range(4))
    W2 = np.empty(n if order > 1 else 0)
    weights = NONE if response.weights is None else response.weights
    own = [np.ascontiguousarray(each, dtype=np.float64) for each in (*given, weights)]
    kernel(*own, eta, d, r, W, W1, W2)
    return RowTerms(d, r, W, W1, W2 if order > 1 else None)


def _factors(weights: Array | None) -> tuple[Any, Any, Any]:
    return (-2.0, 1.0, -1.0) if weights is None else (-2.0 * weights, weights, -weights)
