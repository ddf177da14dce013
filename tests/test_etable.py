"""Fits side by side, and LaTeX and Markdown of every table."""

from __future__ import annotations

import html.parser
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me
from mixedeffects.display import Column, Table
from mixedeffects.display.latex import latex_cell, latex_escape
from references import fitted_model

HOSTILE = r"a_b & 50% $x$ #1 {c} ~d ^e \f <g> |h| `i` [j] * -- ' " + '"k"'


@cache
def two() -> tuple[me.LinearMixedModel, me.LinearMixedModel]:
    return fitted_model("sleepstudy_intercept"), fitted_model("sleepstudy")


@cache
def hostile_fit() -> me.LinearMixedModel:
    """Names of columns and levels that mean something in every markup."""
    sleep = me.load_dataset("sleepstudy")
    sleep["kind"] = pd.Categorical(np.where(np.arange(180) % 3, HOSTILE, "[first] <b>"))
    sleep["sub_j"] = sleep["Subject"]
    return me.lmer("log(Reaction) ~ kind * Days + I(Days^2) + (Days | sub_j)", sleep)


def cells(text: str) -> dict[str, list[str]]:
    """Rows of the text by label."""
    rows = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    return {row[0]: row[1:] for row in rows if len(row) > 1}


def test_numbers_are_those_of_the_fits() -> None:
    fits = two()
    frame = me.etable(list(fits), output="frame")
    assert list(frame.columns) == ["(1)", "(2)"]
    for column, m in zip(frame, fits, strict=True):
        own = frame[column]
        table = m.coef_table()
        for name in m.fixef.index:
            fixed = own.loc["Fixed effects"].loc[name]
            assert fixed.to_numpy().tolist() == table.loc[name].to_numpy().tolist()
        assert own["Random effects", "Residual: SD", "estimate"] == m.sigma
        sd = m.varcorr.sd("Subject")
        assert own["Random effects", "Subject: SD (Intercept)", "estimate"] == sd["(Intercept)"]
        for title, value in {
            "Observations": m.nobs,
            "Groups: Subject": 18,
            "Log-likelihood": m.loglik,
            "AIC": m.aic,
            "BIC": m.bic,
            "ICC": m.icc().adjusted,
            "R2 marginal": m.r2().marginal,
            "R2 conditional": m.r2().conditional,
        }.items():
            assert own["Fit", title, "value"] == value
    slopes = frame.loc[("Random effects", "Subject: corr. (Intercept), Days", "estimate")]
    assert np.isnan(slopes["(1)"])
    assert slopes["(2)"] == fits[1].varcorr.corr("Subject").iloc[0, 1]


def test_text_in_full() -> None:
    shown = cells(me.etable(list(two()), output="text"))
    assert shown["Days"] == ["10.467***", "10.467***"]
    assert shown["Subject: SD Days"] == ["5.922"]
    assert shown["Estimation"] == ["REML", "REML"]
    assert shown["AIC"] == ["1794.5", "1755.6"]


@pytest.mark.parametrize(
    ("statistic", "below"),
    [("se", "(1.546)"), ("ci", "[7.206, 13.729]"), ("t", "(6.771)"), ("p", "(3.26e-06)")],
)
def test_what_stands_below(statistic: str, below: str) -> None:
    table = me.etable(two()[1], statistic=statistic, stars=False)
    lines = str(table).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("Days"))
    assert lines[at].split() == ["Days", "10.467"]
    assert lines[at + 1].strip() == below
    assert "p <" not in str(table)


def test_decimals_and_numbers_that_would_show_as_zero() -> None:
    sleep = me.load_dataset("sleepstudy")
    sleep["small"] = sleep["Reaction"] * 1e-7
    m = me.lmer("small ~ Days + (1 | Subject)", sleep)
    shown = cells(me.etable(m, output="text"))
    assert shown["Days"] == ["1.05e-06***"]
    assert cells(me.etable(two()[1], digits=1, output="text"))["Days"] == ["10.5***"]
    singular = fitted_model("dyestuff2")
    text = me.etable(singular, output="text")
    assert cells(text)["Batch: SD (Intercept)"] == ["0.000"]
    assert "(1): singular fit" in text


def test_variances_of_their_own_and_footnotes() -> None:
    m = fitted_model("threelevel")
    table = me.etable(
        {"model": m, "robust": m, "kr": m},
        vcov=["model", "CR2", "kr"],
        cluster="sch.cl",
        ddf="satterthwaite",
    )
    frame = table.to_frame().loc["Fixed effects"].loc["x1"]
    for column, own in {
        "model": m.coef_table(),
        "robust": m.coef_table(vcov="CR2", cluster="sch.cl"),
        "kr": m.coef_table(vcov="kr"),
    }.items():
        np.testing.assert_array_equal(frame[column], own.loc["x1"])
    assert "robust: t-tests use CR2 standard errors" in str(table)
    assert "kr: t-tests use Kenward-Roger's method." in str(table)
    by_ml = m.update(reml=False)
    assert "not comparable" in str(me.etable([m, by_ml]))
    assert "dropped for linear dependence: I(2 * x1)" in str(
        me.etable(m.update(". ~ . + I(2 * x1)"))
    )


def test_stars_of_ones_own() -> None:
    table = me.etable(two()[1], stars={"†": 0.1, "‡": 1e-10})
    shown = cells(str(table))
    assert shown["(Intercept)"] == ["251.405‡"]
    assert shown["Days"] == ["10.467†"]
    assert "‡ p < 1e-10, † p < 0.1" in str(table)


def test_labels_keep_drop_and_order() -> None:
    m = fitted_model("orthodont")
    names = list(m.fixef.index)
    assert names == ["(Intercept)", "age", "SexFemale", "age:SexFemale"]
    labels = {"age": "Age (years)", "SexFemale": "Girls", "Subject": "Child", "distance": "mm"}
    table = me.etable(m, labels=labels)
    shown = cells(str(table))
    assert list(shown)[1:5] == ["(Intercept)", "Age (years)", "Girls", "Age (years):Girls"]
    assert shown["Response"] == ["mm"]
    assert "Child: SD Age (years)" in shown
    assert "Groups: Child" in shown

    def rows(**options: Any) -> list[str]:
        frame = me.etable(m, labels=labels, output="frame", **options).loc["Fixed effects"]
        return list(dict.fromkeys(frame.index.get_level_values("name")))

    assert rows(keep="age") == ["Age (years)"]
    assert rows(keep="^age") == ["Age (years)", "Age (years):Girls"]
    assert rows(drop=["(Intercept)", ":"]) == ["Age (years)", "Girls"]
    assert rows(order=["Girls", "age:SexFemale"])[:2] == ["Girls", "Age (years):Girls"]
    assert len(rows(order="Girls")) == 4
    # Fits whose coefficients differ: each keeps its own order.
    both = me.etable([m.update(". ~ age + (age | Subject)"), m], output="frame")
    assert list(dict.fromkeys(both.loc["Fixed effects"].index.get_level_values("name"))) == names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": []}, "no models"),
        ({"models": "m"}, "models must be a fitted model"),
        ({"models": [1]}, "number 1 is a int"),
        ({"names": ["a", "b"]}, "1 models but 2 names"),
        ({"digits": 1.5}, "digits must be a whole number"),
        ({"statistic": "sd"}, "statistic 'sd' is not known; there are 'se', 'ci'"),
        ({"output": "pdf"}, "output 'pdf' is not known"),
        ({"fit_statistics": ["waic"]}, "fit statistic 'waic' is not known"),
        ({"fit_statistics": "aic"}, "must be a list of names"),
        ({"stars": {"*": 5}}, "a bound between 0 and 1"),
        ({"stars": 3}, "stars must be True, False or a dict"),
        ({"vcov": ["kr", "kr"]}, "vcov has 2 entries for 1 models"),
        ({"vcov": "HC1"}, "'HC1' is not known"),
        ({"level": 2}, "level must lie between 0 and 1"),
        ({"labels": ["a"]}, "labels must be a dict"),
        ({"labels": {"Days": "x", "(Intercept)": "x"}}, "the same name: x"),
        (
            {
                "models": fitted_model("threelevel"),
                "labels": {"tch.cl:sch.cl": "unit", "sch.cl": "unit"},
            },
            "labels give random effects of sch.cl names that others have",
        ),
        ({"keep": "Weeks"}, "'Weeks' matches no coefficient; they are"),
        ({"drop": "("}, "neither a coefficient nor a regular expression"),
        ({"order": 3}, "order must be names of coefficients"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(me.ModelError, match=re.escape(message)):
        me.etable(**{"models": two()[1], **options})


def test_columns_must_have_names_of_their_own() -> None:
    with pytest.raises(me.ModelError, match="must differ"):
        me.etable(list(two()), names=["a", "a"])
    with pytest.raises(me.ModelError, match="keys of the dict"):
        me.etable({"a": two()[0]}, names=["b"])


def test_a_fit_without_its_data_makes_the_same_table() -> None:
    fits = [m.without_data() for m in two()]
    assert str(me.etable(fits)) == str(me.etable(list(two())))


# --- files -----------------------------------------------------------------------------------


def test_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = me.etable(list(two()))
    for suffix, text in {
        ".tex": table.to_latex(),
        ".md": table.to_markdown(),
        ".txt": table.to_text(),
    }.items():
        table.save(tmp_path / f"t{suffix}")
        assert (tmp_path / f"t{suffix}").read_text(encoding="utf-8") == text + "\n"
    table.save(tmp_path / "t.html")
    page = (tmp_path / "t.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert table.to_html() in page
    table.save(str(tmp_path / "t.csv"))
    read = pd.read_csv(tmp_path / "t.csv", index_col=[0, 1, 2])
    pd.testing.assert_frame_equal(read, table.to_frame(), rtol=1e-15)
    with pytest.raises(me.DataError, match=r"must end in \.tex, \.md"):
        table.save(tmp_path / "t.docx")
    with pytest.raises(me.DataError, match="There is no folder"):
        table.save(tmp_path / "none" / "t.tex")
    before = sorted(p.name for p in tmp_path.iterdir())

    def fails(self: Path, *_: Any, **__: Any) -> int:
        self.touch()
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", fails)
    with pytest.raises(OSError, match="No space"):
        table.save(tmp_path / "other.tex")
    assert sorted(p.name for p in tmp_path.iterdir()) == before


# --- markup ----------------------------------------------------------------------------------


def test_latex_escapes_every_special_character() -> None:
    escaped = latex_escape(HOSTILE)
    plain = re.sub(r"\$\\sim\$|\\text\w+\{\}|\\[&%$#_{}]|-\{\}", "", escaped)
    assert not set(plain) & set('\\&%$#_{}~^<>|`"')
    assert latex_escape("two\r\n\nlines") == "two lines"
    assert latex_cell("1.5e-07") == r"1.5$\times10^{-7}$"
    assert latex_cell("-2.5e+08**") == r"$-$2.5$\times10^{8}$$^{**}$"
    assert latex_cell("[-1, -0.5]") == "[$-$1, $-$0.5]"
    assert latex_cell("x-1") == "x-1"


def tabulars(latex: str) -> list[list[str]]:
    """Rows of each tabular, after checking that all have its number of columns."""
    out = []
    found = re.findall(r"\\begin\{tabular\}\{(\w+)\}\n(.*?)\\end\{tabular\}", latex, re.DOTALL)
    assert len(found) == latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}")
    for columns, body in found:
        rows = [line for line in body.splitlines() if not line.endswith("rule")]
        for row in rows:
            assert row.endswith(r"\\")
            assert not row.startswith(("[", "*"))
            spanned = re.match(r"\\multicolumn\{(\d+)\}", row)
            width = int(spanned[1]) if spanned else len(re.findall(r"(?<!\\)&", row)) + 1
            assert width == len(columns), row
        rules = [line for line in body.splitlines() if line.endswith("rule")]
        assert rules[0] == r"\toprule"
        assert rules[-1] == r"\bottomrule"
        out.append(rows)
    return out


def every_latex() -> list[str]:
    m, plain = hostile_fit(), two()[1]
    return [
        m.summary().to_latex(),
        plain.summary().to_latex(),
        fitted_model("sleepstudy_ml").summary(ddf="inf").to_latex(),
        plain.varcorr.to_latex(caption=f"Components {HOSTILE}", label="tab:one"),
        me.etable([m, plain], names=[HOSTILE, "[2]"]).to_latex(caption=HOSTILE),
        me.etable([plain, m], statistic="ci", labels={"Days": HOSTILE}).to_latex(),
    ]


def test_latex_is_well_formed() -> None:
    for latex in every_latex():
        assert tabulars(latex)
        depth = 0
        for brace in re.findall(r"(?<!\\)[{}]", latex.replace("\\\\", "")):
            depth += 1 if brace == "{" else -1
            assert depth >= 0
        assert depth == 0


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no LaTeX here")
def test_latex_compiles(tmp_path: Path) -> None:
    document = "\n\n\\clearpage\n\n".join(every_latex())
    (tmp_path / "t.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
        f"{document}\n\\end{{document}}\n",
        encoding="utf-8",
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-2000:]


def test_markdown_rows_have_one_width() -> None:
    m, plain = hostile_fit(), two()[1]
    for text in (
        m.summary().to_markdown(),
        m.varcorr.to_markdown(),
        me.etable([m, plain], names=[HOSTILE, "2"], output="markdown"),
    ):
        for block in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
            assert len(widths) == 1
            assert re.fullmatch(r"\|( :?-+:? \|)+", block.splitlines()[1])
        assert "<" not in re.sub(r"\\<", "", text)
        assert "_" not in re.sub(r"\\_", "", text)


def test_html_is_escaped_and_balanced() -> None:
    text = me.etable([hostile_fit(), two()[1]], names=[HOSTILE, "2"], output="html")

    class Reader(html.parser.HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []
            self.seen: list[str] = []

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            self.open.append(tag)
            assert tag in {"table", "thead", "tbody", "tr", "th", "td", "em", "p"}

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

        def handle_data(self, data: str) -> None:
            self.seen.append(data)

    reader = Reader()
    reader.feed(text)
    assert not reader.open
    assert HOSTILE in reader.seen
    assert me.etable(two()[1])._repr_html_().startswith('<div class="mixedeffects">')


def test_every_table_has_all_renderings() -> None:
    table = Table(
        (Column("x|y", ("1.5", "-2e-05")), Column("", ("*", ""), "left", numeric=False)),
        ("a_b", "[c]"),
        "A & B",
        ("50%",),
    )
    assert table.to_latex() == "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering",
            r"\caption{A \& B}",
            r"\begin{tabular}{lrl}",
            r"\toprule",
            r"& x\textbar{}y &  \\",
            r"\midrule",
            r"a\_b & 1.5 & * \\",
            r"{}[c] & $-$2$\times10^{-5}$ &  \\",
            r"\bottomrule",
            r"\multicolumn{3}{l}{\footnotesize 50\%} \\",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )
    assert table.to_markdown() == "\n".join(
        [
            r"**A \& B**",
            "",
            r"|  | x\|y |  |",
            "| :-- | --: | :-- |",
            r"| a\_b | 1.5 | \* |",
            r"| \[c\] | -2e-05 |  |",
            "",
            "50%",
        ]
    )
