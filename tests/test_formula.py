"""The formula grammar: what is read, what it expands to, and how errors say where they are."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mixedeffects as me
from mixedeffects.errors import FormulaError
from mixedeffects.formula import Formula, parse_formula
from mixedeffects.formula.reader import read
from mixedeffects.formula.syntax import deparse
from mixedeffects.formula.terms import expand_terms
from mixedeffects.formula.update import update_formula


def terms(text: str) -> tuple[str, ...]:
    return expand_terms(read(text), text).labels


def bars(text: str) -> list[str]:
    return [str(bar) for bar in parse_formula(f"y ~ x + {text}").random]


def test_parts_of_a_formula():
    formula = parse_formula("log(y) ~ x*a - 1 + offset(z) + (x | g)")
    assert isinstance(formula, Formula)
    assert formula.text == "log(y) ~ x*a - 1 + offset(z) + (x | g)"
    assert formula.response == "log(y)"
    assert formula.fixed == "x * a - 1 + offset(z)"
    assert formula.intercept is False
    assert formula.offsets == ("z",)
    assert formula.variables == ("y", "x", "a", "z", "g")
    assert [bar.group for bar in formula.random] == ["g"]


def test_repr_shows_the_expansion():
    formula = parse_formula("Reaction ~ Days + (Days || Subject)")
    assert str(formula) == "Reaction ~ Days + (Days || Subject)"
    assert "(1 | Subject) + (0 + Days | Subject)" in repr(formula)


def test_formula_pickles():
    formula = parse_formula("y ~ x + (x || a/b)")
    again = pickle.loads(pickle.dumps(formula))
    assert again == formula
    assert again.fixed_terms() == formula.fixed_terms()


def test_only_random_terms_means_an_intercept():
    formula = parse_formula("y ~ (1 | g)")
    assert formula.fixed == "1"
    assert formula.intercept


# --- terms: labels in R's order (`attr(terms(f), "term.labels")`) -------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a * b", ("a", "b", "a:b")),
        ("a:b + a", ("a", "a:b")),
        ("b + a + a:b", ("b", "a", "b:a")),
        ("(a + b + c)^2", ("a", "b", "c", "a:b", "a:c", "b:c")),
        ("(a + b)**2 - a", ("b", "a:b")),
        ("a * b * c - a:b:c", ("a", "b", "c", "a:b", "a:c", "b:c")),
        ("a/b", ("a", "a:b")),
        ("(a + b)/c", ("a", "b", "a:b:c")),
        ("a/(b + c)", ("a", "a:b", "a:c")),
        ("b %in% a", ("b:a",)),
        ("a + a + a:a", ("a",)),
        ("I(x^2) + x", ("I(x^2)", "x")),
        ("a*b + offset(z)", ("a", "b", "a:b")),
        ("`my x` * b", ("`my x`", "b", "`my x`:b")),
        ("a:b:c + c + a:b", ("c", "a:b", "a:b:c")),
    ],
)
def test_term_labels(text, expected):
    assert terms(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x", True),
        ("0 + x", False),
        ("x - 1", False),
        ("x + 0", False),
        ("-1 + x", False),
        ("x - 1 + 1", True),
        ("x - 0", True),
        ("1 + x", True),
    ],
)
def test_intercept(text, expected):
    assert expand_terms(read(text), text).intercept is expected


def test_dot_leaves_out_response_groups_offsets_and_weights_but_no_slope():
    formula = parse_formula("log(y) ~ . - b + offset(o) + (x | g:h)")
    columns = ["y", "a", "b", "x", "g", "h", "o", "w", "c"]
    assert formula.uses_dot
    assert formula.fixed_terms(columns, ["w"]).labels == ("a", "x", "c")


# --- random-effects terms: R 4.2.2, lme4 1.1-31 ------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(x | g)", ["(x | g)"]),
        ("(1 | sch/tch)", ["(1 | tch:sch)", "(1 | sch)"]),
        ("(1 | a/b/c)", ["(1 | c:(b:a))", "(1 | b:a)", "(1 | a)"]),
        ("(1 | a/(b:c))", ["(1 | (b:c):a)", "(1 | a)"]),
        ("(1 | a:b)", ["(1 | a:b)"]),
        ("(x || g)", ["(1 | g)", "(0 + x | g)"]),
        ("(0 + x || g)", ["(0 + x | g)"]),
        ("(1 || g)", ["(1 | g)"]),
        ("(a * b || g)", ["(1 | g)", "(0 + a | g)", "(0 + b | g)", "(0 + a:b | g)"]),
        ("(x || a/b)", ["(1 | b:a)", "(1 | a)", "(0 + x | b:a)", "(0 + x | a)"]),
        ("(x | g) + (1 | h) + z", ["(x | g)", "(1 | h)"]),
        ("((1 | g) + (1 | h))", ["(1 | g)", "(1 | h)"]),
        ("(1 | factor(g))", ["(1 | factor(g))"]),
        ("(1 | `my g`)", ["(1 | my g)"]),
        ("(1 | `my g`:a)", ["(1 | `my g`:a)"]),
        ("(I(x^2) + log(x) | sch.cl)", ["(I(x^2) + log(x) | sch.cl)"]),
        ("(I(x > 1 | x < 0) | g)", ["(I(x > 1 | x < 0) | g)"]),
    ],
)
def test_bars(text, expected):
    assert bars(text) == expected


def test_columns_of_a_grouping_factor_follow_its_name():
    formula = parse_formula("y ~ 1 + (1 | a/b/c)")
    assert [bar.variables for bar in formula.random] == [("c", "b", "a"), ("b", "a"), ("a",)]


@pytest.mark.parametrize("name", ["class", "lambda", "from", "in", "is", "sch.cl", "_x", "été"])
def test_names_that_python_would_not_take(name):
    formula = parse_formula(f"y ~ {name} + ({name} | {name})")
    assert formula.variables == ("y", name)


# --- deparse: R's `deparse` of the same expression ---------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bs( x,df=5 )", "bs(x, df = 5)"),
        ("I(x**2)", "I(x^2)"),
        ("a*b+c/d-e:f", "a * b + c/d - e:f"),
        ("(a+b)*2", "(a + b) * 2"),
        ("-x^2", "-x^2"),
        ("!x", "!x"),
        ("b%in%a", "b %in% a"),
        ("x==1&y>=2", "x == 1 & y >= 2"),
        ("f(100000, 123456, 1e-10, 0.1)", "f(1e+05, 123456, 1e-10, 0.1)"),
        ("f(1e15, .0001, 2L, 0.5)", "f(1e+15, 1e-04, 2L, 0.5)"),
        ("f('s', TRUE, NULL, False)", 'f("s", TRUE, NULL, FALSE)'),
        ("`a b` + `ok`", "`a b` + ok"),
        ("2^-1", "2^-1"),
        ("a^b^c", "a^b^c"),
        ("f(g(x), [1,2])", "f(g(x), [1, 2])"),
    ],
)
def test_deparse(text, expected):
    assert deparse(read(text)) == expected


names = st.sampled_from(["a", "b", "x.y", "`two words`", "1", "2.5"])
expressions = st.recursive(
    names,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", ":", "^", "%in%", "<"]), inner).map(
            lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"
        ),
        st.tuples(st.sampled_from(["f", "np.log"]), inner, inner).map(
            lambda parts: f"{parts[0]}({parts[1]}, k = {parts[2]})"
        ),
        inner.map(lambda part: f"-{part}"),
    ),
    max_leaves=12,
)


@given(expressions)
def test_what_is_deparsed_reads_back_as_the_same_tree(text):
    tree = read(text)
    assert read(deparse(tree)) == tree


@given(st.text(alphabet="yxg~+-*/:^()|0123 .,`'\"%&<=>![]", max_size=24))
def test_any_text_is_read_or_refused_as_a_formula_error(text):
    try:
        parse_formula(text)
    except FormulaError as error:
        assert str(error)


# --- errors ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence", "marked"),
    [
        ("y ~ x + (1 | g", "is never closed", "("),
        ("y ~ x + (1 | g))", "closes nothing", ")"),
        ("y ~ x + 1|g", "write `(1 | g)`", "|"),
        ("y ~ x + x|g", "write `(x | g)`", "|"),
        ("y ~ x + (1|)", "grouping factor is missing", "|"),
        ("y ~ x + (|g)", "What varies is missing", "|"),
        ("y ~ x +", "ends where a term is expected", None),
        ("y ~", "nothing on the right", "~"),
        ("~ x + (1 | g)", "response is missing", "~"),
        ("y", "no `~`", "y"),
        ("y ~ x ~ z + (1 | g)", "one `~`", "y ~ x"),
        ("y ~ x z + (1 | g)", "'z' is not expected", "z"),
        ("y ~ x $ z", "has no meaning", "$"),
        ("y ~ x + 'a", "never closed", "'"),
        ("y ~ `x + (1 | g)", "never closed", "`"),
        ("y ~ `` + (1 | g)", "no name between", "``"),
        ("y ~ () + (1 | g)", "nothing between", "()"),
        ("y ~ x = z + (1 | g)", "`==`", "="),
        ("y ~ 2 * x + (1 | g)", "The only numbers", "2"),
        ("y ~ x^1.5 + (1 | g)", "whole number", "1.5"),
        ("y ~ x * (1 | g)", "only be added", "1 | g"),
        ("y ~ x - (1 | g)", "only be added", "1 | g"),
        ("y ~ x + (1 | g | h)", "has one bar", "1 | g"),
        ("y ~ x + (0 | g)", "has no columns", "(0 | g)"),
        ("y ~ x + (1 | a + b)", "write `a:b`", "a + b"),
        ("y ~ x + (1 | a * b)", "write `a:b`", "a * b"),
        ("y ~ x + (1 | log(a))", "cannot be used as a grouping factor", "log(a)"),
        ("y ~ x + (1 | a/(b/c))", "write the terms out", "b/c"),
        ("y ~ x + (1 | .)", "name the column", "."),
        ("y ~ x + (. | g)", "Write out what varies", "."),
        ("y ~ x + (offset(x) | g)", "does not vary by group", "offset(x)"),
        ("y ~ x + y + (1 | g)", "also stands on the right", "y"),
        (". ~ x + (1 | g)", "cannot be `.`", "."),
        ("1 ~ x + (1 | g)", "names no column", "1"),
        ("log(1) ~ x + (1 | g)", "names no column", "log(1)"),
        ("y ~ offset(a, b) + (1 | g)", "takes one argument", "offset(a, b)"),
    ],
)
def test_errors_say_what_and_where(text, sentence, marked):
    with pytest.raises(FormulaError) as caught:
        parse_formula(text)
    message, _, shown, carets = str(caught.value).split("\n")
    assert sentence in message
    assert shown == f"    {text}"
    if marked is not None:
        start = carets.index("^") - 4
        assert text[start : start + carets.count("^")] == marked


def test_no_random_term_names_the_remedy():
    with pytest.raises(FormulaError, match=r"\(1 \| group\).*generalized linear regression"):
        parse_formula("y ~ x")


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_empty(text):
    with pytest.raises(FormulaError, match="empty"):
        parse_formula(text)


@pytest.mark.parametrize("thing", [None, 3, ["y ~ x"]])
def test_not_text(thing):
    with pytest.raises(FormulaError, match="A formula is text"):
        parse_formula(thing)


def test_a_formula_over_several_lines():
    formula = parse_formula("y ~ x +\n    (1 | g)\n")
    assert [bar.group for bar in formula.random] == ["g"]


def test_factor_of_two_columns_says_what_to_write() -> None:
    sleep = me.load_dataset("sleepstudy")
    with pytest.raises(me.FormulaError, match=r"takes one column, .*: `factor\(Subject, Days\)`"):
        me.lmer("Reaction ~ factor(Subject, Days) + (1 | Subject)", sleep)
    five = me.lmer(
        'Reaction ~ factor(Days, c("5", "0")) + (1 | Subject)', sleep.query("Days in [0, 5]")
    )
    assert list(five.fixef.index) == ["(Intercept)", 'factor(Days, c("5", "0"))0']


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("y ~ x + z + (1 | g)", ". ~ . - x", "y ~ z + (1 | g)"),
        ("y ~ x + (1 | g)", ". ~ . - x", "y ~ (1 | g)"),
        ("y ~ x + (x | g) + (1 | h)", ". ~ . - (1 | h)", "y ~ x + (x | g)"),
        ("y ~ x + z + (x|g)", ". ~ . - x - z + w", "y ~ (x | g) + w"),
        # Taken out of the product too, so the subtraction has to stay.
        ("y ~ a + a*b + (1|g)", ". ~ . - a", "y ~ a + a*b + (1|g) - a"),
        ("y ~ a*b + (1|g)", ". ~ . - a:b", "y ~ a*b + (1|g) - a:b"),
        ("y ~ x + (x|g)", ". ~ . - 1", "y ~ x + (x|g) - 1"),
        ("y ~ x - x + (1|g)", ". ~ . + x", "y ~ x - x + (1|g) + x"),
        ("y ~ . + (1|g)", ". ~ . - w", "y ~ . + (1|g) - w"),
    ],
)
def test_terms_added_and_taken_away_cancel_if_that_means_the_same(old, new, expected):
    assert update_formula(old, new) == expected


def test_an_updated_model_has_the_shorter_formula():
    m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
    smaller = m.update(". ~ . - x1")
    assert smaller.formula == "y ~ (1 | sch.cl/tch.cl)"
    assert list(smaller.fixef.index) == ["(Intercept)"]


def test_patsys_quote_on_the_left_is_told_what_to_write() -> None:
    for response in ("Q('my y')", "log(Q('my y'))"):
        with pytest.raises(FormulaError, match="is written in backticks: `my y`"):
            parse_formula(f"{response} ~ x + (1 | g)")
