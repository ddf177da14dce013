"""Covariance structures of the residuals: from text to arrays, and what is refused on the way."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mixedeffects.errors import DataError, FormulaError, ModelError
from mixedeffects.formula import parse_formula, read_residual
from mixedeffects.formula.residual import RESIDUAL_DEFAULTS
from mixedeffects.frame import ModelFrame, ResidualTerm, build_model_frame, level_codes
from mixedeffects.frame.variables import Columns

_VISITS = ["v1", "v2", "v3", "v4"]


def _visits(groups: int = 8, visits: int = 4) -> pd.DataFrame:
    """Groups a, b, ... with a row at each visit, in an order that is none."""
    rng = np.random.default_rng(7)
    n = groups * visits
    names = [chr(ord("a") + i) for i in range(groups)]
    data = pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "x": rng.normal(size=n),
            "id": np.repeat(names, visits),
            "week": np.tile(np.arange(visits), groups),
            "visit": pd.Categorical(
                np.tile([f"v{i + 1}" for i in range(visits)], groups),
                categories=[f"v{i + 1}" for i in range(visits)],
            ),
            "arm": np.repeat(np.where(np.arange(groups) % 2, "drug", "placebo"), visits),
        }
    )
    return data.sample(frac=1, random_state=3).reset_index(drop=True)


def _frame(data: pd.DataFrame, residual: str, formula: str = "y ~ x", **more: Any) -> ModelFrame:
    return build_model_frame(formula, data, residual=residual, **more)


def _term(data: pd.DataFrame, residual: str, formula: str = "y ~ x", **more: Any) -> ResidualTerm:
    term = _frame(data, residual, formula, **more).residual
    assert term is not None
    return term


def _times(term: ResidualTerm | None) -> list[str]:
    assert term is not None and term.times is not None
    return list(term.times)


def _refused(
    match: str,
    data: pd.DataFrame,
    residual: str,
    formula: str = "y ~ x",
    error: type[Exception] = ModelError,
    **more: Any,
) -> None:
    with pytest.raises(error, match=match):
        build_model_frame(formula, data, residual=residual, **more)


# --- the text ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("ar1(t|Mare)", "ar1(t | Mare)"),
        (" ar1( t | Mare , hom=True, nugget = FALSE)", "ar1(t | Mare)"),
        ("ar1(~ t | Mare)", "ar1(t | Mare)"),
        ("ar1(1|Mare)", "ar1(1 | Mare)"),
        ("ar1(v|id, by=arm, hom = FALSE)", "ar1(v | id, hom = FALSE, by = arm)"),
        ("ar1(v|id, by='the arm')", "ar1(v | id, by = `the arm`)"),
        ("ar1(v|id, by=NULL)", "ar1(v | id)"),
        ("us(v | id:side, hom = FALSE)", "us(v | id:side)"),
        ("us(v|id, hom=TRUE)", "us(v | id, hom = TRUE)"),
        ("diag(1|id,by=arm)", "diag(1 | id, by = arm)"),
        ("car1(log(t)|`a b`)", "car1(log(t) | `a b`)"),
        ("exp(x+y|field, nugget=TRUE)", "exp(x + y | field, nugget = TRUE)"),
    ],
)
def test_text_is_read_and_written_without_defaults(given: str, text: str) -> None:
    spec = read_residual(given)
    assert spec.text == str(spec) == text
    assert read_residual(spec.text) == spec


def test_parts_of_a_specification() -> None:
    spec = read_residual("gau(x + log(y) | a:(b:c), nugget = TRUE, by = arm)")
    assert (spec.kind, spec.names, spec.by, spec.nugget) == ("gau", ("x", "log(y)"), "arm", True)
    assert (spec.group, spec.variables) == ("a:(b:c)", ("a", "b", "c"))
    assert read_residual("cs(1 | g)").position == ()


@pytest.mark.parametrize("kind", RESIDUAL_DEFAULTS)
def test_one_standard_deviation_is_the_default_but_for_diag_and_us(kind: str) -> None:
    assert read_residual(f"{kind}(t | g)").homogeneous == (kind not in ("diag", "us"))
    assert not read_residual(f"{kind}(t | g, hom = FALSE)").homogeneous


@pytest.mark.parametrize(
    ("theirs", "here"),
    [
        ("corAR1(form = ~ week | id)", "ar1(week | id)"),
        ("corCAR1(form = ~ t | id)", "car1(t | id)"),
        ("corCompSymm(form = ~ 1 | id)", "cs(1 | id)"),
        ("corSymm(form = ~ v | id)", "us(v | id, hom = TRUE)"),
        ("corExp(form = ~ x + y | field)", "exp(x + y | field)"),
        ("corGaus(form = ~ x + y)", "gau(x + y | group)"),
        ("UN", "us(position | group)"),
        ("CS", "cs(1 | group)"),
        ("CSH", "cs(position | group, hom = FALSE)"),
        ("csh(visit | id)", "cs(visit | id, hom = FALSE)"),
        ("AR(1)", "ar1(position | group)"),
        ("ARH(1)", "ar1(position | group, hom = FALSE)"),
        ("TOEP", "toep(position | group)"),
        ("TOEPH", "toep(position | group, hom = FALSE)"),
        ("ANTE(1)", "ante(position | group, hom = FALSE)"),
        ("SP(POW)(t | id)", "car1(t | id)"),
        ("SP(EXP)(x y)", "exp(x + y | group)"),
        ("SP(GAU)(x y) LOCAL", "gau(x + y | group, nugget = TRUE)"),
        ("corExp(form = ~ x + y | g, nugget = TRUE)", "exp(x + y | g, nugget = TRUE)"),
        ("corGaus(form = ~ t | g, nugget = FALSE)", "gau(t | g)"),
        ("TYPE=UN", "us(position | group)"),
        ("type = ar(1)", "ar1(position | group)"),
        ("UN(1)", "diag(position | group)"),
        ("UNR", "us(position | group)"),
        ("CHOL", "us(position | group)"),
        ("exchangeable(1 | id)", "cs(1 | id)"),
        ("unstructured(v | id)", "us(v | id)"),
        ("ou(t | id)", "car1(t | id)"),
        ("homcs(v | id)", "cs(1 | id)"),
        ("hetar1(v | id)", "ar1(v | id, hom = FALSE)"),
        ("ar1h(v | id)", "ar1(v | id, hom = FALSE)"),
        ("toeph(v | arm / id)", "toep(v | id, hom = FALSE, by = arm)"),
        ("ad(v | id)", "ante(v | id)"),
        ("adh(v | id)", "ante(v | id, hom = FALSE)"),
        ("sp_exp(x + y | id)", "exp(x + y | id)"),
    ],
)
def test_names_of_other_packages_are_answered_with_the_spelling_here(
    theirs: str, here: str
) -> None:
    with pytest.raises(FormulaError, match="What other packages call") as raised:
        read_residual(theirs)
    answer = str(raised.value).split("`")[3]
    assert answer == here
    assert read_residual(answer).text == here


@pytest.mark.parametrize(
    ("theirs", "called", "said"),
    [
        ("corARMA(p = 1, q = 1)", "corARMA", "`ar1` and `toep` come nearest"),
        ("ARMA(1, 1)", "ARMA(1,1)", "`ar1` and `toep` come nearest"),
        ("AR(2)", "AR(2)", "`ar1` and `toep` come nearest"),
        ("corSpher(form = ~ x + y)", "corSpher", "`exp` and `gau` come nearest"),
        ("SP(MATERN)(x y)", "SP(MATERN)", "`exp` and `gau` come nearest"),
        ("SP(POWA)(x y)", "SP(POWA)", "`exp` and `gau` come nearest"),
        ("mat(x + y | g)", "mat", "`exp` and `gau` come nearest"),
        # Bands and products of structures are other models, not those of the name before them.
        ("TOEP(2)", "TOEP(2)", "`toep`, with a correlation for each lag, comes nearest"),
        ("UN(2)", "UN(2)", "`us` comes nearest"),
        ("UN@AR(1)", "UN@AR(1)", "`us` comes nearest"),
        ("ANTE(2)", "ANTE(2)", "`ante` comes nearest"),
        ("FA(1)", "FA", "`us` comes nearest"),
        ("rr(t | g, d = 2)", "rr", "`us` comes nearest"),
        ("HF", "HF", "`cs` with `hom = FALSE` comes nearest"),
        ("equalto(t | g, V)", "equalto", "residual=me.known(V)"),
        ("LIN(2)", "LIN", "residual=me.known(V)"),
        ("VC", "VC", "as they have without `residual`"),
        ("independent", "independent", "as they have without `residual`"),
        ("varIdent(form = ~ 1 | sex)", "varIdent", "variance='sex'"),
        ("varPower()", "varPower", "no likelihood of its own"),
        ("carr1(t | id)", "carr1", "Did you mean 'car1'"),
    ],
)
def test_structures_that_are_not_here(theirs: str, called: str, said: str) -> None:
    with pytest.raises(FormulaError) as raised:
        read_residual(theirs)
    message, shown, carets = str(raised.value).rsplit("\n", 2)
    assert f"`{called}`" in message and said in message
    start = carets.index("^")
    marked = shown[start : start + carets.count("^")]
    assert marked.replace(" ", "") == called


@pytest.mark.parametrize(
    ("text", "message", "marked"),
    [
        ("ar1(t)", "needs the group .* behind a bar: `ar1\\(t \\| id\\)`", "ar1(t)"),
        ("ar1(t || g)", "write one bar", " || "),
        ("ar1(t | a | b)", "has one bar", "t | a"),
        ("ar1", "one structure with its position and group", "ar1"),
        ("ar1(t | g) + cs(1 | g)", "one structure with its position", "ar1(t | g) + cs(1 | g)"),
        ("us(v | arm/id)", "write `us\\(v \\| id, by = arm\\)`", "arm/id"),
        ("ar1(t | a + b)", "one factor: write `a:b`", "a + b"),
        ("ar1(t | g, homo = TRUE)", "takes `hom`, `by` and `nugget`.*Did you mean 'hom'", "TRUE"),
        ("ar1(t | g, hom = 2)", "`hom` must be TRUE", "2"),
        ("exp(t | g, nugget = x)", "`nugget` must be TRUE", "x"),
        ("ar1(t | g, by = a, by = b)", "takes `by` once", "b"),
        ("ar1(t | g, by = a:b)", "must name one column", "a:b"),
        ("diag(v | id, hom = TRUE)", "residuals have without `residual`", "TRUE"),
        ("diag(1 | id)", "what the variances differ by", "diag(1 | id)"),
        ("cs(1 | id, hom = FALSE)", "needs the position", "FALSE"),
        ("us(1 | id)", "`us` needs the position", "us(1 | id)"),
        ("exp(1 | id)", "`exp\\(x \\+ y \\| id\\)`", "exp(1 | id)"),
        ("car1(t | id, nugget = TRUE)", "`exp\\(t \\| id, nugget = TRUE\\)`", "TRUE"),
        ("exp(x + y | id, hom = FALSE)", "variance='x'", "FALSE"),
        ("ar1(t + u | id)", "several coordinates belong to", "t + u"),
        ("exp(x - y | id)", "joined with `\\+`", "x - y"),
        ("exp(x + x | id)", "there twice", "x"),
        ("ar1(0 + t | id)", "write `t` alone", "0"),
        ("ar1(a:b | id)", "is no position", "a:b"),
        ("ar1(. | id)", "is no position", "."),
    ],
)
def test_errors_show_the_place(text: str, message: str, marked: str) -> None:
    with pytest.raises(FormulaError, match=message) as raised:
        read_residual(text)
    shown, carets = str(raised.value).splitlines()[-2:]
    start = carets.index("^")
    assert shown[start : start + carets.count("^")] == marked


@pytest.mark.parametrize(("given", "message"), [("  ", "is empty"), (3, "is text, such as")])
def test_what_is_no_text(given: Any, message: str) -> None:
    with pytest.raises(FormulaError, match=message):
        read_residual(given)


# --- formulas without bars --------------------------------------------------------------


def test_formula_without_bars_needs_a_covariance_of_the_residuals() -> None:
    data = _visits()
    with pytest.raises(FormulaError, match=r"residual='ar1\(time \| group\)'"):
        build_model_frame("y ~ x", data)
    for more in ({"residual": "cs(1 | id)"}, {"variance": "arm"}, {"without_random": True}):
        frame = build_model_frame("y ~ x", data, **more)
        assert frame.terms == () and frame.random_encoders == ()
        assert frame.fixef_names == ("(Intercept)", "x")


def test_formula_without_bars_is_pickled_and_shown() -> None:
    formula = parse_formula("y ~ x", without_random=True)
    assert pickle.loads(pickle.dumps(formula)) == formula
    assert "random    none" in repr(formula)
    assert formula.with_response("z", ["y", "x", "z"]).text == "z ~ x"


def test_dot_leaves_out_the_groups_of_the_residuals() -> None:
    frame = _frame(_visits()[["y", "x", "id", "week"]], "ar1(week | id)", "y ~ .")
    assert frame.fixef_names == ("(Intercept)", "x", "week")


# --- positions --------------------------------------------------------------------------


def test_groups_are_coded_as_those_of_random_effects() -> None:
    data = _visits()
    frame = _frame(data, "ar1(week | arm:id)", "y ~ x + (1 | arm:id)")
    term, random = frame.residual, frame.terms[0]
    assert term is not None
    np.testing.assert_array_equal(term.codes, random.codes)
    assert list(term.levels) == list(random.levels)
    np.testing.assert_array_equal(level_codes(term, data), term.codes)
    assert not term.codes.flags.writeable


def test_whole_numbers_are_steps_of_ar1() -> None:
    data = _visits()
    data["week"] = data["week"] * 2 - 3
    term = _term(data, "ar1(week | id)")
    assert term.times is None and term.coordinates is None and term.steps is not None
    np.testing.assert_array_equal(term.steps, data["week"])


def test_a_missing_step_is_a_gap_with_one_variance_and_with_several() -> None:
    data = _visits()
    data["week"] = data["week"].map({0: 1, 1: 2, 2: 3, 3: 5})
    one = _term(data, "ar1(week | id)").steps
    frame = _frame(data, "ar1(week | id, hom = FALSE)")
    several = frame.residual
    assert one is not None and several is not None and several.steps is not None
    np.testing.assert_array_equal(one - one.min(), several.steps)
    assert several.times is not None and _times(several) == ["1", "2", "3", "4", "5"]
    assert frame.dropped.empty_steps == (("week", 1),)
    assert "1 step of `week` without rows kept as gaps in time" in repr(frame.dropped)


def test_other_numbers_are_not_steps_of_ar1() -> None:
    data = _visits()
    data["week"] = data["week"] + 0.5
    for hom in ("", ", hom = FALSE"):
        _refused(
            rf"values such as .*5\. .*write `car1\(week \| id{hom}\)`",
            data,
            f"ar1(week | id{hom})",
            error=DataError,
        )


def test_a_factor_counts_levels_without_rows_as_steps() -> None:
    data = _visits()
    data["visit"] = data["visit"].cat.set_categories(["v0", "v1", "v2", "extra", "v3", "v4", "v5"])
    for kind, kept in (("toep", True), ("us", False), ("ante", False)):
        frame = _frame(data, f"{kind}(visit | id)", variance="arm")
        term = frame.residual
        assert term is not None and term.times is not None and term.steps is not None
        times = ["v1", "v2", "extra", "v3", "v4"] if kept else _VISITS
        assert _times(term) == times
        assert [term.times[i] for i in term.steps] == list(data["visit"])
        assert frame.dropped.unused_levels == {"visit": 2 if kept else 3}
        assert frame.dropped.empty_steps == ((("visit", 1),) if kept else ())


@pytest.mark.parametrize("structure", ["us", "diag", "toep", "ante", "cs"])
def test_numbers_are_common_times(structure: str) -> None:
    data = _visits()
    data["week"] = data["week"].map({0: 0.5, 1: 1.0, 2: 4.0, 3: 12.0})
    hom = ", hom = FALSE" if structure == "cs" else ""
    term = _term(data, f"{structure}(week | id{hom})")
    assert term.times is not None and _times(term) == ["0.5", "1", "4", "12"]
    assert term.steps is not None
    assert [float(term.times[i]) for i in term.steps] == list(data["week"])


def test_coordinates() -> None:
    data = _visits()
    data["north"] = data["week"] * 1.5
    term = _term(data, "exp(x + north | id)")
    assert term.coordinates is not None and term.times is None and term.steps is None
    np.testing.assert_array_equal(term.coordinates, data[["x", "north"]])
    assert term.position == ("x", "north")
    one = _term(data, "car1(north | id, hom = FALSE)")
    assert one.coordinates is not None and one.coordinates.shape == (len(data), 1)
    assert one.times is not None and _times(one) == ["0", "1.5", "3", "4.5"]


@pytest.mark.parametrize("kind", ["car1", "exp", "gau"])
def test_distances_need_numbers(kind: str) -> None:
    _refused(
        "needs numbers, from which distances", _visits(), f"{kind}(visit | id)", error=DataError
    )


def test_positions_may_be_expressions() -> None:
    data = _visits()
    frame = _frame(data, "us(factor(week) | id)")
    term = frame.residual
    assert term is not None and _times(term) == ["0", "1", "2", "3"]
    assert frame.residual_coders[0].name == "factor(week)"
    _refused("has 2 columns; a position is one", data, "us(poly(week, 2) | id)", error=DataError)


def test_rows_in_their_order_count_those_left_out() -> None:
    data = pd.DataFrame({"y": [1.0, 2, np.nan, 4, 3, 1, 2, 7], "g": list("abaaabbb")})
    term = _term(data, "ar1(1 | g)", "y ~ 1")
    assert term.steps is not None
    np.testing.assert_array_equal(term.steps, [0, 0, 2, 3, 1, 2, 3])
    data = pd.DataFrame({"y": [1.0, 2, 5, 4, 3, 1, 2, 7], "g": list("abaaabbb")})
    frame = _frame(data, "ar1(1 | g, hom = FALSE)", "y ~ 1")
    assert _times(frame.residual) == ["1", "2", "3", "4"]


def test_levels_in_the_order_of_the_alphabet_are_refused() -> None:
    data = _visits(visits=3)
    names = {0: "week 2", 1: "week 10", 2: "week 20"}
    data["when"] = data["week"].map(names)
    _refused("'week 10' comes before 'week 2'", data, "ar1(when | id)", error=DataError)
    data["when"] = data["when"].astype("category")
    _refused("'week 10' comes before 'week 2'", data, "toep(when | id)", error=DataError)
    # An unstructured matrix has no order, and a chosen order is no accident.
    assert _times(_term(data, "us(when | id)")) == sorted(names.values())
    data["when"] = pd.Categorical(data["when"], list(names.values()), ordered=True)
    assert _times(_term(data, "ar1(when | id)")) == list(names.values())


def test_missing_values_drop_the_row() -> None:
    data = _visits()
    data["week"] = data["week"].astype(float)
    data.loc[2, "week"] = np.nan
    data.loc[5, "arm"] = None
    data.loc[9, "id"] = None
    data["age"] = np.arange(len(data), dtype=float)
    data.loc[11, "age"] = np.nan
    frame = _frame(data, "ar1(week | id, by = arm)", variance="age")
    assert list(frame.dropped.rows) == [2, 5, 9, 11]
    assert frame.dropped.missing_by_column == {"week": 1, "arm": 1, "id": 1, "age": 1}
    term, kept = frame.residual, data.drop(index=[2, 5, 9, 11])
    assert term is not None and term.strata is not None and term.stratum is not None
    assert [term.levels[i] for i in term.codes] == list(kept["id"])
    assert [term.strata[i] for i in term.stratum] == list(kept["arm"])
    np.testing.assert_array_equal(term.steps, kept["week"])
    assert frame.variance is not None
    np.testing.assert_array_equal(frame.variance.v[:, 0], kept["age"])
    data.loc[0, "week"] = np.inf
    _refused("`week` is infinite", data, "ar1(week | id)", error=DataError)


def test_coders_evaluate_positions_of_other_data() -> None:
    data = _visits()
    frame = _frame(data, "us(visit | id, by = arm)")
    visit, arm = frame.residual_coders
    new = Columns(pd.DataFrame({"visit": ["v3", "v1"], "arm": ["placebo", "drug"]}))
    assert visit.evaluate(new)[0].tolist() == [2, 0]
    assert arm.evaluate(new)[0].tolist() == [1, 0]
    with pytest.raises(DataError, match="did not see"):
        visit.evaluate(Columns(pd.DataFrame({"visit": ["v9"]})))
    numbers = _frame(data, "us(week | id)").residual_coders[0]
    assert numbers.evaluate(Columns(pd.DataFrame({"week": [3, 0]})))[0].tolist() == [3, 0]


# --- variance ---------------------------------------------------------------------------


def test_columns_of_the_variance() -> None:
    data = _visits()
    data["age"] = 20.0 + np.arange(len(data))
    data["stage"] = pd.Categorical(data["visit"], ordered=True)
    frame = build_model_frame("y ~ x", data, variance="arm+log( age ) + stage")
    term = frame.variance
    assert term is not None and term.text == "arm + log(age) + stage"
    assert term.names == ("armplacebo", "log(age)", "stagev2", "stagev3", "stagev4")
    np.testing.assert_array_equal(term.v[:, 0], data["arm"] == "placebo")
    np.testing.assert_allclose(term.v[:, 1], np.log(data["age"]))
    np.testing.assert_array_equal(term.v[:, 3], data["stage"] == "v3")
    encoder = frame.variance_encoder
    assert encoder is not None and encoder.names == term.names
    assert build_model_frame("y ~ x", data, variance="~ arm").variance is not None


@pytest.mark.parametrize(
    ("variance", "message"),
    [
        ("", "is empty"),
        ("1", "names nothing that varies"),
        ("0 + arm", "`sigma`, which cannot be taken away"),
        ("(1 | id)", "no bar"),
        (".", "Write out what the variance follows"),
        ("offset(x)", "is given as `weights`"),
        ("varIdent(form = ~ 1 | sex)", "variance='sex'"),
        ("varPower()", "a power of the fitted values has no likelihood"),
        ("varFixed(~ age)", "weights='1 / age'"),
    ],
)
def test_variance_that_cannot_be_read(variance: str, message: str) -> None:
    with pytest.raises(FormulaError, match=message):
        build_model_frame("y ~ x", _visits(), variance=variance)


def test_variance_that_cannot_be_told() -> None:
    data = _visits()
    data["same"] = 3.0
    data["twice"] = 2.0 * data["x"] + 1.0
    data["alone"] = np.where(np.arange(len(data)) == 4, "one", "others")
    data["cell"] = np.where((data["arm"] == "drug") & (data["week"] == 0), "a", data["arm"])
    for variance, message in (
        ("same", "`same` of variance='same' is 3 in every row"),
        ("x + twice", "`twice` cannot be told from the other columns"),
        ("alone", "there is one row at 'one'"),
        ("arm * cell", "`armplacebo:celldrug` of .* is 0 in every row"),
    ):
        with pytest.raises(ModelError, match=message):
            build_model_frame("y ~ x", data, variance=variance)


def test_variance_that_the_structure_has_already() -> None:
    data = _visits()
    data["late"] = (data["week"] > 1) * 1.0
    _refused(
        "`late` of variance='late \\+ x' cannot be told",
        data,
        "us(visit | id)",
        variance="late + x",
    )
    _refused("for each `arm`, and `armplacebo`", data, "ar1(week | id, by = arm)", variance="arm")
    cell = "visitv2:armplacebo"
    _refused(cell, data, "diag(visit | id, by = arm)", variance="visit * arm")
    assert _frame(data, "diag(visit | id)", variance="arm").variance is not None
    assert _frame(data, "ar1(visit | id)", variance="visit").variance is not None


# --- what is refused --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ar1", "car1", "ante", "us", "toep", "exp", "gau"])
def test_two_rows_at_one_time(kind: str) -> None:
    data = _visits()
    again = pd.concat([data, data[(data["id"] == "c") & (data["week"] == 2)]], ignore_index=True)
    _refused(
        rf"Group 'c' of `{kind}\(week \| id\)` has 2 rows at `week` = '?2'?\. .*`id:side`",
        again,
        f"{kind}(week | id)",
    )
    if kind in ("exp", "gau"):
        assert _term(again, f"{kind}(week | id, nugget = TRUE)").nugget
    again["side"] = again.groupby(["id", "week"]).cumcount()
    assert _term(again, "ar1(week | id:side)").n_levels == 9


@pytest.mark.parametrize("structure", ["cs(1 | id)", "diag(week | id)"])
def test_independent_and_exchangeable_rows_may_repeat(structure: str) -> None:
    data = _visits()
    assert _term(pd.concat([data, data], ignore_index=True), structure).n_levels == 8


def test_two_rows_at_one_point_of_a_field() -> None:
    data = _visits()
    data["north"], data["east"] = data["week"] // 2, data["week"] % 2
    assert _term(data, "exp(north + east | id)").n_levels == 8
    data.loc[data["week"] == 3, "east"] = 0
    _refused(
        r"has 2 rows at `north` = 1, `east` = 0 \(8 such places in all\).*"
        r"`gau\(north \+ east \| id, nugget = TRUE\)`",
        data,
        "gau(north + east | id)",
    )


def test_strata() -> None:
    data = _visits()
    mixed = data.assign(arm=np.where(data["week"] == 0, "drug", data["arm"]))
    _refused(
        r"Group 'a' of .* has rows in two levels of `arm`, 'drug' and 'placebo' "
        r"\(4 such groups\).*`arm:id`",
        mixed[::-1],
        "ar1(week | id, by = arm)",
    )
    _refused("one level \\('drug'\\)", data.assign(arm="drug"), "cs(1 | id, by = arm)")
    single = data[(data["arm"] == "drug") | (data["week"] == 0)]
    _refused("one row in stratum 'placebo' of `arm`", single, "cs(1 | id, by = arm)")
    one = data[(data["arm"] == "drug") | ((data["week"] == 0) & (data["id"] == "a"))]
    _refused("has one row in stratum 'placebo'", one, "diag(1 | id, by = arm)")
    assert _term(data, "us(visit | id, by = arm)").n_strata == 2


def test_groups_of_one_row() -> None:
    data = _visits().query("week == 0")
    _refused("Every group of `cs\\(1 \\| id\\)` has one row", data, "cs(1 | id)")


def test_free_matrix_needs_groups() -> None:
    _refused("3 groups for 4 times", _visits(3), "us(visit | id)")
    data = _visits(7)
    _refused("3 groups in stratum 'drug' of `arm` for 4", data, "us(visit | id, by = arm)")


@pytest.mark.parametrize(
    "structure",
    ["us(week | id)", "ante(week | id)", "diag(week | id)", "ar1(week | id, hom = FALSE)"],
)
def test_a_time_with_one_row(structure: str) -> None:
    data = _visits()
    data = data[(data["week"] != 2) | (data["id"] == "d")]
    if structure == "ante(week | id)":
        # One variance for all, and the correlations of both neighbours can be told.
        assert _term(data, structure).n_times == 4
        structure = "ante(week | id, hom = FALSE)"
    _refused("fewer than 2 (rows|groups) at '2'", data, structure)


def test_a_pair_of_times_never_seen_together() -> None:
    data = _visits(12)
    early = data["id"] < "g"
    data = data[np.where(early, data["week"] != 3, data["week"] != 0)]
    _refused("rows at both 'v1' and 'v4'", data, "us(visit | id)")
    _refused("no group has two rows 3 steps apart", data, "toep(visit | id)")
    assert _term(data, "ante(visit | id)").n_times == 4
    data = data[np.where(data["id"] < "g", data["week"] < 2, data["week"] > 1)]
    _refused("join the times 'v1' and 'v3'", data, "ante(visit | id)")
    assert _term(data, "ar1(visit | id)").n_times == 4


def test_random_effects_that_the_residuals_hold() -> None:
    data = _visits()
    data["again"] = data["id"].str.upper()
    same = "are the same covariance"
    _refused(same, data, "cs(1 | id)", "y ~ x + (1 | id)")
    _refused(same, data, "cs(1 | id)", "y ~ x + (1 | again)")
    _refused(same, data, "cs(1 | id, by = arm)", "y ~ x + (1 | id)")
    _refused(same, data, "toep(visit | id)", "y ~ x + (x | id)")
    _refused(same, data, "us(visit | id, hom = TRUE)", "y ~ x + (1 | id)")
    _refused(same, data, "cs(1 | id)", "y ~ x + (0 + arm | id)")
    held = "already holds the random effects of"
    _refused(f"{held} `\\(Intercept\\)`, `week`", data, "us(visit | id)", "y ~ (week | id)")
    _refused(f"{held} `\\(Intercept\\)` on", data, "us(visit | id)", "y ~ (x | id)")
    for residual, formula in (
        ("us(visit | id)", "y ~ x + (0 + x | id)"),
        ("us(visit | id)", "y ~ x + (1 | arm)"),
        ("ar1(visit | id)", "y ~ x + (1 | id)"),
        ("cs(1 | id)", "y ~ x + (0 + x | id)"),
        ("cs(visit | id, hom = FALSE)", "y ~ x + (1 | id)"),
    ):
        assert len(_frame(data, residual, formula).terms) == 1
    data["w"] = 1.0 + data["week"]
    assert _frame(data, "cs(1 | id)", "y ~ x + (1 | id)", weights="w").residual is not None
    assert _frame(data, "cs(1 | id)", "y ~ x + (1 | id)", variance="week").residual is not None


def test_usual_cases_are_refused_however_many_parameters_there_are() -> None:
    data = _visits(24, 21)
    held = "already holds the random effects of"
    _refused(held, data, "us(week | id)", "y ~ x + (week | id)")
    assert _term(data, "us(week | id)").n_times == 21


def test_columns_that_are_not_there() -> None:
    for residual in ("ar1(day | id)", "ar1(week | subject)", "ar1(week | id, by = centre)"):
        _refused("There is no column", _visits(), residual, error=DataError)


def test_polars_data() -> None:
    polars = pytest.importorskip("polars")
    data = _visits()
    term = _term(data, "us(visit | id, by = arm)", variance="x")
    other = _term(polars.from_pandas(data), "us(visit | id, by = arm)", variance="x")
    for name in ("codes", "steps", "stratum"):
        np.testing.assert_array_equal(getattr(term, name), getattr(other, name))
    assert _times(other) == _times(term)


def test_one_distance_tells_one_correlation() -> None:
    data = _visits(visits=2)
    data["time"] = data["week"] * 0.1
    for residual in ("ar1(week | id)", "car1(time | id)", "ante(week | id)"):
        _refused("are the same covariance", data, residual, "y ~ x + (1 | id)")
    _refused("All distances within the groups", data, "exp(time | id, nugget = TRUE)")
    assert _term(data, "exp(time | id)").kind == "exp"


def test_parameters_that_are_too_many() -> None:
    two = _visits(visits=2)
    _refused(
        r"The parameters of `ar1\(week \| id, hom = FALSE\)` and the random effects of "
        r"`\(Intercept\)` on `id` .* there is one too many",
        two,
        "ar1(week | id, hom = FALSE)",
        "y ~ x + (1 | id)",
    )
    _refused(
        "`visitv2` of variance='visit'",
        two,
        "cs(1 | id)",
        "y ~ x + (0 + week | id)",
        variance="visit",
    )
    three = _visits(visits=3)
    _refused("there are 2 too many", three, "toep(visit | id, hom = FALSE)", "y ~ (week | id)")
    assert len(_frame(_visits(), "toep(visit | id, hom = FALSE)", "y ~ (1 | id)").terms) == 1
    # Two sizes of the residuals tell a covariance from a correlation.
    assert len(_frame(two, "cs(1 | id)", "y ~ (1 | id)", variance="arm").terms) == 1


def _covariance(frame: ModelFrame, cell: Any, p: Any) -> Any:
    """V from its definition, at parameters that are all natural ones."""
    term, values = frame.residual, list(p)
    assert term is not None

    def take(count: int) -> Any:
        return np.array([values.pop(0) for _ in range(count)])

    stratum = np.zeros(frame.nobs, dtype=int) if term.stratum is None else term.stratum
    log_sd = take(cell.max() + 1)[cell]
    if frame.variance is not None:
        log_sd = log_sd + frame.variance.v @ take(frame.variance.n_columns)
    times = term.n_times
    count = {"diag": 0, "us": times * (times - 1) // 2, "toep": times - 1, "ante": times - 1}
    zetas = [take(count.get(term.kind, 1)) for _ in range(term.n_strata)]
    R = np.zeros((frame.nobs, frame.nobs))
    for i in range(frame.nobs):
        for j in range(frame.nobs):
            if i == j or term.codes[i] != term.codes[j]:
                R[i, j] = float(i == j)
                continue
            zeta = zetas[stratum[i]]
            step = (0, 0) if term.steps is None else sorted((term.steps[i], term.steps[j]))
            if term.kind == "diag":
                continue
            R[i, j] = {
                "cs": lambda z=zeta, s=step: z[0],
                "ar1": lambda z=zeta, s=step: z[0] ** (s[1] - s[0]),
                "car1": lambda z=zeta, i=i, j=j: (
                    z[0] ** abs(term.coordinates[i, 0] - term.coordinates[j, 0])
                ),
                "toep": lambda z=zeta, s=step: z[s[1] - s[0] - 1],
                "ante": lambda z=zeta, s=step: np.prod(z[s[0] : s[1]]),
                "us": lambda z=zeta, s=step: z[s[1] * (s[1] - 1) // 2 + s[0]],
            }[term.kind]()
    R *= np.exp(log_sd[:, None] + log_sd)
    for random in frame.terms:
        k = random.n_columns
        G = np.zeros((k, k))
        G[np.tril_indices(k)] = take(k * (k + 1) // 2)
        G = G + np.tril(G, -1).T
        R += (random.codes[:, None] == random.codes) * (random.z @ G @ random.z.T)
    assert not values
    return R


def _excess(frame: ModelFrame, rng: np.random.Generator) -> int:
    """Parameters less the rank of V's derivatives, by differences, all blocks of V looked at."""
    term = frame.residual
    assert term is not None
    cell = np.zeros(frame.nobs, dtype=int) if term.stratum is None else term.stratum.astype(int)
    if not term.homogeneous and term.steps is not None:
        cell = cell * term.n_times + term.steps
    cell = np.unique(cell, return_inverse=True)[1]
    times = term.n_times
    count = {"diag": 0, "us": times * (times - 1) // 2, "toep": times - 1, "ante": times - 1}
    n = cell.max() + 1 + (0 if frame.variance is None else frame.variance.n_columns)
    n += term.n_strata * count.get(term.kind, 1)
    n += sum(r.n_columns * (r.n_columns + 1) // 2 for r in frame.terms)
    p = rng.uniform(0.2, 0.8, n)
    step = 1e-5 * np.eye(n)
    d = [
        (_covariance(frame, cell, p + h) - _covariance(frame, cell, p - h)).ravel() / 2e-5
        for h in step
    ]
    columns = np.array(d).T
    columns /= np.maximum(np.linalg.norm(columns, axis=0), 1e-300)
    return n - int((np.linalg.svd(columns, compute_uv=False) > 1e-7).sum())


def test_what_is_refused_is_what_the_derivatives_of_V_say() -> None:
    rng = np.random.default_rng(11)
    structures = [
        "cs(1 | id)", "cs(1 | id, by = arm)", "cs(visit | id, hom = FALSE)", "ar1(week | id)",
        "ar1(week | id, hom = FALSE)", "car1(week | id)", "ante(visit | id)",
        "toep(visit | id, hom = FALSE)", "us(visit | id)", "us(visit | id, hom = TRUE)",
        "us(visit | id, by = arm)", "diag(visit | id)",
    ]  # fmt: skip
    randoms = ["(1 | id)", "(week | id)", "(x | id)", "(0 + week || id)", "(1 | arm)", ""]
    seen = {True: 0, False: 0}
    for _ in range(120):
        data = _visits(int(rng.integers(4, 9)), int(rng.integers(2, 4)))
        data = data[rng.random(len(data)) > rng.choice([0.0, 0.0, 0.2])]
        formula = f"y ~ 1 + {rng.choice(randoms)}".rstrip(" +")
        residual = str(rng.choice(structures))
        variance = rng.choice(["", "arm", "visit"]) or None
        try:
            frame = build_model_frame(formula, data, residual=residual, variance=variance)
            refused = False
        except (ModelError, DataError) as error:
            if not any(part in str(error) for part in ("told from each", "holds", "same covar")):
                continue
            refused = True
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("mixedeffects.frame.build.check_residual", lambda *_: None)
                frame = build_model_frame(formula, data, residual=residual, variance=variance)
        assert refused == (_excess(frame, rng) > 0), (formula, residual, variance)
        seen[refused] += 1
    assert min(seen.values()) > 10, seen


def test_a_design_needs_no_data_to_estimate_from() -> None:
    frame = build_model_frame("~ x", _visits(3), residual="us(visit | id)", design_only=True)
    assert frame.residual is not None and frame.residual.n_times == 4
