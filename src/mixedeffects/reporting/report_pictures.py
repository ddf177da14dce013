"""The pictures of a report, drawn one by one so that each is readable on a telephone."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from mixedeffects.covariance.groups import connected_blocks
from mixedeffects.covariance.of_fit import R_of, V_of, Z_of
from mixedeffects.display import plots
from mixedeffects.display.report_page import figure, note
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.inference.conditional import conditional_modes
from mixedeffects.inference.effects import effects
from mixedeffects.pictures import effect_plots, ranef_plots, residual_plots
from mixedeffects.pictures.panel import PANEL

__all__ = ["Pictures"]

#: Inches; at 96 CSS pixels to the inch the text keeps its size on the page.
_SIZE = (4.4, 3.5)
_PIXELS = 96
_RESOLUTION = 192
#: Pairs of effects of one factor that are drawn.
_PAIRS = 6
#: Levels, and characters of a level's name, that the picture of V has room for.
_LABELLED = 12
_LABEL = 6
#: Rows of a level's block of V that is drawn beside the whole.
_BLOCK = 200
#: Panels of one effect that are drawn.
_FACETS = 8


class Pictures:
    """Figures of one model as HTML; a sentence stands where one cannot be drawn.

    Parameters
    ----------
    fit : Fit
        The fit.
    """

    def __init__(self, fit: Fit) -> None:
        self._fit = fit

    def diagnostics(self) -> Iterator[str]:
        """The pictures of the panel."""
        m = self._fit
        rows = f"{m.nobs:,} rows"
        if m.residual is not None:
            yield from self._normalized()
            return
        alts = {
            "residuals": f"Residuals against fitted values of {rows}, with a smooth line",
            "scale": f"Root of absolute residuals against fitted values of {rows}, with a smooth",
            "qq": f"Normal quantile plot of the residuals of {rows}, with a 95 % band",
            "ranef_qq": "Normal quantile plot of standardised conditional modes, with a 95 % band",
            "groups": "Box plots of the residuals of the levels where they are largest",
            "leverage": f"Residuals against leverages of {rows}",
        }
        captions = {
            "residuals": "The line should stay near zero.",
            "scale": "The line should be level.",
            "qq": "If the model holds, all points lie within the band together in 95 % of data "
            "sets, or nearly so.",
            "ranef_qq": "Modes divided by their own standard deviation.",
            "groups": "Levels ranked by how improbable their residuals are; the worst on top.",
            "leverage": "The rows with most pull on the fit are named.",
        }
        for name, picture in PANEL.items():
            yield self.figure(partial(picture, m), alts[name], captions[name])

    def _normalized(self) -> Iterator[str]:
        """The pictures of residuals that are independent, of one variance, if the model holds."""
        m = self._fit
        of = f"normalized residuals of {m.nobs:,} rows"
        pictures: list[tuple[Callable[..., Any], str, str]] = [
            (
                partial(residual_plots.residuals, m, resid="normalized"),
                f"Plot of the {of} against fitted values, with a smooth line",
                "Whitened with R. The line should stay near zero.",
            ),
            (
                partial(residual_plots.scale, m, resid="normalized"),
                f"Root of the absolute {of} against fitted values, with a smooth line",
                "The line should be level.",
            ),
            (
                partial(residual_plots.qq, m, resid="normalized"),
                f"Normal quantile plot of the {of}, with a band",
                "If the model holds, the points lie near the line.",
            ),
        ]
        if m.frame.terms:
            pictures.append(
                (
                    partial(PANEL["ranef_qq"], m),
                    "Normal quantile plot of standardised conditional modes, with a 95 % band",
                    "Modes divided by their own standard deviation.",
                )
            )
        for picture, alt, caption in pictures:
            yield self.figure(picture, alt, caption)

    def fixed(self, ddf: str, vcov: str, cluster: Any, scale: str = "link") -> Iterator[str]:
        """Effects of the terms of the fixed part, on the scale of the response or of the link."""
        m = self._fit
        for each in effect_plots.term_effects(m):
            names = " and ".join((*each.variables, *each.by))
            try:
                found = effects(
                    m, each.variables, each.by or None, None, "equal", 0.95, ddf, vcov, cluster,
                    "none", scale, False, None,
                )  # fmt: skip
            except ModelError as error:
                yield note(f"Effect of {names}: not drawn. {error}")
                continue
            others = [note for note in found.notes if note.startswith(("averaged", "at "))]
            means = (
                "Means of the population" if scale == "link" else "Means at random effects of zero"
            )
            caption = "; ".join([f"{means} with 95 % intervals", *others]) + "."
            alt = f"Effect of {names} on {found.response}, with 95 % intervals"
            panels = len(found.means.groups())
            if panels > _FACETS:
                yield note(f"{alt}: not drawn, for it has {panels} panels; see m.effects().")
                continue
            rows = -(-panels // 2)
            size = _SIZE if panels == 1 else (2.4 * 2, 2.3 * rows + 0.6)
            yield self.figure(found.plot, alt, caption, size, panels)

    def residuals(self) -> Iterator[str]:
        """Correlations of the residuals: over the common times, or of the longest group's rows."""
        m = self._fit
        term = m.frame.residual
        if term is None:
            return
        R = R_of(m)
        codes = np.bincount(term.codes, minlength=term.n_levels)
        level = term.levels[int(codes.argmax())]
        if term.times is not None:
            found = R.covariance
            tables = found if isinstance(found, dict) else {"": found}
            for stratum, covariance in tables.items():
                of = f" of {term.by} {stratum}" if stratum else ""
                yield self.figure(
                    partial(
                        plots.covariance,
                        covariance,
                        kind="correlation",
                        title=f"R{of}, correlations",
                    ),
                    f"Picture of the correlations of the residuals{of} at {term.n_times} times",
                    f"Correlations of the residuals{of} at the times that groups have in common.",
                )
        elif 1 < codes.max() <= _BLOCK:
            yield self.figure(
                partial(
                    R.plot,
                    level,
                    by=term.group,
                    kind="correlation",
                    annotate=False,
                    title=f"R of {term.group} {level}",
                ),
                f"Picture of the correlations of the residuals of {term.group} {level}",
                f"Correlations of the residuals of the largest group, {term.group} {level}.",
            )
        if 1 < codes.max() <= _BLOCK:
            yield self.figure(
                partial(V_of(m).plot, level, by=term.group, annotate=False),
                f"Picture of the block of V of {term.group} {level}",
                f"V = Z G Z' + R of the rows of {term.group} {level}.",
            )

    def matrices(self) -> Iterator[str]:
        """V, the block of one level, and Z."""
        m = self._fit
        if not m.frame.terms:
            alt = f"Picture of the marginal covariance matrix V, {m.nobs:,} by {m.nobs:,}"
            yield self.figure(V_of(m).plot, alt, "V = R, the covariance matrix of the response.")
            return
        n, q = m.nobs, Z_of(m).shape[1]
        term = m.frame.terms[-1]
        few = term.n_levels <= _LABELLED and max(map(len, map(str, term.levels))) <= _LABEL
        labelled: dict[str, Any] = {} if few else {"groups": None}
        yield self.figure(
            partial(V_of(m).plot, by=term.group, **labelled),
            f"Picture of the marginal covariance matrix V, {n:,} by {n:,}",
            f"V = Z G Z' + R, {m.working_name or 'the covariance matrix of the response'}.",
            exact=True,
        )
        level = term.levels[int(term.codes[0])]
        rows = int((term.codes == term.codes[0]).sum())
        blocks = connected_blocks(m.frame.terms)
        if 1 < rows <= _BLOCK and blocks.max() > 0:
            yield self.figure(
                partial(V_of(m).plot, level, by=term.group, annotate=False),
                f"Picture of the block of V of {term.group} {level}, {rows:,} by {rows:,}",
                f"The block of V of the first level in the data, {term.group} {level}.",
                exact=True,
            )
        from mixedeffects.display.plots import matrix

        yield self.figure(
            partial(matrix, Z_of(m), title="Z"),
            f"Picture of the random-effects model matrix Z, {n:,} by {q:,}",
            "Z, a row for each observation and a column for each random effect.",
            # The faintest of colours tells a small number from zero.
            exact=True,
        )

    def effects(self) -> Iterator[str]:
        """Caterpillars and pairs of conditional modes, factor by factor."""
        m = self._fit
        for group, modes in conditional_modes(m).items():
            names = list(dict.fromkeys(modes.columns))
            height = 3.8 if len(modes) > 60 else max(2.0, 0.15 * len(modes) + 0.9)
            if len(names) < modes.shape[1]:
                # The same column in two terms: its pictures cannot be told apart by name.
                yield note(f"{group} has the same effect in several terms; see m.ranef().")
                continue
            for name in names:
                yield self.figure(
                    partial(ranef_plots.caterpillar, m, by=group, columns=name),
                    f"Caterpillar plot: conditional modes of {name} for the {len(modes):,} levels "
                    f"of {group}, with 95 % intervals",
                    "",
                    (_SIZE[0], height),
                )
            pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
            for a, b in pairs[:_PAIRS]:
                yield self.figure(
                    partial(ranef_plots.ranef_pairs, m, by=group, columns=[a, b]),
                    f"Conditional modes of {b} against {a} for the levels of {group}, with the "
                    "95 % ellipse of their estimated covariance",
                    "",
                )
            if len(pairs) > _PAIRS:
                yield note(
                    f"{group}: {_PAIRS} of {len(pairs)} pairs of effects are drawn; "
                    'm.plot("ranef_pairs") draws all.'
                )

    def figure(
        self,
        draw: Callable[..., Any],
        alt: str,
        caption: str,
        size: tuple[float, float] = _SIZE,
        panels: int = 1,
        exact: bool = False,
    ) -> str:
        """One figure, or a sentence where it cannot be drawn."""
        from matplotlib.figure import Figure

        with _own_style():
            sheet = Figure(figsize=size, layout="constrained")
            try:
                draw(ax=sheet.subplots() if panels == 1 else _grid_of(sheet, panels))
            except ModelError as error:
                return note(f"{alt}: not drawn. {error}")
            file = io.BytesIO()
            sheet.savefig(file, format="png", dpi=_RESOLUTION)
        shown = (round(_PIXELS * size[0]), round(_PIXELS * size[1]))
        return figure(_smaller(file, exact), shown, alt, caption)


def _smaller(file: io.BytesIO, exact: bool) -> bytes:
    """The picture with a palette of 256 colours, a third of its size, or with its own colours."""
    from PIL import Image

    out = io.BytesIO()
    picture = Image.open(file).convert("RGB")
    (picture if exact else picture.quantize(256)).save(out, "png", optimize=True)
    return out.getvalue()


def _grid_of(sheet: Any, panels: int) -> Any:
    """Axes in two columns, no more than there are panels."""
    axes = list(sheet.subplots(-(-panels // 2), 2, squeeze=False).flat)
    for unused in axes[panels:]:
        unused.set_visible(False)
    return axes[:panels]


@contextmanager
def _own_style() -> Iterator[None]:
    """Matplotlib's defaults, whatever style the session uses."""
    from matplotlib import style

    with style.context("default"):
        yield
