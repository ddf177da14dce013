"""The matrices of a fit: V, G, R and Z, each made once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.base.arrays import read_only
from mixedeffects.covariance.conditioned import conditioned_terms
from mixedeffects.covariance.design import random_effects_matrix, z_times
from mixedeffects.covariance.marginal import MarginalCovariance, factorise
from mixedeffects.covariance.random_effects import RandomEffectsCovariance
from mixedeffects.covariance.residual import ResidualCovariance
from mixedeffects.covariance.residual_blocks import residual_blocks
from mixedeffects.covariance.rows import Rows
from mixedeffects.covariance.structure import with_residual_factor
from mixedeffects.covariance.structured_residual import StructuredResidual
from mixedeffects.covariance.varcorr import VarCorr
from mixedeffects.display.residual_text import ResidualBlock
from mixedeffects.fitting.assembly import assemble
from mixedeffects.fitting.fit import Fit, once_per_fit
from mixedeffects.fitting.residual_parameters import reported_residual_parameters
from mixedeffects.frame.model_frame import RandomTerm

__all__ = [
    "G_of",
    "R_of",
    "V_of",
    "V_of_rows",
    "Z_of",
    "conditioned",
    "fitted_values",
    "residual_arguments",
    "residual_blocks_of",
    "structured_residual_of",
    "varcorr_of",
]

Matrix = NDArray[np.float64]


def structured_residual_of(fit: Fit) -> StructuredResidual | None:
    """R of a fit whose errors are correlated or of several variances; None where they are not."""
    if fit.residual is None:
        return None
    frame = fit.frame
    weight_scale = fit.factorisation.A.basis.weight_scale
    return StructuredResidual(
        fit.residual.model,
        fit.residual.phi,
        fit.sigma,
        weight_scale,
        frame.residual,
        frame.variance,
    )


@once_per_fit("V")
def V_of(fit: Fit) -> MarginalCovariance:
    """Marginal covariance matrix of the response, ``Z G Z' + R``."""
    return MarginalCovariance(
        fit.frame.terms,
        fit.G_blocks,
        fit.working_sigma,
        fit.working_weights,
        fit.factorisation,
        fit.frame.index,
        structured_residual_of(fit),
        fit.working_name,
    )


@once_per_fit("G")
def G_of(fit: Fit) -> RandomEffectsCovariance:
    """Covariance matrix of the random effects."""
    own = residual_arguments(fit)
    return RandomEffectsCovariance(fit.frame.terms, fit.G_blocks, own, fit.working_name)


@once_per_fit("R")
def R_of(fit: Fit) -> ResidualCovariance:
    """Covariance matrix of the residual errors."""
    frame, residual = fit.frame, structured_residual_of(fit)
    factors = with_residual_factor(frame.terms, frame.residual)
    rows = Rows(frame.index, factors, "R")
    return ResidualCovariance(
        fit.working_sigma, fit.working_weights, len(fit.frame.y), residual, rows, fit.working_name
    )


@once_per_fit("residual covariance")
def residual_blocks_of(fit: Fit) -> tuple[ResidualBlock, ...]:
    """What is printed of the residuals' covariance; nothing where they are independent."""
    residual = structured_residual_of(fit)
    return () if residual is None else residual_blocks(residual)


@once_per_fit("variance components")
def varcorr_of(fit: Fit) -> VarCorr:
    """Variances and correlations of the random effects."""
    residuals = reported_residual_parameters(fit)
    blocks = residual_blocks_of(fit)
    given = residual_arguments(fit)
    sigma = fit.residual_sigma
    return VarCorr(fit.frame.terms, fit.G_blocks, sigma, residuals, blocks, given)


def residual_arguments(fit: Fit) -> dict[str, str]:
    """What ``residual`` and ``variance`` of a fit were, as they would be written."""
    of = {"residual": fit.frame.residual, "variance": fit.frame.variance}
    return {name: part.text for name, part in of.items() if part is not None}


@once_per_fit("Z")
def Z_of(fit: Fit) -> scipy.sparse.csc_array:
    """Random-effects model matrix, sparse n x q; not to be written into."""
    return random_effects_matrix(fit.frame.terms, len(fit.frame.y))


def conditioned(fit: Fit) -> tuple[list[RandomTerm], list[Matrix]]:
    """Terms and covariance matrices for products of the two; see `conditioned_terms`."""
    terms, blocks, _ = conditioned_terms(
        fit.frame.terms, fit.G_blocks, fit.factorisation, fit.working_sigma
    )
    return terms, blocks


@once_per_fit("fitted values")
def fitted_values(fit: Fit) -> Matrix:
    """``X beta + Z b`` plus the offset, shape (n,), on the scale of the fit; read-only."""
    out = fit.fixed_part[:, None]
    for term, b in zip(fit.frame.terms, fit.modes, strict=True):
        z_times(term, b[:, :, None], out)
    return read_only(out[:, 0])


def V_of_rows(
    terms: Sequence[RandomTerm], T: Sequence[Matrix], sigma: float, weights: Matrix | None
) -> MarginalCovariance:
    """V of these rows at relative covariance factors T, one per term, and sigma.

    Raises
    ------
    ModelError
        If it is not numerically positive definite or does not fit into memory.
    """
    n = len(terms[0].codes)
    # V depends on neither y nor X, so the engine gets none.
    A = assemble(np.zeros(n), np.zeros((n, 0)), terms, weights)
    factorisation = factorise(A, [A.basis.engine_factor(t, factor) for t, factor in enumerate(T)])
    blocks = [sigma**2 * (factor @ factor.T) for factor in T]
    return MarginalCovariance(terms, blocks, sigma, weights, factorisation, pd.RangeIndex(n))
