"""What prints as a table, or as several parts below each other: text, HTML, LaTeX and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mixedeffects.display.shown import html_document
from mixedeffects.display.tables import DEFAULT_WIDTH, Table

__all__ = ["ShownTables"]


class ShownTables:
    """The four renderings of what prints as tables; a subclass says which these are."""

    def _parts(self) -> Sequence[Any]:
        """Tables, and what else has the same renderings."""
        raise NotImplementedError

    def to_latex(self, caption: str | None = None, label: str | None = None) -> str:
        r"""What is printed as LaTeX, tables as ``tabular``; it needs ``\usepackage{booktabs}``.

        Parameters
        ----------
        caption, label : str, optional
            Either makes a ``table`` environment of the first table.

        Returns
        -------
        str
            All text escaped.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> print(m.varcorr.to_latex().splitlines()[4])
        Batch & (Intercept) & 42.001 \\
        """
        first, *others = self._parts()
        head = first.to_latex(caption, label) if isinstance(first, Table) else first.to_latex()
        return "\n\n".join([str(head), *(each.to_latex() for each in others)])

    def to_markdown(self) -> str:
        """What is printed as Markdown, tables as pipe tables.

        Returns
        -------
        str

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> print(m.varcorr.to_markdown().splitlines()[-1])
        | Residual |  | 49.510 |
        """
        return "\n\n".join(each.to_markdown() for each in self._parts())

    def to_html(self) -> str:
        """What is printed as HTML, without style rules.

        Returns
        -------
        str

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> m.varcorr.to_html().splitlines()[0]
        '<table>'
        """
        return "\n".join(each.to_html() for each in self._parts())

    def __repr__(self) -> str:
        return "\n".join(each.to_text(DEFAULT_WIDTH) for each in self._parts())

    def _repr_html_(self) -> str:
        return html_document(self.to_html())
