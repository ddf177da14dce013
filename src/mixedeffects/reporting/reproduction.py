"""What it takes to fit a model again: the code, the data's shape, the versions."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from mixedeffects.base.options import plain
from mixedeffects.families import Family
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.request import LeftOut, given_data, given_table
from mixedeffects.inference.variance import ddf_name, is_robust

__all__ = ["code_to_reproduce", "shape_of_data", "versions"]

_PACKAGES = ("numpy", "scipy", "pandas", "formulaic", "narwhals")


def code_to_reproduce(fit: Fit, ddf: str, vcov: str, cluster: Any) -> str:
    """Lines of Python that fit the model and print its tables.

    Values that are no names, such as an array of weights, stand as names in capital letters.
    """
    asked = fit.request
    name = asked.data_name or ""
    arguments = [repr(fit.formula), name if name.isidentifier() else "data"]
    function = "lmer" if asked.family is None else "glmer"
    if asked.family is not None:
        arguments.append(f"family={_family(asked.family)}")
        if asked.nagq != 1:
            arguments.append(f"nagq={asked.nagq}")
    elif not fit.reml:
        arguments.append("reml=False")
    roles = {"weights": asked.weights, "offset": asked.offset, "exposure": asked.exposure}
    for role, given in roles.items():
        if given is not None:
            arguments.append(f"{role}={given!r}" if isinstance(given, str) else f"{role}=VALUES")
    residual, variance = fit.frame.residual, fit.frame.variance
    if residual is not None:
        is_known = residual.kind == "known"
        arguments.append(f"residual={'me.known(MATRIX)' if is_known else repr(residual.text)}")
    if variance is not None:
        arguments.append(f"variance={variance.text!r}")
    if asked.sigma is not None:
        arguments.append(f"sigma={asked.sigma!r}")
    if asked.contrasts:
        arguments.append(f"contrasts={_shown(asked.contrasts)}")
    if asked.control is not None:
        arguments.append(f"control=me.{asked.control!r}")
    tables = []
    if is_robust(vcov) or vcov != "model":
        tables.append(f"vcov={plain(vcov)!r}")
    if cluster is not None:
        tables.append(f"cluster={cluster!r}" if isinstance(cluster, str) else "cluster=CLUSTERS")
    if fit.has_degrees_of_freedom and ddf_name(ddf) != "satterthwaite":
        tables.append(f"ddf={ddf_name(ddf)!r}")
    options = ", ".join(tables)
    return "\n".join(
        [
            "import mixedeffects as me",
            "",
            f"m = me.{function}({', '.join(arguments)})",
            f"m.coef_table({options})",
            f"m.anova({options})",
        ]
    )


def _family(family: Family) -> str:
    """The family as code; one of a user's own by the name of its class."""
    name = type(family).__name__
    known = type(family).__module__.startswith("mixedeffects.")
    theta = getattr(family, "theta", None)
    options = repr(family.link.name) + ("" if theta is None else f", theta={theta!r}")
    return f"{'me.families.' if known else ''}{name}({options})"


def shape_of_data(fit: Fit) -> str | None:
    """Rows and columns of the data as given; None where they were left out."""
    if isinstance(given_data(fit.request), LeftOut):
        return None
    table = given_table(fit.request)
    shape = getattr(table, "shape", None)
    if not (isinstance(shape, tuple) and len(shape) == 2):
        return None
    return f"{shape[0]:,} rows, {shape[1]:,} columns"


def versions() -> str:
    """Versions of the package, of Python, and of what the numbers rest on."""
    found = [f"mixedeffects {version('mixedeffects')}", f"Python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def _shown(contrasts: dict[str, Any]) -> str:
    parts = []
    for name, coding in contrasts.items():
        if isinstance(coding, str):
            parts.append(f"{name!r}: {coding!r}")
        else:
            size = " x ".join(map(str, np.shape(coding)))
            parts.append(f"{name!r}: MATRIX" + (f" of {size}" if size else ""))
    return "{" + ", ".join(parts) + "}"
