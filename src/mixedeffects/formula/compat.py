"""The only module that imports formulaic: its stateful transforms and its contrast codings.

The imports are inside the functions: most formulas need neither, and formulaic takes a while to
load.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["TRANSFORMS", "coding_matrix", "transform"]

# Our name of each transform, and R's argument names where they differ.
TRANSFORMS: dict[str, dict[str, str]] = {
    "bs": {"intercept": "include_intercept"},
    "cc": {},
    "center": {},
    "cr": {},
    "cs": {},
    "poly": {},
    "scale": {},
    "standardize": {},
}


def transform(
    name: str,
    values: NDArray[np.float64],
    positional: list[Any],
    named: Mapping[str, Any],
    state: dict[str, Any],
) -> NDArray[np.float64]:
    """Apply one of formulaic's stateful transforms.

    Parameters
    ----------
    name : str
        A key of ``TRANSFORMS``.
    values : ndarray
        The variable, without missing values.
    positional, named
        The other arguments, as written in the formula.
    state : dict
        Filled at the first call; a later call with the same state repeats the transform.

    Returns
    -------
    ndarray, shape (n,) or (n, k)
    """
    from formulaic import transforms

    arguments = {TRANSFORMS[name].get(key, key): value for key, value in named.items()}
    if name == "bs":
        bounds = arguments.pop("Boundary.knots", None)
        if bounds is not None:
            arguments["lower_bound"], arguments["upper_bound"] = map(float, bounds)
        # As in R, beyond the boundary knots the outer polynomials go on.
        arguments.setdefault("extrapolation", "extend")
    if name == "poly":
        degree = int(positional[0] if positional else arguments.get("degree", 1))
        raw = arguments.get("raw", False)
        if not state and not raw and degree >= np.unique(values).size:
            raise ValueError(f"degree {degree} needs more than {degree} different values")
    result = transforms.TRANSFORMS[name](values, *positional, _state=state, **arguments)
    result = getattr(result, "__wrapped__", result)
    if isinstance(result, dict):
        result = np.column_stack(list(result.values()))
    return np.asarray(result, dtype=np.float64)


def coding_matrix(kind: str, n_levels: int) -> NDArray[np.float64]:
    """Return a contrast matrix as R's ``contr.*`` functions define it.

    Parameters
    ----------
    kind : str
        ``"treatment"``, ``"sum"``, ``"helmert"`` or ``"poly"``.
    n_levels : int
        Number of levels, at least 2.

    Returns
    -------
    ndarray, shape (n_levels, n_levels - 1)
    """
    from formulaic.transforms import contrasts

    codings = {
        "treatment": contrasts.TreatmentContrasts,
        "sum": contrasts.SumContrasts,
        "helmert": contrasts.HelmertContrasts,
        "poly": contrasts.PolyContrasts,
    }
    matrix = codings[kind]().get_coding_matrix(list(range(n_levels)), reduced_rank=True)
    return np.asarray(matrix, dtype=np.float64)
