"""Left sides, weights and exposures of generalized models, and which of them are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me
from mixedeffects.errors import DataError, ModelError
from mixedeffects.families import (
    Binomial,
    Family,
    Gamma,
    NegativeBinomial,
    Poisson,
)
from mixedeffects.frame import ModelFrame, build_model_frame

DATA = pd.DataFrame(
    {
        "y": [2.0, 0, 4, 1, 3, 5, 2, 2],
        "n": [4.0, 3, 4, 5, 6, 9, 2, 8],
        "x": [1.0, 2, 3, 4, 1, 2, 3, 4],
        "hours": [1.0, 2, 0.5, 4, 1, 1, 2, 2],
        "g": list("aabbccdd"),
        "row": list("stuvwxyz"),
        "f": pd.Categorical(list("noyesno_"), ["n", "o", "y", "e", "s", "_"]),
        "dead": pd.Categorical(
            ["no", "yes", "no", "yes", "yes", "no", "no", "yes"], ["yes", "no", "lost"]
        ),
        "word": ["no", "yes", "no", "yes", "yes", "no", "no", "yes"],
        "flag": [True, False, True, True, False, False, True, False],
        "one": [1, 0, 1, 1, 0, 0, 1, 0],
    },
    index=[f"r{i}" for i in range(8)],
)


def frame(left: str, family: Family | None = None, **more: Any) -> ModelFrame:
    right = more.pop("right", "x + (1 | g)")
    data = more.pop("data", DATA)
    return build_model_frame(f"{left} ~ {right}", data, family=family or Binomial(), **more)


# --- what left sides become ------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "weights"),
    [
        ("cbind(y, n - y)", None),
        ("y / n", "n"),
        ("(y / n)", "n"),
        ("I(y / n)", "n"),
        ("y / n", DATA["n"].iloc[::-1]),
    ],
)
def test_successes_among_trials(left: str, weights: Any) -> None:
    made = frame(left, weights=weights).response
    assert made is not None and made.trials is not None and made.weights is None
    assert made.trials.tolist() == DATA["n"].tolist()
    # To the last digit, whatever was divided by whatever.
    assert made.y.tolist() == (DATA["y"] / DATA["n"]).tolist()


def test_weights_beside_successes_and_failures_are_weights() -> None:
    made = frame("cbind(y, n - y)", weights="hours").response
    assert made is not None and made.trials is not None and made.weights is not None
    assert made.weights.tolist() == DATA["hours"].tolist()


def test_weights_of_zeros_and_ones_are_weights() -> None:
    made = frame("one", weights="hours").response
    assert made is not None and made.trials is None and made.weights is not None


@pytest.mark.parametrize(
    ("left", "ones", "levels"),
    [
        ("dead", [1, 0, 1, 0, 0, 1, 1, 0], ("yes", "no")),  # the first level is a failure
        ("word", [0, 1, 0, 1, 1, 0, 0, 1], ("no", "yes")),
        ("factor(one)", [1, 0, 1, 1, 0, 0, 1, 0], ("0", "1")),
        ("flag", [1, 0, 1, 1, 0, 0, 1, 0], ("False", "True")),
        ("y > 2", [0, 0, 1, 0, 1, 1, 0, 0], ("False", "True")),
        ("one", [1, 0, 1, 1, 0, 0, 1, 0], ()),
    ],
)
def test_two_values(left: str, ones: list[int], levels: tuple[str, ...]) -> None:
    made = frame(left)
    assert made.y.tolist() == ones
    assert made.response_levels == levels
    assert made.response is not None and made.response.binary


def test_counts_with_exposure() -> None:
    made = frame("y", Poisson(), exposure="hours", offset="x", right="x + offset(x) + (1 | g)")
    expected = 2.0 * DATA["x"] + np.log(DATA["hours"])
    assert made.offset == pytest.approx(expected.to_numpy())
    by_expression = frame("y", Poisson(), exposure="2 * hours")
    assert by_expression.offset == pytest.approx(np.log(2.0 * DATA["hours"].to_numpy()))


def test_rows_with_missing_values_are_left_out() -> None:
    data = DATA.assign(n=DATA["n"].where(DATA.index != "r3"), hours=DATA["hours"].copy())
    data.loc["r5", "hours"] = np.nan
    made = frame("y / n", data=data, weights="n", offset="hours")
    assert list(made.index) == ["r0", "r1", "r2", "r4", "r6", "r7"]
    assert made.response is not None and made.response.n == 6
    assert "r5" not in frame("y", Poisson(), data=data, exposure="hours").index


def test_zero_trials_in_a_proportion_are_left_out_with_a_sentence() -> None:
    data = DATA.assign(y=DATA["y"].where(DATA.index != "r1", 0.0))
    data.loc["r1", "n"] = 0.0
    made = frame("y / n", data=data, weights="n + (n == 0)")
    assert "r1" not in made.index
    assert "has no value in 1 of 8 rows" in made.dropped.lost[0]


# --- what is refused, with the rows ----------------------------------------------------

REFUSED: list[tuple[str, Family, dict[str, Any], str]] = [
    ("y / n", Binomial(), {}, r"`y/n` is a proportion in rows r0 \(0.5\), .*weights=\"n\""),
    ("hours / 10", Binomial(), {}, r"proportion in rows r0 \(0.1\).*and 3 more"),
    ("y / n", Binomial(), {"weights": "hours"}, r"`y/n` times `hours` is no whole.*rows r0"),
    ("cbind(y, n - y, x)", Binomial(), {}, "has 3 columns; cbind.*has two"),
    ("cbind(y, n - y)", Poisson(), {}, "has 2 columns; a poisson model has one response"),
    ("cbind(hours, n)", Binomial(), {}, r"Successes must be counts.*row r2 \(0.5\)"),
    ("cbind(y, x - n)", Binomial(), {}, r"Failures must be counts.*rows r0 \(-3\)"),
    ("cbind(y - y, y - y)", Binomial(), {}, "neither successes nor failures"),
    ("y", Binomial(), {}, r"must be 0 or 1.*r0 \(2\)"),
    ("f", Binomial(), {}, "has 6 levels in the rows used.*first is a failure"),
    ("dead", Poisson(), {}, "is categorical .*poisson model needs numbers"),
    ("dead", Binomial(), {"data": DATA[DATA["dead"] == "no"]}, "has one level .*'no'"),
    ("one", Binomial(), {"data": DATA[DATA["one"] == 1]}, "All rows .* are successes"),
    ("hours", Poisson(), {}, r"must be counts.*r2 \(0.5\)"),
    ("-y", NegativeBinomial(), {}, r"must be counts.*r0 \(-2\)"),
    ("y", Gamma(), {}, r"r1 \(0\)"),
    ("y", Poisson(), {"exposure": "x - 1"}, r"exposure must be positive.*rows r0 \(0\), r4 \(0\)"),
    ("y", Poisson("sqrt"), {"exposure": "x"}, "this one is sqrt. Use offset="),
    ("one", Binomial(), {"weights": "x - 1"}, "Weights must be positive"),
    ("one", Binomial(), {"weights": "word"}, "`weights` must be numbers"),
]


@pytest.mark.parametrize(("left", "family", "more", "message"), REFUSED)
def test_responses_that_are_refused(
    left: str, family: Family, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=f"(?s){message}"):
        frame(left, family, **more)


def test_infinite_responses_are_refused() -> None:
    data = DATA.assign(y=DATA["y"].where(DATA.index != "r3", np.inf))
    with pytest.raises(DataError, match="infinite in 1 row"):
        frame("y", Poisson(), data=data)
    with pytest.raises(DataError, match="infinite in 1 row"):
        frame("cbind(y, n)", data=data)


# --- one row per level -----------------------------------------------------------------


def test_row_effects_where_no_parameter_stands_beside_them() -> None:
    assert frame("y", Poisson(), right="x + (1 | row)").terms[0].n_levels == 8
    assert frame("y", NegativeBinomial(theta=2.0), right="x + (1 | row)").terms[0].n_levels == 8
    assert frame("cbind(y, n - y)", right="x + (x | g)").terms[0].n_columns == 2


@pytest.mark.parametrize(
    ("left", "family", "right", "message"),
    [
        ("y", NegativeBinomial(), "x + (1 | row)", "from the theta of the negative_binomial"),
        ("y + 1", Gamma(), "x + (1 | row)", "from the dispersion of the gamma family"),
        ("y + 1", Gamma(), "x + (x | g)", "the dispersion of the gamma family cannot be told"),
        ("one", Binomial(), "x + (1 | row)", "8 rows of one trial each"),
    ],
)
def test_row_effects_that_are_not_identified(
    left: str, family: Family, right: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        frame(left, family, right=right)


def test_linear_models_are_as_they_were() -> None:
    made = build_model_frame("flag ~ x + (1 | g)", DATA)
    assert made.response is None and made.y.tolist() == DATA["flag"].astype(float).tolist()
    with pytest.raises(ModelError, match="from the residual variance"):
        build_model_frame("y ~ x + (1 | row)", DATA)


def test_a_family_has_no_default() -> None:
    with pytest.raises(me.ModelError, match="needs the family of its response"):
        me.glmer("incidence ~ period + (1 | herd)", me.load_dataset("cbpp"))


def test_values_outside_the_support_are_said_before_trials_are_asked_for() -> None:
    data = me.load_dataset("cbpp").assign(share=lambda d: d["incidence"] / d["size"] * 100.0)
    with pytest.raises(me.DataError, match="must be 0 or 1"):
        me.glmer("share ~ period + (1 | herd)", data, "binomial")
