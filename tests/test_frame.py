"""From formula and data to arrays: names and values as R has them, levels, missing rows, errors."""

from __future__ import annotations

import pickle
import time

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mixedeffects as me
from mixedeffects.errors import DataError, FormulaError, ModelError
from mixedeffects.formula import parse_formula
from mixedeffects.frame import Dropped, build_model_frame, level_codes
from mixedeffects.frame.rank import independent_columns

SMALL = pd.DataFrame(
    {
        "y": [3.1, 1.2, 4.4, 2.2, 5.9, 3.3, 0.4, 2.8, 6.1, 1.9, 4.7, 2.5],
        "x": [0.5, 1.5, -1, 2, 3.5, 0, 1, -2, 2.5, 4, -0.5, 3],
        "a": list("pqrpqrrpqqpr"),
        "b": list("uvuuvvuvuuvv"),
        "o": pd.Categorical(
            ["lo", "mid", "hi", "top", "mid", "lo", "top", "hi", "lo", "mid", "hi", "top"],
            ["lo", "mid", "hi", "top"],
            ordered=True,
        ),
        "l": [True, False, False, True, True, False] + [True, False] * 3,
        "g": ["g1", "g2", "g3"] * 4,
    }
)

# fmt: off
# (right-hand side, contrasts, {column: values})
R_MATRICES = [
    ("~ a", None, {
        "(Intercept)": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        "aq": [0, 1, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0],
        "ar": [0, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1],
    }),
    ("~ a", {"a": "contr.sum"}, {
        "(Intercept)": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        "a1": [1, 0, -1, 1, 0, -1, -1, 1, 0, 0, 1, -1],
        "a2": [0, 1, -1, 0, 1, -1, -1, 0, 1, 1, 0, -1],
    }),
    ("~ a * x", {"a": "contr.helmert"}, {
        "(Intercept)": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        "a1": [-1, 1, 0, -1, 1, 0, 0, -1, 1, 1, -1, 0],
        "a2": [-1, -1, 2, -1, -1, 2, 2, -1, -1, -1, -1, 2],
        "x": [0.5, 1.5, -1, 2, 3.5, 0, 1, -2, 2.5, 4, -0.5, 3],
        "a1:x": [-0.5, 1.5, 0, -2, 3.5, 0, 0, 2, 2.5, 4, 0.5, 0],
        "a2:x": [-0.5, -1.5, -2, -2, -3.5, 0, 2, 2, -2.5, -4, 0.5, 6],
    }),
    ("~ a", {"a": "contr.poly"}, {
        "(Intercept)": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        "a.L": [
            -0.7071068, 0, 0.7071068, -0.7071068, 0, 0.7071068, 0.7071068,
            -0.7071068, 0, 0, -0.7071068, 0.7071068],
        "a.Q": [
            0.4082483, -0.8164966, 0.4082483, 0.4082483, -0.8164966, 0.4082483, 0.4082483,
            0.4082483, -0.8164966, -0.8164966, 0.4082483, 0.4082483],
    }),
    ("~ a * b", None, {
        "(Intercept)": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        "aq": [0, 1, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0],
        "ar": [0, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1],
        "bv": [0, 1, 0, 0, 1, 1, 0, 1, 0, 0, 1, 1],
        "aq:bv": [0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        "ar:bv": [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1],
    }),
    ("~ a:b", None, {
        "(Intercept)": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        "ap:bu": [1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        "aq:bu": [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0],
        "ar:bu": [0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0],
        "ap:bv": [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0],
        "aq:bv": [0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
    }),
    ("~ 0 + a", None, {
        "ap": [1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 0],
        "aq": [0, 1, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0],
        "ar": [0, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1],
    }),
    ("~ 0 + a:b", None, {
        "ap:bu": [1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        "aq:bu": [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0],
        "ar:bu": [0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0],
        "ap:bv": [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0],
        "aq:bv": [0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        "ar:bv": [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1],
    }),
    ("~ a + a:b", None, {
        "(Intercept)": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        "aq": [0, 1, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0],
        "ar": [0, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1],
        "ap:bv": [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0],
        "aq:bv": [0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        "ar:bv": [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1],
    }),
    ("~ x:a", None, {
        "(Intercept)": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        "x:ap": [0.5, 0, 0, 2, 0, 0, 0, -2, 0, 0, -0.5, 0],
        "x:aq": [0, 1.5, 0, 0, 3.5, 0, 0, 0, 2.5, 4, 0, 0],
        "x:ar": [0, 0, -1, 0, 0, 0, 1, 0, 0, 0, 0, 3],
    }),
    ("~ poly(x, 2) + I(x^2)", None, {
        "(Intercept)": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        "poly(x, 2)1": [
            -0.11382, 0.0468671, -0.3548506, 0.1272106, 0.3682412, -0.1941635, -0.0334765,
            -0.5155377, 0.2075541, 0.4485847, -0.2745071, 0.2878977],
        "poly(x, 2)2": [
            -0.2684089, -0.2863028, 0.1073636, -0.2254635, 0.2361998, -0.1896756, -0.300618,
            0.5904996, -0.1180999, 0.483136, -0.0644181, 0.0357879],
    }),
    ("~ bs(x, df = 5)", None, {
        "(Intercept)": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        "bs(x, df = 5)1": [
            0.1454545, 0.0093091, 0.573607, 0.0001455, 0, 0.3129376, 0.0498909,
            0, 0, 0, 0.4922501, 0],
        "bs(x, df = 5)2": [
            0.5869835, 0.3569306, 0.2226612, 0.1978711, 0.0030992, 0.5470041, 0.5061421,
            0, 0.0836777, 0, 0.4043388, 0.0247934],
        "bs(x, df = 5)3": [
            0.2673742, 0.5693351, 0.0171429, 0.6141548, 0.0932569, 0.1371429, 0.4319459,
            0, 0.5096732, 0, 0.0578571, 0.2997746],
        "bs(x, df = 5)4": [
            0.0001878, 0.0644252, 0, 0.1878287, 0.5189707, 0, 0.012021,
            0, 0.4006386, 0, 0, 0.5815177],
        "bs(x, df = 5)5": [0, 0, 0, 0, 0.3846732, 0, 0, 0, 0.0060105, 1, 0, 0.0939144],
    }),
    ("~ o", None, {
        "(Intercept)": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        "o.L": [
            -0.6708204, -0.2236068, 0.2236068, 0.6708204, -0.2236068, -0.6708204, 0.6708204,
            0.2236068, -0.6708204, -0.2236068, 0.2236068, 0.6708204],
        "o.Q": [0.5, -0.5, -0.5, 0.5, -0.5, 0.5, 0.5, -0.5, 0.5, -0.5, -0.5, 0.5],
        "o.C": [
            -0.2236068, 0.6708204, -0.6708204, 0.2236068, 0.6708204, -0.2236068, 0.2236068,
            -0.6708204, -0.2236068, 0.6708204, -0.6708204, 0.2236068],
    }),
    ("~ b * o", None, {
        "(Intercept)": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        "bv": [0, 1, 0, 0, 1, 1, 0, 1, 0, 0, 1, 1],
        "o.L": [
            -0.6708204, -0.2236068, 0.2236068, 0.6708204, -0.2236068, -0.6708204, 0.6708204,
            0.2236068, -0.6708204, -0.2236068, 0.2236068, 0.6708204],
        "o.Q": [0.5, -0.5, -0.5, 0.5, -0.5, 0.5, 0.5, -0.5, 0.5, -0.5, -0.5, 0.5],
        "o.C": [
            -0.2236068, 0.6708204, -0.6708204, 0.2236068, 0.6708204, -0.2236068, 0.2236068,
            -0.6708204, -0.2236068, 0.6708204, -0.6708204, 0.2236068],
        "bv:o.L": [
            0, -0.2236068, 0, 0, -0.2236068, -0.6708204, 0,
            0.2236068, 0, 0, 0.2236068, 0.6708204],
        "bv:o.Q": [0, -0.5, 0, 0, -0.5, 0.5, 0, -0.5, 0, 0, -0.5, 0.5],
        "bv:o.C": [
            0, 0.6708204, 0, 0, 0.6708204, -0.2236068, 0,
            -0.6708204, 0, 0, -0.6708204, 0.2236068],
    }),
    ("~ l + scale(x)", None, {
        "(Intercept)": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        "lTRUE": [1, 0, 0, 1, 1, 0, 1, 0, 1, 0, 1, 0],
        "scale(x)": [
            -0.3774983, 0.1554405, -1.176906, 0.4219098, 1.221318, -0.6439676, -0.1110289,
            -1.709845, 0.6883792, 1.487787, -0.910437, 0.9548485],
    }),
    ("~ C(b, contr.sum) + factor(l)", None, {
        "(Intercept)": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        "C(b, contr.sum)1": [1, -1, 1, 1, -1, -1, 1, -1, 1, 1, -1, -1],
        "factor(l)TRUE": [1, 0, 0, 1, 1, 0, 1, 0, 1, 0, 1, 0],
    }),
    ("~ b/x - 1", None, {
        "bu": [1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 0],
        "bv": [0, 1, 0, 0, 1, 1, 0, 1, 0, 0, 1, 1],
        "bu:x": [0.5, 0, -1, 2, 0, 0, 1, 0, 2.5, 4, 0, 0],
        "bv:x": [0, 1.5, 0, 0, 3.5, 0, 0, -2, 0, 0, -0.5, 3],
    }),
    ("~ b %in% a + x", None, {
        "(Intercept)": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        "x": [0.5, 1.5, -1, 2, 3.5, 0, 1, -2, 2.5, 4, -0.5, 3],
        "bu:ap": [1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        "bv:ap": [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0],
        "bu:aq": [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0],
        "bv:aq": [0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        "bu:ar": [0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0],
    }),
]
# fmt: on


def big(n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    return pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "x": rng.normal(size=n),
            "z": rng.normal(size=n),
            "f": np.resize(list("abc"), n),
            "b": np.resize([True, False], n),
            "g": np.arange(n) // 10,
            "h": np.resize([10, 9, 1], n),
            "w": np.full(n, 2.0),
        }
    )


# --- the fixed-effects matrix ------------------------------------------------------------


@pytest.mark.parametrize(("right", "contrasts", "columns"), R_MATRICES)
def test_names_and_values_are_those_of_r(right, contrasts, columns):
    frame = build_model_frame(f"y {right} + (1 | g)", SMALL, contrasts=contrasts)
    assert list(frame.fixef_names) == list(columns)
    np.testing.assert_allclose(
        frame.X, np.column_stack(list(columns.values())), rtol=1e-6, atol=1e-7
    )
    assert frame.X.flags.f_contiguous
    assert frame.X.dtype == np.float64


def test_contrasts_by_level_matrix_and_labelled_matrix():
    def names(coding):
        frame = build_model_frame("y ~ a + (1 | g)", SMALL, contrasts={"a": coding})
        return frame.fixef_names, frame.X

    assert names("q")[0] == ("(Intercept)", "ap", "ar")
    by_array, X = names(np.array([[1.0, 0], [0, 2], [-1, -2]]))
    assert by_array == ("(Intercept)", "a1", "a2")
    labelled = pd.DataFrame({"one": [-1.0, 0, 1], "two": [-2.0, 2, 0]}, index=["r", "q", "p"])
    by_frame, same = names(labelled)
    assert by_frame == ("(Intercept)", "aone", "atwo")
    np.testing.assert_array_equal(X, same)


def test_coding_inside_the_formula():
    def names(term):
        return build_model_frame(f"y ~ {term} + (1 | g)", SMALL).fixef_names[1:]

    assert names("C(a, contr.helmert)") == ("C(a, contr.helmert)1", "C(a, contr.helmert)2")
    assert names("C(a, contr.treatment(base = 2))") == tuple(
        f"C(a, contr.treatment(base = 2)){level}" for level in "pr"
    )
    assert names('C(a, Treatment("r"))') == tuple(f'C(a, Treatment("r")){v}' for v in "pq")
    assert names('relevel(a, ref = "r")') == tuple(f'relevel(a, ref = "r"){v}' for v in "pq")
    assert names("ordered(a)") == ("ordered(a).L", "ordered(a).Q")
    assert names('I(a == "p")') == ('I(a == "p")TRUE',)


def test_contrasts_are_those_of_the_random_effects_too():
    frame = build_model_frame("y ~ f + (f | g)", big(), contrasts={"f": "sum"})
    assert frame.fixef_names == ("(Intercept)", "f1", "f2")
    assert frame.terms[0].columns == ("(Intercept)", "f1", "f2")
    frame = build_model_frame("y ~ 1 + (0 + f | g)", big(), contrasts={"f": "sum"})
    assert frame.terms[0].columns == ("fa", "fb", "fc")


def test_terms_of_the_columns():
    frame = build_model_frame("y ~ a * x + I(2 * x) + (1 | g)", SMALL)
    encoder = frame.fixed_encoder
    assert encoder.term_labels == ("a", "x", "I(2 * x)", "a:x")
    assert encoder.assign == (0, 1, 1, 2, 4, 4)
    assert frame.dropped.columns == ("I(2 * x)",)


def test_unused_levels_go_before_the_coding():
    data = SMALL.assign(a=pd.Categorical(SMALL["a"], ["z", "r", "q", "p"]))
    frame = build_model_frame("y ~ a + (1 | g)", data)
    assert frame.fixef_names == ("(Intercept)", "aq", "ap")


def test_integer_columns_labelled_by_numbers():
    data = SMALL.set_axis(range(SMALL.shape[1]), axis=1)
    frame = build_model_frame("`0` ~ `1` + (1 | `6`)", data)
    assert frame.fixef_names == ("(Intercept)", "`1`")


# --- rank --------------------------------------------------------------------------------


def test_the_later_column_goes():
    data = big().assign(same=lambda d: 3 * d["x"] - 2, constant=4.0)
    frame = build_model_frame("y ~ x + constant + same + z + (1 | g)", data)
    assert frame.fixef_names == ("(Intercept)", "x", "z")
    assert frame.dropped.columns == ("constant", "same")
    assert "linear combinations of earlier columns" in repr(frame.dropped)


def test_size_does_not_make_a_column_dependent():
    data = big().assign(tiny=lambda d: d["x"] * 1e-9, huge=lambda d: d["z"] * 1e12)
    frame = build_model_frame("y ~ tiny + huge + (1 | g)", data)
    assert frame.fixef_names == ("(Intercept)", "tiny", "huge")
    extreme = np.column_stack([np.ones(60), data["x"] * 1e-200, data["z"] * 1e200])
    assert independent_columns(extreme).tolist() == [0, 1, 2]


@settings(max_examples=60)
@given(st.data())
def test_rank_against_the_construction(data):
    """Columns are fresh directions or combinations of the fresh ones before, in any scale."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    kinds = data.draw(st.lists(st.booleans(), min_size=1, max_size=9))
    columns, fresh, expected = [], [], []
    for j, independent in enumerate(kinds):
        if independent or not fresh:
            column = rng.normal(size=40)
            fresh.append(column)
            expected.append(j)
        else:
            column = np.column_stack(fresh) @ rng.normal(size=len(fresh))
        columns.append(column * 10.0 ** data.draw(st.integers(-9, 9)))
    assert independent_columns(np.column_stack(columns)).tolist() == expected


@pytest.mark.parametrize(("rest", "kept"), [(1e-6, [0, 1]), (1e-8, [0])])
def test_the_tolerance_is_that_of_lme4(rest, kept):
    rng = np.random.default_rng(1)
    x, other = np.linalg.qr(rng.normal(size=(50, 2)))[0].T
    assert independent_columns(np.column_stack([x, x + rest * other])).tolist() == kept


def test_no_fixed_effects_at_all():
    frame = build_model_frame("y ~ 0 + (1 | g)", SMALL)
    assert frame.X.shape == (12, 0)
    assert frame.fixef_names == ()


# --- random-effects terms ----------------------------------------------------------------


def test_a_random_effects_term():
    frame = build_model_frame("y ~ x + (x | g)", SMALL)
    (term,) = frame.terms
    assert (term.label, term.group, term.variables) == ("g", "g", ("g",))
    assert term.columns == ("(Intercept)", "x")
    assert list(term.levels) == ["g1", "g2", "g3"]
    assert term.codes.dtype == np.int32
    assert term.codes.tolist() == [0, 1, 2] * 4
    np.testing.assert_array_equal(term.z, np.column_stack([np.ones(12), SMALL["x"]]))
    assert term.z.flags.c_contiguous


def test_combinations_sort_by_their_first_part():
    frame = build_model_frame("y ~ x + (1 | h:g)", big())
    (term,) = frame.terms
    assert list(term.levels[:7]) == ["1:0", "1:1", "1:2", "1:3", "1:4", "1:5", "9:0"]
    assert term.level_values[6] == (9, 0)
    assert list(term.level_values.names) == ["h", "g"]
    values = term.level_values[term.codes]
    assert values.get_level_values("h").tolist() == big()["h"].tolist()
    assert values.get_level_values("g").tolist() == big()["g"].tolist()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=12, max_size=40))
def test_codes_of_combinations_against_sorting_tuples(rows):
    levels = sorted(set(rows))
    if not 2 <= len(levels) < len(rows):
        return
    data = pd.DataFrame(rows, columns=["a", "b", "c"]).assign(y=1.0)
    (term,) = build_model_frame("y ~ 1 + (1 | a:b:c)", data).terms
    assert list(term.levels) == [":".join(map(str, level)) for level in levels]
    assert term.codes.tolist() == [levels.index(row) for row in rows]


def test_terms_are_ordered_as_lme4_orders_them():
    # R: names(lFormula(y ~ (x || g/h) + (1 | b), d)$reTrms$cnms) with 18, 6 and 2 levels
    frame = build_model_frame("y ~ x + (1 | b) + (x || g/h)", big())
    assert [(t.group, t.columns) for t in frame.terms] == [
        ("h:g", ("x",)),
        ("h:g", ("(Intercept)",)),
        ("g", ("x",)),
        ("g", ("(Intercept)",)),
        ("b", ("(Intercept)",)),
    ]
    assert [t.label for t in frame.terms] == ["h:g", "h:g.1", "g", "g.1", "b"]


def test_decreasing_levels_keep_the_order_written():
    frame = build_model_frame("y ~ x + (x || g)", SMALL)
    assert [t.columns for t in frame.terms] == [("(Intercept)",), ("x",)]
    assert [t.label for t in frame.terms] == ["g", "g.1"]


def test_labels_stay_unique_whatever_columns_are_called():
    data = big().assign(**{"g.1": np.resize([0, 1, 2], 60)})
    frame = build_model_frame("y ~ x + (x || g) + (1 | g.1)", data)
    assert [t.label for t in frame.terms] == ["g", "g.1", "g.1.1"]


def test_a_factor_in_an_uncorrelated_term_stays_together():
    frame = build_model_frame("y ~ x + (f || g)", big())
    assert [t.columns for t in frame.terms] == [("(Intercept)",), ("fa", "fb", "fc")]


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ([10, 9, 1], ["1", "9", "10"]),
        ([10.0, 9.5, 1.0], ["1", "9.5", "10"]),
        (["10", "9", "b"], ["10", "9", "b"]),
        (["b", "B", "é"], ["B", "b", "é"]),
        (pd.Categorical(["c", "a", "b"], ["c", "b", "q", "a"]), ["c", "b", "a"]),
        (pd.array([10, 9, 1], dtype="Int64"), ["1", "9", "10"]),
        (pd.array(["c", "a", "b"], dtype="string"), ["a", "b", "c"]),
        (np.array(["c", "a", "b"], dtype=object), ["a", "b", "c"]),
    ],
)
def test_level_order(values, levels):
    data = pd.DataFrame({"y": np.arange(12.0), "g": pd.Series(values).take([0, 1, 2] * 4).array})
    (term,) = build_model_frame("y ~ 1 + (1 | g)", data).terms
    assert list(term.levels) == levels
    original = [levels.index(label) for label in (str(v).removesuffix(".0") for v in data["g"])]
    assert term.codes.tolist() == original


def test_booleans_group_and_are_labelled_as_in_r():
    (term,) = build_model_frame("y ~ x + (1 | b)", big()).terms
    assert list(term.levels) == ["FALSE", "TRUE"]


def test_factor_in_the_grouping():
    (term,) = build_model_frame("y ~ x + (1 | factor(g))", SMALL).terms
    assert (term.label, term.variables) == ("factor(g)", ("g",))


def test_level_codes_in_other_data():
    data = big()
    for text in ("y ~ x + (1 | g)", "y ~ x + (1 | h:g)"):
        (term,) = build_model_frame(text, data).terms
        np.testing.assert_array_equal(level_codes(term, data), term.codes)
        other = pd.DataFrame({"g": [5, 77, np.nan], "h": [1, 1, 1]})
        expected = [list(term.levels).index("5" if term.group == "g" else "1:5"), -1, -2]
        assert level_codes(term, other).tolist() == expected


# --- missing values ----------------------------------------------------------------------


def test_rows_with_missing_values_are_dropped_and_counted():
    data = big()
    data.index = [f"row{i}" for i in range(60)]
    data.loc["row3", "x"] = np.nan
    data.loc["row4", ["x", "y"]] = np.nan
    data["f"] = data["f"].astype(object)
    data.loc["row9", "f"] = None
    data["g"] = data["g"].astype("Int64")
    data.loc["row11", "g"] = pd.NA
    weights = np.ones(60)
    weights[20] = np.nan
    frame = build_model_frame("y ~ x + f + (1 | g)", data, weights=weights)
    assert frame.dropped.rows.tolist() == ["row3", "row4", "row9", "row11", "row20"]
    counts = {"x": 2, "y": 1, "f": 1, "g": 1, "(weights)": 1}
    assert frame.dropped.missing_by_column == counts
    assert frame.nobs == len(frame.index) == len(frame.positions) == len(frame.data) == 55
    assert frame.index.equals(data.index[frame.positions])
    np.testing.assert_array_equal(frame.y, data["y"].to_numpy()[frame.positions])
    np.testing.assert_array_equal(frame.X[:, 1], data["x"].to_numpy()[frame.positions])
    assert repr(frame.dropped).startswith("5 of 60 rows removed for missing values (x 2,")
    assert "<li>5 of 60 rows" in frame.dropped._repr_html_()


def test_an_expression_is_evaluated_where_its_own_columns_are_present():
    # R: model.frame(y ~ scale(x) + z) with x[1], z[2] missing scales by the other 59 values of x.
    data = big()
    data.loc[0, "x"] = np.nan
    data.loc[1, "z"] = np.nan
    frame = build_model_frame("y ~ scale(x) + z + (1 | g)", data)
    x = data["x"].to_numpy()[1:]
    expected = (x - x.mean()) / x.std(ddof=1)
    assert frame.nobs == 58
    np.testing.assert_allclose(frame.X[:, 1], expected[1:], rtol=1e-12)


@pytest.mark.parametrize("term", ["poly(x, 2)", "bs(x, df = 5)", "scale(log(x + 9))", "factor(h)"])
def test_one_missing_value_drops_one_row(term):
    data = big().astype({"h": float})
    data.loc[5, ["x", "h"]] = np.nan
    frame = build_model_frame(f"y ~ {term} + (1 | g)", data)
    assert frame.nobs == 59


def test_missing_values_that_an_expression_makes_are_counted_under_its_name():
    data = big().assign(x=np.linspace(-1, 2, 60))
    data.loc[59, "x"] = np.nan
    frame = build_model_frame("y ~ log(x) + (1 | g)", data)
    below = int((data["x"] < 0).sum())
    assert frame.dropped.missing_by_column == {"x": 1, "log(x)": below}
    assert frame.nobs == 59 - below


def test_levels_without_rows_left_are_gone():
    data = big()
    data.loc[data["g"] == 2, "x"] = np.nan
    frame = build_model_frame("y ~ x + (1 | g)", data)
    assert list(frame.terms[0].levels) == ["0", "1", "3", "4", "5"]
    assert frame.terms[0].codes.max() == 4
    declared = data.assign(g=pd.Categorical(data["g"], range(8)))
    frame = build_model_frame("y ~ x + (1 | g)", declared)
    assert frame.dropped.unused_levels == {"g": 3}
    assert "3 declared levels of `g` without rows" in repr(frame.dropped)


def test_nothing_dropped():
    dropped = build_model_frame("y ~ x + (1 | g)", SMALL).dropped
    assert not dropped
    assert repr(dropped) == "nothing dropped"
    assert repr(Dropped(rows=pd.Index([4]))) == "1 row removed for missing values"


# --- weights and offset ------------------------------------------------------------------


def test_weights_by_name_array_and_series():
    data = big().assign(w=np.arange(1.0, 61))
    shuffled = data["w"].sample(frac=1, random_state=1)
    for weights in ("w", data["w"].to_numpy(), data["w"].tolist(), shuffled, pl.Series(data["w"])):
        frame = build_model_frame("y ~ x + (1 | g)", data, weights=weights)
        np.testing.assert_array_equal(frame.weights, data["w"])
    assert build_model_frame("y ~ x + (1 | g)", data).weights is None


def test_offsets_add_up():
    data = big()
    frame = build_model_frame("y ~ x + offset(z) + offset(log(w)) + (1 | g)", data, offset="x")
    np.testing.assert_allclose(frame.offset, data["z"] + np.log(2) + data["x"])
    assert frame.fixef_names == ("(Intercept)", "x")
    assert build_model_frame("y ~ x + (1 | g)", data).offset is None


def test_a_series_with_other_labels_is_refused():
    data = big().set_axis([f"a{i}" for i in range(60)])
    other = pd.Series(1.0, index=[f"b{i}" for i in range(60)])
    with pytest.raises(DataError, match="row labels of `weights`"):
        build_model_frame("y ~ x + (1 | g)", data, weights=other)


# --- any dataframe -----------------------------------------------------------------------

CONSTRUCTORS = {
    "pandas": lambda d: d,
    "nullable": lambda d: d.convert_dtypes(),
    "arrow dtypes": lambda d: d.convert_dtypes(dtype_backend="pyarrow"),
    "objects": lambda d: d.astype(object),
    "polars": pl.from_pandas,
    "polars lazy": lambda d: pl.from_pandas(d).lazy(),
    "pyarrow": pa.Table.from_pandas,
    "dict": lambda d: {name: d[name].to_numpy() for name in d},
    "dict of lists": lambda d: d.to_dict("list"),
}


@pytest.mark.parametrize("constructor", CONSTRUCTORS)
@pytest.mark.parametrize("missing", [False, True])
def test_every_kind_of_dataframe_gives_the_same_arrays(constructor, missing):
    data = big()
    if missing:
        data.loc[[3, 17], "x"] = np.nan
        data["f"] = data["f"].astype(object)
        data.loc[8, "f"] = None
    text = "y ~ x * f + b + (x | g) + (1 | f:h)"
    expected = build_model_frame(text, data, weights="w")
    frame = build_model_frame(text, CONSTRUCTORS[constructor](data), weights="w")
    assert frame.fixef_names == expected.fixef_names
    np.testing.assert_array_equal(frame.X, expected.X)
    np.testing.assert_array_equal(frame.y, expected.y)
    np.testing.assert_array_equal(frame.weights, expected.weights)
    np.testing.assert_array_equal(frame.positions, expected.positions)
    for term, other in zip(frame.terms, expected.terms, strict=True):
        assert term.label == other.label
        assert list(term.levels) == list(other.levels)
        np.testing.assert_array_equal(term.codes, other.codes)
        np.testing.assert_array_equal(term.z, other.z)


def test_categories_keep_their_order():
    values = ["b", "a", "c"] * 4
    y = np.arange(12.0)
    order = ["c", "b", "a"]
    factor = pa.DictionaryArray.from_arrays(pa.array([1, 2, 0] * 4), pa.array(order))
    for data in (
        pl.DataFrame({"y": y, "g": pl.Series(values, dtype=pl.Enum(order))}),
        pa.table({"y": y, "g": factor}),
        pd.DataFrame({"y": y, "g": pd.Categorical(values, order)}),
    ):
        frame = build_model_frame("y ~ g + (1 | g)", data)
        assert list(frame.terms[0].levels) == order
        assert frame.fixef_names == ("(Intercept)", "gb", "ga")
    # The numbering of a polars Categorical is not the column's own.
    data = pl.DataFrame({"y": y, "g": pl.Series(values, dtype=pl.Categorical)})
    assert list(build_model_frame("y ~ 1 + (1 | g)", data).terms[0].levels) == ["a", "b", "c"]


def test_the_frame_keeps_the_columns_used_and_does_not_share_them():
    data = big()
    frame = build_model_frame("y ~ x + (1 | g)", data)
    assert list(frame.data.columns) == ["y", "x", "g"]
    before = frame.X.copy(), frame.y.copy()
    data["x"] = 0.0
    data.loc[:, "y"] = 0.0
    np.testing.assert_array_equal(frame.X, before[0])
    np.testing.assert_array_equal(frame.y, before[1])
    assert frame.data["x"].abs().sum() > 0


def test_dot_means_the_other_columns():
    frame = build_model_frame("y ~ . - z + (1 | g)", big().drop(columns="h"), weights="w")
    assert frame.fixef_names == ("(Intercept)", "x", "fb", "fc", "bTRUE")


def test_a_parsed_formula_will_do():
    formula = parse_formula("y ~ x + (1 | g)")
    assert build_model_frame(formula, SMALL).formula is formula


def test_a_boolean_response_counts_as_0_and_1_as_in_lme4():
    assert build_model_frame("b ~ x + (1 | g)", big()).y.tolist() == [1.0, 0.0] * 30


# --- the encoder on other data -----------------------------------------------------------

ENCODED = "y ~ scale(x) + poly(z, 2) * f + bs(x, df = 4) + C(b, contr.sum) + I(x - mean(x))"


def test_the_encoder_repeats_the_fit_row_by_row():
    data = big()
    frame = build_model_frame(f"{ENCODED} + (scale(x) | g)", data)
    encoder = pickle.loads(pickle.dumps(frame.fixed_encoder))
    X, names = encoder.encode(data.iloc[7:12])
    assert names == frame.fixef_names
    np.testing.assert_allclose(X, frame.X[7:12], atol=1e-12)
    one, _ = encoder.encode(pl.from_pandas(data[["x", "z", "f", "b"]].iloc[[7]]))
    np.testing.assert_allclose(one, frame.X[[7]], atol=1e-12)
    z, names = frame.random_encoders[0].encode(data.iloc[3:5])
    assert names == ("(Intercept)", "scale(x)")
    np.testing.assert_allclose(z, frame.terms[0].z[3:5])


def test_the_encoder_is_small():
    n = 20_000
    frame = build_model_frame(f"{ENCODED} + (1 | g)", big(n).assign(g=np.arange(n) % 5))
    assert len(pickle.dumps(frame.fixed_encoder)) < 8_000


def test_encoding_twice_changes_nothing():
    frame = build_model_frame("y ~ scale(x) + (1 | g)", big())
    other = big().assign(x=lambda d: d["x"] * 100)
    first, _ = frame.fixed_encoder.encode(other)
    second, _ = frame.fixed_encoder.encode(other)
    np.testing.assert_array_equal(first, second)


def test_missing_in_other_data_gives_a_missing_row():
    frame = build_model_frame("y ~ x + f + (1 | g)", big())
    X, _ = frame.fixed_encoder.encode({"x": [1.0, np.nan, 2.0], "f": ["a", "b", None]})
    assert np.isnan(X).all(axis=1).tolist() == [False, True, True]
    np.testing.assert_array_equal(X[0], [1, 1, 0, 0])


def test_intercept_only_encoder_counts_the_rows():
    frame = build_model_frame("y ~ 1 + (1 | g)", big())
    X, names = frame.fixed_encoder.encode(pd.DataFrame({"any": [1, 2]}))
    assert names == ("(Intercept)",)
    np.testing.assert_array_equal(X, np.ones((2, 1)))


def test_unseen_levels_and_changed_types_are_errors():
    encoder = build_model_frame("y ~ x + f + (1 | g)", big()).fixed_encoder
    with pytest.raises(DataError, match=r"`f` has levels.*did not see: 'q', 'r'. Known are a, b"):
        encoder.encode({"x": [1.0, 2, 3], "f": ["q", "a", "r"]})
    with pytest.raises(DataError, match="`x` was numeric in the fit"):
        encoder.encode({"x": ["1"], "f": ["a"]})
    with pytest.raises(DataError, match="no column `f`"):
        encoder.encode({"x": [1.0]})


# --- errors ------------------------------------------------------------------------------


def infinite(column: str) -> pd.DataFrame:
    data = big()
    data.loc[[1, 2], column] = np.inf
    return data


ERRORS = [
    ("y ~ xx + (1 | g)", big(), DataError, r"no column `xx`.*Did you mean `x`.*columns are: y, x"),
    ("Y ~ x + (1 | g)", big(), DataError, r"no column `Y`.*Did you mean `y`"),
    ("y ~ x + (1 | school)", big(), DataError, r"no column `school` in the data\. The columns"),
    ("y ~ xx + (1 | g)", pl.from_pandas(big()), DataError, r"no column `xx`.*Did you mean `x`"),
    ("f ~ x + (1 | g)", big(), DataError, r"`f` is categorical with 3 levels"),
    (
        "y2 ~ x + (1 | g)",
        big().assign(y2=np.resize(["n", "y"], 60)),
        DataError,
        "logis.*glmer",
    ),
    ("cbind(y, z) ~ x + (1 | g)", big(), DataError, "has 2 columns"),
    ("y ~ x + (1 | g)", big().iloc[:0], DataError, "no rows"),
    ("y ~ x + (1 | g)", big().assign(x=np.nan), DataError, r"All 60 rows.*\(x 60\)"),
    ("y ~ x + (1 | g)", infinite("x"), DataError, "`x` is infinite in 2 rows"),
    ("y ~ x + (1 | g)", infinite("y"), DataError, "The response `y` is infinite in 2 rows"),
    ("y ~ 1 + (x | g)", infinite("x"), DataError, "`x` is infinite in 2 rows"),
    ("y ~ poly(x, 2) + (1 | g)", big().assign(x=1.0), DataError, "more than 2 different values"),
    ("y ~ log(w - 2) + (1 | g)", big(), DataError, r"`log\(w - 2\)` is infinite in 60 rows"),
    ("y ~ offset(f) + (1 | g)", big(), DataError, r"`offset\(f\)` must be numbers"),
    ("y ~ x + (1 | w)", big(), ModelError, "`w` has one level"),
    ("y ~ 1 + (1 | x)", big(), ModelError, "`x` has 60 levels for 60 rows"),
    ("y ~ 1 + (x | i)", big().assign(i=np.arange(60) // 2), ModelError, r"60.*2 x 30 = 60.*\(x \|"),
    ("y ~ 0 + x + (1 | g)", big().assign(x=0.0), ModelError, "column is zero"),
    ("y ~ poly(x, 9) + (1 | b)", big(10), ModelError, "10 independent columns for 10 rows"),
    (
        "y ~ f + (1 | g)",
        big().assign(f="only"),
        ModelError,
        "`f` has one level .*'only'.*2 or more",
    ),
    ("y ~ x + (f | g)", big().assign(f="only"), ModelError, "contrasts need 2 or more levels"),
    (
        "y ~ o + (1 | g)",
        big().assign(o=pd.Categorical(["a"] * 60, ["a", "b"], ordered=True)),
        ModelError,
        "`o` has one level",
    ),
    (
        "y ~ x + (1 | g)",
        pd.concat([big(), big()[["x"]]], axis=1),
        DataError,
        "2 columns called `x`",
    ),
    ("y ~ d + (1 | g)", big().assign(d=pd.Timestamp(0)), DataError, "`d` holds dates or times"),
    ("y ~ c + (1 | g)", big().assign(c=1j), DataError, "complex"),
    ("y ~ m + (1 | g)", big().assign(m=[1, "a"] * 30), DataError, "`m` holds mixed types"),
    (
        "d ~ x + (1 | g)",
        pl.from_pandas(big()).with_columns(d=pl.date(2020, 1, 1)),
        DataError,
        "dates",
    ),
    ("y ~ x + (1 | m)", big().assign(m=[1, "a"] * 30), DataError, "`m` mixes types"),
    ("y ~ x + (1 | g)", 3, DataError, "`data` is a int"),
    ("y ~ x + (1 | g)", {"y": [1, 2], "x": [1], "g": [1, 2]}, DataError, "differ in length"),
    ("y ~ x + (1 | g)", {"y": np.ones((2, 2)), "x": [1], "g": [1]}, DataError, "2 dimensions"),
    ("y ~ flor(x) + (1 | g)", big(), FormulaError, r"`flor\(\)` is not.*mean `floor\(\)`"),
    ("y ~ np.save(x) + (1 | g)", big(), FormulaError, r"`np.save\(\)` is not"),
    ("y ~ log(f) + (1 | g)", big(), FormulaError, r"`log\(\)` needs numbers, but `f` is categor"),
    ("y ~ I(f + 1) + (1 | g)", big(), FormulaError, r"`\+` needs numbers"),
    ("y ~ mean(x) + (1 | g)", big(), FormulaError, "one value for each row"),
    ("y ~ I(1) + (1 | g)", big(), DataError, "names no column"),
    ("y ~ bs(x, df = 1) + (1 | g)", big(), DataError, r"`bs\(x, df = 1\)` cannot be evaluated"),
    ("y ~ C(f, nonsense) + (1 | g)", big(), FormulaError, "contr.treatment, contr.sum"),
    ("y ~ C(f, contr.treatment(9)) + (1 | g)", big(), ModelError, "3 levels; level number 9"),
    ('y ~ relevel(f, "q") + (1 | g)', big(), DataError, "'q' is not one of the levels"),
    ('y ~ I(f == "q") + (1 | g)', big(), DataError, "'q' is not one of the levels"),
    ('y ~ I(f < "b") + (1 | g)', big(), FormulaError, "no order"),
    ("y ~ sqrt(x, 1, 2, 3) + (1 | g)", big(), FormulaError, "takes one argument"),
]


@pytest.mark.parametrize(("text", "data", "error", "message"), ERRORS)
def test_errors(text, data, error, message):
    with pytest.raises(error, match=message):
        build_model_frame(text, data)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"weights": np.ones(3)}, DataError, "`weights` has 3 values, but the data have 60 rows"),
        ({"weights": np.ones((60, 2))}, DataError, r"shape \(60, 2\)"),
        (
            {"weights": [-1.0] * 2 + [0.0] + [1.0] * 57},
            DataError,
            "negative in 2 rows and zero in 1 row",
        ),
        ({"weights": [np.inf] + [1.0] * 59}, DataError, "infinite in 1 row"),
        ({"weights": "f"}, DataError, "must be numbers; `f`"),
        ({"weights": "ww"}, DataError, "no column `ww`"),
        ({"offset": [np.inf] + [1.0] * 59}, DataError, "infinite in 1 row"),
        ({"offset": np.ones(61)}, DataError, "`offset` has 61 values"),
        ({"contrasts": "sum"}, ModelError, "maps the names of factors"),
        ({"contrasts": {"x": "sum"}}, ModelError, "`x`, which is not a factor.*those are f"),
        ({"contrasts": {"f": "q"}}, ModelError, "'q', which is neither.*levels .a, b, c"),
        ({"contrasts": {"f": 3}}, ModelError, "`f` in `contrasts` is one of .*; not 3"),
        ({"contrasts": {"f": np.eye(2)}}, ModelError, "2 x 2, but the factor has 3 levels"),
        (
            {"contrasts": {"f": pd.DataFrame({"one": [1.0, 2]}, index=["a", "b"])}},
            ModelError,
            "no row for level 'c'",
        ),
    ],
)
def test_errors_of_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        build_model_frame("y ~ x + f + (1 | g)", big(), **arguments)


def test_a_grouping_factor_among_the_fixed_effects_is_caught_before_it_fills_the_memory():
    n = 40_000
    data = pd.DataFrame({"y": np.zeros(n), "id": np.arange(n).astype(str), "g": np.arange(n) % 9})
    with pytest.raises(ModelError, match=r"40,000 columns.*write `\(1 \| id\)`"):
        build_model_frame("y ~ id + (1 | g)", data)


# --- size --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_million_rows_and_a_hundred_thousand_levels_in_well_under_a_second():
    rng = np.random.default_rng(0)
    n = 1_000_000
    data = pd.DataFrame(
        {"y": rng.normal(size=n), "x": rng.normal(size=n), "g": rng.integers(0, 100_000, n)}
    )
    start = time.perf_counter()
    frame = build_model_frame("y ~ x + (x | g)", data)
    assert time.perf_counter() - start < 2.0
    assert frame.terms[0].n_levels == data["g"].nunique()


def test_an_intercept_of_its_own_beside_one_with_a_slope_is_refused() -> None:
    sleep = me.load_dataset("sleepstudy")
    for formula in (
        "Reaction ~ Days + (1 | Subject) + (1 + Days | Subject)",
        "Reaction ~ Days + (Days | Subject) + (0 + I(2 * Days) | Subject)",
    ):
        with pytest.raises(me.ModelError, match="only the sum of their variances"):
            me.lmer(formula, sleep)
    # What lme4 makes of (f || g) is fitted, with a word.
    machine = sleep.assign(f=np.where(sleep["Days"] % 2 == 0, "even", "odd"))
    with pytest.warns(me.IdentifiabilityWarning, match="can stand in for .*double_bar='separate'"):
        m = me.lmer("Reaction ~ Days + (f || Subject)", machine)
    assert m.ngroups == {"Subject": 18}


def test_a_term_that_nesting_has_brought_in_twice_is_told_with_its_formula() -> None:
    data = me.load_dataset("star_sample")
    formula = "read ~ sx + (sx | sch) + (1 | sch/tch)"
    with pytest.raises(me.ModelError) as caught:
        me.lmer(formula, data)
    message = str(caught.value)
    assert "`(1 | sch)` and `(1 + sxF | sch)` have the same levels" in message
    assert "Drop `(1 | sch)`" in message
    assert "on `sch/tch` brings one on `sch` with it; one on `tch:sch` does not" in message
