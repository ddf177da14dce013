"""Display: the text must be R's line by line; the HTML must hold the same cells, escaped.

R's texts and the numbers behind them are in reference/display.json. Three things are normalised
before comparing, and nothing else: blanks at the ends of lines, quotation marks, and the title,
which R ends with a class name. What lme4 prints after the tables about the fit is left out:
those remarks reach a summary as its notes.
"""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mixedeffects.display import (
    Column,
    InformationCriteria,
    Summary,
    Table,
    VarCorrBlock,
    abbreviate,
    coefficient_table,
    correlation_table,
    format_numbers,
    format_p_values,
    significance_stars,
    varcorr_table,
)
from mixedeffects.display.lettering import wrapped

REFERENCE = json.loads((Path(__file__).parent / "reference" / "display.json").read_text())
CASES: dict[str, dict[str, Any]] = REFERENCE["cases"]

SLEEPSTUDY = """\
Linear mixed model fit by REML. t-tests use Satterthwaite's method
Formula: Reaction ~ Days + (Days | Subject)
   Data: sleepstudy

REML criterion at convergence: 1743.6

Scaled residuals:
    Min      1Q  Median      3Q     Max
-3.9536 -0.4634  0.0231  0.4634  5.1793

Random effects:
 Groups   Name        Variance Std.Dev. Corr
 Subject  (Intercept) 612.10   24.741
          Days         35.07    5.922   0.07
 Residual             654.94   25.592
Number of obs: 180, groups:  Subject, 18

Fixed effects:
            Estimate Std. Error      df t value Pr(>|t|)
(Intercept)  251.405      6.825  17.000  36.838  < 2e-16 ***
Days          10.467      1.546  17.000   6.771 3.26e-06 ***
---
Signif. codes:  0 '***' 0.001 '**' 0.01 '*' 0.05 '.' 0.1 ' ' 1

Correlation of Fixed Effects:
     (Intr)
Days -0.138"""


def varcorr_blocks(case: dict[str, Any]) -> list[VarCorrBlock]:
    return [VarCorrBlock(**block) for block in case["varcorr"]]


def summary_of(case: dict[str, Any], **changes: Any) -> Summary:
    names = case["coefficients"]["names"]
    criteria = case["criterion"]
    arguments: dict[str, Any] = {
        "formula": case["formula"],
        "reml": case["reml"],
        "criterion": criteria["REML"]
        if case["reml"]
        else InformationCriteria(
            criteria["AIC"],
            criteria["BIC"],
            criteria["logLik"],
            criteria["deviance"],
            criteria["df.resid"],
        ),
        "varcorr": varcorr_blocks(case),
        "residual": case["residual"],
        "nobs": case["nobs"],
        "ngroups": case["ngroups"],
        "coefficients": pd.DataFrame(
            case["coefficients"]["values"], index=names, columns=case["coefficients"]["columns"]
        ),
        "correlation": pd.DataFrame(
            np.asarray(case["correlation"]).reshape(len(names), -1), index=names, columns=names
        ),
        "residual_quantiles": case["quantiles"],
        "test_method": "t-tests use Satterthwaite's method" if case["tested"] else None,
        "data_name": case["data_name"],
    }
    return Summary(**(arguments | changes))


def normalised(lines: list[str]) -> list[str]:
    text = "\n".join(line.rstrip().replace("‘", "'").replace("’", "'") for line in lines)
    title, rest = text.split("\nFormula: ", 1)
    title = re.sub(r"\s+", " ", title)
    title = re.sub(r" \[.*\]$", "", title).replace(" . ", ". ")
    return [title, *f"Formula: {rest}".split("\n")]


def r_lines(case: dict[str, Any]) -> list[str]:
    lines = normalised(case["text"])
    for start in ("fit warnings:", "optimizer ("):
        if start in [line[: len(start)] for line in lines]:
            lines = lines[: [line[: len(start)] for line in lines].index(start)]
    return lines


class Cells(HTMLParser):
    """Collects the text of table cells, and all tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data


def test_summary_of_sleepstudy_as_a_whole() -> None:
    assert str(summary_of(CASES["two correlated columns"])) == SLEEPSTUDY


@pytest.mark.parametrize("name", CASES)
def test_summary_is_line_for_line_what_r_prints(name: str) -> None:
    case = CASES[name]
    lines = str(summary_of(case)).split("\n")
    if len(case["coefficients"]["names"]) > 12:
        assert lines[-4:] == [
            "",
            "Correlation matrix not shown by default, as p = 18 > 12.",
            "Use .with_correlation() to print it, or",
            "    .correlation        if you need it",
        ]
        lines = lines[:-4]
    assert normalised(lines) == r_lines(case)


@pytest.mark.parametrize("name", CASES)
def test_varcorr_is_line_for_line_what_r_prints(name: str) -> None:
    case = CASES[name]
    table = varcorr_table(varcorr_blocks(case), case["residual"])
    assert str(table).split("\n") == [line.rstrip() for line in case["varcorr_text"]]


def test_the_cases_cover_the_layouts() -> None:
    texts = {name: "\n".join(case["text"]) for name, case in CASES.items()}
    assert "Subject.1" in texts["uncorrelated columns, ML"]
    assert "class:school" in texts["interactions"]
    assert "Pr(>|t|)" not in texts["no tests, ML"]
    assert "Signif. codes" not in texts["nothing significant"]
    assert "Correlation of Fixed" not in texts["intercept only"]
    assert texts["twelve coefficients"].count("(Intr)") == 1
    assert texts["long names"].count("\n(Intercept) ") == 2


@pytest.mark.parametrize("row", REFERENCE["numbers"], ids=lambda row: str(row["values"]))
def test_numbers(row: dict[str, Any]) -> None:
    assert format_numbers(row["values"]) == row["digits7"]
    assert format_numbers(row["values"], 4) == row["digits4"]
    assert format_numbers(row["values"], 2, decimals=3) == row["decimals3"]


def test_numbers_which_are_none() -> None:
    assert format_numbers([math.nan, -1.25, math.inf, -math.inf]) == [
        "   NA",
        "-1.25",
        "  Inf",
        " -Inf",
    ]
    assert format_numbers([math.nan], missing="-") == ["-"]
    assert format_numbers([]) == []
    assert format_numbers([-0.0, 1.5]) == ["0.0", "1.5"]
    with pytest.raises(ValueError, match="digits must be between 1 and 15, not 0"):
        format_numbers([1.0], 0)


@pytest.mark.parametrize("row", REFERENCE["p_values"], ids=lambda row: str(row["values"]))
def test_p_values(row: dict[str, Any]) -> None:
    assert format_p_values(row["values"]) == row["texts"]


def test_p_values_missing() -> None:
    assert format_p_values([math.nan, 0.5]) == ["NA", "0.5"]
    assert format_p_values([]) == []


def test_stars_include_the_upper_bound() -> None:
    p = [0.0, 0.001, 0.0010001, 0.01, 0.05, 0.1, 0.10001, 1.0, math.nan]
    expected = ["***", "***", "**", "**", "*", ".", "", "", ""]
    assert [star.rstrip() for star in significance_stars(p)] == expected
    assert {len(star) for star in significance_stars(p)} == {3}


@pytest.mark.parametrize(("length", "key"), [(6, "short"), (11, "long")])
def test_abbreviations_of_single_names(length: int, key: str) -> None:
    reference = REFERENCE["abbreviate"]
    assert [abbreviate([name], length)[0] for name in reference["names"]] == reference[key]


def test_abbreviations_stay_distinct() -> None:
    reference = REFERENCE["abbreviate"]
    assert abbreviate(reference["together"], 6) == reference["together_short"]
    assert abbreviate(["Days", "Days"], 6) == ["Days", "Days"]
    assert abbreviate([]) == []
    with pytest.raises(ValueError, match="minimum_length must be at least 1, not 0"):
        abbreviate(["x"], 0)


def test_table_text_breaks_where_r_breaks() -> None:
    columns = tuple(Column(f"c{j}", ("abc", "abc")) for j in range(1, 21))
    table = Table(columns, labels=("a", "bb"))
    first, second = str(table).split("\n")[:3], str(table).split("\n")[3:]
    assert [len(line) for line in first] == [78] * 3
    assert second == ["   c20", "a  abc", "bb abc"]
    assert len(table.to_text(width=None).split("\n")) == 3
    # One character more, and the row of 80 no longer fits.
    wide = Table((*columns[:18], Column("c19", ("abcdef", ""))), labels=("a", "bb"))
    assert len(str(wide).split("\n")) == 6
    assert len(wide.to_text(width=81).split("\n")) == 3 + 3
    assert len(wide.to_text(width=82).split("\n")) == 3


def test_table_html_holds_the_same_cells() -> None:
    frame = pd.DataFrame(
        {"Estimate": [1.5, -2.25], "Std. Error": [0.5, 0.25], "Pr(>|t|)": [0.000412, 0.4]},
        index=["a<b", 'c&"d"'],
    )
    table = coefficient_table(frame)
    parsed = Cells(table._repr_html_())
    assert parsed.cells == [
        *["", "Estimate", "Std. Error", "Pr(>|t|)", ""],
        *["a<b", "1.50", "0.50", "0.000412", "***"],
        *['c&"d"', "-2.25", "0.25", "0.400000", ""],
    ]
    words = str(table).split("---")[0].split()
    assert words == " ".join(parsed.cells).split()


def test_table_rejects_ragged_columns() -> None:
    with pytest.raises(ValueError, match="one length, not column 'a': 1, labels: 2"):
        Table((Column("a", ("1",)),), labels=("x", "y"))


def test_table_without_rows_or_columns() -> None:
    assert str(Table(())) == ""
    assert str(Table((Column("a", ()),), labels=())) == " a"
    assert Cells(Table((Column("a", ()),))._repr_html_()).cells == ["a"]


def test_table_caption_and_footnotes() -> None:
    table = Table((Column("a", ("1",)),), caption="Caption <1>", footnotes=("a & b",))
    assert str(table) == "Caption <1>\na\n1\n---\na & b"
    assert "<caption>Caption &lt;1&gt;</caption>" in table._repr_html_()
    assert '<p class="footnote">a &amp; b</p>' in table._repr_html_()


def test_summary_html_has_the_same_numbers_as_the_text() -> None:
    summary = summary_of(CASES["three correlated columns"])
    html = summary._repr_html_()
    parsed = Cells(html)
    text_words = str(summary).split()
    assert parsed.cells
    for cell in parsed.cells:
        assert set(cell.split()) <= set(text_words), cell
    headings = re.findall("<h4>(.*?)</h4>", html)
    assert headings == [
        "Scaled residuals",
        "Random effects",
        "Fixed effects",
        "Correlation of Fixed Effects",
    ]
    # Every number of the text's tables is in the HTML.
    assert {word for word in text_words if re.fullmatch(r"-?\d+\.\d+", word)} <= set(
        re.findall(r"-?\d+\.\d+", html)
    )


def test_summary_html_is_escaped_and_self_contained() -> None:
    case = CASES["two correlated columns"]
    evil = "<script>alert('x')</script>"
    coefficients = pd.DataFrame(
        case["coefficients"]["values"],
        index=[evil, "b"],
        columns=case["coefficients"]["columns"],
    )
    html = summary_of(
        case,
        formula=f"y ~ {evil}",
        data_name=evil,
        coefficients=coefficients,
        ngroups={evil: 3},
        varcorr=[VarCorrBlock(evil, [evil], [1.0])],
        notes=[evil],
        test_method=evil,
    )._repr_html_()
    tags = set(Cells(html).tags)
    assert tags == {"div", "style", "p", "h4", "table", "thead", "tbody", "tr", "th", "td"}
    assert html.count("&lt;script&gt;") == 8
    assert "http" not in html
    assert "url(" not in html
    # Colours come from the page, so dark notebooks stay readable.
    assert not re.search(r"#[0-9a-f]{3}|white;|black|rgb", html)


def test_summary_notes_and_names() -> None:
    notes = ["boundary (singular) fit: the covariance of Subject has rank 1 of 2", "word " * 30]
    summary = summary_of(
        CASES["two correlated columns"], notes=notes, weights_name="w", offset_name="log(t)"
    )
    lines = str(summary).split("\n")
    assert lines[1:5] == [
        "Formula: Reaction ~ Days + (Days | Subject)",
        "   Data: sleepstudy",
        "Weights: w",
        " Offset: log(t)",
    ]
    assert lines[-4:-2] == ["", notes[0]]
    assert lines[-2] == " ".join(["word"] * 16)
    assert lines[-1] == "  " + " ".join(["word"] * 14)
    assert f"<p>{notes[0]}</p>" in summary._repr_html_()


def test_long_titles_and_group_lists_break() -> None:
    case = CASES["two correlated columns"]
    summary = summary_of(
        case,
        test_method="t-tests use Kenward-Roger's method with degrees of freedom by cluster",
        ngroups={f"a_long_factor_name_{i}": 10 for i in range(3)},
    )
    lines = str(summary).split("\n")
    assert lines[0].endswith("with degrees")
    assert lines[1] == "  of freedom by cluster"
    start = lines.index("Number of obs: 180, groups:")
    assert lines[start + 1].startswith("a_long_factor_name_0, 10; a_long")
    assert all(len(line) <= 80 for line in lines)


def test_correlations_beyond_the_limit_on_request() -> None:
    summary = summary_of(CASES["many coefficients"])
    assert "(Intr)" not in str(summary)
    shown = str(summary.with_correlation())
    assert "Correlation of Fixed Effects:" in shown
    assert "\nrecipeB " in shown
    assert "not shown" not in shown


def test_summary_without_optional_parts() -> None:
    case = CASES["two correlated columns"]
    bare = summary_of(
        case,
        residual_quantiles=None,
        correlation=None,
        data_name=None,
        coefficients=pd.DataFrame(columns=["Estimate", "Std. Error"]),
        ngroups={},
    )
    assert "Scaled" not in str(bare)
    assert "Fixed effects" not in str(bare)
    assert str(bare).endswith("Number of obs: 180")


def test_stars_can_be_left_out() -> None:
    assert "***" not in str(summary_of(CASES["two correlated columns"], stars=False))


def test_missing_tests_print_as_na() -> None:
    frame = pd.DataFrame(
        {
            "Estimate": [1.0, 2.0],
            "Std. Error": [0.5, math.nan],
            "df": [math.inf, math.nan],
            "t value": [2.0, math.nan],
            "Pr(>|t|)": [0.0455, math.nan],
        },
        index=["a", "b"],
    )
    lines = coefficient_table(frame).to_text().split("\n")
    assert lines[1].split() == ["a", "1.0", "0.5", "Inf", "2", "0.0455", "*"]
    assert lines[2].split() == ["b", "2.0", "NA", "NA", "NA", "NA"]


def test_varcorr_layouts_r_has_no_case_for() -> None:
    diagonal = VarCorrBlock("g", ["(Intercept)", "x"], [1.5, 0.25])
    assert str(varcorr_table([diagonal], None)) == (
        " Groups Name        Std.Dev.\n g      (Intercept) 1.50\n        x           0.25"
    )
    repeated = [VarCorrBlock("g", [name], [1.0]) for name in "abc"]
    groups = varcorr_table([*repeated, VarCorrBlock("g.1", ["d"], [1.0])], None).columns[0]
    assert groups.cells == ("g", "g.2", "g.3", "g.1")
    undefined = VarCorrBlock("g", ["a", "b"], [0.0, 1.0], [[1.0, math.nan], [math.nan, 1.0]])
    assert str(varcorr_table([undefined], 1.0)).split("\n")[2].split() == ["b", "1", "NaN"]
    assert "Variance" in str(varcorr_table([diagonal], 1.0, components=("Variance",)))
    assert ">Residual</td>" in varcorr_table([diagonal], 1.0)._repr_html_()


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"group 'g' has 1 names but standard deviations"):
        VarCorrBlock("g", ["a"], [1.0, 2.0])
    with pytest.raises(ValueError, match="needs a 2 x 2 correlation matrix"):
        VarCorrBlock("g", ["a", "b"], [1.0, 2.0], [[1.0]])
    with pytest.raises(ValueError, match="square matrix with two or more rows"):
        correlation_table(pd.DataFrame([[1.0]]))
    case = CASES["two correlated columns"]
    with pytest.raises(ValueError, match="residual_quantiles must be five numbers"):
        summary_of(case, residual_quantiles=[1.0])
    with pytest.raises(ValueError, match="correlation must be 2 x 2"):
        summary_of(case, correlation=pd.DataFrame([[1.0]]))
    with pytest.raises(ValueError, match="criterion must be a number for a REML fit"):
        summary_of(case, reml=False)


def test_repr_is_the_text() -> None:
    summary = summary_of(CASES["nested"])
    assert repr(summary) == str(summary)
    table = varcorr_table(summary.varcorr, summary.residual)
    assert repr(table) == str(table)


def test_footnotes_and_correlations_go_on_below_with_their_rows() -> None:
    note = "may mislead: " + "word " * 20
    table = Table((Column("a", ("1",)),), footnotes=(note,))
    lines = table.to_text(width=60).split("\n")
    assert max(map(len, lines)) < 60 and all(line.startswith("  ") for line in lines[4:])
    assert " ".join(" ".join(lines[3:]).split()) == note.strip()
    assert table.to_text(width=None).split("\n")[-1] == note.strip()
    k = 12
    names = [f"a long name of column {j}" for j in range(k)]
    block = VarCorrBlock("group", names, [1.0] * k, correlation=np.full((k, k), 0.5))
    text = str(varcorr_table([block], 1.0))
    blocks = text.split("Groups")[1:]
    assert len(blocks) > 1 and max(map(len, text.split("\n"))) < 80
    for each in blocks:
        assert all(name in each for name in names)


def test_lines_are_as_wide_as_they_look_and_names_stay_whole() -> None:
    wide = wrapped("点数の合計 点数の合計 点数の合計", 24)
    assert wide == ["点数の合計 点数の合計", "  点数の合計"]
    name = "`" + "x" * 40 + "`"
    assert wrapped(f"{name} ~ 1 + (1 | g)", 24) == [name, "  ~ 1 + (1 | g)"]
    assert wrapped("a" * 24, None) == ["a" * 24]
