"""Names of columns and levels in pictures and tables: drawn as they stand, whatever they hold."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from html import unescape
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

import mixedeffects as me
from mixedeffects.display.lettering import literal, one_line, short
from mixedeffects.reporting.report import _glyph

#: Mathematics, broken mathematics, what HTML, LaTeX and Markdown read as markup, breaks, nothing.
GROUPS = ["$k_$", "two\nlines", "a\ttab", "", "_hidden", "x" * 200, "<i>|&%#", r"{$\frac$}"]
LEVELS = ["$0 - $10", "_hidden", "", r"<b>&|*%#{}~^\_$x$"]


@cache
def model() -> me.LinearMixedModel:
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(8), 30)
    data = pd.DataFrame(
        {
            "x$_1$": rng.normal(size=240),
            "in$come$": np.array(LEVELS)[rng.integers(0, 4, 240)],
            "$h$": np.array(["$a$", "$b"])[rng.integers(0, 2, 240)],
            "b$an$d": np.array(GROUPS)[g],
        }
    )
    slope = rng.normal(size=8)[g] * data["x$_1$"]
    data["y"] = slope + rng.normal(size=8)[g] + rng.normal(size=240)
    return me.lmer("y ~ `x$_1$` + `in$come$` + `$h$` + (`x$_1$` | `b$an$d`)", data)


def slope_name() -> str:
    return str(model().fixef.index[1])


PICTURES: dict[str, Callable[[me.LinearMixedModel], Any]] = {
    **{
        kind: lambda m, kind=kind: m.plot(kind)
        for kind in ("panel", "groups", "caterpillar", "ranef_qq", "ranef_pairs", "leverage")
    },
    "against": lambda m: m.plot("residuals", against="x$_1$"),
    "influence": lambda m: m.influence("b$an$d").plot("dfbeta", coefficient=slope_name()),
    "means": lambda m: m.emmeans("in$come$").plot(),
    "means of two": lambda m: m.emmeans(["in$come$", "$h$"]).plot(),
    "means and letters": lambda m: m.emmeans("$h$", by="in$come$").plot(letters=True)[0],
    "effects": lambda m: m.effects(["x$_1$", "$h$"]).plot(data=True, groups="all"),
    "effects in panels": lambda m: m.effects("x$_1$", by="in$come$").plot()[0],
    "trends": lambda m: m.emtrends("$h$", "x$_1$").plot(),
    "contrasts": lambda m: m.emmeans("in$come$").contrasts().plot(),
    "V": lambda m: m.V.plot(),
    "V sorted": lambda m: m.V.plot(by="b$an$d"),
    "a block": lambda m: m.V.plot("$k_$"),
    "G": lambda m: m.G.plot(),
    "matrix": lambda m: me.plot.matrix(pd.DataFrame(np.eye(4), LEVELS, LEVELS)),
    "blocks": lambda m: me.plot.covariance(np.eye(4), LEVELS, groups=[("$a$", 0, 2)]),
    "profile": lambda m: m.profile(slope_name()).plot(),
    "bootstrap": lambda m: m.bootstrap(5, seed=1).plot(slope_name()),
    "checks": lambda m: m.check(draws=19).plot(),
    "variogram": lambda m: m.variogram("x$_1$").plot(),
    "power": lambda m: me.power(m, slope_name(), n=[8], draws=2, seed=1).plot(),
}


@pytest.fixture
def no_figures() -> Iterator[None]:
    plt.close("all")
    yield
    plt.close("all")


def texts() -> list[Text]:
    figures = [plt.figure(number) for number in plt.get_fignums()]
    return [text for figure in figures for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("name", PICTURES)
def test_names_are_drawn_as_they_stand(name: str) -> None:
    PICTURES[name](model())
    if name in ("groups", "means of two", "V"):
        plt.gcf().canvas.draw()
    drawn = texts()
    for text in drawn:
        assert "$" not in text.get_text() or not (text.get_parse_math() or text.get_usetex())
        assert "\n" not in text.get_text().rstrip("\n")
        assert "\t" not in text.get_text()
        assert len(text.get_text()) < 140
    if name in ("means", "matrix", "blocks"):
        assert set(map(short, LEVELS)) - {""} <= {text.get_text() for text in drawn}


@pytest.mark.usefixtures("no_figures")
def test_a_legend_has_every_level() -> None:
    m = model()
    ax = m.emmeans(["$h$", "in$come$"]).plot()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == sorted(LEVELS)
    assert ax.get_legend().get_title().get_text() == "in$come$"
    colours = [line.get_color() for line in ax.get_legend().get_lines()]
    assert len(set(colours)) == len(LEVELS)


@pytest.mark.usefixtures("no_figures")
def test_labels_of_the_other_side_are_literal_too() -> None:
    ax = me.plot.matrix(np.eye(2), columns=["$a$", "$b$"])
    ax.tick_params(labeltop=True)
    assert not any(tick.label2.get_parse_math() for tick in ax.xaxis.get_major_ticks())


@pytest.mark.usefixtures("no_figures")
def test_titles_of_the_user_may_hold_formulas() -> None:
    ax = me.plot.matrix(np.eye(2), title="$V_1$", units="ms$^2$")
    assert ax.title.get_parse_math()
    assert ax._left_title.get_text() == "$V_1$"
    assert ax._left_title.get_parse_math()
    ax = model().V.plot("$k_$")
    assert ax._left_title.get_text() == "V of b$an$d $k_$"
    assert not ax._left_title.get_parse_math()


@pytest.mark.usefixtures("no_figures")
def test_also_with_latex_switched_on() -> None:
    with mpl.rc_context({"text.usetex": True}):
        ax = model().emmeans("in$come$").plot()
    assert not any(text.get_usetex() for text in ax.get_xticklabels())
    assert not ax.xaxis.label.get_usetex()


@pytest.mark.usefixtures("no_figures")
def test_characters_come_from_a_font_that_has_them() -> None:
    figure = plt.figure()
    # Not in DejaVu Sans, but in the STIX fonts that come with matplotlib.
    text = literal(figure.text(0.5, 0.5, "level \u24b6"))
    assert text.get_fontfamily()[0] == "sans-serif"
    assert len(text.get_fontfamily()) > 1
    figure.savefig(io.BytesIO(), format="png")
    plain = literal(figure.text(0.5, 0.5, "level $1"))
    assert plain.get_fontfamily() == figure.text(0.0, 0.0, "a").get_fontfamily()


def test_one_line_keeps_everything_else() -> None:
    assert one_line("a\r\nb\tc") == "a b c"
    assert one_line("two  blanks, 日本 $x$ _y") == "two  blanks, 日本 $x$ _y"
    assert one_line("a\x00b\x7f") == "a␀b␡"
    assert one_line("\ud800") == "\ufffd"
    assert one_line(3.5) == "3.5"
    assert short("x" * 100, 11) == "xxxxx…xxxxx"


def test_tables_keep_their_rows() -> None:
    m = model()
    means = m.emmeans("in$come$")
    text = str(means)
    for level in LEVELS:
        assert sum(line.startswith(f"{level} ") for line in text.splitlines()) >= 1
    data = pd.DataFrame({"y": np.random.default_rng(1).normal(size=40)})
    data["f"] = np.tile(["one\ntwo", "b"], 20)
    data["g"] = np.repeat(np.arange(8), 5)
    n = me.lmer("y ~ f + (1 | g)", data)
    lines = str(n.summary()).splitlines()
    assert any(line.startswith("fone two ") for line in lines)
    assert any(line.startswith("fone two ") for line in str(me.etable(n)).splitlines())
    assert any(line.startswith("one two ") for line in str(n.emmeans("f")).splitlines())
    assert r"fone two & " in me.etable(n).to_latex()
    assert "| fone two |" in me.etable(n).to_markdown()


def test_html_escapes_every_name() -> None:
    m = model()
    nasty = LEVELS[-1]
    for html in (m._repr_html_(), m.emmeans("in$come$")._repr_html_(), me.etable(m)._repr_html_()):
        assert "<b>" not in html
        assert nasty in unescape(html)


def test_latex_and_markdown_escape_every_name() -> None:
    m = model()
    latex = me.etable(m).to_latex()
    escaped = r"\textless{}b\textgreater{}\&\textbar{}*\%\#\{\}$\sim$\textasciicircum{}"
    assert escaped + r"\textbackslash{}\_\$x\$" in latex
    assert r"\<b\>\&\|\*%#{}\~\^\\\_\$x\$" in me.etable(m).to_markdown()
    summary = m.summary().to_latex()
    assert escaped in summary


@pytest.mark.slow
def test_a_report_of_such_a_fit(tmp_path: Any) -> None:
    html = model().report(tmp_path / "fit.html").read_text(encoding="utf-8")
    assert "<b>" not in html
    assert "not drawn" not in html


def test_a_report_says_which_characters_have_no_glyph() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure = plt.figure()
        # A plane of Unicode for private use: no font has it.
        literal(figure.text(0.5, 0.5, "\U00100001"))
        figure.savefig(io.BytesIO(), format="png")
    assert {_glyph(each) for each in caught} == {"\U00100001"}
