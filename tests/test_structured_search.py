"""The search for structured covariances: hard likelihoods, boundaries, limits, several minima."""

from __future__ import annotations

import json
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

import mixedeffects as me
from mixedeffects.engine.optimum import Control
from mixedeffects.engine.structured import Search
from mixedeffects.engine.trust_region import symmetric_rank_one_update, trust_region_step
from references import REFERENCE, quiet
from script_modules import script

Matrix = NDArray[np.float64]
FOLDER = REFERENCE / "structured"
ANSWERS = json.loads((FOLDER / "growth.json").read_text())


def growth(name: str) -> pd.DataFrame:
    return pd.read_csv(FOLDER / f"{name}.csv")


# --- the parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_a_step_within_a_radius_is_the_minimum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m = int(rng.integers(1, 8))
    H = rng.normal(size=(m, m)) * 10.0 ** rng.integers(-3, 4)
    H = H + H.T + rng.choice([0.0, 6.0]) * np.eye(m)
    g = rng.normal(size=m) * 10.0 ** rng.integers(-3, 4)
    radius = 10.0 ** rng.integers(-2, 2)
    step = trust_region_step(g, H, radius)
    assert np.linalg.norm(step) <= radius * (1.0 + 1e-6)
    # (H + shift) step = -g, with a shift that leaves nothing negative, and none inside.
    shift = max(-float(step @ (H @ step + g)) / float(step @ step), 0.0)
    size = np.abs(H).max() + shift
    assert np.linalg.eigvalsh(H)[0] + shift > -1e-6 * size
    assert_allclose(H @ step + shift * step, -g, atol=1e-5 * (np.abs(g).max() + size * radius))
    if np.linalg.norm(step) < 0.99 * radius:
        assert shift < 1e-6 * size


def test_the_rank_one_update_maps_the_step_to_what_was_missing() -> None:
    rng = np.random.default_rng(0)
    C, step, missing = rng.normal(size=(4, 4)), rng.normal(size=4), rng.normal(size=4)
    C = C + C.T
    updated = symmetric_rank_one_update(C, missing, step)
    assert_allclose((updated - C) @ step, missing)
    assert np.linalg.matrix_rank(updated - C) == 1
    across = missing - step * (missing @ step) / (step @ step)
    assert (symmetric_rank_one_update(C, across, step) == C).all()


# --- data of R -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer", ANSWERS, ids=lambda a: f"{a['by']} {a['formula']} {'REML' if a['reml'] else 'ML'}"
)
def test_growth_curves_reach_the_optima_of_glmmTMB_and_nlme(answer: dict[str, Any]) -> None:
    data, limit = growth(answer["data"]), answer["by"] == "gls"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = me.lmer(answer["formula"], data, reml=answer["reml"])
    parameters = model.covariance_parameters
    sds = parameters.filter(like="sd").to_numpy()
    assert model.converged
    if limit:
        # `gls` has no residual variance; a model that has one comes close to that.
        (warning,) = caught
        assert "residual standard deviation is estimated at" in str(warning.message)
        assert model.criterion == pytest.approx(answer["criterion"], abs=2e-3)
        assert_allclose(sds, answer["sds"], rtol=1e-3)
        assert parameters.filter(like="cor").iloc[0] == pytest.approx(answer["shape"], abs=1e-5)
        assert_allclose(model.fixef, answer["fixef"], rtol=1e-4)
        if answer["reml"]:
            # By ML those of `gls` are multiples of ours.
            assert_allclose(model.se, answer["se"], rtol=1e-3)
        return
    assert not caught
    assert model.optimum.certificate.holds
    # Beside a correlation of one glmmTMB divides by a nearly singular matrix.
    at_bound = bool((parameters.filter(like="cor") == 1.0).all())
    assert model.criterion == pytest.approx(answer["criterion"], abs=5e-4 if at_bound else 1e-5)
    assert model.sigma == pytest.approx(answer["sigma"], rel=2e-4)
    assert_allclose(sds, answer["sds"], rtol=2e-3)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("chickweight", "weight ~ Time + ar1(0 + factor(Time) | Chick, hom = FALSE)"),
        ("bodyweight", "weight ~ Time * factor(Diet) + ar1(0 + factor(Time) | Rat, hom = FALSE)"),
    ],
)
def test_autoregressions_with_many_variances_converge(name: str, formula: str) -> None:
    data = growth(name)
    model = quiet(formula, data)
    assert model.optimum.certificate.holds
    homogeneous = formula.replace(", hom = FALSE", "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert model.criterion < me.lmer(homogeneous, data).criterion
    for factor in (0.3, 4.0):
        again = quiet(formula, data, start=factor * model.theta)
        assert again.criterion == pytest.approx(model.criterion, abs=1e-6)


# --- scales --------------------------------------------------------------------------------------


def visits(seed: int = 0) -> pd.DataFrame:
    """Twenty sites over ten years with an intercept, a slope and a treatment of their own."""
    rng = np.random.default_rng(seed)
    site, year = (a.ravel() for a in np.indices((20, 10)))
    a, b, c = rng.normal(size=(3, 20))
    treated = rng.integers(0, 2, 200)
    y = 3.0 + 0.2 * year + a[site] + (0.2 * b + 0.1 * a)[site] * year + 0.7 * c[site] * treated
    return pd.DataFrame(
        {
            "y": y + rng.normal(size=200),
            "site": site.astype(str),
            "t": year.astype(float),
            "year": 2001.0 + year,
            "days": 1.0 + 7.0 * year,
            "treated": treated.astype(float),
        }
    )


@pytest.mark.parametrize("structure", ["cs", "diag"])
@pytest.mark.parametrize("reml", [True, False])
def test_the_unit_of_a_column_makes_no_difference(structure: str, reml: bool) -> None:
    data = visits()
    one = quiet(f"y ~ t + {structure}(1 + t + treated | site)", data, reml=reml)
    other = quiet(
        f"y ~ t + {structure}(1 + t2 + treated | site)",
        data.assign(t2=1e5 * data["t"]),
        reml=reml,
    )
    assert other.criterion == pytest.approx(one.criterion, abs=1e-6)
    ratio = other.covariance_parameters.to_numpy() / one.covariance_parameters.to_numpy()
    assert_allclose(np.delete(ratio, 1), 1.0, rtol=1e-3)
    assert ratio[1] == pytest.approx(1e-5, rel=1e-3)


@pytest.mark.parametrize("column", ["year", "days"])
def test_columns_far_from_zero_are_no_obstacle(column: str) -> None:
    data = visits()
    for reml in (True, False):
        # With two columns compound symmetry is no restriction, so the free fit knows the optimum.
        free = quiet(f"y ~ {column} + (1 + {column} | site)", data, reml=reml)
        cs = quiet(f"y ~ {column} + cs(1 + {column} | site)", data, reml=reml)
        assert cs.criterion == pytest.approx(free.criterion, abs=1e-6)
        assert cs.optimum.certificate.holds
        assert quiet(f"y ~ {column} + diag(1 + {column} | site)", data, reml=reml).converged


# --- boundaries ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def at_one() -> me.LinearMixedModel:
    """Correlations of one between eleven weights of a rat."""
    return quiet("weight ~ Time + cs(0 + factor(Time) | Rat)", growth("bodyweight"))


def test_messages_name_what_is_at_its_bound(at_one: me.LinearMixedModel) -> None:
    assert at_one.is_singular
    assert at_one.optimum.message.endswith(": `cor|Rat` is at the upper end of its range, 1")
    assert "`cor|Rat` is at the upper end of its range, 1" in str(at_one.summary())
    data = visits()
    data["u"] = data["t"] - data["t"].mean()
    data["y"] -= data.groupby("site")["y"].transform("mean")
    model = quiet("y ~ u + diag(1 + u | site)", data)
    assert model.optimum.message.endswith(": `sd_(Intercept)|site` is zero")
    assert "`sd_(Intercept)|site` is zero" in str(model.summary())
    assert "range" not in quiet("y ~ t + cs(1 + t | site)", visits()).optimum.message


def test_intervals_at_a_bound_are_missing_there_alone(at_one: me.LinearMixedModel) -> None:
    bounds = at_one.confint()
    assert bounds.loc["cor|Rat"].isna().all()
    others = bounds.drop(index="cor|Rat")
    assert np.isfinite(others.to_numpy()).all()
    estimates = pd.concat([at_one.covariance_parameters, at_one.fixef]).drop("cor|Rat")
    assert (others.iloc[:, 0] < estimates).all()
    assert (estimates < others.iloc[:, 1]).all()


def test_what_follows_a_fit_at_a_bound(at_one: me.LinearMixedModel) -> None:
    assert at_one.refit(at_one.y).criterion == pytest.approx(at_one.criterion, abs=1e-6)
    assert at_one.update(reml=False).is_singular
    assert at_one.bootstrap(3, seed=1).draws.notna().all().all()
    for table in (at_one.tidy("ran_pars"), at_one.coef_table(ddf="kr"), at_one.ranova().to_frame()):
        assert len(table) > 0
    assert np.isfinite(at_one.coef_table(ddf="kr")["df"]).all()


# --- no residual variance ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def without_residual() -> me.LinearMixedModel:
    """One height for every occasion: the autoregression takes everything."""
    with pytest.warns(me.ConvergenceWarning, match="next to nothing: every row has its own effect"):
        return me.lmer(
            "height ~ age + ar1(0 + factor(Occasion) | Subject)", growth("oxboys"), reml=False
        )


def test_a_residual_variance_that_goes_to_zero_is_said(
    without_residual: me.LinearMixedModel,
) -> None:
    optimum = without_residual.optimum
    assert optimum.residual_vanishes
    assert optimum.converged
    assert optimum.message.endswith("where the residual variance goes to zero")
    assert "residual standard deviation goes to zero" in str(without_residual.summary())
    bounds = without_residual.confint()
    assert bounds.loc["sigma"].isna().all()
    assert np.isfinite(bounds.drop(index="sigma").to_numpy()).all()
    again = without_residual.refit(
        without_residual.y + np.random.default_rng(0).normal(size=without_residual.nobs)
    )
    assert not again.optimum.residual_vanishes
    assert again.sigma > 0.1


def test_a_small_residual_variance_is_none_that_goes_to_zero() -> None:
    """An optimum with a residual standard deviation a hundredth of the effects'."""
    model = quiet("weight ~ Time + ar1(0 + factor(Time) | Rat)", growth("bodyweight"))
    assert not model.optimum.residual_vanishes
    assert 0.005 < model.sigma / model.covariance_parameters["sd|Rat"] < 0.02
    # Both far above the optimum.
    p, A = model.optimum.parameterisation, model.fit.crossproducts
    search = Search(A, True, p, Control(), None)
    for factor in (0.2, 5.0):
        there = search.point_at(p.scaled(model.optimum.eta, factor))
        assert there is not None
        assert there.value + search.offset > model.criterion + 0.2


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("size", [3e3, 1e4, 1e5])
def test_large_ratios_are_reached(seed: int, size: float) -> None:
    """Effects far larger than the residuals, several rows each: no limit."""
    rng = np.random.default_rng(seed)
    g, f = (a.ravel() for a in np.indices((12, 6)))
    f = f % 3
    effects = size * rng.normal(size=(12, 3))
    data = pd.DataFrame({"g": g.astype(str), "f": f.astype(str)})
    data["y"] = effects[g, f] + rng.normal(size=72)
    model = quiet("y ~ 1 + cs(0 + f | g, hom = TRUE)", data)
    within = data.groupby(["g", "f"])["y"].var().mean()
    assert model.sigma == pytest.approx(within**0.5, rel=1e-5)
    assert model.optimum.certificate.holds
    assert not model.optimum.residual_vanishes


def test_levels_are_left_out_one_by_one_where_every_row_has_an_effect() -> None:
    data = growth("bodyweight")
    model = quiet("weight ~ Time + ar1(0 + factor(Time) | Rat)", data)
    left_out = model.influence("Rat", refit=True).variance_parameters
    assert left_out.notna().all().all()
    subset = quiet(model.formula, data[data["Rat"] != 3])
    assert_allclose(left_out.loc["3"], subset.covariance_parameters, rtol=1e-3)


# --- several minima ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    return script("benchmarks/structured_designs.py")


def above_the_best(generated: ModuleType, seed: int, starts: int) -> float:
    """How far a fit is above searches from random starts."""
    each = generated.design(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", me.IdentifiabilityWarning)
        try:
            model = me.lmer(each.formula, each.data, reml=each.reml)
        except (me.MixedEffectsError, me.ConvergenceWarning) as error:
            # What is said: there is no minimum to be missed.
            said = ("next to nothing", "The likelihood has no maximum")
            assert isinstance(error, me.ModelError) or any(each in str(error) for each in said)
            return 0.0
    lowest, _, endless = generated.best_of_many(model, starts, seed)
    return 0.0 if endless else model.criterion - lowest


@pytest.mark.parametrize("seed", [77, 104, 1026, 1053, 2119, 4003, 4074])
def test_the_lowest_of_several_minima_is_found(generated: ModuleType, seed: int) -> None:
    """Designs with minima up to ten units of deviance apart."""
    assert above_the_best(generated, seed, 4) < 1e-4


def test_searches_agree_with_a_dense_likelihood(generated: ModuleType) -> None:
    each = generated.design(151)
    model = quiet(each.formula, each.data, reml=each.reml)
    assert model.criterion <= generated.best_of_dense(model, 2, 0) + 1e-4


@pytest.mark.slow
def test_the_lowest_minimum_is_finished_where_its_descent_took_long(
    generated: ModuleType,
) -> None:
    """The descent that ends lowest, a further one, is a few evaluations short of its end."""
    each = generated.design(4101)
    model = quiet(each.formula, each.data, reml=each.reml)
    assert model.converged
    assert model.optimum.evaluations > me.Control().max_evaluations
    assert model.criterion == pytest.approx(289.02107629, abs=1e-7)


@pytest.mark.slow
def test_no_minimum_of_generated_designs_is_missed(generated: ModuleType) -> None:
    missed = [seed for seed in range(4000, 4150) if above_the_best(generated, seed, 6) > 1e-4]
    assert not missed
