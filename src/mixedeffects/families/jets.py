"""Truncated Taylor series through NumPy: a function's derivatives from the function itself.

A Jet holds, for every row, the coefficients of a polynomial in the linear predictor's change (up to
the fourth power) and the family parameter's (up to the second). NumPy's and SciPy's ufuncs take it
like an array, so that a log density written for arrays gives its exact derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special as sp
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray

from mixedeffects.errors import ModelError
from mixedeffects.families.log_probabilities import log_logistic, log_normal

__all__ = ["Jet"]

Array = NDArray[np.float64]

_HIGHEST = 4
_KEPT = [*((i, 0) for i in range(5)), (0, 1), (1, 1), (2, 1), (0, 2)]


class Jet(NDArrayOperatorsMixin):
    """Coefficients by powers (i, j) of the two variables; those that are not there are zero.

    Examples
    --------
    >>> import numpy as np
    >>> x = Jet.variable(np.array([0.5]))
    >>> np.log(x * x).derivative(3).round(8).tolist()
    [32.0]
    """

    __slots__ = ("parts",)

    def __init__(self, parts: dict[tuple[int, int], Any]) -> None:
        self.parts = parts

    @classmethod
    def variable(cls, at: Any, which: int = 0) -> Jet:
        """The linear predictor (0) or the family parameter (1) itself."""
        at = np.asarray(at, dtype=np.float64)
        return cls({(0, 0): at, (1 - which, which): np.ones_like(at)})

    def derivative(self, by_eta: int, by_phi: int = 0) -> Any:
        """A derivative; zero where the function does not depend on the variable."""
        part = self.parts.get((by_eta, by_phi))
        if part is None:
            return np.zeros_like(self.parts[0, 0])
        return part * float(math.factorial(by_eta) * math.factorial(by_phi))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__" or options:
            raise _unknown(f"{ufunc.__name__}.{method}")
        if ufunc in _COMPARISONS:
            return ufunc(*(_value(each) for each in inputs))
        if ufunc in _COMPOSED:
            return _COMPOSED[ufunc](*inputs)
        if ufunc in _ARITHMETIC:
            return _ARITHMETIC[ufunc](*(_jet(each) for each in inputs))
        if ufunc not in _TAYLOR:
            raise _unknown(ufunc.__name__)
        return _compose(_TAYLOR[ufunc](self.parts[0, 0]), self)

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        if function is not np.where or len(arguments) != 3:
            raise _unknown(function.__name__)
        condition, first, second = arguments
        a, b = _jet(first).parts, _jet(second).parts
        keys = [key for key in _KEPT if key in a or key in b]
        return Jet({key: np.where(condition, a.get(key, 0.0), b.get(key, 0.0)) for key in keys})


def _unknown(name: str) -> ModelError:
    return ModelError(
        f"The derivatives of {name} are not known here. Write the log density with NumPy's exp, "
        "log, log1p, sqrt, ... and scipy.special's gammaln, betaln, xlogy, ..., or give its "
        "derivatives yourself: the family's method derivatives()."
    )


def _value(given: Any) -> Any:
    return given.parts[0, 0] if isinstance(given, Jet) else given


def _jet(given: Any) -> Jet:
    return given if isinstance(given, Jet) else Jet({(0, 0): np.asarray(given, dtype=np.float64)})


def _add(a: Jet, b: Jet, sign: float = 1.0) -> Jet:
    out = dict(a.parts)
    for key, part in b.parts.items():
        out[key] = out[key] + sign * part if key in out else sign * part
    return Jet(out)


def _multiply(a: Jet, b: Jet) -> Jet:
    out: dict[tuple[int, int], Any] = {}
    for (i, j), left in a.parts.items():
        for (k, m), right in b.parts.items():
            key = (i + k, j + m)
            if key in _KEPT:
                product = left * right
                out[key] = out[key] + product if key in out else product
    return Jet(out)


def _divide(a: Jet, b: Jet) -> Jet:
    if len(b.parts) == 1:
        return Jet({key: part / b.parts[0, 0] for key, part in a.parts.items()})
    return _multiply(a, _compose(_power_series(b.parts[0, 0], -1.0), b))


def _power(a: Jet, b: Jet) -> Jet:
    if len(b.parts) > 1:
        raise _unknown("a power with a variable exponent (write exp(exponent * log(base)))")
    return _compose(_power_series(a.parts[0, 0], b.parts[0, 0]), a)


def _compose(coefficients: list[Any], inner: Jet) -> Jet:
    """A power series in what `inner` is beyond its value."""
    change = Jet({key: part for key, part in inner.parts.items() if key != (0, 0)})
    out, power = _jet(coefficients[0]), change
    for order in range(1, _HIGHEST + 1):
        term = {key: coefficients[order] * part for key, part in power.parts.items()}
        out = _add(out, Jet(term))
        power = _multiply(power, change)
    return out


def _series(derivatives: Any) -> list[Any]:
    return [each / math.factorial(order) for order, each in enumerate(derivatives)]


def _power_series(x: Any, exponent: Any) -> list[Any]:
    out, factor = [], np.ones_like(np.asarray(exponent, dtype=np.float64))
    for order in range(_HIGHEST + 1):
        out.append(np.where(factor == 0.0, 0.0, factor * np.power(x, exponent - order)))
        factor = factor * (exponent - order) / (order + 1.0)
    return out


def _log_series(x: Any) -> list[Any]:
    return [np.log(x), *(-((-1.0) ** k) / (k * x**k) for k in range(1, _HIGHEST + 1))]


def _log1p_series(x: Any) -> list[Any]:
    return [np.log1p(x), *_log_series(1.0 + x)[1:]]


def _exp_series(x: Any) -> list[Any]:
    return _series([np.exp(x)] * (_HIGHEST + 1))


def _expit_series(x: Any) -> list[Any]:
    p, q = sp.expit(x), sp.expit(-x)
    pq = p * q
    gap = q - p
    return _series([p, pq, pq * gap, pq * (1.0 - 6.0 * pq), pq * gap * (1.0 - 12.0 * pq)])


def _tanh_series(x: Any) -> list[Any]:
    doubled = _expit_series(2.0 * x)
    return [np.tanh(x), *(2.0 ** (k + 1) * doubled[k] for k in range(1, _HIGHEST + 1))]


def _arctan_series(x: Any) -> list[Any]:
    s = 1.0 / (1.0 + x * x)
    derivatives = [s, -2.0 * x * s**2, (6.0 * x * x - 2.0) * s**3, 24.0 * x * (1.0 - x * x) * s**4]
    return _series([np.arctan(x), *derivatives])


def _ndtr_series(x: Any) -> list[Any]:
    f = np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
    return _series([sp.ndtr(x), f, -x * f, (x * x - 1.0) * f, x * (3.0 - x * x) * f])


def _erf_series(x: Any) -> list[Any]:
    root = math.sqrt(2.0)
    normal = _ndtr_series(root * x)
    return [sp.erf(x), *(2.0 * root**k * normal[k] for k in range(1, _HIGHEST + 1))]


def _sin_series(x: Any) -> list[Any]:
    s, c = np.sin(x), np.cos(x)
    return _series([s, c, -s, -c, s])


def _cos_series(x: Any) -> list[Any]:
    s, c = np.sin(x), np.cos(x)
    return _series([c, -s, -c, s, c])


def _gammaln_series(x: Any) -> list[Any]:
    return _series([sp.gammaln(x), *(sp.polygamma(k, x) for k in range(_HIGHEST))])


def _digamma_series(x: Any) -> list[Any]:
    return _series([sp.polygamma(k, x) for k in range(_HIGHEST + 1)])


def _rows(function: Callable[[Array, int], tuple[Array, ...]]) -> Callable[[Any], list[Any]]:
    return lambda x: _series(each.reshape(x.shape) for each in function(x.ravel(), _HIGHEST))


def _where(condition: Any, first: Any, second: Any) -> Any:
    return np.where(condition, first, second)


def _betaln(a: Any, b: Any) -> Any:
    return sp.gammaln(a) + sp.gammaln(b) - sp.gammaln(a + b)


def _xlogy(x: Any, y: Any) -> Any:
    zero = _value(x) == 0.0
    return _where(zero, _jet(0.0), x * np.log(_where(zero, _jet(1.0), _jet(y))))


def _xlog1py(x: Any, y: Any) -> Any:
    zero = _value(x) == 0.0
    return _where(zero, _jet(0.0), x * np.log1p(_where(zero, _jet(0.0), _jet(y))))


def _maximum(a: Any, b: Any) -> Any:
    return _where(_value(a) >= _value(b), _jet(a), _jet(b))


def _minimum(a: Any, b: Any) -> Any:
    return _where(_value(a) <= _value(b), _jet(a), _jet(b))


_COMPARISONS = {
    np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal, np.isfinite,
    np.isnan, np.isinf, np.sign,
}  # fmt: skip

_ARITHMETIC: dict[Any, Callable[..., Jet]] = {
    np.add: _add,
    np.subtract: lambda a, b: _add(a, b, -1.0),
    np.multiply: _multiply,
    np.divide: _divide,
    np.power: _power,
    np.float_power: _power,
    np.positive: lambda a: a,
    np.negative: lambda a: Jet({key: -part for key, part in a.parts.items()}),
    np.square: lambda a: _multiply(a, a),
    np.absolute: lambda a: _multiply(a, _jet(np.sign(a.parts[0, 0]))),
}

_COMPOSED: dict[Any, Callable[..., Any]] = {
    np.maximum: _maximum,
    np.minimum: _minimum,
    np.logaddexp: lambda a, b: a - sp.log_expit(a - b),
    sp.xlogy: _xlogy,
    sp.xlog1py: _xlog1py,
    sp.betaln: _betaln,
    sp.logit: lambda x: np.log(x) - np.log1p(-x),
}

_TAYLOR: dict[Any, Callable[[Any], list[Any]]] = {
    np.exp: _exp_series,
    np.expm1: lambda x: [np.expm1(x), *_exp_series(x)[1:]],
    np.log: _log_series,
    np.log1p: _log1p_series,
    np.sqrt: lambda x: _power_series(x, 0.5),
    np.reciprocal: lambda x: _power_series(x, -1.0),
    np.sin: _sin_series,
    np.cos: _cos_series,
    np.arctan: _arctan_series,
    np.tanh: _tanh_series,
    sp.expit: _expit_series,
    sp.log_expit: _rows(log_logistic),
    sp.ndtr: _ndtr_series,
    sp.log_ndtr: _rows(log_normal),
    sp.erf: _erf_series,
    sp.gammaln: _gammaln_series,
    sp.digamma: _digamma_series,
}
