"""Drawing estimated marginal means; matplotlib is imported only then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

from mixedeffects.base.options import checked_flag
from mixedeffects.display.curves import Sheet, draw_sheet
from mixedeffects.display.needs_matplotlib import require_matplotlib
from mixedeffects.display.panels import as_pictures
from mixedeffects.display.vocabulary import intervals_at
from mixedeffects.inference.letters import critical_differences, mean_letters
from mixedeffects.inference.mean_comparisons import Means
from mixedeffects.inference.means_layout import layout_of_means
from mixedeffects.inference.population_comparisons import as_parameters

if TYPE_CHECKING:
    from matplotlib.axes import Axes


__all__ = ["comparison_arrows", "draw_means"]

Matrix = NDArray[np.float64]

#: Pairs whose difference is near to being significant count so much more for the arrows.
_NEAR = 50.0


def draw_means(means: Means, ax: Any, lines: Any, arrows: Any, letters: Any) -> Axes | NDArray[Any]:
    """See `MarginalMeans.plot`."""
    require_matplotlib()
    arrows, letters = checked_flag(arrows, "arrows"), checked_flag(letters, "letters")
    layout = layout_of_means(means)
    joined = len(layout.series_names) > 1 or layout.categories is None
    if lines is not None:
        joined = checked_flag(lines, "lines")
    shown = means.to_frame()
    notes = [intervals_at(means.level)]
    texts: list[str] = []
    if letters:
        texts = mean_letters(means, None, None, False)[1]
        notes.append("means that share a letter do not differ significantly")
    lengths = None
    if arrows:
        lengths, wrong = comparison_arrows(means)
        notes.append("arrows that do not overlap show significant differences")
        if wrong:
            notes[-1] += f" (but for {wrong} pairs: see .contrasts())"
    sheet = Sheet(
        tuple(layout.panels(shown, texts, lengths)),
        layout.x_name,
        _value_name(means),
        layout.categories,
        layout.series_names,
        layout.series_name,
        layout.ordered,
        joined,
        "; ".join(notes),
        bars=True,
    )
    axes = draw_sheet(sheet, ax)
    return axes[0] if not means.by else as_pictures(axes)


def _value_name(means: Means) -> str:
    if means.name.endswith(".trend"):
        return f"slope of {means.name.removesuffix('.trend')}"
    return str(means.scale.shown)


def comparison_arrows(means: Means) -> tuple[Matrix, int]:
    """Lengths of arrows, down and up, that overlap where means do not differ significantly.

    The arrows of two means that face each other together have the smallest significant difference
    of these means as their length, as nearly as lengths that belong to single means can have it;
    pairs near significance count most.

    Parameters
    ----------
    means : Means
        The means.

    Returns
    -------
    lengths : ndarray, shape (means, 2)
        On the scale that the means are shown on; NaN where no other mean is on that side.
    wrong : int
        Pairs whose arrows say something else than their test.

    References
    ----------
    Andrews, H. P., Snee, R. D. and Sarner, M. H. (1980). Graphical display of means. The American
    Statistician 34, 195-199.
    """
    means = as_parameters(means)
    eta, scale = means.estimates.estimate, means.scale
    lengths, wrong = np.full((len(eta), 2), np.nan), 0
    for rows, D in critical_differences(means):
        known = np.flatnonzero(np.isfinite(eta[rows]))
        order = known[np.argsort(eta[rows][known], kind="stable")]
        pairs = [
            (low, high)
            for i, low in enumerate(order)
            for high in order[i + 1 :]
            if np.isfinite(D[low, high])
        ]
        if not pairs:
            continue
        # Unknown: the arrow upwards of each mean, then that downwards.
        k = len(rows)
        system, wanted = np.zeros((len(pairs), 2 * k)), np.empty(len(pairs))
        for r, (low, high) in enumerate(pairs):
            distance = eta[rows[high]] - eta[rows[low]]
            weight = 1.0 / (1.0 / _NEAR + abs(distance / D[low, high] - 1.0))
            system[r, [low, k + high]] = weight
            wanted[r] = weight * D[low, high]
        # Of equally good lengths those that are alike upwards and downwards.
        small = 1e-3 * np.median(wanted)
        alike = small * np.hstack([np.eye(k), -np.eye(k)]) / np.median(D[np.isfinite(D)])
        found = scipy.optimize.nnls(
            np.vstack([system, alike]), np.concatenate([wanted, np.zeros(k)])
        )[0]
        for low, high in pairs:
            distance = eta[rows[high]] - eta[rows[low]]
            overlap = found[low] + found[k + high] > distance
            wrong += int(overlap != (distance < D[low, high]))
        for i in order:
            own = rows[i]
            if i != order[-1]:
                lengths[own, 1] = found[i]
            if i != order[0]:
                lengths[own, 0] = found[k + i]
    if scale.way is not None:
        shown = scale.values(eta)
        ends = np.column_stack(
            [scale.values(eta - lengths[:, 0]), scale.values(eta + lengths[:, 1])]
        )
        if scale.way.falls:
            ends = ends[:, ::-1]
        lengths = np.abs(ends - shown[:, None])
    return lengths, wrong
