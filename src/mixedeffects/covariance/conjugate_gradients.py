"""V^-1 B where V is only known by what it does to vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.errors import DataError, ModelError

__all__ = ["conjugate_gradients"]

Matrix = NDArray[np.float64]

#: Residual, relative to the right-hand side, at which a column is solved.
_TOLERANCE = 1e-12
#: What the residual computed afresh may come to, rounding having added to it.
_ACCEPTED = 1e-8
#: Difference between u'Vv and v'Vu, relative to their size, that rounding can make.
_ASYMMETRY = 1e-8


def conjugate_gradients(operator: Any, B: Matrix) -> Matrix:
    """Solve ``V X = B`` by conjugate gradients, all columns side by side.

    Parameters
    ----------
    operator : scipy.sparse.linalg.LinearOperator, shape (n, n)
        V: real, symmetric, positive definite. Symmetry is checked with two random vectors,
        definiteness with every search direction.
    B : ndarray, shape (n, m)
        Right-hand sides.

    Raises
    ------
    DataError
        If V gives complex or not finite values.
    ModelError
        If V is found not to be symmetric or positive definite, or the iterations do not converge.

    References
    ----------
    Hestenes, M. R. and Stiefel, E. (1952). Methods of conjugate gradients for solving linear
    systems. Journal of Research of the National Bureau of Standards 49, 409-436.
    """
    n = len(B)
    _check_symmetry(operator, n)
    size = np.linalg.norm(B, axis=0)
    X = np.zeros_like(B)
    residual = B.copy()
    direction = residual.copy()
    squared = size**2
    limit = min(10 * n + 100, 50_000)
    for _ in range(limit):
        active = np.sqrt(squared) > _TOLERANCE * size
        if not active.any():
            break
        image = _times(operator, direction[:, active])
        curvature = np.einsum("im,im->m", direction[:, active], image)
        if not (curvature > 0.0).all():
            raise ModelError(
                "V is not positive definite: x'Vx is "
                f"{float(curvature.min()):.3g} for a vector x met on the way."
            )
        step = squared[active] / curvature
        X[:, active] += step * direction[:, active]
        residual[:, active] -= step * image
        before = squared[active]
        squared[active] = np.einsum("im,im->m", residual[:, active], residual[:, active])
        direction[:, active] = (
            residual[:, active] + (squared[active] / before) * direction[:, active]
        )
    left = np.linalg.norm(B - _times(operator, X), axis=0)
    relative = float((left / np.where(size > 0.0, size, 1.0)).max(initial=0.0))
    if relative > _ACCEPTED:
        raise ModelError(
            f"Conjugate gradients did not solve V x = b: after {limit:,} iterations a residual of "
            f"{relative:.2g} of b is left. V may be close to singular; give it as a matrix, or as "
            "an object with a solve method."
        )
    return X


def _check_symmetry(operator: Any, n: int) -> None:
    probes = np.random.default_rng(0).standard_normal((n, 2))
    images = _times(operator, probes)
    one, other = float(probes[:, 0] @ images[:, 1]), float(probes[:, 1] @ images[:, 0])
    scale = float(np.linalg.norm(probes[:, 0]) * np.linalg.norm(images[:, 1]))
    if abs(one - other) > _ASYMMETRY * scale:
        raise ModelError(
            f"V is not symmetric: for two random vectors u'Vv is {one:.6g} but v'Vu {other:.6g}."
        )


def _times(operator: Any, x: Matrix) -> Matrix:
    image = np.asarray(operator.matmat(x))
    if np.iscomplexobj(image):
        raise DataError("V gives complex numbers; a covariance matrix is real.")
    if not np.isfinite(image).all():
        raise DataError(
            f"V x contains {int((~np.isfinite(image)).sum())} values that are not finite."
        )
    return image.astype(np.float64, copy=False)
