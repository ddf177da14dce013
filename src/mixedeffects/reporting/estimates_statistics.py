"""Statistics of whole fits side by side: counts, criteria, and shares of the variance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from mixedeffects.comparison.latent_variance import icc_of_fit, r2_of_fit
from mixedeffects.display.numbers import fixed_decimals
from mixedeffects.display.sectioned import Row
from mixedeffects.fitting.fit import Fit
from mixedeffects.reporting.estimates_arguments import Labels
from mixedeffects.reporting.estimates_coefficients import in_order

__all__ = ["FIT_STATISTICS", "KNOWN_STATISTICS", "FitRow", "fit_rows"]

FIT_STATISTICS = ("nobs", "groups", "method", "loglik", "aic", "bic", "icc", "r2")
#: Beside those made by hand: what a statistic of the whole fit is called, and how it is computed.
_VALUES: dict[str, tuple[str, Callable[[Fit], float]]] = {
    "loglik": ("Log-likelihood", lambda m: m.loglik),
    "criterion": ("Criterion", lambda m: m.criterion),
    "aic": ("AIC", lambda m: m.aic),
    "bic": ("BIC", lambda m: m.bic),
}
_SHARES: dict[str, tuple[tuple[str, Callable[[Fit], float]], ...]] = {
    "icc": (("ICC", lambda m: icc_of_fit(m).adjusted),),
    "r2": (
        ("R2 marginal", lambda m: r2_of_fit(m).marginal),
        ("R2 conditional", lambda m: r2_of_fit(m).conditional),
    ),
}
#: Shares that there are with random effects only.
_OF_RANDOM_EFFECTS = ("ICC", "R2 conditional")
KNOWN_STATISTICS = ("nobs", "groups", "method", *_VALUES, *_SHARES, "n_parameters")
FitRow = tuple[Row, Sequence[float] | None]


def fit_rows(name: str, fits: Sequence[Fit], label: Labels, digits: int) -> list[FitRow]:
    """Rows for one statistic, with their numbers."""
    if name == "method":
        return [(Row("Estimation", tuple(fit.estimation for fit in fits)), None)]
    if name == "groups":
        counts = [{label(group): n for group, n in fit.ngroups.items()} for fit in fits]
        return [
            _counts(f"Groups: {group}", [own.get(group) for own in counts])
            for group in in_order(counts)
        ]
    if name == "nobs":
        return [_counts("Observations", [fit.nobs for fit in fits])]
    if name == "n_parameters":
        return [_counts("Parameters", [fit.n_parameters for fit in fits])]
    places = max(1, digits - 2) if name in _VALUES else digits
    made = (_VALUES[name],) if name in _VALUES else _SHARES[name]
    rows: list[FitRow] = []
    for title, compute in made:
        # Without random effects they have no share of the variance.
        has = [bool(fit.frame.terms) or title not in _OF_RANDOM_EFFECTS for fit in fits]
        if not any(has):
            continue
        values = [
            float(compute(fit)) if known else math.nan for fit, known in zip(fits, has, strict=True)
        ]
        cells = [
            fixed_decimals(value, places) if known else ""
            for value, known in zip(values, has, strict=True)
        ]
        rows.append((Row(title, tuple(cells)), values))
    return rows


def _counts(title: str, counts: Sequence[int | None]) -> FitRow:
    cells = tuple("" if count is None else f"{count:,}" for count in counts)
    return Row(title, cells), [math.nan if count is None else float(count) for count in counts]
