"""What stateful transforms remember, found by queries, and the transforms as expressions.

A spline is written as one polynomial for each interval between knots, in a coordinate of its own:
recursive formulas of splines make expressions that engines do not come to the end of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.errors import DataError, FormulaError
from mixedeffects.formula.arguments import flag, numbers, real, whole
from mixedeffects.formula.compat import transform
from mixedeffects.formula.syntax import Call, deparse
from mixedeffects.lazy.expressions import Expr, Numbers, not_expressible
from mixedeffects.lazy.table import LazyTable

__all__ = ["States"]

Matrix = NDArray[np.float64]


class States:
    """Transforms and summaries of one table's columns; see `Translation`.

    Parameters
    ----------
    table : LazyTable
        The table.
    """

    def __init__(self, table: LazyTable) -> None:
        self._table = table

    def transformed(
        self, call: Call, x: Numbers, given: Mapping[str, Any], state: dict[str, Any]
    ) -> Numbers:
        """Columns of a stateful transform; fills an empty state by queries."""
        given = {name: value for name, value in given.items() if value is not None}
        if any(isinstance(value, Numbers) for value in given.values()):
            raise not_expressible(call, self._table.engine)
        if call.function in ("center", "scale", "standardize"):
            return self._scaled(call, x, given, state)
        if len(x.columns) > 1:
            raise FormulaError(
                f"`{deparse(call)}`: `{call.function}()` takes one column, and this has "
                f"{len(x.columns)}."
            )
        if call.function == "poly":
            return self._polynomial(call, x.columns[0], given, state)
        return self._spline(call, x.columns[0], given, state)

    def summarised(self, call: Call, x: Expr) -> float:
        """One number from a column, over the rows where it has a value."""
        import narwhals as nw

        if call.function == "median":
            value = self._quantiles(call, x, [0.5])[0]
        elif call.function in ("sd", "var"):
            n, mean = self._one(call, nw.len(), x.mean(), of=x)
            (squares,) = self._one(call, ((x - mean) * (x - mean)).sum(), of=x)
            value = squares / (n - 1.0) if n > 1.0 else math.nan
            value = math.sqrt(value) if call.function == "sd" else value
        else:
            aggregate = {"mean": x.mean, "sum": x.sum, "min": x.min, "max": x.max}[call.function]
            (value,) = self._one(call, aggregate(), of=x)
        if not math.isfinite(value):
            raise DataError(
                f"`{deparse(call)}` is no finite number: there are too few rows, or the values "
                "are too large."
            )
        return value

    def _one(self, call: Call, *aggregates: Expr, of: Expr) -> list[float]:
        """Aggregates over the rows where a column has a value."""
        named = [each.alias(f"a{i}") for i, each in enumerate(aggregates)]
        query = self._table.frame.filter(~of.is_null()).select(*named)
        row = self._table.run(query, deparse(call)).iloc[0]
        return [math.nan if value is None else float(value) for value in row]

    def _range(self, call: Call, x: Expr) -> tuple[float, float, float]:
        import narwhals as nw

        n, low, high = self._one(call, nw.len(), x.min(), x.max(), of=x)
        if n == 0.0:
            raise DataError(f"`{deparse(call)}` has no value in any row.")
        if math.isinf(low) or math.isinf(high):
            raise DataError(
                f"A value in `{deparse(call)}` is infinite, so it cannot be evaluated. Correct "
                "these values, or mark them as missing to leave the rows out."
            )
        return n, low, high

    def _scaled(
        self, call: Call, x: Numbers, given: Mapping[str, Any], state: dict[str, Any]
    ) -> Numbers:
        if "center" not in state:
            centre = given.get("center", True)
            by = given.get("scale", given.get("rescale", call.function != "center"))
            ddof = real(call, "ddof", given.get("ddof", 0 if call.function == "standardize" else 1))
            for column in x.columns:
                self._range(call, column)
            middle: list[float] | float | None = None
            if not isinstance(centre, bool):
                middle = real(call, "center", centre)
            elif centre:
                middle = [self._one(call, column.mean(), of=column)[0] for column in x.columns]
            spread: list[float] | float | None = None
            if not isinstance(by, bool):
                spread = real(call, "scale", by)
                if spread == 0.0:
                    raise FormulaError(f"`{deparse(call)}`: nothing can be divided by 0.")
            elif by:
                spread = [
                    self._spread(call, column, m, ddof)
                    for column, m in zip(x.columns, self._by_column(middle, x), strict=True)
                ]
            state.update(center=self._remembered(middle), scale=self._remembered(spread), ddof=ddof)
        middles = self._by_column(state["center"], x)
        spreads = self._by_column(state.get("scale"), x)
        out = []
        for column, m, s in zip(x.columns, middles, spreads, strict=True):
            rest = column if m is None else column - m
            out.append(rest if s is None else rest / s)
        return Numbers(tuple(out))

    @staticmethod
    def _remembered(value: list[float] | float | None) -> Any:
        """As the same transform of arrays remembers it."""
        if not isinstance(value, list):
            return value
        return np.float64(value[0]) if len(value) == 1 else np.array(value)

    @staticmethod
    def _by_column(value: Any, x: Numbers) -> list[float | None]:
        if value is None:
            return [None] * len(x.columns)
        return [float(v) for v in np.broadcast_to(np.asarray(value), (len(x.columns),))]

    def _spread(self, call: Call, x: Expr, middle: float | None, ddof: float) -> float:
        import narwhals as nw

        rest = x if middle is None else x - middle
        n, largest = self._one(call, nw.len(), rest.abs().max(), of=x)
        if n <= ddof:
            raise DataError(f"`{deparse(call)}` needs more than {ddof:g} rows.")
        if largest == 0.0:
            raise DataError(
                f"`{deparse(call)}` divides by the spread of a column that is constant."
            )
        part = rest / largest
        (squares,) = self._one(call, (part * part).sum(), of=x)
        return largest * math.sqrt(squares / (n - ddof))

    def _polynomial(
        self, call: Call, x: Expr, given: Mapping[str, Any], state: dict[str, Any]
    ) -> Numbers:
        raw = flag(call, "raw", given.get("raw", False))
        degree = whole(call, "degree", given.get("degree", 1), 1, 1000)
        if raw:
            powers = [reduce(lambda a, b: a * b, [x] * j) for j in range(1, degree + 1)]
            return Numbers(tuple(powers))
        if "alpha" not in state:
            self._check_different(call, x, degree)
            state.update(self._recurrence(call, x, degree))
        alpha, norms2 = state["alpha"], state["norms2"]
        monic = _monic(x, alpha, norms2, degree)
        return Numbers(tuple(monic[j] / math.sqrt(float(norms2[j])) for j in range(1, degree + 1)))

    def _check_different(self, call: Call, x: Expr, degree: int) -> None:
        import narwhals as nw

        different = (
            self._table.frame.filter(~x.is_null())
            .select(x.alias("x"))
            .unique()
            .select(nw.len().alias("n"))
        )
        found = int(self._table.run(different, deparse(call))["n"].iloc[0])
        if degree >= found:
            raise DataError(
                f"`{deparse(call)}`: degree {degree} needs more than {degree} different values; "
                f"there are {found}."
            )

    def _recurrence(self, call: Call, x: Expr, degree: int) -> dict[str, Any]:
        """The recurrence of monic orthogonal polynomials, a query for each degree."""
        n, _, _ = self._range(call, x)
        (mean,) = self._one(call, x.mean(), of=x)
        alpha, norms2 = {0: np.float64(mean)}, {0: np.float64(n)}
        for j in range(1, degree + 1):
            p = _monic(x, alpha, norms2, j)[j]
            square = p * p
            norm, moment = self._one(call, square.sum(), ((x - mean) * square).sum(), of=x)
            norms2[j] = np.float64(norm)
            if j < degree:
                alpha[j] = np.float64(mean + moment / norm)
        return {"alpha": alpha, "norms2": norms2}

    # --- splines -------------------------------------------------------------------------

    def _spline(
        self, call: Call, x: Expr, given: Mapping[str, Any], state: dict[str, Any]
    ) -> Numbers:
        if "constraints" in given:
            raise not_expressible(call, self._table.engine)
        if not state:
            _, low, high = self._range(call, x)
            if low == high:
                raise DataError(f"`{deparse(call)}` needs different values, and there is only one.")
            # Evenly spaced quantiles of these few values are those of all, so the transform of
            # arrays remembers what it would of the whole column.
            transform(call, self._representative(call, x, given, low, high), given, state)
        degree = 3
        if call.function == "bs":
            degree = whole(call, "degree", given.get("degree", 3), 1, 50)
        inner = state.get("boundary", (state.get("lower_bound"), state.get("upper_bound")))
        edges = np.unique([*map(float, inner), *map(float, state["knots"])])
        return _piecewise(call, x, given, state, edges, degree)

    def _representative(
        self, call: Call, x: Expr, given: Mapping[str, Any], low: float, high: float
    ) -> Matrix:
        if "df" not in given or "knots" in given:
            return np.array([low, high])
        intercept = bool(given.get("intercept", given.get("include_intercept", False)))
        df = whole(call, "df", given["df"], 1, 2**31)
        if call.function == "bs":
            count = df - whole(call, "degree", given.get("degree", 3), 1, 50) - intercept
        elif call.function == "ns":
            count = df - 1 - intercept
        else:
            count = df - 2 if call.function == "cr" else df - 1
        if count <= 0:
            return np.array([low, high])
        within = x
        if "Boundary.knots" in given:
            import narwhals as nw

            ends = numbers(call, "Boundary.knots", given["Boundary.knots"])
            if len(ends) == 2 and call.function == "ns":
                inside = (x >= ends[0]) & (x <= ends[1])
                within = nw.when(inside).then(x)
        shares = np.linspace(0.0, 1.0, count + 2)
        distinct = call.function in ("cr", "cc")
        found = self._quantiles(call, within, shares.tolist(), distinct=distinct)
        # Between them straight lines, so that there are as many values as parameters.
        fine = np.linspace(0.0, 1.0, (count + 1) * (df + 1) + 1)
        few = np.interp(fine, shares, found)
        few[:: df + 1] = found
        return np.asarray(few)

    def _quantiles(
        self, call: Call, x: Expr, shares: Sequence[float], *, distinct: bool = False
    ) -> list[float]:
        import narwhals as nw

        query = self._table.frame.filter(~x.is_null()).select(x.alias("x"))
        if distinct:
            query = query.unique()
        column = nw.col("x")
        try:
            query = query.select(
                *(
                    column.quantile(share, interpolation="linear").alias(f"q{i}")
                    for i, share in enumerate(shares)
                )
            )
        except NotImplementedError:
            raise FormulaError(
                f"{self._table.engine} has no exact quantiles, which `{deparse(call)}` needs; give "
                "its knots (`knots = c(...)`, `Boundary.knots = c(...)`), or compute the column "
                "first."
            ) from None
        return [float(v) for v in self._table.run(query, deparse(call)).iloc[0]]


def _monic(x: Expr, alpha: Mapping[int, Any], norms2: Mapping[int, Any], degree: int) -> list[Any]:
    """Monic orthogonal polynomials by their recurrence of three terms."""
    monic: list[Any] = [1.0, x - float(alpha[0])]
    for j in range(2, degree + 1):
        following = (x - float(alpha[j - 1])) * monic[j - 1]
        monic.append(following - float(norms2[j - 1] / norms2[j - 2]) * monic[j - 2])
    return monic


def _piecewise(
    call: Call,
    x: Expr,
    given: Mapping[str, Any],
    state: dict[str, Any],
    edges: Matrix,
    degree: int,
) -> Numbers:
    import narwhals as nw

    width = float(edges[-1] - edges[0])
    ends = np.concatenate([[edges[0] - width], edges, [edges[-1] + width]])
    nodes = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    pieces: list[tuple[float, float, Matrix | None]] = []
    for left, right in pairwise(ends):
        middle, half = 0.5 * (left + right), 0.5 * (right - left)
        try:
            values = transform(call, middle + half * nodes, given, dict(state))
        except DataError:
            # Beyond the bounds there may be no value; no row of the fit is there.
            pieces.append((middle, half, None))
            continue
        coefficients = np.linalg.solve(np.vander(nodes, degree + 1), np.atleast_2d(values.T).T)
        pieces.append((middle, half, coefficients))
    columns = next(c.shape[1] for _, _, c in pieces if c is not None)
    out = []
    for j in range(columns):
        column: Any = None
        # From the right: each piece up to its right end, and what is left to the last.
        for (middle, half, coefficients), right in reversed(
            list(zip(pieces, ends[1:], strict=True))
        ):
            if coefficients is None or not np.isfinite(coefficients[:, j]).all():
                value = nw.lit(None, nw.Float64)
            else:
                value = _horner((x - middle) / half, coefficients[:, j])
            if column is None:
                column = nw.when(~x.is_null()).then(value)
                continue
            inside = x < right if right == edges[0] else x <= right
            column = nw.when(inside).then(value).otherwise(column)
        out.append(column)
    return Numbers(tuple(out))


def _horner(u: Expr, coefficients: Matrix) -> Expr:
    value: Any = float(coefficients[0])
    for c in coefficients[1:]:
        value = value * u + float(c)
    return value
