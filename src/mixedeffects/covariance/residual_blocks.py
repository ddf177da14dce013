"""What the summary says of the residuals' covariance, from their model and its parameters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixedeffects.covariance.structured_residual import StructuredResidual
from mixedeffects.display.residual_text import ResidualBlock, deviation_table, in_line
from mixedeffects.fitting.residual_parameters import ResidualParameter, listed_parameters
from mixedeffects.frame.residual_term import ResidualTerm, VarianceTerm

__all__ = ["residual_blocks"]

#: Structures in which each residual depends on the one before it.
_SERIES = ("ar1", "car1")
#: What stands between a covariate and the standard deviation, by kind of parameter.
_COVARIATES = ("log_sd", "power")


def residual_blocks(R: StructuredResidual, digits: int = 4) -> tuple[ResidualBlock, ...]:
    """One block for ``residual=``, and one for ``variance=``."""
    parameters = listed_parameters(R)
    known = R.model.design.sigma is not None
    out = []
    if R.term is not None:
        out.append(_of_term(R.term, parameters, R.variance is not None, known, digits))
    if R.variance is not None:
        # A structure with a standard deviation for each of its cells has told them.
        told = R.term is not None and not _is_by_level(parameters)
        out.append(_of_variance(R.variance, parameters, told, digits))
    if not out:
        line = in_line(["Std.Dev."], [R.sigma], digits)
        out.append(ResidualBlock("Residual variance", (f"{line}, known",), is_short=True))
    return tuple(out)


def _is_by_level(parameters: Sequence[ResidualParameter]) -> bool:
    """Whether standard deviations differ by the levels of a factor in ``variance=``."""
    return not any(each.kind in _COVARIATES for each in parameters)


# --- residual= ---------------------------------------------------------------------------


def _of_term(
    term: ResidualTerm,
    parameters: Sequence[ResidualParameter],
    has_variance: bool,
    known: bool,
    digits: int,
) -> ResidualBlock:
    strata = [""] if term.strata is None else [str(s) for s in term.strata]
    by_level = has_variance and _is_by_level(parameters)
    sd = [each for each in parameters if each.kind == "sd" and not by_level]
    others = [each for each in parameters if each.kind not in ("sd", *_COVARIATES)]
    has_times = any(each.of for each in sd)
    heading = f"Residual covariance: {_what(term, known)} ({_counts(term)})"
    times = [] if term.times is None else [str(t) for t in term.times]
    if has_times:
        T = term.n_times
        keys = [(" x ".join(term.position) or "time", times * len(strata))]
        if len(strata) > 1:
            stacked = [s if t == 0 else "" for s in strata for t in range(T)]
            keys.insert(0, (str(term.by), stacked))
        triangles = [_triangle(others, s, T) for s in strata] if term.kind == "us" else []
        table = deviation_table(
            keys, [("Std.Dev.", [each.value for each in sd])], triangles, digits
        )
        lines = [] if term.kind == "us" else _lines(others, strata, digits)
        return ResidualBlock(heading, tuple(lines), table)
    if len(strata) == 1:
        triangle = _triangle(others, "", term.n_times) if term.kind == "us" else None
        if triangle is not None and term.times is not None:
            keys = [(" x ".join(term.position), times)]
            line = in_line(["Std.Dev."], [each.value for each in sd], digits) if sd else ""
            table = deviation_table(keys, [], [triangle], digits)
            return ResidualBlock(heading, (line,) if line else (), table)
        shown = [*sd, *others]
        line = in_line([each.label for each in shown], [each.value for each in shown], digits)
        if known and sd:
            own = in_line(["Std.Dev."], [sd[0].value], digits)
            line = line.replace(own, f"{own}, known", 1)
        return ResidualBlock(heading, (line,) if shown else ())
    if term.kind == "us":
        keys = [
            (str(term.by), [s if t == 0 else "" for s in strata for t in range(term.n_times)]),
            (" x ".join(term.position), times * len(strata)),
        ]
        values = [v.value if t == 0 else np.nan for v in sd for t in range(term.n_times)]
        columns = [("Std.Dev.", values)] if sd else []
        triangles = [_triangle(others, s, term.n_times) for s in strata]
        return ResidualBlock(heading, (), deviation_table(keys, columns, triangles, digits))
    headers = list(dict.fromkeys(_header(each) for each in [*sd, *others]))
    values_of = {
        header: [
            next(v.value for v in [*sd, *others] if _header(v) == header and v.stratum == s)
            for s in strata
        ]
        for header in headers
    }
    table = deviation_table([(str(term.by), strata)], list(values_of.items()), (), digits)
    return ResidualBlock(heading, (), table)


def _header(parameter: ResidualParameter) -> str:
    kind = "Std.Dev." if parameter.kind == "sd" else parameter.kind
    return " ".join(filter(None, (kind, ", ".join(parameter.of))))


def _lines(others: Sequence[ResidualParameter], strata: Sequence[str], digits: int) -> list[str]:
    """The correlations of each stratum in a line."""
    out = []
    for stratum in strata:
        own = [each for each in others if each.stratum == stratum]
        if own:
            line = in_line([_header(each) for each in own], [each.value for each in own], digits)
            out.append(f"{stratum}: {line}" if stratum else line)
    return out


def _triangle(others: Sequence[ResidualParameter], stratum: str, T: int) -> np.ndarray:
    C = np.eye(T)
    C[np.tril_indices(T, -1)] = [each.value for each in others if each.stratum == stratum]
    return C


def _what(term: ResidualTerm, known: bool) -> str:
    het = term.times is not None and not term.homogeneous and term.kind not in ("us", "diag")
    same = term.homogeneous and term.kind in ("us", "diag")
    kind = ("heterogeneous " if het else "homogeneous " if same else "") + term.kind
    if term.nugget:
        kind += " with nugget"
    if term.kind == "known":
        return "known" if known else "known up to sigma squared"
    between = " + " if term.coordinates is not None else ", "
    position = f" in {between.join(term.position)}" if term.position else ""
    by = "" if term.by is None else f" by {term.by}"
    return f"{kind}{position} within {term.group}{by}"


def _counts(term: ResidualTerm) -> str:
    sizes = np.bincount(term.codes, minlength=term.n_levels)
    name = "series" if term.kind in _SERIES else "group" if term.n_levels == 1 else "groups"
    low, high = int(sizes.min()), int(sizes.max())
    if term.times is not None and high <= term.n_times:
        T = term.n_times
        mean = f"{sizes.mean():.1f}".removesuffix(".0")
        size = f"{T:,} times" if low == T else f"{mean} of {T:,} times"
    else:
        between = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        size = f"{between} row{'s' if high > 1 else ''}"
    return f"{term.n_levels:,} {name}, {size}"


# --- variance= ---------------------------------------------------------------------------


def _of_variance(
    variance: VarianceTerm, parameters: Sequence[ResidualParameter], told: bool, digits: int
) -> ResidualBlock:
    heading = f"Residual variance by {variance.text}"
    if _is_by_level(parameters):
        own = [each for each in parameters if each.kind == "sd"]
        prefix = variance.text if variance.reference.startswith(variance.text) else ""
        names = [("".join(each.of) or "others").removeprefix(prefix) + ":" for each in own]
        line = "Std.Dev. " + in_line(names, [each.value for each in own], digits)
        return ResidualBlock(heading, (line,), is_short=True)
    of_sigma = [each for each in parameters if each.is_sigma and not told]
    covariates = [each for each in parameters if each.kind in _COVARIATES]
    shown = [*of_sigma, *covariates]
    lines = [in_line([each.label for each in shown], [each.value for each in shown], digits)]
    if len(covariates) == 1:
        (only,) = covariates
        at = f"{only.of[0]} is {1 if only.kind == 'power' else 0}"
    else:
        at = "these columns are 0"
    lines.append(f"(Std.Dev. is that where {at})")
    return ResidualBlock(heading, tuple(lines), is_short=True)
