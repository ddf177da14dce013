"""What is shown as text where it is printed, and as HTML in notebooks."""

from __future__ import annotations

__all__ = ["Shown", "html_document"]

# Everything inherits the page's colours, so the same rules serve light and dark notebooks.
_STYLE = """
.mixedeffects table {border-collapse: collapse; margin: 0.2em 0 0.4em 0; color: inherit;
  background: transparent; font-variant-numeric: tabular-nums;}
.mixedeffects th, .mixedeffects td {padding: 0.1em 0.7em; color: inherit; text-align: left;
  background: transparent; border: 0; white-space: nowrap;}
.mixedeffects thead th {border-bottom: 1px solid currentColor; font-weight: 600;}
.mixedeffects tbody th {font-weight: normal;}
.mixedeffects .number {text-align: right;}
.mixedeffects caption {text-align: left; color: inherit; font-weight: 600;}
.mixedeffects h4 {margin: 0.8em 0 0.2em 0; font-size: 1em;}
.mixedeffects p {margin: 0.1em 0;}
.mixedeffects .footnote {font-size: 0.9em; opacity: 0.8;}
"""


class Shown:
    """What prints as its own text, and is shown as its own HTML in notebooks."""

    def to_text(self) -> str:
        """What it is as text."""
        raise NotImplementedError

    def to_html(self) -> str:
        """What it is as HTML, without style rules."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        return html_document(self.to_html())


def html_document(*parts: str) -> str:
    """Wrap HTML parts with the style rules all displays share.

    Parameters
    ----------
    *parts : str
        HTML elements, already escaped.

    Returns
    -------
    str
        One ``<div class="mixedeffects">`` which needs nothing from outside.

    Examples
    --------
    >>> html_document("<p>251.4</p>").startswith('<div class="mixedeffects">')
    True
    """
    return "\n".join(['<div class="mixedeffects">', f"<style>{_STYLE}</style>", *parts, "</div>"])
