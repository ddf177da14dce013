"""Where a search stopped and what is to be said of it, whatever the criterion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.arrays import ReadOnlyArrays
from mixedeffects.engine.parameters import n_parameters

if TYPE_CHECKING:
    from mixedeffects.engine.crossproducts import CrossProducts
    from mixedeffects.engine.parameterisation import Parameterisation

__all__ = ["SMALL_GRADIENT", "FoundOptimum", "is_interior", "relative_gradient", "verdict"]

Matrix = NDArray[np.float64]

#: Relative gradient of an optimum.
SMALL_GRADIENT = 1e-5
#: Relative score on the null space that is not negative.
_NEGATIVE = -1e-6


def relative_gradient(gradient: Matrix, scale: Matrix | float, value: float) -> float:
    """Largest ``|g_j| scale_j`` over ``max(|d|, 1)``, d the value of the criterion."""
    return float((np.abs(gradient) * scale).max(initial=0.0) / max(abs(value), 1.0))


def is_interior(null_score: float | None) -> bool:
    """Whether no direction of added variance lowers the criterion; see `Certificate`."""
    return null_score is None or null_score > _NEGATIVE


def verdict(
    stopped: str,
    *,
    spent: int,
    own: int,
    at_rest: bool,
    interior: bool,
    relative: float,
    singular: bool,
    residual_vanishes: bool = False,
) -> str:
    """How a search ended, in words.

    Parameters
    ----------
    stopped : str
        What the search itself says.
    spent, own : int
        Evaluations in all, and those to count where it converged.
    at_rest, interior : bool
        Whether nothing is left to gain, by moving and by adding variance.
    relative : float
        The relative gradient.
    singular : bool
        Whether some direction of random effects has no variance.
    residual_vanishes : bool
        Whether the criterion has its infimum where the residual variance goes to zero.
    """
    if stopped == "evaluations":
        return f"stopped after {spent} evaluations without converging"
    if not at_rest:
        return f"stopped where the relative gradient is still {relative:.1e}"
    if not interior:
        return "stopped at a singular covariance although adding variance lowers the deviance"
    where = ", at a singular covariance" if singular else ""
    where += ", where the residual variance goes to zero" if residual_vanishes else ""
    return f"converged in {own} evaluations{where}"


@dataclass(eq=False, repr=False, kw_only=True)
class FoundOptimum(ReadOnlyArrays):
    """Where a search stopped, and why; for the attributes see `Optimum`."""

    evaluations: int
    iterations: int
    gradient_norm: float
    relative_gradient: float
    predicted_decrease: float
    null_score: float | None
    singular: bool
    converged: bool
    message: str
    path: tuple[float, ...]
    T: tuple[Matrix, ...]
    term_names: tuple[str, ...] = ()
    parameterisation: Parameterisation | None = None
    eta: Matrix | None = None
    residual_vanishes: bool = False
    null_directions: Matrix | None = None
    undetermined: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    observed: bool = False
    search_evaluations: int = 0
    starts: int = 1
    agreed: int = 1
    unbounded: bool = False
    limits: tuple[str, ...] = ()

    @property
    def _blocks(self) -> CrossProducts:
        """Cross-products with the factors of the model, in the order of their elimination."""
        raise NotImplementedError

    @property
    def has_rivals(self) -> bool:
        """Whether some start led elsewhere: then other responses are to be searched as well."""
        return self.agreed < self.starts

    @property
    def restart(self) -> tuple[Matrix, ...] | None:
        """Factors from which to fit another response or criterion, None to start afresh.

        A singular optimum is a stationary point for any response: a search would not leave it,
        unless it is one of covariance structures, which looks for ways off the boundary.
        """
        return None if self.singular and self.parameterisation is None else self.T

    @property
    def n_parameters(self) -> int:
        """Number of parameters of the random effects' covariances, sigma not counted."""
        if self.parameterisation is not None:
            return self.parameterisation.n_parameters
        return n_parameters([len(T) for T in self.T])

    @property
    def variance_directions(self) -> list[Matrix | None] | None:
        """Per term, the directions a structure leaves its covariance; None: all directions."""
        if self.parameterisation is None or self.eta is None:
            return None
        return self.parameterisation.variance_directions(self.eta)

    @property
    def structure(self) -> tuple[str, ...]:
        """How the random effects are eliminated, chosen by predicted work; one line a stage."""
        names = self.term_names or tuple(f"term {t}" for t in range(len(self.T)))
        return self._blocks.structure(names)

    def _further_lines(self) -> list[str]:
        """What else is to be shown of this kind of optimum."""
        return []

    def __repr__(self) -> str:
        lines = [
            f"Optimum: {self.message}",
            f"  criterion    {self.path[-1]:.6f}, from {self.path[0]:.6f} "
            f"in {self.iterations} steps",
            f"  gradient     largest entry {self.gradient_norm:.1e}, "
            f"relative {self.relative_gradient:.1e}",
            f"  still to go  {self.predicted_decrease:.1e} predicted",
        ]
        if self.starts > 1:
            lines.append(
                f"  starts       {self.agreed} of {self.starts} led here, "
                f"{self.evaluations:,} evaluations in all"
            )
        if self.null_score is not None:
            lines.append(f"  boundary     score on the null space {self.null_score:.1e}")
        lines += [f"  no maximum   {limit}" for limit in self.limits]
        lines += self._further_lines()
        heads = ["  elimination  ", *[" " * 15] * len(self.structure)]
        lines += [head + line for head, line in zip(heads, self.structure, strict=False)]
        return "\n".join(lines)
