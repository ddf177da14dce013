"""The summary of a fitted model, laid out as readers of lme4 and lmerTest expect it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mixedeffects.base.habits import OF_A_SUMMARY, unknown_attribute
from mixedeffects.display.coefficients import coefficient_table, correlation_table
from mixedeffects.display.latex import latex_escape
from mixedeffects.display.lettering import wrapped
from mixedeffects.display.markdown import markdown_escape
from mixedeffects.display.numbers import format_numbers, round_number, zap_small
from mixedeffects.display.residual_text import ResidualBlock
from mixedeffects.display.shown import Shown
from mixedeffects.display.tables import DEFAULT_WIDTH, Table, named_row
from mixedeffects.display.varcorr_text import VarCorrBlock, varcorr_table

__all__ = ["InformationCriteria", "Summary", "residual_section"]

# lme4 stops printing the correlations beyond this many coefficients.
CORRELATION_LIMIT = 12


@dataclass(frozen=True)
class InformationCriteria:
    """What the summary of a maximum-likelihood fit prints in place of the REML criterion.

    Parameters
    ----------
    aic, bic, loglik, deviance : float
        Information criteria, log-likelihood and minus twice the log-likelihood.
    df_resid : float
        Observations minus all parameters.

    Examples
    --------
    >>> InformationCriteria(1763.94, 1783.10, -875.97, 1751.94, 174).table()
         AIC      BIC   logLik deviance df.resid
      1763.9   1783.1   -876.0   1751.9      174
    """

    aic: float
    bic: float
    loglik: float
    deviance: float
    df_resid: float

    def table(self) -> Table:
        """One row of all five numbers with a common number of decimals."""
        values = (self.aic, self.bic, self.loglik, self.deviance, self.df_resid)
        rounded = [round_number(value, 1) for value in values]
        texts = [*format_numbers(rounded)[:4], *format_numbers(rounded[4:])]
        return named_row(["AIC", "BIC", "logLik", "deviance", "df.resid"], texts)


@dataclass(frozen=True)
class _Section:
    """A heading with what stands below it; both renderings are made from this."""

    heading: str = ""
    before: tuple[str, ...] = ()
    table: Table | None = None
    after: tuple[str, ...] = ()

    def to_text(self, width: int | None) -> str:
        parts = [f"{self.heading}:"] if self.heading else []
        parts += self.before
        if self.table is not None:
            parts.append(self.table.to_text(width))
        return "\n".join(line.rstrip() for line in [*parts, *self.after])

    def to_html(self) -> str:
        parts = [f"<h4>{escape(self.heading)}</h4>"] if self.heading else []
        parts += [f"<p>{escape(line.strip())}</p>" for line in self.before]
        if self.table is not None:
            parts.append(self.table.to_html())
        parts += [f"<p>{escape(line.strip())}</p>" for line in self.after]
        return "\n".join(parts)

    def to_latex(self) -> str:
        def lines(texts: Sequence[str]) -> list[str]:
            # Empty braces keep what follows a line break from being read as its options.
            return ["\\\\\n{}".join(latex_escape(line.strip()) for line in texts)]

        heading = rf"\textbf{{{latex_escape(self.heading)}}}\nopagebreak"
        parts = [heading] if self.heading else []
        parts += lines(self.before) if self.before else []
        if self.table is not None:
            parts.append(self.table.to_latex())
        parts += lines(self.after) if self.after else []
        return "\n\n\\smallskip\n".join(rf"\noindent {part}" for part in parts)

    def to_markdown(self) -> str:
        parts = [f"#### {markdown_escape(self.heading)}"] if self.heading else []
        parts += [markdown_escape(line) for line in self.before]
        if self.table is not None:
            parts.append(self.table.to_markdown())
        parts += [markdown_escape(line) for line in self.after]
        return "\n\n".join(parts)


@dataclass(frozen=True)
class _ResidualSection(_Section):
    """What is said of the residuals' covariance: its heading has a colon in it."""

    block: ResidualBlock | None = None

    def to_text(self, width: int | None) -> str:
        text = "" if self.block is None else self.block.to_text(width)
        return "\n".join([text, *(line.rstrip() for line in self.after)])


def residual_section(block: ResidualBlock, after: tuple[str, ...] = ()) -> _Section:
    """The section of a block, with lines below it."""
    # Where text is set, two blanks are one.
    lines = tuple(line.replace("  ", ", ") for line in block.lines)
    return _ResidualSection(block.heading, lines, block.table, after, block)


@dataclass(frozen=True, eq=False, repr=False)
class Summary(Shown):
    """Everything a summary prints, as plain data.

    ``str()`` and ``repr()`` give the text, ``_repr_html_()`` the same sections in HTML.

    Parameters
    ----------
    formula : str
        The model formula as it is to be shown.
    reml : bool
        Whether the fit maximised the restricted likelihood.
    criterion : float or InformationCriteria
        REML criterion at the optimum, or the information criteria of a maximum-likelihood fit.
    varcorr : sequence of VarCorrBlock
        Random-effect terms in the order to print.
    residual : float or None
        Residual standard deviation; None on the scale of a link, where there is none.
    nobs : int
        Number of observations used.
    ngroups : mapping of str to int
        Number of levels by grouping factor.
    coefficients : DataFrame
        One row per fixed effect with columns ``Estimate``, ``Std. Error``, ``df``, ``t value``
        and ``Pr(>|t|)``; ``df`` and the p-values may be absent.
    correlation : DataFrame, optional
        Correlation matrix of the fixed effects.
    residual_quantiles : array_like of float, shape (5,), optional
        Minimum, quartiles and maximum of the scaled residuals.
    test_method : str, optional
        How the tests were made, as in ``"t-tests use Satterthwaite's method"``.
    data_name, weights_name, offset_name : str, optional
        Names to show for the data, the prior weights and the offset.
    notes : sequence of str
        Remarks printed at the end: rows or columns dropped, singular fit, convergence.
    digits : int
        Significant digits.
    stars : bool
        Whether to print significance codes.
    residual_covariance : sequence of ResidualBlock
        What is said of residuals that are correlated, or of several variances; their standard
        deviation is then told there. Without random effects it is a fit by generalized least
        squares.
    correlation_limit : int or None
        The correlations are not printed for more coefficients than this; None always prints.
    title : str, optional
        First line, in place of one about a linear model.
    details : mapping of str to str, optional
        What follows the title, by label, in place of formula, data, weights and offset.

    Raises
    ------
    ValueError
        If the parts do not fit together.

    Examples
    --------
    >>> Summary(
    ...     formula="Reaction ~ 1 + (1 | Subject)",
    ...     reml=True,
    ...     criterion=1904.3265,
    ...     varcorr=[VarCorrBlock("Subject", ["(Intercept)"], [35.7536])],
    ...     residual=44.2589,
    ...     nobs=180,
    ...     ngroups={"Subject": 18},
    ...     coefficients=pd.DataFrame(
    ...         {"Estimate": [298.5079], "Std. Error": [9.0499], "t value": [32.9847]},
    ...         index=["(Intercept)"],
    ...     ),
    ... )
    Linear mixed model fit by REML
    Formula: Reaction ~ 1 + (1 | Subject)
    <BLANKLINE>
    REML criterion at convergence: 1904.3
    <BLANKLINE>
    Random effects:
     Groups   Name        Variance Std.Dev.
     Subject  (Intercept) 1278     35.75
     Residual             1959     44.26
    Number of obs: 180, groups:  Subject, 18
    <BLANKLINE>
    Fixed effects:
                Estimate Std. Error t value
    (Intercept)   298.51       9.05   32.98
    """

    formula: str
    reml: bool
    criterion: float | InformationCriteria
    varcorr: Sequence[VarCorrBlock]
    residual: float | None
    nobs: int
    ngroups: Mapping[str, int]
    coefficients: pd.DataFrame
    correlation: pd.DataFrame | None = None
    residual_quantiles: ArrayLike | None = None
    test_method: str | None = None
    data_name: str | None = None
    weights_name: str | None = None
    offset_name: str | None = None
    notes: Sequence[str] = ()
    digits: int = 4
    stars: bool = True
    correlation_limit: int | None = CORRELATION_LIMIT
    residual_covariance: Sequence[ResidualBlock] = ()
    title: str | None = None
    details: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if self.reml is isinstance(self.criterion, InformationCriteria):
            raise ValueError(
                "criterion must be a number for a REML fit and InformationCriteria for a "
                "maximum-likelihood fit"
            )
        if self.residual_quantiles is not None and np.shape(self.residual_quantiles) != (5,):
            raise ValueError(
                "residual_quantiles must be five numbers, not an array of shape "
                f"{np.shape(self.residual_quantiles)}"
            )
        p = len(self.coefficients)
        if self.correlation is not None and self.correlation.shape != (p, p):
            raise ValueError(
                f"correlation must be {p} x {p} like the coefficients, not of shape "
                f"{self.correlation.shape}"
            )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise unknown_attribute(name, "A summary", OF_A_SUMMARY, dir(self))

    def to_text(self, width: int | None = DEFAULT_WIDTH) -> str:
        """Render fixed-width text.

        Parameters
        ----------
        width : int, optional
            Tables and sentences are broken to fit this width; None never breaks.

        Returns
        -------
        str
            Lines without trailing blanks.
        """
        return "\n\n".join(section.to_text(width) for section in self._sections(width))

    def to_html(self) -> str:
        """Render one heading and table per section, without style rules.

        Returns
        -------
        str
            HTML in which every text is escaped.
        """
        return "\n".join(section.to_html() for section in self._sections(None))

    def to_latex(self) -> str:
        r"""Render one heading and ``tabular`` per section.

        Returns
        -------
        str
            LaTeX in which every text is escaped; it needs ``\usepackage{booktabs}``.
        """
        return "\n\n\\medskip\n".join(section.to_latex() for section in self._sections(None))

    def to_markdown(self) -> str:
        """Render one heading and pipe table per section.

        Returns
        -------
        str
            Markdown in which every text is escaped.
        """
        return "\n\n".join(section.to_markdown() for section in self._sections(None))

    def with_correlation(self) -> Summary:
        """Return the same summary printing the correlations of however many coefficients.

        Returns
        -------
        Summary
            A copy with ``correlation_limit=None``.
        """
        return replace(self, correlation_limit=None)

    def _sections(self, width: int | None) -> list[_Section]:
        sections = [
            _Section(before=self._title_lines(width)),
            self._criterion_section(),
            self._residual_section(),
            *self._covariance_sections(width),
            self._coefficient_section(),
            self._correlation_section(),
            self._note_section(width),
        ]
        return [section for section in sections if section is not None]

    def _covariance_sections(self, width: int | None) -> list[_Section]:
        """Random effects and residuals, the numbers of rows and levels below the last."""
        sizes = self._size_lines(width)
        blocks = self.residual_covariance
        residual = None if blocks else self.residual
        table = varcorr_table(self.varcorr, residual, self.digits, ("Variance", "Std.Dev."))
        if not blocks:
            return [_Section("Random effects", table=table, after=sizes)]
        random = [_Section("Random effects", table=table)] if len(self.varcorr) else []
        ends = [*[()] * (len(blocks) - 1), sizes]
        return [*random, *map(residual_section, blocks, ends)]

    @property
    def _is_gls(self) -> bool:
        return bool(self.residual_covariance) and not len(self.varcorr)

    def _title_lines(self, width: int | None) -> tuple[str, ...]:
        method = "REML" if self.reml else "maximum likelihood"
        model = "Generalized least squares" if self._is_gls else "Linear mixed model"
        title = self.title or f"{model} fit by {method}"
        if self.test_method:
            title += f". {self.test_method}"
        named: Mapping[str, str | None] = self.details or {
            "Formula": self.formula,
            "   Data": self.data_name,
            "Weights": self.weights_name,
            " Offset": self.offset_name,
        }
        return (
            *wrapped(title, width),
            *(
                line
                for label, text in named.items()
                if text is not None
                for line in wrapped(f"{label}: {text}", width)
            ),
        )

    def _criterion_section(self) -> _Section:
        if isinstance(self.criterion, InformationCriteria):
            return _Section(table=self.criterion.table())
        (text,) = format_numbers([round_number(self.criterion, 1)])
        return _Section(before=(f"REML criterion at convergence: {text}",))

    def _residual_section(self) -> _Section | None:
        if self.residual_quantiles is None:
            return None
        quantiles = np.asarray(self.residual_quantiles, dtype=float).tolist()
        texts = format_numbers(zap_small(quantiles, self.digits + 1), self.digits)
        names = ["Min", "1Q", "Median", "3Q", "Max"]
        return _Section("Scaled residuals", table=named_row(names, texts))

    def _size_lines(self, width: int | None) -> tuple[str, ...]:
        observations = f"Number of obs: {self.nobs}, groups: "
        groups = "; ".join(f"{name}, {count}" for name, count in self.ngroups.items())
        if not groups:
            return (observations.removesuffix(", groups: "),)
        line = f"{observations} {groups}"
        return (line,) if width is None or len(line) <= width else (observations, groups)

    def _coefficient_section(self) -> _Section | None:
        if self.coefficients.empty:
            return None
        table = coefficient_table(self.coefficients, self.digits, stars=self.stars)
        return _Section("Fixed effects", table=table)

    def _correlation_section(self) -> _Section | None:
        p = len(self.coefficients)
        if self.correlation is None or p < 2:
            return None
        if self.correlation_limit is not None and p > self.correlation_limit:
            return _Section(
                before=(
                    "Correlation matrix not shown by default, as "
                    f"p = {p} > {self.correlation_limit}.",
                    "Use .with_correlation() to print it, or",
                    "    .correlation        if you need it",
                )
            )
        return _Section("Correlation of Fixed Effects", table=correlation_table(self.correlation))

    def _note_section(self, width: int | None) -> _Section | None:
        if not self.notes:
            return None
        return _Section(before=tuple(line for note in self.notes for line in wrapped(note, width)))
