"""Parameters of the residuals' covariance given by a user: read, and made into R."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from mixedeffects.base.options import plain
from mixedeffects.covariance.random_effects import RandomEffectsCovariance
from mixedeffects.covariance.residual import ResidualCovariance
from mixedeffects.covariance.varcorr import VarCorr
from mixedeffects.errors import ModelError
from mixedeffects.fitting.residual_parameters import ResidualParameter
from mixedeffects.frame.residual_term import ResidualTerm, VarianceTerm

__all__ = ["GivenResidual", "read_residual_values", "structure_text", "with_sigma"]

#: Sigma and a standard deviation that is the same number, relative to it.
_SAME = 1e-8


@dataclass(frozen=True, eq=False)
class GivenResidual:
    """What a user has given of R.

    Attributes
    ----------
    values : mapping of str to float
        By the labels in ``m.R.parameters``.
    name : str
        The argument they come from.
    residual, variance : str
        What the fit had that they come from; empty where they come from no fit.
    term : ResidualTerm or None
        That of the fit, where it is known.
    """

    values: Mapping[Any, Any] = field(default_factory=dict)
    name: str = "R"
    residual: str = ""
    variance: str = ""
    term: ResidualTerm | None = None

    def for_design(
        self, term: ResidualTerm | None, variance: VarianceTerm | None
    ) -> Mapping[Any, Any]:
        """The values, for a design with this structure.

        R of a fit may have standard deviations and correlations of times and levels that the design
        does not have.

        Raises
        ------
        ModelError
            If they are those of another structure.
        """
        # Covariances of random effects alone say whose they are, and go with any structure.
        is_of_fit = bool(self.residual or self.variance) and bool(self.values)
        if term is None and variance is None:
            self._refuse_without_structure()
        elif is_of_fit and self._is_of_another(term, variance):
            raise ModelError(
                f"{self.name} is of a fit with {self._written()}, and the design has "
                f"{structure_text(term, variance)}. Give the parameters by name, such as "
                "R={'cor': 0.5}, or the structure of the fit."
            )
        elif is_of_fit and _counts_other_steps(self.term, term):
            assert term is not None
            raise ModelError(
                f"The steps of `{term.text}` in the design are not those of the fit that "
                f"{self.name} is of: a step would be another length of time. Give the parameters "
                "by name, or make the position a categorical with the times of the fit."
            )
        return self.values

    def _is_of_another(self, term: ResidualTerm | None, variance: VarianceTerm | None) -> bool:
        if _kind(self.residual) != ("" if term is None else term.kind):
            return True
        if bool(self.variance) != (variance is not None):
            return True
        own = self.term
        return own is not None and term is not None and own.homogeneous != term.homogeneous

    def of_labels(self, parameters: Sequence[ResidualParameter]) -> dict[Any, Any]:
        """The values, less those of times and levels of a fit that the design does not have."""
        labels = {each.label for each in parameters}
        if self.name != "R" or not (self.residual or self.variance):
            return dict(self.values)
        heads = ("Std.Dev.", "cor ")
        return {
            key: value
            for key, value in self.values.items()
            if key in labels or not str(key).startswith(heads)
        }

    def replaced_by(self, given: GivenResidual) -> GivenResidual:
        """With other values of the parameters that are given."""
        return replace(self, values=dict(self.values) | dict(given.values))

    def less_deviations(self) -> GivenResidual:
        """Without the standard deviations."""
        kept = {k: v for k, v in self.values.items() if not str(k).startswith("Std.Dev.")}
        return replace(self, values=kept)

    def _refuse_without_structure(self) -> None:
        if self.residual or self.variance:
            here, components = "" if self.name == "R" else ", R=m.R", self.name.replace("R", "G")
            raise ModelError(
                f"{self.name} is of a fit with {self._written()}, and without these arguments the "
                "errors of the design are independent, of one variance. Write "
                f"{self._written()}{here} too; or, if that is meant, {components}=dict(m.G) "
                "and sigma=m.sigma."
            )
        odd = [key for key in self.values if key != "Std.Dev."]
        if odd:
            raise ModelError(
                f"R names {odd[0]!r:.60}, and the errors of the design are independent, of one "
                "variance. Say what they are with residual= or variance=, such as "
                "residual='ar1(week | id)'."
            )

    def _written(self) -> str:
        parts = []
        if self.residual.startswith("known("):
            parts.append("residual=me.known(...)")
        elif self.residual:
            parts.append(f"residual={self.residual!r}")
        if self.variance:
            parts.append(f"variance={self.variance!r}")
        return ", ".join(parts)


def read_residual_values(R: Any, G: Any) -> GivenResidual:
    """What is given of R, by itself or by the variance components of a fit.

    Parameters
    ----------
    R : mapping of str to float, Series, ResidualCovariance or None
        Parameters by name, or those of a fit.
    G : object
        Variance components; a `VarCorr` has those of the residuals too, and G of a fit says what
        residuals it goes with.

    Raises
    ------
    ModelError
        If R is something else, or names a parameter twice.
    """
    if R is None:
        if not isinstance(G, (VarCorr, RandomEffectsCovariance)):
            return GivenResidual()
        residuals = G.residuals if isinstance(G, VarCorr) else ()
        values = {each.label: each.value for each in residuals}
        own = G._residual_arguments
        return GivenResidual(values, "G", own.get("residual", ""), own.get("variance", ""))
    if isinstance(R, ResidualCovariance):
        values = dict(R.parameters)
        if R._residual is None:
            return GivenResidual(values)
        term, variance = R._residual.term, R._residual.variance
        return GivenResidual(
            values,
            residual="" if term is None else term.text,
            variance="" if variance is None else variance.text,
            term=term,
        )
    if isinstance(R, pd.Series):
        if R.index.has_duplicates:
            twice = R.index[R.index.duplicated()][0]
            raise ModelError(f"R names {twice!r:.60} twice.")
        return GivenResidual(dict(R))
    if isinstance(R, Mapping):
        return GivenResidual(dict(R))
    raise ModelError(
        "R must be a dict from names of parameters to numbers, such as {'cor': 0.5}, or m.R of a "
        f"fit; not {R!r:.60}."
    )


def with_sigma(
    given: Mapping[Any, Any],
    parameters: Sequence[ResidualParameter],
    sigma: float | None,
    otherwise: float | None,
) -> dict[Any, Any]:
    """The values with sigma as the standard deviation, where none is given.

    Parameters
    ----------
    given : mapping of str to float
        By label.
    parameters : sequence of ResidualParameter
        Those there are; the first is the standard deviation that sigma is.
    sigma, otherwise : float or None
        What a user gave, and what is taken if nothing is given.

    Raises
    ------
    ModelError
        If both are given and differ.
    """
    out = {key: plain(value) for key, value in given.items()}
    # A standard deviation that a fit has not, since there is no row for it.
    out = {key: own for key, own in out.items() if not (isinstance(own, float) and np.isnan(own))}
    first, labels = parameters[0].label, [each.label for each in parameters if each.kind == "sd"]
    if sigma is not None and isinstance(out.get(first), (int, float)):
        if abs(float(out[first]) - sigma) > _SAME * sigma:
            raise ModelError(
                f"sigma is {sigma:g} and R[{first!r}] is {float(out[first]):g}, which are the same "
                "standard deviation; leave one of them out."
            )
    elif sigma is not None:
        out[first] = sigma
    elif otherwise is not None and not any(label in out for label in labels):
        out[first] = otherwise
    if not any(label in given for label in labels) and first in out:
        # One number for all, where times, strata or levels could have their own.
        out = {**dict.fromkeys(labels, out[first]), **out}
    return out


def structure_text(term: ResidualTerm | None, variance: VarianceTerm | None) -> str:
    """What the parameters are of, as it is written in messages."""
    if term is not None:
        return term.text
    return "independent errors" if variance is None else f"variance={variance.text!r}"


def _kind(text: str) -> str:
    return text.partition("(")[0].strip()


def _counts_other_steps(of_fit: ResidualTerm | None, term: ResidualTerm | None) -> bool:
    """Whether a step from one common time to the next is not what it was in the fit."""
    if of_fit is None or term is None or term.kind not in ("ar1", "toep"):
        return False
    if of_fit.times is None or term.times is None:
        return False
    at = of_fit.times.get_indexer(term.times)
    known = np.flatnonzero(at >= 0)
    return bool((np.diff(at[known]) != np.diff(known)).any())
