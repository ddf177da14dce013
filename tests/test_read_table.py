"""Files as people have them: separators, encodings, codes of missing values, blanks, labels."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me

PLOTS = "Fläche;Höhe (m);pH\nA ;1,5;6,1\nB;n.b.;5,9\nA;2,25; \nB;0,5;6,3\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_text_in_the_encodings_of_spreadsheets(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "plots.csv"
    path.write_bytes(PLOTS.encode(encoding))
    data = me.read_table(path, missing="n.b.")
    assert list(data.columns) == ["Fläche", "Höhe (m)", "pH"]
    assert data["Fläche"].tolist() == ["A", "B", "A", "B"]  # without the blank
    np.testing.assert_equal(data["Höhe (m)"].to_numpy(), [1.5, np.nan, 2.25, 0.5])
    assert data["pH"].isna().tolist() == [False, False, True, False]
    assert data.attrs["name"] == "plots.csv"


def test_a_column_of_numbers_that_is_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "plots.csv"
    path.write_text(PLOTS, encoding="utf-8")
    with pytest.warns(
        me.DataWarning, match=r"`Höhe \(m\)` was read as text, for 1 of its 4 values"
    ):
        data = me.read_table(path)
    assert data["Höhe (m)"].tolist() == ["1,5", "n.b.", "2,25", "0,5"]
    path.write_text("y;x\n1.5;1,2\n2.5;1,3\n", encoding="utf-8")
    with pytest.warns(me.DataWarning, match="not taken for decimal ones"):
        me.read_table(path)
    path.write_text("y;x\n1.5;a\n2.5;3\n", encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        me.read_table(path)


@pytest.mark.parametrize("missing", [-99, "-99", ["n.b.", -99.0]])
def test_codes_of_missing_values(missing: object, tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("y,g\n1,a\n-99,b\n3,a\n", encoding="utf-8")
    assert me.read_table(path, missing=missing)["y"].isna().tolist() == [False, True, False]
    data = pd.DataFrame({"y": [1, -99, 3], "g": ["a", "b", "n.b."]})
    data.to_parquet(tmp_path / "scores.parquet")
    read = me.read_table(tmp_path / "scores.parquet", missing=missing)
    assert read["y"].isna().tolist() == [False, True, False]
    assert read["g"].isna().tolist() == [False, False, isinstance(missing, list)]


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(me.DataError, match="There is no file"):
        me.read_table(tmp_path / "none.csv")
    with pytest.raises(me.ModelError, match="read_table needs the name of a file"):
        me.read_table(3)  # type: ignore[arg-type]
    path = tmp_path / "scores.csv"
    path.write_text("y,g\n1,a\n", encoding="utf-8")
    with pytest.raises(me.ModelError, match="missing must be text, a number, or a list of them"):
        me.read_table(path, missing=None)
    with pytest.raises(me.DataError, match=r"read_table reads files"):
        me.lmer("y ~ 1 + (1 | g)", str(path))


def test_spss_values_that_are_declared_missing_and_levels_in_the_order_of_codes(
    tmp_path: Path,
) -> None:
    pyreadstat = pytest.importorskip("pyreadstat")
    data = pd.DataFrame(
        {
            "score": [10.0, -99, 12, 14],
            "school": [2.0, 1, 3, 2],
            "likert": [1.0, 2, 3, 5],
            "teacher": ["Abel", "", "Kain  ", "Abel"],
        }
    )
    path = tmp_path / "study.sav"
    pyreadstat.write_sav(
        data,
        path,
        variable_value_labels={
            "score": {-99.0: "absent"},
            "school": {1.0: "village", 2.0: "town", 3.0: "city"},
            "likert": {1.0: "no", 5.0: "yes"},
        },
        missing_ranges={"score": [-99]},
        variable_measure={"score": "scale", "school": "nominal", "likert": "ordinal"},
    )
    with pytest.warns(me.DataWarning, match="some values of likert have no label"):
        read = me.read_table(path)
    np.testing.assert_equal(read["score"].to_numpy(), [10.0, np.nan, 12, 14])
    assert read["school"].cat.categories.tolist() == ["village", "town", "city"]
    assert read["likert"].tolist() == [1, 2, 3, 5]
    assert read["teacher"].isna().tolist() == [False, True, False, False]


# --- what a fit says of such columns -----------------------------------------------------------


def plots() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    n = 200
    return pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "temp": [f"{value:.1f}".replace(".", ",") for value in rng.uniform(5, 9, n)],
            "date": [f"{day % 28 + 1:02d}.0{day % 3 + 5}.2020" for day in range(n)],
            "code": rng.integers(1, 13, n).astype(str),
            "habitat": rng.choice(["moor", "Moor ", "forest"], n),
            "site": rng.choice(list("abcdefgh"), n),
        }
    )


@pytest.mark.parametrize(
    ("formula", "said"),
    [
        (
            "y ~ temp + (1 | site)",
            r"`temp` is text with .* but they are numbers with decimal commas",
        ),
        ("y ~ date + (1 | site)", r"`date` is text with 84 levels, .* but they are dates"),
        ("y ~ habitat + (1 | site)", r"`habitat` has levels that differ .*: 'Moor ' and 'moor'"),
        ("y ~ 1 + (1 | habitat)", r"`habitat` has levels that differ .*: 'Moor ' and 'moor'"),
    ],
)
def test_text_that_is_hardly_meant_as_a_factor(formula: str, said: str) -> None:
    with pytest.warns(me.DataWarning, match=said):
        me.lmer(formula, plots())


def test_one_word_among_numbers_is_named() -> None:
    data = plots()
    data.loc[7, "temp"] = "n.b."
    with pytest.warns(me.DataWarning, match=r"'n\.b\.' is not\. .*na_values=\['n\.b\.'\]"):
        me.lmer("y ~ temp + (1 | site)", data)


def test_a_warning_comes_before_the_error_that_such_a_column_causes() -> None:
    data = plots().iloc[:60]
    data = data.assign(temp=[f"{k},5" for k in range(60)])
    with pytest.warns(me.DataWarning, match="numbers with decimal"), pytest.raises(me.ModelError):
        me.lmer("y ~ temp + (1 | site)", data)


def test_factors_that_are_meant_bring_no_warning() -> None:
    data = plots()
    data["temp"] = data["temp"].astype("category")
    data["genotype"] = np.resize(["AA", "Aa", "aa"], len(data))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        me.lmer("y ~ temp + code + genotype + (1 | site)", data)
        me.lmer("y ~ factor(date) + (1 | site)", data)


@pytest.mark.parametrize(
    ("levels", "advice"),
    [
        (["1.5", "2", "3", "n.a."], r"All are numbers but 'n\.a\.'.*missing=\['n\.a\.'\]"),
        (["1,5", "2", "3"], "Its numbers have decimal commas"),
        (["1.5", "2", "3"], r"data\[\.\.\.\]\.astype\(float\)"),
        (["low", "mid", "high"], "Make a number of it first"),
    ],
)
def test_a_response_of_text_is_told_how_to_become_a_number(levels: list[str], advice: str) -> None:
    data = plots().assign(y=np.resize(levels, 200))
    with pytest.raises(me.DataError, match=advice):
        me.lmer("y ~ 1 + (1 | site)", data)


def test_blanks_among_the_numbers_of_a_sheet(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    path = tmp_path / "scores.xlsx"
    pd.DataFrame({"y ": [1.5, " ", 3.0], "g": ["a ", "b", "a"]}).to_excel(path, index=False)
    data = me.read_table(path)
    np.testing.assert_equal(data["y"].to_numpy(), [1.5, np.nan, 3.0])
    assert data["g"].tolist() == ["a", "b", "a"]
