"""The bundled data sets: types, level orders, missing values and provenance as in R."""

from __future__ import annotations

import csv
import gzip
import time
import tomllib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mixedeffects.datasets import list_datasets, load_dataset
from mixedeffects.datasets.catalogue import catalogue, data_file, schema
from mixedeffects.errors import DataError

NAMES = list_datasets()["name"].tolist()

# Rows, columns, and one sum per data set, computed in R from the packages' own objects.
FACTS_FROM_R = {
    "sleepstudy": (180, 3, "Reaction", 53731.4205),
    "threelevel": (150, 7, "y", 55.555886060927257),
    "star": (26796, 18, "math", 13627985),
    "star_sample": (1265, 18, "read", 502633),
    "dyestuff": (30, 2, "Yield", 45825),
    "dyestuff2": (30, 2, "Yield", 169.968),
    "penicillin": (144, 3, "diameter", 3308),
    "pastes": (60, 4, "strength", 3603.2),
    "cake": (270, 5, "angle", 8673),
    "insteval": (73421, 7, "y", 235369),
    "orthodont": (108, 4, "distance", 2594.5),
    "ovary": (308, 3, "follicles", 3707),
    "fev": (800, 10, "FEV1", 22712.902956031772),
    "cbpp": (56, 4, "size", 842),
    "grouseticks": (403, 7, "HEIGHT", 186283),
    "verbagg": (7584, 9, "Anger", 151704),
    "contraception": (1934, 6, "age", 4.2507000000001822),
    "salamander": (360, 8, "Mate", 189),
}


@pytest.mark.parametrize("name", NAMES)
def test_shape_and_sum_agree_with_r(name: str) -> None:
    rows, columns, column, total = FACTS_FROM_R[name]
    table = load_dataset(name)
    assert table.shape == (rows, columns)
    assert table[column].sum() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_is_the_files_cell(name: str) -> None:
    # The csv module knows nothing of types or missing values: an independent reading.
    with gzip.open(data_file(f"{name}.csv.gz"), "rt", encoding="utf-8", newline="") as file:
        header, *cells = csv.reader(file)
    table = load_dataset(name)
    assert table.columns.tolist() == header
    for position, column in enumerate(header):
        raw = [row[position] for row in cells]
        missing = [cell == "NA" for cell in raw]
        assert table[column].isna().tolist() == missing
        found = table[column][~np.array(missing)].tolist()
        expected = [cell for cell in raw if cell != "NA"]
        if schema(name)[column]["type"] in ("numeric", "integer"):
            assert found == [float(cell) for cell in expected]
        else:
            assert found == expected


@pytest.mark.parametrize("name", NAMES)
def test_types_follow_r(name: str) -> None:
    table = load_dataset(name)
    for column, kind in schema(name).items():
        series = table[column]
        if kind["type"] in ("factor", "ordered"):
            assert series.cat.categories.tolist() == kind["levels"]
            assert series.cat.ordered == (kind["type"] == "ordered")
        elif kind["type"] == "integer":
            assert series.dtype == ("float64" if series.hasnans else "int64")
        elif kind["type"] == "numeric":
            assert series.dtype == "float64"
        else:
            assert pd.api.types.is_string_dtype(series)


def test_level_orders_that_sorting_would_destroy() -> None:
    assert load_dataset("ovary")["Mare"].cat.categories.tolist()[:4] == ["4", "2", "11", "7"]
    assert load_dataset("orthodont")["Subject"].cat.categories[0] == "M16"
    assert load_dataset("insteval")["dept"].cat.categories.tolist()[:4] == ["15", "5", "10", "12"]
    star = load_dataset("star")
    assert star["cltype"].cat.categories.tolist() == ["small", "reg", "reg+A"]
    assert star["gr"].cat.categories.tolist() == ["K", "1", "2", "3"]
    assert star["sx"].cat.categories.tolist() == ["M", "F"]


def test_ordered_factors_of_r_are_ordered() -> None:
    ordered = {
        (name, column)
        for name in NAMES
        for column, series in load_dataset(name).items()
        if isinstance(series.dtype, pd.CategoricalDtype) and series.dtype.ordered
    }
    in_star = {"gr", "hdeg", "birthq", "birthy"}
    assert ordered == {
        ("cake", "temperature"),
        ("insteval", "studage"),
        ("insteval", "lectage"),
        ("orthodont", "Subject"),
        ("ovary", "Mare"),
        ("verbagg", "resp"),
        *(("star", column) for column in in_star),
        *(("star_sample", column) for column in in_star),
    }


def test_missing_values_of_star() -> None:
    star = load_dataset("star")
    missing = star.isna().sum()
    assert missing[missing > 0].to_dict() == {
        "hdeg": 167,
        "clad": 809,
        "exp": 193,
        "trace": 227,
        "read": 2534,
        "math": 2183,
        "ses": 828,
        "sx": 20,
        "eth": 146,
        "birthy": 73,
    }
    # R keeps an unknown birth quarter as a level.
    assert (star["birthq"] == "NA:NA").sum() == 65


def test_star_sample_comes_from_the_kindergarten_year_of_star() -> None:
    sample, star = load_dataset("star_sample"), load_dataset("star")
    kindergarten = star[star["gr"] == "K"].set_index("id")
    assert len(sample) == round(0.2 * len(kindergarten))
    origin = kindergarten.loc[sample["id"].tolist()]
    for column in ["sch", "tch", "read", "cltype", "sx"]:
        assert (
            sample[column]
            .astype(object)
            .equals(origin[column].astype(object).reset_index(drop=True))
        )


def test_columns_that_follow_from_others() -> None:
    verbagg = load_dataset("verbagg")
    assert ((verbagg["r2"] == "Y") == (verbagg["resp"] != "no")).all()
    grouse = load_dataset("grouseticks")
    centred = grouse["HEIGHT"] - grouse["HEIGHT"].mean()
    np.testing.assert_allclose(grouse["cHEIGHT"], centred, rtol=0, atol=1e-12)
    salamander = load_dataset("salamander")
    both = salamander["TypeF"].astype(str) + salamander["TypeM"].astype(str)
    assert (salamander["Cross"].astype(str) == both).all()
    # Every animal is in six pairs.
    assert salamander["Male"].value_counts().unique().tolist() == [6]
    assert salamander["Female"].value_counts().unique().tolist() == [6]


def test_threelevel_is_the_sum_of_its_parts() -> None:
    table = load_dataset("threelevel")
    parts = table["e3"] + table["e2"] + 0.5 * table["x1"] + table["e1"]
    np.testing.assert_allclose(table["y"], parts, rtol=0, atol=1e-13)


def test_two_loads_are_equal_and_independent() -> None:
    first, second = load_dataset("pastes"), load_dataset("pastes")
    pd.testing.assert_frame_equal(first, second)
    assert first.attrs == second.attrs
    first.loc[0, "strength"] = -1.0
    first.attrs["source"] = "elsewhere"
    third = load_dataset("pastes")
    pd.testing.assert_frame_equal(second, third)
    assert second.attrs == third.attrs
    # pandas compares attrs when it joins tables.
    assert pd.concat([second, third]).attrs == second.attrs


@pytest.mark.parametrize("name", NAMES)
def test_attributes_are_plain_text(name: str) -> None:
    attributes = load_dataset(name).attrs
    assert attributes["description"] == catalogue()[name]["description"]
    assert attributes["source"].startswith(catalogue()[name]["source"])
    assert all(type(text) is str and text for text in attributes.values())


def test_list_names_every_file_and_counts_truly() -> None:
    listed = list_datasets()
    assert listed.columns.tolist() == ["name", "rows", "columns", "description", "source"]
    shipped = {
        file.name.removesuffix(".csv.gz")
        for file in data_file(".").iterdir()
        if file.name.endswith(".csv.gz")
    }
    assert set(listed["name"]) == shipped == set(FACTS_FROM_R)
    for row in listed.itertuples():
        assert (row.rows, row.columns) == load_dataset(row.name).shape
        assert "\n" not in row.description
        assert len(row.description) <= 110


@pytest.mark.parametrize("name", NAMES)
def test_provenance_is_complete(name: str) -> None:
    entry = catalogue()[name]
    assert list(entry["columns"]) == load_dataset(name).columns.tolist()
    document = (files("mixedeffects.datasets") / "PROVENANCE.md").read_text(encoding="utf-8")
    (section,) = (part for part in document.split("\n## ") if part.startswith(f"{name}\n"))
    for text in [entry["description"], entry["details"], entry["source"], entry["licence"]]:
        assert text in section
    for column, note in entry["columns"].items():
        assert note["meaning"]
        assert f"| `{column}` | {note['meaning']} | {note['unit']} |" in section


def test_licence_of_the_data_comes_with_them() -> None:
    """Its text, what it asks to be said, and both among the files that packages carry."""
    folder = files("mixedeffects.datasets")
    text = (folder / "LICENSE-Apache-2.0.txt").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    notice = (folder / "NOTICE.md").read_text(encoding="utf-8")
    (name,) = [n for n, entry in catalogue().items() if "Apache License" in entry["licence"]]
    for said in (f"data/{name}.csv.gz", "LICENSE-Apache-2.0.txt", "Changes (section 4 b)"):
        assert said in notice
    assert "NOTICE.md" in catalogue()[name]["licence"]
    with (Path(__file__).parents[1] / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)
    shipped = set(project["project"]["license-files"])
    assert {f"src/mixedeffects/datasets/{n}" for n in ("LICENSE-Apache-2.0.txt", "NOTICE.md")} <= (
        shipped
    )
    excluded = project["tool"]["scikit-build"]["sdist"]["exclude"]
    assert not any("datasets" in each or "LICENSE" in each for each in excluded)


def test_unknown_name_lists_the_names_and_the_nearest() -> None:
    with pytest.raises(
        DataError, match=r"called 'sleepstudi'. Did you mean 'sleepstudy'\?"
    ) as info:
        load_dataset("sleepstudi")
    assert all(name in str(info.value) for name in NAMES)
    with pytest.raises(DataError, match="Did you mean 'insteval'"):
        load_dataset("InstEval")
    with pytest.raises(DataError) as info:
        load_dataset("zzzzzz")
    assert "Did you mean" not in str(info.value)


def test_the_largest_loads_quickly() -> None:
    load_dataset("insteval")
    best = np.inf
    for _ in range(3):
        start = time.perf_counter()
        load_dataset("insteval")
        best = min(best, time.perf_counter() - start)
    # 0.04 s on an ordinary machine; the bound only catches a change of method.
    assert best < 1.0
