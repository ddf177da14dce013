"""Formulas as MathML, which browsers draw themselves: pages load no script and need no network."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from docutils import nodes
from latex2mathml import exceptions
from latex2mathml.converter import convert
from sphinx.util import logging

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

#: What is wrong with the LaTeX; the build warns, and so fails with -W.
_MALFORMED = tuple(
    kind
    for kind in vars(exceptions).values()
    if isinstance(kind, type) and issubclass(kind, Exception)
)

#: Markup that browsers space or draw badly, and what is put in its place: a prime, which the text's
#: font raises by itself (see pages.css); "is distributed as"; names of operators before brackets.
_REPLACED = (
    (r"<msup>(<mi>\w+</mi>)<mi>&#x02032;</mi></msup>", r'\1<mtext class="prime">&#x02032;</mtext>'),
    (r"<mi>&#x0007E;</mi>", r"<mo>&#x0223C;</mo>"),
    (r"<mo>([A-Za-z]+)</mo>", r"<mi>\1</mi>"),
)

_log = logging.getLogger(__name__)


def _mathml(node: nodes.Element, display: str) -> str:
    latex = node.astext().strip()
    try:
        markup: str = convert(latex, display=display)
    except _MALFORMED as error:
        _log.warning("%s in the formula %s", type(error).__name__, latex, location=node)
        return f"<code>{latex}</code>"
    for found, put in _REPLACED:
        markup = re.sub(found, put, markup)
    return markup


def _inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(_mathml(node, "inline"))
    raise nodes.SkipNode


def _block(self: HTML5Translator, node: nodes.math_block) -> None:
    self.body.append(self.starttag(node, "div", CLASS="math"))
    self.body.append(f"{_mathml(node, 'block')}</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the renderer ``mathml``."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
