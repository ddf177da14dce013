"""Comparisons of fits whose rows stayed in a table are those of the same rows in memory."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import mixedeffects as me
from lazy_tables import rows, table_of, with_gaps
from mixedeffects.errors import ModelError
from mixedeffects.lazy.table import LazyTable

ENGINES = ("duckdb", "polars")
MODELS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("y ~ x + (1 | pupil)", {}),
    ("y ~ x + (x | pupil)", {}),
    ("y ~ x + (x || pupil)", {}),
    ("y ~ x + z + (1 | name)", {}),
    ("y ~ I(2 * x) + (1 | pupil)", {}),
    ("y ~ x + (x | pupil) + (1 | test)", {}),
    ("y ~ x + (1 | school/pupil)", {}),
    ("y ~ C(arm, sum) * x + (1 | pupil)", {}),
    ("y ~ x * arm + (0 + arm | pupil)", {}),
    ("y ~ offset(z) + x + (1 | pupil)", {}),
    ("y ~ x + arm + (1 | pupil)", {"reml": False}),
)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the queries made from here on are for."""
    seen: list[str] = []
    run = LazyTable.run

    def counted(self: LazyTable, query: Any, what: str) -> pd.DataFrame:
        seen.append(what)
        return run(self, query, what)

    monkeypatch.setattr(LazyTable, "run", counted)
    return seen


def assert_same_table(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    """Equal labels, and numbers up to sums in another order."""
    assert list(found.index) == list(wanted.index)
    assert list(found) == list(wanted)
    assert_allclose(found.to_numpy(float), wanted.to_numpy(float), rtol=1e-7, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_likelihood_ratio_tests_of_any_two_models(engine: str) -> None:
    """With the same notes: whether they are nested, and what one variance on the boundary is."""
    data = rows(800)
    table = table_of(engine, data)
    wanted = [me.lmer(formula, data, **options) for formula, options in MODELS]
    found = [me.lmer(formula, table, rows="push", **options) for formula, options in MODELS]
    for i, j in itertools.combinations(range(len(MODELS)), 2):
        own = me.anova(wanted[i], wanted[j], boundary=True)
        other = me.anova(found[i], found[j], boundary=True)
        assert_same_table(other.to_frame(), own.to_frame())
        assert other.notes == own.notes


def test_fits_in_memory_and_in_a_table_compare() -> None:
    data = rows(800)
    table = table_of("duckdb", data)
    for one, other in ((0, 1), (0, 3), (4, 0), (3, 6), (9, 0), (7, 8)):
        own = [me.lmer(MODELS[i][0], data, **MODELS[i][1]) for i in (one, other)]
        pushed = [me.lmer(MODELS[i][0], table, rows="push", **MODELS[i][1]) for i in (one, other)]
        wanted = me.anova(*own, boundary=True)
        for pair in ((own[0], pushed[1]), (pushed[0], own[1])):
            found = me.anova(*pair, boundary=True)
            assert_same_table(found.to_frame(), wanted.to_frame())
            assert found.notes == wanted.notes


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_and_missing_values(engine: str) -> None:
    data = with_gaps(rows())
    formulas = ("y ~ x + I(2 * z) + arm + (x | pupil)", "y ~ x + z + (1 | pupil) + (1 | test)")
    kept = data.dropna(subset=["x", "arm"])
    own = [me.lmer(formula, kept, weights="w") for formula in formulas]
    table = table_of(engine, kept.reset_index(drop=True))
    pushed = [me.lmer(formula, table, weights="w", rows="push") for formula in formulas]
    found, wanted = me.anova(*pushed), me.anova(*own)
    assert_same_table(found.to_frame(), wanted.to_frame())
    assert found.notes == wanted.notes
    gaps = table_of(engine, data)
    pushed = [me.lmer(formula, gaps, weights="w", rows="push") for formula in formulas]
    with pytest.raises(ModelError, match="are fitted to different rows"):
        me.anova(*pushed)


def test_names_of_columns_settle_without_a_pass(passes: list[str]) -> None:
    table = table_of("duckdb", rows())
    small = me.lmer("y ~ x + (1 | pupil)", table, rows="push")
    large = me.lmer("y ~ x * arm + (x | pupil)", table, rows="push")
    coded = me.lmer("y ~ x * C(arm, sum) + (x | pupil)", table, rows="push")
    passes.clear()
    assert me.anova(small, large).refitted
    assert passes == []
    assert not any("nested" in note for note in me.anova(small, large).notes)
    me.anova(large, coded)
    assert passes == ["cells of pupil"]


def test_models_that_cannot_be_compared() -> None:
    data = rows()
    table = table_of("duckdb", data)
    pushed = me.lmer("y ~ x + (1 | pupil)", table, rows="push")
    for other, sentence in (
        (me.lmer("z ~ x + (1 | pupil)", table, rows="push"), "have different responses"),
        (me.lmer("y ~ x + (1 | pupil)", data, weights="w"), "have different prior weights"),
        (me.lmer("y ~ x", data, residual="cs(1 | pupil)"), "needs rows in memory"),
        (
            me.lmer("y ~ far + (1 | pupil)", data.assign(far=data["stamp"] - 1.7e9)),
            "cannot be made on that table",
        ),
    ):
        with pytest.raises(ModelError, match=sentence):
            me.anova(pushed, other)


@pytest.mark.parametrize("engine", ENGINES)
def test_information_criteria(engine: str) -> None:
    data = rows(800)
    table = table_of(engine, data)
    own = [me.lmer(formula, data, **options) for formula, options in MODELS[:5]]
    pushed = [me.lmer(formula, table, rows="push", **options) for formula, options in MODELS[:5]]
    assert_same_table(me.compare(*pushed).to_frame(), me.compare(*own).to_frame())


DESIGNS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("y ~ x * arm + (x | pupil) + (1 | test)", {}),
    ("y ~ x + (x | school/pupil)", {"weights": "w", "offset": "z"}),
    ("y ~ x + late + (0 + arm | pupil)", {"weights": "w", "reml": False}),
    ("y ~ year + (year | pupil)", {}),
)


@pytest.fixture(scope="module", params=ENGINES)
def pairs(request: pytest.FixtureRequest) -> list[tuple[me.LinearMixedModel, me.LinearMixedModel]]:
    """Fits in a table and in memory."""
    data = rows(1_200)
    table = table_of(request.param, data)
    return [
        (me.lmer(formula, table, rows="push", **options), me.lmer(formula, data, **options))
        for formula, options in DESIGNS
    ]


def test_random_effects_taken_out(
    pairs: list[tuple[me.LinearMixedModel, me.LinearMixedModel]],
) -> None:
    for found, wanted in pairs:
        for options in ({}, {"reduce_terms": False}, {"boundary": True}):
            own, other = wanted.ranova(**options), found.ranova(**options)
            assert_same_table(other.to_frame(), own.to_frame())
            assert other.notes == own.notes


def test_random_effects_that_are_coded_anew_are_refused() -> None:
    formula = "y ~ x + (0 + arm + late | school)"
    m = me.lmer(formula, table_of("duckdb", rows()), rows="push")
    with pytest.raises(
        ModelError, match=r"the columns of \(late \| school\), which were not summed"
    ):
        m.ranova()
    wanted = me.lmer(formula, rows()).ranova(reduce_terms=False)
    assert_same_table(m.ranova(reduce_terms=False).to_frame(), wanted.to_frame())


def test_conditional_aic(pairs: list[tuple[me.LinearMixedModel, me.LinearMixedModel]]) -> None:
    for found, wanted in pairs:
        assert_same_table(found.caic().to_frame(), wanted.caic().to_frame())


@pytest.mark.parametrize("refit", [False, True])
def test_influence_of_groups(
    pairs: list[tuple[me.LinearMixedModel, me.LinearMixedModel]], refit: bool
) -> None:
    for found, wanted in pairs:
        for by in ("pupil", "region"):
            if refit and by == "pupil":
                continue
            own, other = wanted.influence(by, refit=refit), found.influence(by, refit=refit)
            assert list(other.n_rows) == list(own.n_rows)
            assert_allclose(other.dfbetas, own.dfbetas, rtol=1e-5, atol=1e-7)
            for name in ("cooks_distance", "mdffits", "covtrace", "covratio"):
                one, two = getattr(other, name), getattr(own, name)
                assert_allclose(one, two, rtol=1e-5, atol=1e-8)
            if refit:
                assert_allclose(other.variance_change, own.variance_change, rtol=1e-4, atol=1e-6)
    with pytest.raises(ModelError, match="The rows stayed in the table"):
        pairs[0][0].influence()


def test_updates_are_fits_of_the_same_table(
    pairs: list[tuple[me.LinearMixedModel, me.LinearMixedModel]],
) -> None:
    data = rows(600, seed=12)
    for found, wanted in pairs:
        for change, options in ((". ~ . + size", {}), (None, {"reml": False})):
            own, other = wanted.update(change, **options), found.update(change, **options)
            assert other.fit.rows is not None
            assert_allclose(other.criterion, own.criterion, rtol=1e-10)
            assert_allclose(other.fixef, own.fixef, rtol=1e-7)
        assert found.update(data=data).fit.rows is None
        assert_allclose(found.update(data=data).criterion, wanted.update(data=data).criterion)
        other = found.update(data=table_of("polars", data))
        assert other.fit.rows is not None
        assert_allclose(other.criterion, wanted.update(data=data).criterion, rtol=1e-10)


def test_parameters_that_the_data_do_not_determine() -> None:
    data = rows().assign(side=lambda d: d["pupil"] % 2)
    for formula in (
        "y ~ x + (side | pupil)",
        "y ~ factor(test) + (1 | pupil) + (1 | test)",
        "y ~ x + (arm || pupil)",
    ):
        with pytest.warns(me.errors.IdentifiabilityWarning) as caught:
            wanted = me.lmer(formula, data)
        with pytest.warns(me.errors.IdentifiabilityWarning) as told:
            found = me.lmer(formula, table_of("duckdb", data), rows="push")
        assert [str(w.message) for w in told] == [str(w.message) for w in caught]
        assert found.optimum.undetermined == wanted.optimum.undetermined
        assert_allclose(found.criterion, wanted.criterion, rtol=1e-9)
    formula = "y ~ x + (1 | pupil) + (1 | name)"
    for table, options in ((data, {}), (table_of("duckdb", data), {"rows": "push"})):
        with pytest.raises(ModelError, match=r"`\(1 \| pupil\)` and `\(1 \| name\)` have the same"):
            me.lmer(formula, table, **options)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("formula", ["y ~ x + (x | pupil)", "y ~ x + z + (x | pupil) + (1 | test)"])
def test_random_effects_far_larger_than_the_residual(formula: str, engine: str) -> None:
    """The residual sum of squares is a difference of sums 1e10 times as large."""
    data, rng = rows(1_200), np.random.default_rng(3)
    test, pupil, slope = (rng.normal(size=60) for _ in range(3))
    effects = (
        test[data["test"]] * ("test" in formula)
        + pupil[data["pupil"]]
        + slope[data["pupil"]] * data["x"]
    )
    data = data.assign(y=data["x"] + effects + 1e-5 * rng.normal(size=len(data)))
    wanted = me.lmer(formula, data, weights="w")
    found = me.lmer(formula, table_of(engine, data), rows="push", weights="w")
    assert (np.abs(found.fixef - wanted.fixef) < 1e-6 * wanted.se).all()
    assert_allclose(found.sigma, wanted.sigma, rtol=1e-5)
    assert_allclose(found.criterion, wanted.criterion, atol=1e-3)
    for name, own in wanted.ranef().items():
        assert_allclose(found.ranef()[name], own, atol=1e-8)
    assert found.optimum.converged
