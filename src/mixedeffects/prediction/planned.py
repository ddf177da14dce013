"""V without a fit: for a planned design, or with published variance components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.habits import explained
from mixedeffects.base.warning import warn
from mixedeffects.covariance.components import check_sigma, read_components
from mixedeffects.covariance.given_residual import (
    GivenResidual,
    read_residual_values,
    structure_text,
    with_sigma,
)
from mixedeffects.covariance.gls import gls
from mixedeffects.covariance.marginal import MarginalCovariance, factorise
from mixedeffects.covariance.roots import covariance_root
from mixedeffects.covariance.structured_residual import StructuredResidual
from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.factorisation import Factorisation
from mixedeffects.engine.memory import RemainderTooLargeError
from mixedeffects.engine.residual_rows import ResidualRows
from mixedeffects.errors import DataWarning, ModelError
from mixedeffects.fitting.assembly import (
    assemble,
    covariance_structures,
    engine_terms,
    too_large,
)
from mixedeffects.fitting.residual_assembly import residual_design
from mixedeffects.fitting.residual_parameters import ResidualParameter
from mixedeffects.fitting.residual_values import engine_parameters, expected_parameters
from mixedeffects.frame import build_model_frame
from mixedeffects.frame.known_covariance import KnownCovariance, known_term
from mixedeffects.frame.model_frame import Dropped, ModelFrame, RandomTerm

__all__ = ["PlannedCovariance", "marginal_covariance", "planned_covariance"]

Matrix = NDArray[np.float64]


@explained
def marginal_covariance(
    formula: str,
    data: Any,
    *,
    G: Any = None,
    sigma: float | None = None,
    weights: Any = None,
    contrasts: dict[str, Any] | None = None,
    residual: Any = None,
    variance: str | None = None,
    R: Any = None,
) -> PlannedCovariance:
    """V of a design with given variance components, without a response and without a fit.

    Parameters
    ----------
    formula : str
        As for `lmer`; the response may be left out, ``"~ x + (x | g)"``, and is not read if given.
        With ``residual`` or ``variance`` it may have no random effects.
    data : DataFrame
        The design: the predictors and grouping factors of the rows, as for `lmer`.
    G : dict, RandomEffectsCovariance or VarCorr
        For each random-effects term, by its label or the name of its grouping factor, the
        covariance matrix of its effects: a variance where the term has one column, else a k x k
        array in the order of the columns, or a k x k DataFrame labelled by them in any order. In
        squared units of the response; a singular matrix is allowed. ``m.G`` and ``m.varcorr`` of a
        fitted model will do; with ``residual`` and ``variance``, if it has them. Left out where the
        formula has no random effects.
    sigma : float, optional
        Residual standard deviation at unit weight, in units of the response. May be left out where
        G is a VarCorr, which has one, or R has ``Std.Dev.``. Alone it is the standard deviation at
        all times and levels.
    weights : str or array, shape (n,), optional
        Prior weights: the residual variance of row i is ``sigma^2 / w_i``.
    contrasts : dict, optional
        Coding of categorical columns, as for `lmer`.
    residual : str or KnownCovariance, optional
        How residuals are correlated, as for `lmer`: ``"ar1(week | id)"``.
    variance : str, optional
        What their standard deviation follows, as for `lmer`: ``"sex"``.
    R : dict of str to float, Series or ResidualCovariance, optional
        The parameters of ``residual`` and ``variance`` by the names in ``m.R.parameters``:
        ``{"cor": 0.5}``, ``{"range": 3}``, ``{"cor lag 1": 0.5, "cor lag 2": 0.3}``,
        ``{"Std.Dev. VIS1": 9, ...}``; or ``m.R`` of a fitted model with such a structure. May be
        left out where G is the VarCorr of one.

    Returns
    -------
    PlannedCovariance
        A `MarginalCovariance` that also has the model matrix ``X`` and the covariance matrix
        ``vcov()`` the fixed effects will have.

    Raises
    ------
    FormulaError, DataError
        As for `lmer`.
    ModelError
        If G lacks a term or names one that is not in the formula, a matrix has the wrong size, is
        not symmetric, not positive semidefinite or not of its term's structure, or sigma is not
        positive; if R lacks a parameter or names another, a value is out of its range, or the
        correlations are not those of any residuals; or if G or R is of a fit with ``residual`` or
        ``variance`` and these are left out.

    References
    ----------
    Snijders, T. A. B. and Bosker, R. J. (1993). Standard errors and sample sizes for two-level
    research. Journal of Educational Statistics 18, 237-259.

    Examples
    --------
    A trial in 20 schools with 15 pupils each, half of the schools treated; 5 % of the variance is
    between schools. Standard error of the treatment effect, in standard deviations of a pupil:

    >>> import numpy as np
    >>> import pandas as pd
    >>> import mixedeffects as me
    >>> design = pd.DataFrame({"school": np.repeat(np.arange(20), 15)})
    >>> design["treated"] = design["school"] % 2
    >>> V = me.marginal_covariance(
    ...     "~ treated + (1 | school)", design, G={"school": 0.05}, sigma=0.95**0.5
    ... )
    >>> np.sqrt(np.diag(V.vcov())).round(3)
    array([0.106, 0.151])

    which is the textbook's ``sqrt(4 (0.05 / 20 + 0.95 / 300))`` for the treatment.

    A trial with four visits of 60 patients in two arms, whose errors are correlated from visit to
    visit:

    >>> visits = pd.DataFrame({"id": np.repeat(np.arange(60), 4), "visit": np.tile(range(4), 60)})
    >>> visits["arm"] = visits["id"] % 2
    >>> V = me.marginal_covariance(
    ...     "~ arm", visits, residual="ar1(visit | id)", R={"cor": 0.7}, sigma=10
    ... )
    >>> V.R
    R: 240 x 240, 60 blocks, ar1(visit | id), sd 10, cor 0.7
    >>> np.sqrt(np.diag(V.vcov())).round(2)
    array([1.48, 2.09])
    """
    given = read_residual_values(R, G)
    return planned_covariance(
        formula,
        data,
        G=G,
        sigma=sigma,
        otherwise=getattr(G, "sigma", None),
        weights=weights,
        contrasts=contrasts,
        residual=residual,
        variance=variance,
        given=given,
    )


def planned_covariance(
    formula: str,
    data: Any,
    *,
    G: Any,
    sigma: float | None,
    otherwise: float | None,
    weights: Any,
    contrasts: dict[str, Any] | None,
    residual: Any,
    variance: str | None,
    given: GivenResidual,
) -> PlannedCovariance:
    """V of a design, from parameters of the residuals that have been read.

    Parameters
    ----------
    formula, data, G, sigma, weights, contrasts, residual, variance
        As for `marginal_covariance`.
    otherwise : float or None
        The residual standard deviation where neither ``sigma`` nor ``given`` has one.
    given : GivenResidual
        Parameters of the residuals.
    """
    is_known = isinstance(residual, KnownCovariance)
    frame = build_model_frame(
        formula,
        data,
        weights=weights,
        contrasts=contrasts,
        design_only=True,
        residual=None if is_known else residual,
        variance=variance,
        without_random=is_known,
    )
    if isinstance(residual, KnownCovariance):
        n_rows = frame.nobs + len(frame.dropped.rows)
        of_rows = known_term(residual, frame.index, frame.positions, n_rows)
        frame = replace(frame, residual=of_rows)
    for sentence in frame.dropped.lost:
        warn(sentence, DataWarning)
    blocks = read_components(frame.terms, {} if G is None and not frame.terms else G)
    check_structures(frame.terms, blocks)
    scale = None if sigma is None else check_sigma(sigma)
    values = given.for_design(frame.residual, frame.variance)
    if frame.residual is None and frame.variance is None:
        if given.name == "R":
            scale = _sigma_of(values, scale)
        scale = otherwise if scale is None else scale
        if scale is None:
            raise ModelError(
                "sigma, the residual standard deviation, is needed: G has the random effects alone."
            )
        # V depends on neither y nor X, so the engine gets none.
        A = assemble(np.zeros(frame.nobs), np.zeros((frame.nobs, 0)), frame.terms, frame.weights)
        return PlannedCovariance(frame, blocks, scale, _factorised(A, blocks, scale))
    return _structured(frame, blocks, given, scale, otherwise)


def _sigma_of(values: Mapping[Any, Any], sigma: float | None) -> float | None:
    """The standard deviation of independent errors, given as R."""
    own = ResidualParameter("sd", np.nan, is_sigma=True)
    (value,) = with_sigma(values, [own], sigma, None).values() or (None,)
    return None if value is None else check_sigma(value)


def _factorised(A: CrossProducts, blocks: Sequence[Matrix], sigma: float) -> Factorisation:
    factors = [
        A.basis.engine_factor(t, _square_root(block) / sigma) for t, block in enumerate(blocks)
    ]
    return factorise(A, factors)


def _structured(
    frame: ModelFrame,
    blocks: Sequence[Matrix],
    given: GivenResidual,
    sigma: float | None,
    otherwise: float | None,
) -> PlannedCovariance:
    """V where errors are correlated, or of several variances."""
    term, variance = frame.residual, frame.variance
    # With a sigma D is one where its columns are zero, whatever the sigma.
    design = residual_design(frame, 1.0)
    assert design is not None
    y, X = np.zeros(frame.nobs), np.zeros((frame.nobs, 0))
    try:
        rows = ResidualRows(y, X, engine_terms(frame.terms), design)
    except RemainderTooLargeError as error:
        raise too_large(frame.terms, error) from None
    model, what = rows.model, structure_text(term, variance)
    parameters = expected_parameters(model, term, variance)
    values = with_sigma(given.of_labels(parameters), parameters, sigma, otherwise)
    phi, scale = engine_parameters(model, parameters, variance, values, what)
    factorisation = _factorised(rows.at(phi).A, blocks, scale)
    R = StructuredResidual(model, phi, scale, rows.basis.weight_scale, term, variance)
    return PlannedCovariance(frame, blocks, scale, factorisation, R)


class PlannedCovariance(MarginalCovariance):
    """V of a design that has not been observed, made by `marginal_covariance`.

    All that `MarginalCovariance` does, and what the fixed effects of the design can be expected to
    be known to.

    Examples
    --------
    Sleep deprivation with the variances of the published study, but four days instead of ten:

    >>> import numpy as np
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> days = me.load_dataset("sleepstudy").query("Days < 4")
    >>> V = me.marginal_covariance("~ Days + (Days | Subject)", days, G=m.varcorr)
    >>> V.shape, V.X.shape
    ((72, 72), (72, 2))
    >>> np.sqrt(np.diag(V.vcov())).round(2), m.se.to_numpy().round(2)
    (array([7.71, 3.04]), array([6.82, 1.55]))
    """

    def __init__(
        self,
        frame: ModelFrame,
        blocks: Sequence[Matrix],
        sigma: float,
        factorisation: Factorisation,
        residual: StructuredResidual | None = None,
    ) -> None:
        super().__init__(
            frame.terms, blocks, sigma, frame.weights, factorisation, frame.index, residual
        )
        self._frame = frame

    @property
    def X(self) -> pd.DataFrame:
        """Fixed-effects model matrix, n x p, with the names of the coefficients."""
        names = list(self._frame.fixef_names)
        return pd.DataFrame(self._frame.X, index=self._index, columns=names)

    @property
    def dropped(self) -> Dropped:
        """Rows removed for missing values, columns of X removed for rank deficiency."""
        return self._frame.dropped

    def vcov(self) -> pd.DataFrame:
        """Covariance matrix of the fixed effects in this design, ``(X'V^-1X)^-1``.

        Returns
        -------
        DataFrame, p x p
            Of the generalized least-squares estimates with V known; the standard errors are the
            square roots of its diagonal.

        Raises
        ------
        ModelError
            If the formula has no fixed effects.

        Examples
        --------
        >>> import mixedeffects as me
        >>> batches = me.load_dataset("dyestuff")
        >>> V = me.marginal_covariance(
        ...     "~ 1 + (1 | Batch)", batches, G={"Batch": 1764.0}, sigma=49.5
        ... )
        >>> V.vcov().round(1)
                     (Intercept)
        (Intercept)        375.7
        """
        if not self._frame.fixef_names:
            raise ModelError("The formula has no fixed effects, so they have no covariance matrix.")
        return gls(self.X, np.zeros(self._n), self).vcov

    def _with(
        self, blocks: Sequence[Matrix], sigma: float, factorisation: Factorisation
    ) -> PlannedCovariance:
        R = self._residual
        other = None if R is None else R.divided_by((self.sigma / sigma) ** 2)
        return PlannedCovariance(self._frame, blocks, sigma, factorisation, other)


def check_structures(terms: Sequence[RandomTerm], blocks: Sequence[Matrix]) -> None:
    """Refuse a covariance matrix that is not of the structure the formula gives it."""
    structures = covariance_structures(terms) or (None,) * len(terms)
    for term, structure, block in zip(terms, structures, blocks, strict=True):
        if structure is None:
            continue
        nearest = structure.covariance(structure.nearest(block))
        off = float(np.abs(nearest - block).max())
        if off > 1e-6 * float(np.abs(block).max()):
            raise ModelError(
                f"The covariance matrix of {term.label!r} is not of the structure "
                f"`{term.structure}` that the formula gives it: an entry is off by {off:.3g}. "
                f"Correct the matrix, or write `(... | {term.group})` without the structure."
            )


def _square_root(G: Matrix) -> Matrix:
    """Square, ``root root' = G``; columns of zeros where G is singular."""
    root = covariance_root(G)
    return np.hstack([root, np.zeros((len(G), len(G) - root.shape[1]))])
