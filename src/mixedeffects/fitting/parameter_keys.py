"""Names under which parameters of all kinds stand in one table: no two share one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from typing import Any

from mixedeffects.base.options import is_listed
from mixedeffects.errors import ModelError
from mixedeffects.formula.syntax import quote_name

__all__ = ["as_written", "chosen_positions", "distinct", "parameter_keys"]

#: Words for all parameters of a kind.
_GROUPS = {"fixed": True, "beta_": True, "random": False, "theta_": False}


def distinct(names: Sequence[str]) -> list[str]:
    """Number the names that occur more than once: ``x (1)``, ``x (2)``.

    Examples
    --------
    >>> distinct(["a", "b", "a"])
    ['a (1)', 'b', 'a (2)']
    """
    counts = Counter(names)
    out: list[str] = []
    number: Counter[str] = Counter()
    for name in names:
        key = name
        while counts[name] > 1 and (key == name or key in counts):
            number[name] += 1
            key = f"{name} ({number[name]})"
        out.append(key)
    return out


def parameter_keys(parameters: Sequence[str], coefficients: Sequence[str]) -> list[str]:
    """Keys of variance parameters and fixed effects for one table, all different.

    A fixed effect keeps its name unless a variance parameter has it, or it is a word for all
    parameters of a kind: then ``beta_`` stands before it.

    Parameters
    ----------
    parameters : sequence of str
        Names of the variance parameters, all different.
    coefficients : sequence of str
        Names of the fixed effects.

    Examples
    --------
    >>> parameter_keys(["sd_(Intercept)|g", "sigma"], ["(Intercept)", "sigma"])
    ['sd_(Intercept)|g', 'sigma', '(Intercept)', 'beta_sigma']
    """
    names = distinct(coefficients)
    taken = {*parameters, *_GROUPS}
    used = taken | set(names)
    keys = []
    for name in names:
        key = name
        while key in taken or (key != name and key in used):
            key = f"beta_{key}"
        used.add(key)
        keys.append(key)
    return [*parameters, *keys]


def chosen_positions(
    parameters: Any, keys: Sequence[str], coefficients: Sequence[str]
) -> list[int]:
    """Positions of the parameters asked for; the fixed effects are the last of the keys.

    Parameters
    ----------
    parameters : None, str or list of str
        All; ``"fixed"`` (``"beta_"``), ``"random"`` (``"theta_"``); keys; or names of fixed
        effects. A name that means several parameters gives all of them, each under its key.
    keys : sequence of str
        As `parameter_keys` makes them.
    coefficients : sequence of str
        Names of the fixed effects.

    Raises
    ------
    ModelError
        If a name is not known.
    """
    positions = range(len(keys))
    if parameters is None:
        return list(positions)
    split = len(keys) - len(coefficients)
    listed: list[Any] = list(parameters) if is_listed(parameters) else [parameters]
    chosen: set[int] = set()
    for name in listed:
        if not isinstance(name, str):
            raise unknown_parameter(name, keys)
        if name not in keys:
            name = as_written(name, coefficients)
        own = {
            i
            for i in positions
            if keys[i] == name or (i >= split and coefficients[i - split] == name)
        }
        fixed = _GROUPS.get(name) if isinstance(name, str) else None
        if fixed is not None:
            own |= {i for i in positions if (i >= split) == fixed}
        elif not own:
            raise unknown_parameter(name, keys)
        chosen |= own
    if not chosen:
        raise ModelError("parameters names no parameter; leave it out for all of them.")
    return sorted(chosen)


def unknown_parameter(name: Any, keys: Sequence[str]) -> ModelError:
    """The error for what is no parameter, with those there are."""
    return ModelError(
        f"There is no parameter {name!r:.60}; there are "
        f"{', '.join(repr(key) for key in keys)}, and the groups 'fixed' and 'random'."
    )


def as_written(name: Any, names: Container[str]) -> Any:
    """The name as it stands among others: that of a column may be given without its backticks."""
    quoted = quote_name(name) if isinstance(name, str) and name not in names else name
    return quoted if quoted in names else name
