"""Functions in formulas: what they compute, what they refuse, and that they only read."""

from __future__ import annotations

import itertools
import json
import pickle
import random
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me
from mixedeffects.formula import parse_formula
from mixedeffects.formula.evaluate import evaluate, known_functions
from mixedeffects.formula.reader import read
from mixedeffects.formula.syntax import Name, deparse, quote_name
from mixedeffects.formula.values import Factor
from mixedeffects.frame import build_model_frame
from references import REFERENCE

N = 60


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(11)
    g = np.repeat(np.arange(12), 5)
    return pd.DataFrame(
        {
            "y": rng.normal(size=N) + rng.normal(size=12)[g],
            "x": rng.uniform(1.0, 3.0, N),
            "z": rng.normal(size=N),
            "k": np.tile([0, 1, 2], 20),
            "arm": np.tile([1, 2, 3], 20),
            "f": np.tile(list("abc"), 20),
            "o": pd.Categorical(
                np.tile(["lo", "mid", "hi"], 20), ["lo", "mid", "hi"], ordered=True
            ),
            "b": np.tile([True, False], 30),
            "my x": rng.uniform(1.0, 3.0, N),
            "g": g,
        }
    )


def fitted(text: str, data: pd.DataFrame) -> me.LinearMixedModel:
    return me.lmer(f"y ~ {text} + (1 | g)", data)


def message(text: str, data: pd.DataFrame) -> str:
    with pytest.raises(me.MixedEffectsError) as caught:
        fitted(text, data)
    return str(caught.value).split("\n")[0]


# --- a formula only reads -----------------------------------------------------------------


NUMPY = [f"np.{name}" for name in dir(np) if isinstance(getattr(np, name), np.ufunc)]


def test_no_call_changes_a_column() -> None:
    rng = np.random.default_rng(2)
    columns: dict[str, Any] = {name: rng.uniform(1.0, 2.0, 10) for name in ("x", "z", "u")} | {
        "b": rng.random(10) < 0.5,
        "f": Factor(np.arange(10) % 3, ("a", "b", "c")),
    }
    before = {name: np.array(getattr(v, "codes", v)) for name, v in columns.items()}
    given = ["z", "b", "f", "1", "2.5", "NULL", '"a"', "c(1, 2)", "TRUE", "1e9"]
    named = ["out", "where", "dtype", "casting", "order", "df", "base", "levels", "x", "center"]
    computed = 0
    for function in (*known_functions(), *NUMPY, "np.copyto", "np.add.at", "np.sort"):
        calls = [f"{function}()", f"{function}(x)", f"{function}(f)", f"{function}(x, z, u)"]
        calls += [f"{function}(x, {a})" for a in given]
        calls += [f"{function}(x, {name} = u)" for name in named]
        calls += [f"{function}(x, 2, z, u, x)", f"{function}(x, z, out = u, where = b)"]
        for call in calls:
            try:
                evaluate(read(call), columns, 10, {})
            except me.MixedEffectsError as error:
                text = str(error)
                assert "ufunc" not in text and "ndarray" not in text, (call, text)
            else:
                computed += 1
    assert computed > 300
    for name, value in columns.items():
        np.testing.assert_array_equal(getattr(value, "codes", value), before[name])


@pytest.mark.parametrize(
    "call",
    [
        "exp(x, y)",
        "np.floor(x / 2, y)",
        "np.log(x, out = y)",
        "np.add(x, z, y)",
        "pmax(x, out = y)",
    ],
)
def test_a_second_array_is_not_written_to(data: pd.DataFrame, call: str) -> None:
    before = data.copy(deep=True)
    assert "argument" in message(call, data)
    pd.testing.assert_frame_equal(data, before)
    m = fitted("pmax(x, z, k) + pmin(z, x)", data)
    np.testing.assert_array_equal(m.X[:, 1], data[["x", "z", "k"]].max(axis=1))
    pd.testing.assert_frame_equal(data, before)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ("exp(x, z)", "`exp()` takes one argument"),
        ("log(x, 2, 3)", "takes up to 2 arguments (x, base)"),
        ("log(base = x)", "needs the argument `x`"),
        ("log(x, bas = 2)", "has no argument `bas`"),
        ("log(x = z, x = x)", "given `x` twice"),
        ("log()", "names no column"),
        ("atan2(x)", "needs the argument `x`"),
        ("log(f)", "needs numbers, but `f` is categorical"),
        ('log("a")', "names no column"),
        ('I(x + "a")', '`+` needs numbers, but `"a"` is text'),
        ("I(x + NULL)", "is NULL"),
        ("I(x + c(1, 2))", "is a list"),
        ('I(x == "a")', "compares numbers with text"),
        ("I(f == x)", "compared with one of its levels"),
        ("round(x, 0.5)", "whole number"),
        ("poly(x, 0)", "`degree` must be a whole number from 1"),
        ("poly(x, 100)", "degree 100 needs more than 100 different values"),
        ("poly(x, f)", "must be a whole number"),
        ("poly(x, z, degree = 2)", "`poly()` takes one column"),
        ("poly(x, raw = 3)", "`raw` must be TRUE or FALSE"),
        ("bs(x, df = -1)", "`df` must be a whole number from 1"),
        ("bs(x, df = 2)", "`df` must be at least 3"),
        ("bs(x, df = 1e9)", "`df` must be a whole number"),
        ("bs(x, knots = f)", "`knots` must be a number, not a column"),
        ("bs(x, Boundary.knots = 1)", "two numbers, the lower one first"),
        ('bs(x, df = 5, extrapolation = "no")', "must be one of"),
        ("cr(x, df = 2)", "`df` must be at least 3"),
        ("ns(x, df = 0)", "`df` must be a whole number from 1"),
        ("ns(x, knots = c(2, 99))", "between the boundary knots"),
        ('scale("a")', "names no column"),
        ("scale(f)", "is categorical"),
        ("scale(I(0 * x))", "is constant"),
        ("scale(x, scale = 0)", "divided by 0"),
        ("scale(x, 1, 2, 3, 4)", "takes up to 4 arguments"),
        ("ns(I(0 * x), df = 2)", "there is only one"),
        ("factor()", "names no column"),
        ("I(x + factor())", "needs a column"),
        ('factor(f, levels = c("a", "a"))', "twice"),
        ("C(arm, contr.sum(5))", "there are 3 levels"),
        ("C(arm, Treatment(reference = c(1, 2)))", "the base is one level"),
        ("I(poly(x, 2) + poly(x, 3))", "puts 2 and 3 columns together"),
        ("cbind()", "names no column"),
        ("ifelse(x > 2, 1)", "needs the argument `no`"),
        ("I(mean(x, z))", "`na.rm` must be TRUE or FALSE"),
        ("I(x * 1e999)", "too large"),
        ("exp(1000 * x)", "is infinite in 60 rows"),
        ("poly(I(1 / (x - x)), 2)", "is infinite in 60 rows, so"),
        ("I(x / var(I(x * 1e200)))", "is no finite number"),
        ("np.modf(x)", "not a function a formula knows"),
        ("np.gcd(x, z)", "not a function a formula knows"),
        ("np.matmul(x, z)", "not a function a formula knows"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(data: pd.DataFrame, call: str, sentence: str) -> None:
    assert sentence in message(call, data)


# --- any formula ends in a fit or in an error of the package ----------------------------------


def _expression(rnd: random.Random, depth: int) -> str:
    names = ["y", "x", "z", "k", "f", "o", "b", "g", "`my x`", ".", "nosuch", "T", "pi"]
    values = ["0", "1", "2", "3.5", "-1", "1e308", "NULL", "TRUE", '"a"', "c(1, 2)", "[1]", "c()"]
    chance = rnd.random()
    if depth <= 0 or chance < 0.35:
        return rnd.choice(names if rnd.random() < 0.6 else values)
    inner = [_expression(rnd, depth - 1) for _ in range(3)]
    if chance < 0.6:
        operators = ["+", "-", "*", ":", "/", "^", "%in%", "%%", "%/%"]
        operators += ["==", "!=", "<", ">=", "&", "|", "||", "~", "!"]
        return f"{inner[0]} {rnd.choice(operators)} {inner[1]}"
    if chance < 0.72:
        return rnd.choice([f"({inner[0]})", f"-{inner[0]}", f"!{inner[0]}"])
    keywords = ["df", "knots", "degree", "base", "ref", "levels", "center", "scale", "raw"]
    keywords += ["out", "where", "digits", "x", "hom"]
    count = rnd.choice([0, 1, 1, 1, 2, 2, 3])
    parts = [
        f"{rnd.choice(keywords)} = {each}" if i and rnd.random() < 0.3 else each
        for i, each in enumerate(inner[:count])
    ]
    others = ["np.log", "np.add", "np.modf", "us", "cs", "ar1", "Treatment", "contr.sum", "Q", "s"]
    return f"{rnd.choice([*known_functions(), *others])}({', '.join(parts)})"


def _formula(rnd: random.Random) -> str:
    response = "y" if rnd.random() < 0.7 else _expression(rnd, 2)
    terms = " + ".join(_expression(rnd, rnd.choice([1, 2, 3])) for _ in range(rnd.choice([1, 2])))
    bars = ["(1 | g)"] * 5 + [
        "(x | g)",
        f"({_expression(rnd, 2)} | g)",
        f"(1 | {_expression(rnd, 1)})",
    ]
    text = f"{response} ~ {terms} + {rnd.choice(bars)}"
    if rnd.random() < 0.2:
        at = rnd.randrange(len(text))
        text = text[:at] + rnd.choice("()~|+*`'\"[],=^:%!.&{}\\0e ") + text[at + 1 :]
    return text


def _fuzz(data: pd.DataFrame, seed: int, count: int) -> int:
    rnd, built = random.Random(seed), 0
    before = data.copy(deep=True)
    for _ in range(count):
        text = _formula(rnd)
        try:
            frame = build_model_frame(text, data)
        except me.MixedEffectsError as error:
            assert str(error)
            continue
        except Exception as error:
            raise AssertionError(text) from error
        built += 1
        assert frame.fixed_encoder is not None
        again, _ = frame.fixed_encoder.encode(frame.data)
        np.testing.assert_allclose(again, frame.X, rtol=1e-6, atol=1e-9, err_msg=text)
    pd.testing.assert_frame_equal(data, before)
    return built


def test_random_formulas_end_in_a_model_frame_or_in_an_error(data: pd.DataFrame) -> None:
    assert _fuzz(data, 1, 500) > 20


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_many_random_formulas(data: pd.DataFrame, seed: int) -> None:
    assert _fuzz(data, seed, 8000) > 400


# --- rows lost to a function ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "sentence", "count"),
    [
        ("y ~ sqrt(z) + (1 | g)", r"`sqrt\(z\)` has no value in 3 of 60 rows, where `z` lies", 3),
        ("y ~ log(z) + (1 | g)", r"`log\(z\)` has no value in 3 of 60 rows", 3),
        ("log(z) ~ x + (1 | g)", r"`log\(z\)` has no value in 3 of 60 rows", 3),
        ("y ~ x + (sqrt(z) | g)", r"`sqrt\(z\)` has no value in 3 of 60 rows", 3),
        ("y ~ x + offset(log10(z)) + (1 | g)", r"`log10\(z\)` has no value in 3 of 60 rows", 3),
        ("y ~ I(w/v) + (1 | g)", r"`w/v` has no value in 2 of 60 rows, where `v` is 0", 2),
        ("y ~ I(z^0.5) + (1 | g)", r"`z\^0.5` has no value in 3 of 60 rows", 3),
        ("y ~ scale(log(z)) + (1 | g)", r"`log\(z\)` has no value in 3 of 60 rows", 3),
        ("y ~ I(log(z) > 1) + (1 | g)", r"`log\(z\)` has no value in 3 of 60 rows", 3),
        ("y ~ ifelse(x > 2, sqrt(z), x) + (1 | g)", r"`sqrt\(z\)` has no value in [123] of 60", -1),
        ("y ~ np.arcsin(z) + (1 | g)", r"`np.arcsin\(z\)` has no value in \d+ of 60", -1),
        ('y ~ factor(f, c("a", "b")) + (1 | g)', r"leaves 20 of 60 rows out: .* not list c", 20),
    ],
)
def test_rows_lost_to_a_function_are_warned_of(
    data: pd.DataFrame, formula: str, sentence: str, count: int
) -> None:
    z = np.abs(data["z"]) + 0.1
    z.iloc[[4, 9, 33]] = [-1.0, -2.5, -0.5]
    table = data.assign(z=z, w=np.where(np.arange(N) < 2, 0.0, 1.0 + data.x))
    table["v"] = np.where(np.arange(N) < 2, 0.0, 1.0 + data.x**2)
    with pytest.warns(me.DataWarning, match=sentence) as caught:
        m = me.lmer(formula, table)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert count < 0 or m.nobs == N - count
    with pytest.warns(me.DataWarning, match=sentence) as again:
        m.update(reml=False)
    assert again[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        m.refit(m.y + 1.0)
        kept = m.predict(table)
    assert np.isnan(kept).sum() <= N - m.nobs


def test_rows_that_are_not_lost_bring_no_warning(data: pd.DataFrame) -> None:
    fitted("ifelse(z > 0, sqrt(z), 0)", data)
    fitted("I(z > 0 & log(abs(z)) > 0)", data)
    fitted("sqrt(z)", data.assign(z=data["z"].where(data["z"] > 0)))


def test_rows_lost_by_a_planned_design_are_warned_of(data: pd.DataFrame) -> None:
    design = data.assign(x=data["x"] - 1.5)
    with pytest.warns(me.DataWarning, match="`sqrt.x.` has no value") as caught:
        V = me.marginal_covariance("~ sqrt(x) + (1 | g)", design, G={"g": 1.0}, sigma=1.0)
    assert V.shape[0] == (design["x"] >= 0).sum()
    assert caught[0].filename == __file__


def test_infinite_values_are_an_error_by_name(data: pd.DataFrame) -> None:
    zero = data.assign(x=np.where(np.arange(N) == 7, 0.0, data.x))
    for formula in (
        "y ~ log(x) + (1 | g)", "log(x) ~ z + (1 | g)", "y ~ z + (log(x) | g)",
        "y ~ z + offset(log(x)) + (1 | g)",
    ):  # fmt: skip
        with pytest.raises(me.DataError, match=r"log\(x\)` is infinite in 1 row"):
            me.lmer(formula, zero)


def test_logic_with_missing_numbers_is_that_of_R() -> None:
    # R: x <- c(-1, 1, exp(2), 1); u <- c(TRUE, FALSE, TRUE, TRUE); cbind of the expressions.
    columns = {
        "x": np.array([-1.0, 1.0, np.exp(2.0), 1.0]),
        "u": np.array([True, False, True, True]),
    }
    nan = np.nan
    for text, expected in {
        "(log(x) > 1) + 0": [nan, 0, 1, 0],
        "(!(log(x) > 1)) + 0": [nan, 1, 0, 1],
        "(log(x) > 1 & u) + 0": [nan, 0, 1, 0],
        "(log(x) > 1 | u) + 0": [1, 0, 1, 1],
        "(u & log(x) > 1) + 0": [nan, 0, 1, 0],
        "ifelse(log(x) > 1, 5, 6)": [nan, 6, 5, 6],
    }.items():
        np.testing.assert_array_equal(evaluate(read(text), columns, 4, {}), expected, err_msg=text)


# --- codings ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "columns"),
    [
        ("C(arm, Treatment(reference=1))", "23"), ("C(arm, Treatment(reference=2))", "13"),
        ("C(arm, Treatment(3))", "12"), ("C(arm, Treatment(reference='2'))", "13"),
        ("C(k, Treatment(reference=0))", "12"), ("C(k, Treatment(reference=1))", "02"),
        ("C(k, Treatment(reference=2))", "01"), ("C(k, Treatment(ref=2L))", "01"),
        ("C(f, Treatment('b'))", "ac"), ("C(f, Treatment(reference=\"c\"))", "ab"),
        # A level that is not called so: patsy counts from 0, R from 1.
        ("C(f, Treatment(reference=0))", "bc"), ("C(f, Treatment(reference=1))", "ac"),
        ("C(f, contr.treatment(base = 2))", "ac"), ("C(k, contr.treatment(base = 2))", "02"),
        ("C(k, contr.treatment(3))", "12"), ("C(k, contr.treatment(3, 3))", "01"),
        ("C(k, contr.treatment(3, base = 2))", "02"),
        ("C(b, Treatment(reference=True))", ["FALSE"]),
        ("C(b, Treatment(reference=False))", ["TRUE"]),
        ("C(f, levels=['c', 'a', 'b'])", "ab"), ("C(f, Treatment, levels=['b', 'c', 'a'])", "ca"),
        ("C(k)", "12"), ("C(k, Sum)", "12"), ("C(k, Helmert)", "12"), ("C(k, contr.sum(3))", "12"),
        ("C(k, Poly)", [".L", ".Q"]), ("relevel(f, ref = 'b')", "ac"),
    ],
)  # fmt: skip
def test_reference_levels(data: pd.DataFrame, call: str, columns: Any) -> None:
    m = fitted(call, data)
    name = deparse(read(call))
    assert list(m.fixef.index)[1:] == [name + level for level in columns]
    np.testing.assert_allclose(m.predict(data.iloc[:1]), m.fitted.iloc[:1])


def test_reference_level_by_number_in_the_argument(data: pd.DataFrame) -> None:
    m = me.lmer("y ~ factor(k) + (1 | g)", data, contrasts={"factor(k)": 1})
    assert list(m.fixef.index)[1:] == ["factor(k)0", "factor(k)2"]
    with pytest.raises(me.ModelError, match=r"the label of the .* not 7"):
        me.lmer("y ~ factor(k) + (1 | g)", data, contrasts={"factor(k)": 7})


def test_a_reference_that_is_no_level(data: pd.DataFrame) -> None:
    assert "level number 6 cannot be the base" in message("C(f, Treatment(reference=5))", data)
    assert "level number 0 cannot be the base" in message("C(f, contr.treatment(base=0))", data)
    assert "one of its levels (a, b, c)" in message("C(f, Treatment('d'))", data)
    assert "there are 3 levels; level number 2" in message("C(f, contr.treatment(2))", data)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('Q("my x")', "in backticks: `my x`"), ("{x**2}", "`I(...)`"), ("I(x % 2)", "`%%`"),
        ("lag(x)", "in the data first"), ("np.where(x > 2, 1, 0)", "`ifelse(test, yes, no)`"),
        ("interaction(f, k)", "`a:b`"), ("cut(x, 3)", "pandas.cut"), ("hashed(f)", "Known are"),
        ("s(x)", "no penalised smooths"), ("rcs(x, 3)", "natural splines"),
        ("cs(x, df = 4)", "`ns(x, df = 4)`"), ("cut(x, brks)", "pandas.cut"),
        ("other::fun(x)", "`::`"), ("x if x else 0", "not expected"),
        ("C(f, Simple)", "contr.treatment"), ("data$x", "column's name alone"),
    ],
)  # fmt: skip
def test_habits_of_other_packages_are_told_what_to_write(
    data: pd.DataFrame, text: str, hint: str
) -> None:
    assert hint in message(text, data)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("splines::ns(x, 3)", "ns(x, 3)"), ("splines::bs(x, df = 4)", "bs(x, df = 4)"),
        ("stats::poly(x, 2)", "poly(x, 2)"), ("base::log(x)", "log(x)"),
        ("I(x**2)", "I(x^2)"), ("np.log(x)", "log(x)"), ("center(x)", "I(x - mean(x))"),
        ("standardize(x)", "x"), ("scale(x)", "I((x - mean(x)) / sd(x))"), ("x**2", "x"),
        ("(x + f)**2", "x * f"), ('ifelse(x > 2, "high", "low")', "I(x > 2)"),
        ("I(b == 'TRUE')", "b"), ("factor(k, ordered = TRUE)", "ordered(k)"),
        ("I(poly(x, 2) * z)", "z:poly(x, 2)"), ("I(mean(x, na.rm = TRUE) * x)", "x"),
    ],
)  # fmt: skip
def test_two_ways_to_write_the_same(data: pd.DataFrame, text: str, same: str) -> None:
    one, other = fitted(text, data), fitted(same, data)
    np.testing.assert_allclose(one.fitted, other.fitted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one.predict(data.iloc[3:5]), one.fitted.iloc[3:5])


# --- splines: R 4.2.2 -----------------------------------------------------------------------


def test_natural_splines_are_those_of_R() -> None:
    stored = json.loads((REFERENCE / "formula" / "natural_splines.json").read_text())
    x, new = np.array(stored["x"]), np.array(stored["new"], dtype=float)
    for basis in stored["bases"]:
        tree, state = read(basis["call"][0]), {}
        found = evaluate(tree, {"x": x}, len(x), state)
        np.testing.assert_allclose(found, basis["fitted"], atol=1e-12)
        beyond = evaluate(tree, {"x": new}, len(new), state)
        np.testing.assert_allclose(beyond, basis["predicted"], atol=1e-12)


def test_scaling_of_large_and_small_numbers() -> None:
    x = np.array([1.0, 2.0, 4.0, 9.0])
    for scale in (1e-200, 1.0, 1e200):
        found = evaluate(read("scale(x)"), {"x": x * scale}, 4, {})
        np.testing.assert_allclose(found, (x - 4.0) / np.std(x, ddof=1), rtol=1e-14)


# --- long, deep and endless formulas -----------------------------------------------------------


def test_long_formulas_are_fitted_and_pickled(data: pd.DataFrame) -> None:
    long = " + ".join(["x"] * 3000)
    m = fitted(long, data)
    assert list(m.fixef.index) == ["(Intercept)", "x"]
    assert pickle.loads(pickle.dumps(m)).formula == m.formula
    assert m.update(". ~ . + z").nobs == N
    product = fitted(
        "I(" + " * ".join(["x"] * 2000) + " / x^2000)", data.assign(x=1.0 + data.z / 1e6)
    )
    assert product.converged
    many = parse_formula("y ~ " + " + ".join(f"v{i}" for i in range(5000)) + " + (1 | g)")
    assert len(many.variables) == 5002
    logical = "I(" + " | ".join(f"k == {i % 3}" for i in range(1500)) + ")"
    assert "linear combination" in repr(fitted(f"{logical} + z", data).dropped)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 500 + "x" + ")" * 500, "log(" * 500 + "x" + ")" * 500, "-" * 600 + "x",
        "!" * 600 + "x", "I(x" + "^2" * 600 + ")", "[" * 300 + "1" + "]" * 300,
        "I(" + "x + (" * 200 + "x" + ")" * 200 + ")",
    ],
)  # fmt: skip
def test_deep_formulas_are_refused_with_the_limit(data: pd.DataFrame, text: str) -> None:
    assert "more than 50 levels deep" in message(text, data)
    shallow = "(" * 40 + "x" + ")" * 40
    assert fitted(shallow, data).converged


def test_groupings_of_very_many_columns_are_refused(data: pd.DataFrame) -> None:
    for operator in (":", "/"):
        with pytest.raises(me.FormulaError, match="more than 100 parts"):
            me.lmer(f"y ~ 1 + (1 | {operator.join(['g'] * 600)})", data)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (" * ".join(f"v{i}" for i in range(18)), "262,143"),
        (f"({' + '.join(f'v{i}' for i in range(18))})^18", "262,143"),
        (f"({' + '.join(f'v{i}' for i in range(150))})^2", "11,325"),
        (f"({' + '.join(f'v{i}' for i in range(150))}):({' + '.join(f'w{i}' for i in range(150))})",
         "22,500"),
        ("(.)^18", "262,143"),
    ],
)  # fmt: skip
def test_endless_expansions_are_refused_with_their_number(text: str, count: str) -> None:
    rng = np.random.default_rng(0)
    wide = pd.DataFrame(rng.normal(size=(N, 18)), columns=[f"v{i}" for i in range(18)])
    wide = wide.assign(y=rng.normal(size=N), g=np.arange(N) % 6)
    with pytest.raises(me.FormulaError, match=f"up to {count} terms"):
        me.lmer(f"y ~ {text} + (1 | g)", wide)
    if "." not in text:
        with pytest.raises(me.FormulaError, match=f"up to {count} terms"):
            me.lmer(f"y ~ 1 + ({text} | g)", wide)


def test_interactions_of_many_levels_are_refused_before_their_columns_are_named() -> None:
    rng = np.random.default_rng(1)
    wide = pd.DataFrame({name: rng.permutation(3000) for name in ("a", "b", "c")})
    wide = wide.assign(y=rng.normal(size=3000), g=np.arange(3000) % 6)
    with pytest.raises(me.ModelError, match="27,000,000,000 columns for 3,000 rows"):
        me.lmer("y ~ 0 + factor(a):factor(b):factor(c) + (1 | g)", wide)
    with pytest.raises(me.ModelError, match="162,000,000,000"):
        me.lmer("y ~ 1 + (0 + factor(a):factor(b):factor(c) | g)", wide)


def test_many_crossings_that_mean_few_terms_are_read() -> None:
    crossed = " * ".join(itertools.islice(itertools.cycle("abcd"), 40))
    formula = parse_formula(f"y ~ {crossed} + (1 | g)")
    assert len(formula.fixed_terms().terms) == 15
    assert len(parse_formula("y ~ (a + b + c)^500 + (1 | g)").fixed_terms().terms) == 7


# --- names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["TRUE", "NULL", "None", "True", "x y", "a~b", "a|b)", "tab\there", "line\nend", "tick`s",
     "back\\", "a\\`b", "1st", "_x", "(Intercept)", "-1", "é", "a::b", "if"],
)  # fmt: skip
def test_columns_of_any_name(data: pd.DataFrame, name: str) -> None:
    table = data.rename(columns={"x": name})
    quoted = quote_name(name) if not name.isidentifier() else f"`{name}`"
    assert read(quoted) == Name(name)
    assert read(deparse(Name(name))) == Name(name)
    want = me.lmer("y ~ x + z + (x | g)", data)
    m = me.lmer(f"y ~ {quoted} + z + ({quoted} | g)", table)
    assert m.criterion == pytest.approx(want.criterion, abs=1e-6)
    np.testing.assert_allclose(m.predict(table), want.fitted, atol=1e-5)
    small = m.update(f". ~ . - {quoted} - ({quoted} | g) + (1 | g)")
    assert list(small.fixef.index) == ["(Intercept)", "z"]
    if name != "(Intercept)":
        assert m.wald([name]).to_frame().equals(m.wald([m.fixef.index[1]]).to_frame())
        assert m.contrast({"slope": {name: 1.0}}).iloc[0, 0] == m.fixef.iloc[1]
        assert m.confint("wald", [name]).index[0] == m.fixef.index[1]
        assert me.power(m, name, effects={name: 0.5}, draws=1, seed=1).to_frame().shape[0] == 1
    grouped = data.rename(columns={"g": name})
    m = me.lmer(f"y ~ x + (1 | {quoted})", grouped)
    assert list(m.ngroups) == [name]
    assert m.update("~ . - x").nobs == N
    np.testing.assert_allclose(m.predict(grouped, re=f"~ (1 | {quoted})"), m.fitted)
    m = me.lmer(f"{quoted} ~ z + (1 | g)", table)
    assert m.update("log(.) ~ .").y[0] == np.log(data["x"].iloc[0])
