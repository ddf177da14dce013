"""Functions that remember what they learned at the fit: splines, polynomials, centring, scaling.

This is the only module that imports formulaic, for its splines, orthogonal polynomials and contrast
codings. The imports are inside the functions: most formulas need neither, and formulaic takes a
while to load.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.errors import DataError, FormulaError
from mixedeffects.formula.arguments import flag, numbers, one_of, real, whole
from mixedeffects.formula.natural_spline import natural_spline
from mixedeffects.formula.syntax import Call, deparse

__all__ = ["TRANSFORMS", "coding_matrix", "transform"]

Matrix = NDArray[np.float64]

_BOUNDS = ("lower_bound", "upper_bound")
#: The arguments of each, R's names first; those of formulaic mean the same.
TRANSFORMS: dict[str, tuple[str, ...]] = {
    "bs": ("x", "df", "knots", "degree", "intercept", "Boundary.knots", "include_intercept",
           *_BOUNDS, "extrapolation"),
    "cc": ("x", "df", "knots", *_BOUNDS, "constraints", "extrapolation"),
    "center": ("x",),
    "cr": ("x", "df", "knots", *_BOUNDS, "constraints", "extrapolation"),
    "ns": ("x", "df", "knots", "intercept", "Boundary.knots"),
    "poly": ("x", "degree", "raw"),
    "scale": ("x", "center", "scale", "ddof"),
    "standardize": ("x", "center", "rescale", "ddof"),
}  # fmt: skip
_EXTRAPOLATIONS = ("extend", "clip", "na", "zero", "raise")


def transform(
    call: Call, values: Matrix, given: Mapping[str, Any], state: dict[str, Any]
) -> Matrix:
    """Apply one of the functions that remember.

    Parameters
    ----------
    call : Call
        The call, of one of ``TRANSFORMS``.
    values : ndarray, shape (n,) or (n, k)
        The variable: finite numbers.
    given : mapping of str to object
        The other arguments by name.
    state : dict
        Filled at the first call; a later call with the same state repeats the transform.

    Returns
    -------
    ndarray, shape (n,) or (n, k)

    Raises
    ------
    FormulaError
        If an argument is not what it should be.
    DataError
        If it cannot be computed from these values.
    """
    function, text = call.function, deparse(call)
    given = {name: value for name, value in given.items() if value is not None}
    if function in ("center", "scale", "standardize"):
        return _scaled(call, values, given, state)
    if values.ndim == 2:
        raise FormulaError(
            f"`{text}`: `{function}()` takes one column, and this has {values.shape[1]}."
        )
    if function == "poly":
        return _polynomial(call, values, given, state)
    if not state and values.min() == values.max():
        raise DataError(f"`{text}` needs different values, and there is only one.")
    if function == "ns":
        return _natural(call, values, given, state)
    return _spline(call, values, given, state)


def _scaled(call: Call, x: Matrix, given: Mapping[str, Any], state: dict[str, Any]) -> Matrix:
    if "center" not in state:
        centre = given.get("center", True)
        by = given.get("scale", given.get("rescale", call.function != "center"))
        ddof = real(call, "ddof", given.get("ddof", 0 if call.function == "standardize" else 1))
        middle: Any = None
        if not isinstance(centre, bool):
            middle = real(call, "center", centre)
        elif centre:
            middle = x.mean(axis=0)
        rest = x if middle is None else x - middle
        spread: Any = None
        if not isinstance(by, bool):
            spread = real(call, "scale", by)
            if spread == 0.0:
                raise FormulaError(f"`{deparse(call)}`: nothing can be divided by 0.")
        elif by:
            spread = _spread(call, rest, ddof)
        state.update(center=middle, scale=spread, ddof=ddof)
    if state["center"] is not None:
        x = x - state["center"]
    return x if state.get("scale") is None else x / state["scale"]


def _spread(call: Call, x: Matrix, ddof: float) -> Matrix:
    """Root mean square of each column, whose squares may be out of range."""
    if len(x) <= ddof:
        raise DataError(f"`{deparse(call)}` needs more than {ddof:g} rows.")
    largest = np.abs(x).max(axis=0)
    if (largest == 0.0).any():
        raise DataError(f"`{deparse(call)}` divides by the spread of a column that is constant.")
    return np.asarray(largest * np.sqrt(((x / largest) ** 2).sum(axis=0) / (len(x) - ddof)))


def _polynomial(call: Call, x: Matrix, given: Mapping[str, Any], state: dict[str, Any]) -> Matrix:
    from formulaic import transforms

    raw = flag(call, "raw", given.get("raw", False))
    degree = whole(call, "degree", given.get("degree", 1), 1, 1000)
    if not state and not raw:
        different = np.unique(x).size
        if degree >= different:
            raise DataError(
                f"`{deparse(call)}`: degree {degree} needs more than {degree} different values; "
                f"there are {different}."
            )
    result = transforms.TRANSFORMS["poly"](x, degree, raw, _state=state)
    return _finite(call, np.asarray(getattr(result, "__wrapped__", result), dtype=np.float64))


def _natural(call: Call, x: Matrix, given: Mapping[str, Any], state: dict[str, Any]) -> Matrix:
    intercept = flag(call, "intercept", given.get("intercept", False))
    if "knots" not in state:
        low, high = _boundary(call, given.get("Boundary.knots"), x)
        if "knots" in given:
            knots = numbers(call, "knots", given["knots"])
            if not all(low < knot < high for knot in knots):
                raise FormulaError(
                    f"`{deparse(call)}`: knots lie between the boundary knots {low:g} and {high:g}."
                )
        else:
            inner = whole(call, "df", given.get("df", 1 + intercept), 1 + intercept, len(x))
            inner -= 1 + intercept
            within = x[(x >= low) & (x <= high)]
            if not within.size:
                raise DataError(f"`{deparse(call)}` has no value between its boundary knots.")
            knots = np.quantile(within, np.linspace(0.0, 1.0, inner + 2)[1:-1]).tolist()
        state.update(knots=knots, boundary=(low, high))
    return _finite(call, natural_spline(x, state["knots"], state["boundary"], intercept))


def _boundary(call: Call, given: Any, x: Matrix) -> tuple[float, float]:
    if given is None:
        return float(x.min()), float(x.max())
    bounds = numbers(call, "Boundary.knots", given)
    if len(bounds) != 2 or bounds[0] >= bounds[1]:
        raise FormulaError(
            f"`{deparse(call)}`: `Boundary.knots` are two numbers, the lower one first."
        )
    return bounds[0], bounds[1]


def _spline(call: Call, x: Matrix, given: Mapping[str, Any], state: dict[str, Any]) -> Matrix:
    from formulaic import transforms

    arguments: dict[str, Any] = {}
    for name, value in given.items():
        match name:
            case "df":
                arguments[name] = whole(call, name, value, 1, len(x) if not state else 2**31)
            case "degree":
                arguments[name] = whole(call, name, value, 1, 50)
            case "knots":
                arguments[name] = numbers(call, name, value)
            case "intercept" | "include_intercept":
                arguments["include_intercept"] = flag(call, name, value)
            case "lower_bound" | "upper_bound":
                arguments[name] = real(call, name, value)
            case "constraints":
                arguments[name] = one_of(call, name, value, ("center",))
            case "extrapolation":
                arguments[name] = one_of(call, name, value, _EXTRAPOLATIONS)
            case "Boundary.knots":
                arguments["lower_bound"], arguments["upper_bound"] = _boundary(call, value, x)
    if "df" in arguments:
        least = _least_df(call.function, arguments)
        if arguments["df"] < least:
            raise DataError(
                f"`{deparse(call)}` cannot be evaluated: `df` must be at least {least}."
            )
    # As in R, beyond the boundary knots the outer polynomials go on.
    arguments.setdefault("extrapolation", "extend")
    try:
        result = transforms.TRANSFORMS[call.function](x, _state=state, **arguments)
    except ValueError as error:
        reason = str(error).rstrip(".")
        raise DataError(f"`{deparse(call)}` cannot be evaluated: {reason}.") from error
    result = getattr(result, "__wrapped__", result)
    if isinstance(result, dict):
        result = np.column_stack(list(result.values()))
    matrix = np.asarray(result, dtype=np.float64)
    # "na" makes missing values beyond the bounds, on request.
    return matrix if arguments["extrapolation"] == "na" else _finite(call, matrix)


def _least_df(function: str, arguments: Mapping[str, Any]) -> int:
    if function == "bs":
        return int(arguments.get("degree", 3) + arguments.get("include_intercept", False))
    return (3 if function == "cr" else 1) - ("constraints" in arguments and function == "cr")


def _finite(call: Call, values: Matrix) -> Matrix:
    if not np.isfinite(values).all():
        raise DataError(
            f"`{deparse(call)}` is beyond the range of numbers; scale the column, or take a lower "
            "degree or fewer degrees of freedom."
        )
    return values


def coding_matrix(kind: str, n_levels: int) -> NDArray[np.float64]:
    """Return a contrast matrix as R's ``contr.*`` functions define it.

    Parameters
    ----------
    kind : str
        ``"treatment"``, ``"sum"``, ``"helmert"``, ``"poly"`` or ``"sdif"``.
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
        "sdif": contrasts.DiffContrasts,
    }
    matrix = codings[kind]().get_coding_matrix(list(range(n_levels)), reduced_rank=True)
    return np.asarray(matrix, dtype=np.float64)
