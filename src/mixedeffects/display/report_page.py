"""The page of a report: one HTML file that needs nothing from outside and no scripts."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from mixedeffects.display.tables import Table

__all__ = [
    "Section",
    "definitions",
    "figure",
    "folded",
    "items",
    "note",
    "page",
    "paragraph",
    "pictures",
    "scrolling",
]

_STYLE = """
:root {color-scheme: light dark; --text: #1d1d1f; --faint: #5c5c61; --page: #ffffff;
  --line: #d5d5d9; --note: #fdf5e0; --note-line: #c58f00; --link: #1a4f9c;}
@media (prefers-color-scheme: dark) {:root {--text: #e8e8ea; --faint: #a9a9b0; --page: #17181a;
  --line: #3c3d42; --note: #332b16; --note-line: #d6a22b; --link: #8fb8f5;}}
* {box-sizing: border-box;}
html {-webkit-text-size-adjust: 100%;}
body {margin: 0; overflow-wrap: anywhere; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;}
main, header, footer {max-width: 72rem; margin: 0 auto; padding: 0 1rem;}
header {padding-top: 1.2rem;}
h1 {font-size: 1.6rem; line-height: 1.25; margin: 0 0 0.3rem 0;}
h2 {font-size: 1.25rem; margin: 2.2rem 0 0.6rem 0; padding-bottom: 0.2rem;
  border-bottom: 1px solid var(--line);}
h3 {font-size: 1.05rem; margin: 1.4rem 0 0.4rem 0;}
p {margin: 0.4rem 0;}
pre {white-space: pre-wrap; margin: 0.6rem 0;}
code {font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 0.92em;
 }
nav ul {display: flex; flex-wrap: wrap; gap: 0.1rem 1.1rem; list-style: none; padding: 0;
  margin: 0.8rem 0 0 0;}
a {color: var(--link);}
nav a {display: inline-block; padding: 0.25rem 0;}
dl {display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 0.15rem 1.2rem;
  margin: 0.5rem 0;}
dt {color: var(--faint);}
dd {margin: 0;}
.scroll {overflow-x: auto; margin: 0.6rem 0;}
.sentences td:last-child {white-space: normal; min-width: 18rem;}
.scroll:focus-visible {outline: 2px solid var(--link);}
table {border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.95rem;}
th, td {padding: 0.2rem 0.7rem; overflow-wrap: normal; text-align: left; white-space: nowrap;}
th:first-child, td:first-child {padding-left: 0.1rem;}
thead th {border-bottom: 1px solid var(--text);}
tbody th {font-weight: normal; white-space: normal; overflow-wrap: anywhere;
  min-width: 7.5rem; max-width: 18rem;}
td:last-child:not(.number) {white-space: normal; min-width: 12rem;}
.number {text-align: right;}
caption {text-align: left; color: var(--faint); padding-bottom: 0.3rem;}
.footnote, .caption {color: var(--faint); font-size: 0.88rem;}
.note {background: var(--note); border-left: 4px solid var(--note-line); padding: 0.5rem 0.8rem;
  margin: 0.6rem 0;}
.pictures {display: grid; gap: 1.2rem; margin: 0.8rem 0; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr));}
figure {margin: 0; min-width: 0;}
figure img {display: block; max-width: 100%; height: auto; background: #ffffff;
  border-radius: 4px;}
figcaption {color: var(--faint); font-size: 0.88rem;}
summary {cursor: pointer; padding: 0.3rem 0;}
footer {margin-top: 2.5rem; padding-bottom: 1.5rem; color: var(--faint); font-size: 0.88rem;}
@media (max-width: 34rem) {dl {grid-template-columns: minmax(0, 1fr); gap: 0;}
  dd {margin-bottom: 0.4rem;}}
@media print {nav {display: none;} .scroll {overflow: visible;} figure {break-inside: avoid;}}
"""

#: The page may show what is in it, and fetch nothing.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Section:
    """One chapter of the page.

    Attributes
    ----------
    name : str
        For links to it.
    heading : str
        Its heading, plain text.
    parts : sequence of str
        HTML elements.
    """

    name: str
    heading: str
    parts: Sequence[str]


def page(title: str, lead: Iterable[str], sections: Sequence[Section], foot: str) -> str:
    """Put the page together.

    Parameters
    ----------
    title : str
        Title and first heading, plain text.
    lead : iterable of str
        HTML elements below it.
    sections : sequence of Section
        The chapters, which the navigation lists.
    foot : str
        A last line, plain text.

    Returns
    -------
    str
        HTML.

    Examples
    --------
    >>> html = page("Fit", [], [Section("model", "Model", [paragraph("y ~ x & z")])], "the end")
    >>> '<h2 id="model">Model</h2>' in html, "x &amp; z" in html
    (True, True)
    """
    links = "".join(
        f'<li><a href="#{section.name}">{escape(section.heading)}</a></li>' for section in sections
    )
    chapters = [
        "\n".join(
            [
                f'<section aria-labelledby="{section.name}">',
                f'<h2 id="{section.name}">{escape(section.heading)}</h2>',
                *section.parts,
                "</section>",
            ]
        )
        for section in sections
    ]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            "</head>",
            "<body>",
            "<header>",
            f"<h1>{escape(title)}</h1>",
            *lead,
            f'<nav aria-label="Contents"><ul>{links}</ul></nav>',
            "</header>",
            "<main>",
            *chapters,
            "</main>",
            f"<footer><p>{escape(foot)}</p></footer>",
            "</body>",
            "</html>",
            "",
        ]
    )


def paragraph(text: str, kind: str | None = None) -> str:
    """A paragraph of plain text."""
    attribute = "" if kind is None else f' class="{kind}"'
    return f"<p{attribute}>{escape(text)}</p>"


def note(text: str) -> str:
    """A sentence that should not be overlooked."""
    return f'<p class="note" role="note">{escape(text[:1].upper() + text[1:])}</p>'


def items(texts: Iterable[str]) -> str:
    """A list of plain texts."""
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """Names with their values, plain texts."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in pairs)
    return f"<dl>{rows}</dl>"


def scrolling(table: Table, label: str, sentences: bool = False) -> str:
    """A table that scrolls sideways by itself where the page is narrower, also by keyboard.

    Its last column may have sentences, which are broken into lines.
    """
    kind = "scroll sentences" if sentences else "scroll"
    return (
        f'<div class="{kind}" role="region" tabindex="0" aria-label="{escape(label)}">\n'
        f"{table.to_html()}\n</div>"
    )


def folded(summary: str, *parts: str) -> str:
    """What is shown on request."""
    return "\n".join([f"<details><summary>{escape(summary)}</summary>", *parts, "</details>"])


def figure(png: bytes, size: tuple[int, int], alt: str, caption: str) -> str:
    """A picture within the page, with what to read where it cannot be seen.

    Parameters
    ----------
    png : bytes
        The file.
    size : tuple of int
        Width and height to show it at, in CSS pixels, if there is room.
    alt, caption : str
        Plain texts; the caption may be empty.
    """
    data = base64.b64encode(png).decode("ascii")
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure><img src="data:image/png;base64,{data}" width="{size[0]}" height="{size[1]}" '
        f'alt="{escape(alt)}">{below}</figure>'
    )


def pictures(figures: Iterable[str]) -> str:
    """Figures beside each other where there is room, else below each other."""
    return "\n".join(['<div class="pictures">', *figures, "</div>"])
