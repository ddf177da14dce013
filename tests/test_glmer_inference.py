"""Inference for generalized fits: R's answers, dense computation, and what defines each answer."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.stats
from numpy.typing import NDArray

import mixedeffects as me
from mixedeffects.engine import EngineTerm
from mixedeffects.engine.generalized import GeneralizedDesign, evaluate_laplace
from mixedeffects.engine.generalized.quadrature import evaluate_criterion, quadrature_parts
from mixedeffects.engine.generalized.scores import cluster_scores
from mixedeffects.families import Response, RowTerms

Matrix = NDArray[np.float64]

R = json.loads((Path(__file__).parent / "reference" / "glmm" / "inference.json").read_text())
CBPP = "incidence / size ~ period + (1 | herd)"
HALF = scipy.stats.chi2.ppf(0.95, 1)


@cache
def cbpp(nagq: int = 1) -> Any:
    data = me.load_dataset("cbpp")
    return me.glmer(CBPP, data, family="binomial", weights="size", nagq=nagq)


@cache
def ticks() -> Any:
    data = me.load_dataset("grouseticks")
    return me.glmer("TICKS ~ cHEIGHT + YEAR + (1 | BROOD)", data, family="negative_binomial")


@cache
def contraception(slope: bool = False) -> Any:
    random = "(urban | district)" if slope else "(1 | district)"
    data = me.load_dataset("contraception")
    return me.glmer(f"use ~ age + urban * livch + {random}", data, family="binomial")


def _nested_data() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n = 360
    school = rng.integers(0, 9, n)
    room = school * 4 + rng.integers(0, 4, n)
    x, w = rng.normal(size=n), rng.uniform(0.5, 2.0, n)
    effect = 0.5 * rng.normal(size=9)[school] + rng.normal(size=(36, 2))[room] @ [0.4, 0.0]
    slope = 0.3 * rng.normal(size=36)[room]
    mean = np.exp(0.6 + effect + (0.3 + slope) * x)
    count = rng.negative_binomial(3.0, 3.0 / (3.0 + mean))
    return pd.DataFrame({"y": count, "x": x, "w": w, "school": school, "room": room})


@cache
def nested(family: str = "negative_binomial") -> Any:
    formula = "y ~ x + (x | room) + (1 | school)"
    return me.glmer(formula, _nested_data(), family=family, weights="w")


# --- tests of the fixed effects -------------------------------------------------------------------


def test_wald_is_a_quadratic_form_in_vcov() -> None:
    m = cbpp()
    beta, V = m.fixef.to_numpy()[1:], m.vcov().to_numpy()[1:, 1:]
    found = m.wald("period")
    assert found.statistic == pytest.approx(float(beta @ np.linalg.solve(V, beta)), rel=1e-10)
    assert found.num_df == 3
    assert found.p == pytest.approx(scipy.stats.chi2.sf(found.statistic, 3))
    table = m.anova()
    assert list(table) == ["Chisq", "Df", "Pr(>Chisq)"]
    assert table.loc["period", "Chisq"] == pytest.approx(found.statistic)


def test_z_is_the_signed_root_of_chi_square() -> None:
    m = cbpp()
    z, chi2 = m.wald("period2", test="z"), m.wald("period2")
    row = m.coef_table().loc["period2"]
    assert z.statistic == pytest.approx(row["z value"], rel=1e-12)
    assert z.statistic**2 == pytest.approx(chi2.statistic, rel=1e-12)
    assert z.p == pytest.approx(row["Pr(>|z|)"], rel=1e-9)
    assert list(z.to_frame()) == ["z value", "Pr(>|z|)"]
    with pytest.raises(me.ModelError, match="test='z' is for one contrast"):
        m.wald("period", test="z")
    with pytest.raises(me.ModelError, match="'chi2', 'z'"):
        m.wald("period", test="F")


def test_contrasts_have_the_columns_of_the_coefficients() -> None:
    m = cbpp()
    table = m.contrast({"own": {"period2": 1.0}, "3 less 2": {"period3": 1, "period2": -1}})
    assert list(table) == list(m.coef_table())
    np.testing.assert_allclose(table.loc["own"], m.coef_table().loc["period2"], rtol=1e-12)
    L = np.array([0.0, -1.0, 1.0, 0.0])
    error = np.sqrt(L @ m.vcov().to_numpy() @ L)
    assert table.loc["3 less 2", "Std. Error"] == pytest.approx(error, rel=1e-12)


@pytest.mark.parametrize("method", ["wald", "contrast", "anova", "coef_table", "joint_tests"])
def test_degrees_of_freedom_are_refused(method: str) -> None:
    m = cbpp()
    given = ["period"] if method in ("wald", "contrast") else []
    with pytest.raises(me.ModelError, match="use the normal distribution"):
        getattr(m, method)(*given, ddf="satterthwaite")
    getattr(m, method)(*given, ddf="asymptotic")


def test_joint_tests_are_those_of_emmeans() -> None:
    m = contraception()
    table = m.joint_tests().set_index("term")
    for term, chisq in R["contraception"]["joint_tests"].items():
        # emmeans rounds its F to three decimals.
        assert table.loc[term, "statistic"] == pytest.approx(chisq, abs=3 * 0.0006 + 0.002)
    assert list(table) == ["df", "statistic", "p_value", "note"]


def test_type_3_is_that_of_the_joint_tests_where_factors_are_complete() -> None:
    m = contraception()
    joint = m.joint_tests().set_index("term")
    assert m.anova(3).loc["urban:livch", "Chisq"] == pytest.approx(
        joint.loc["urban:livch", "statistic"], rel=1e-8
    )
    assert m.anova(2).loc["urban", "Chisq"] != pytest.approx(m.anova(3).loc["urban", "Chisq"])


# --- likelihood ratios ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "formula", "key"),
    [
        (cbpp, "~ . - period", ("cbpp", "lrt_period")),
        (ticks, "~ . - YEAR", ("grouseticks", "lrt_year")),
    ],
)
def test_likelihood_ratios_are_those_of_R(model: Any, formula: str, key: tuple[str, str]) -> None:
    m = model()
    table = me.anova(m, m.update(formula)).table
    wanted = R[key[0]][key[1]]
    assert table["Chisq"].iloc[-1] == pytest.approx(wanted["chisq"], abs=2e-6)
    assert table["Df"].iloc[-1] == wanted["df"]
    assert table["Pr(>Chisq)"].iloc[-1] == pytest.approx(wanted["p"], rel=1e-4)


def test_a_slope_by_anova_and_ranova() -> None:
    large, small = contraception(True), contraception()
    wanted = R["contraception"]["lrt_slope"]
    table = me.anova(small, large).table
    assert table["Chisq"].iloc[-1] == pytest.approx(wanted["chisq"], abs=1e-5)
    one = large.ranova().table.iloc[1]
    assert one["Chisq"] == pytest.approx(table["Chisq"].iloc[-1], abs=1e-7)
    half = large.ranova(boundary=True)
    chisq = one["Chisq"]
    mixture = 0.5 * (scipy.stats.chi2.sf(chisq, 1) + scipy.stats.chi2.sf(chisq, 2))
    assert half.table["Pr(>Chisq)"].iloc[1] == pytest.approx(mixture)
    assert "Laplace" in repr(half)


@pytest.mark.parametrize("nagq", [1, 7])
def test_without_its_last_random_term_a_model_is_a_glm(nagq: int) -> None:
    m = cbpp(nagq)
    row = m.ranova(boundary=True).table.loc["(1 | herd)"]
    assert -2.0 * row["logLik"] == pytest.approx(R["cbpp"]["glm_deviance"], abs=1e-7)
    assert row["npar"] == 4
    assert row["Pr(>Chisq)"] == pytest.approx(0.5 * scipy.stats.chi2.sf(row["Chisq"], 1))


def test_the_glm_that_is_left_has_the_parameter_of_the_family() -> None:
    m = ticks()
    row = m.ranova().table.iloc[1]
    y, X = m.frame.y, m.frame.X
    family = m.family

    def deviance(at: Matrix) -> float:
        return float(family.rows(Response(y, None, None), X @ at[:-1], at[-1]).d.sum())

    start = np.append(m.fixef.to_numpy(), 0.0)
    best = scipy.optimize.minimize(deviance, start, method="BFGS", options={"gtol": 1e-6})
    assert -2.0 * row["logLik"] == pytest.approx(best.fun, abs=1e-5)
    assert row["npar"] == 5


def test_aic_and_bic_are_those_of_R() -> None:
    m = cbpp()
    table = me.compare(m).table
    assert table["AIC"].iloc[0] == pytest.approx(R["cbpp"]["aic"], abs=1e-6)
    assert table["BIC"].iloc[0] == pytest.approx(R["cbpp"]["bic"], abs=1e-6)


def test_what_does_not_compare_is_refused() -> None:
    m, data = cbpp(), me.load_dataset("cbpp")
    counts = ticks()
    line = me.lmer("TICKS ~ cHEIGHT + (1 | BROOD)", me.load_dataset("grouseticks"), reml=False)
    with pytest.raises(me.ModelError, match="nagq=1 and nagq=7"):
        me.anova(m, cbpp(7))
    with pytest.raises(me.ModelError, match="a linear and a generalized mixed model"):
        me.anova(line, counts)
    with pytest.raises(me.ModelError, match="a generalized and a linear mixed model"):
        me.compare(counts, line)
    with pytest.raises(me.ModelError, match="different rows, 56 and 40"):
        me.anova(m, m.update(data=data.iloc[:40]))
    more = data.assign(size=data["size"] + 1)
    with pytest.raises(me.ModelError, match="different numbers of trials"):
        me.anova(m, m.update(data=more))
    probit = m.update(family=me.families.Binomial("probit"))
    with pytest.raises(me.ModelError, match=r"binomial \(logit\) and binomial \(probit\)"):
        me.anova(m, probit)
    both = me.compare(m, probit)
    assert "binomial (probit)" in repr(both)


def test_families_of_counts_compare_and_densities_do_not_with_them() -> None:
    m = ticks()
    poisson = m.update(family="poisson")
    table = me.compare(m, poisson).table
    assert table.index[0] == "m1"
    assert table.loc["m2", "npar"] == table.loc["m1", "npar"] - 1
    data = me.load_dataset("grouseticks").query("TICKS > 0")
    one = me.glmer("TICKS ~ cHEIGHT + (1 | BROOD)", data, family="poisson")
    other = one.update(family=me.families.Gamma("log"))
    with pytest.raises(me.ModelError, match="probabilities and densities do not compare"):
        me.compare(one, other)


def test_weights_that_differ_do_not_compare() -> None:
    m = nested()
    with pytest.raises(me.ModelError, match="different prior weights in 360 of 360 rows"):
        me.anova(m, m.update("~ . - x", weights=None))


# --- intervals ------------------------------------------------------------------------------------


def test_wald_intervals_are_those_of_glmmTMB() -> None:
    table = cbpp().confint()
    for name, bounds in R["cbpp"]["wald"].items():
        row = "sd_(Intercept)|herd" if name.startswith("Std") else name
        np.testing.assert_allclose(table.loc[row], bounds, atol=2e-5)


def test_wald_intervals_of_a_slope_and_of_theta() -> None:
    table, wanted = contraception(True).confint(), R["contraception"]["wald"]
    for name, row in [
        ("Std.Dev.(Intercept)|district", "sd_(Intercept)|district"),
        ("Std.Dev.urbanY|district", "sd_urbanY|district"),
        ("urbanY:livch2", "urbanY:livch2"),
    ]:
        np.testing.assert_allclose(table.loc[row], wanted[name], atol=1e-4)
    table = ticks().confint()
    np.testing.assert_allclose(table.loc["theta"], R["grouseticks"]["wald_theta"], rtol=1e-4)
    for name in ("cHEIGHT", "YEAR96"):
        np.testing.assert_allclose(table.loc[name], R["grouseticks"]["wald"][name], rtol=1e-4)


def test_the_wald_interval_of_a_correlation_by_differences() -> None:
    """Fisher's z by the delta method, with the joint Hessian from differences in other units."""
    m = contraception(True)
    names = ["sd_(Intercept)|district", "cor_urbanY.(Intercept)|district", "sd_urbanY|district"]
    at = np.concatenate([m.covariance_parameters[names].to_numpy(), m.fixef.to_numpy()])
    at[1] = np.arctanh(at[1])

    def criterion(x: Matrix) -> float:
        r = np.tanh(x[1])
        theta = [x[0], r * x[2], np.sqrt(1.0 - r * r) * x[2]]
        return -2.0 * float(m.loglik_at(theta, x[3:]))

    step = np.full(len(at), 0.01)
    step[3:] = 0.05 * m.se.to_numpy()
    H = np.empty((len(at), len(at)))
    for i in range(len(at)):
        for j in range(i + 1):
            a, b = np.eye(len(at))[i] * step, np.eye(len(at))[j] * step
            corners = [criterion(at + s * a + t * b) for s in (1, -1) for t in (1, -1)]
            H[i, j] = H[j, i] = (corners[0] - corners[1] - corners[2] + corners[3]) / (
                4.0 * step[i] * step[j]
            )
    error = np.sqrt(2.0 * np.linalg.inv(H)[1, 1])
    ends = np.tanh(at[1] + np.array([-1.0, 1.0]) * scipy.stats.norm.ppf(0.975) * error)
    np.testing.assert_allclose(m.confint().loc[names[1]], ends, atol=2e-3)


def test_intervals_beside_a_singular_covariance() -> None:
    data = me.load_dataset("grouseticks")
    m = me.glmer("TICKS ~ cHEIGHT + (1 | BROOD) + (1 | LOCATION)", data, family="negative_binomial")
    assert m.covariance_parameters["sd_(Intercept)|LOCATION"] == 0.0
    assert m.confint().loc["sd_(Intercept)|LOCATION"].isna().all()
    assert m.confint().drop("sd_(Intercept)|LOCATION").notna().all(axis=None)
    profiled = m.confint("profile", "sd_(Intercept)|LOCATION").iloc[0]
    assert profiled["lower"] == 0.0
    sd = profiled["upper"]
    held = m.profile("sd_(Intercept)|LOCATION", 0.95)
    assert held.zeta("sd_(Intercept)|LOCATION", sd) ** 2 == pytest.approx(HALF, abs=1e-5)


def test_intervals_of_a_structure() -> None:
    m = me.glmer("y ~ x + cs(x | room)", _nested_data(), family="poisson")
    table = m.confint()
    assert [name for name in table.index if "|" in name] == list(m.covariance_parameters.index)
    free = m.update("y ~ x + (x | room)").confint()
    own, other = table.filter(regex="^sd_", axis=0), free.filter(regex="^sd_", axis=0)
    np.testing.assert_allclose(own.to_numpy(), other.to_numpy(), rtol=1e-4)


# --- profile likelihood ---------------------------------------------------------------------------


def test_profile_intervals_are_those_of_glmmTMB() -> None:
    table = cbpp().confint("profile")
    wanted = dict(R["cbpp"]["uniroot"])
    wanted["sd_(Intercept)|herd"] = np.exp(wanted.pop("theta_1|herd.1"))
    for name, bounds in wanted.items():
        np.testing.assert_allclose(table.loc[name], bounds, atol=3e-5)


def test_profile_intervals_by_quadrature_are_those_of_lme4() -> None:
    table = cbpp(7).confint("profile")
    wanted = dict(R["cbpp_quadrature"]["profile"])
    wanted["sd_(Intercept)|herd"] = wanted.pop(".sig01")
    for name, bounds in wanted.items():
        np.testing.assert_allclose(table.loc[name], bounds, atol=5e-6)


def test_profile_intervals_of_counts_are_those_of_glmmTMB() -> None:
    table = ticks().confint("profile", "fixed")
    for name in ("(Intercept)", "cHEIGHT", "YEAR96", "YEAR97"):
        np.testing.assert_allclose(table.loc[name], R["grouseticks"]["uniroot"][name], atol=4e-5)


def test_a_profile_of_theta_is_fits_with_theta_known() -> None:
    m = ticks()
    table = m.confint("profile", "theta")
    for end in table.loc["theta"]:
        held = m.update(family=me.families.NegativeBinomial(theta=end))
        assert held.criterion - m.criterion == pytest.approx(HALF, abs=1e-5)


def test_a_profile_of_a_coefficient_is_fits_with_an_offset() -> None:
    data = me.load_dataset("grouseticks")
    m = ticks()
    for end in m.confint("profile", "cHEIGHT").loc["cHEIGHT"]:
        offset = end * data["cHEIGHT"].to_numpy()
        held = m.update("~ . - cHEIGHT", data=data, offset=offset)
        assert held.criterion - m.criterion == pytest.approx(HALF, abs=1e-5)


def _dense_laplace(m: Any, sd: Matrix, r: float, beta: Matrix) -> float:
    """Laplace's -2 log L of a Poisson model with correlated intercepts and slopes, dense."""
    y, X = m.frame.y, m.frame.X
    (term,) = m.frame.terms
    n, levels = len(y), term.n_levels
    G = np.array([[sd[0] ** 2, r * sd[0] * sd[1]], [r * sd[0] * sd[1], sd[1] ** 2]])
    L = np.linalg.cholesky(G + 1e-300 * np.eye(2))
    Z = np.zeros((n, 2 * levels))
    for j in range(2):
        Z[np.arange(n), 2 * term.codes + j] = term.z[:, j]
    ZL = Z @ np.kron(np.eye(levels), L)
    u = np.zeros(2 * levels)
    for _ in range(60):
        mu = np.exp(X @ beta + ZL @ u)
        M = ZL.T @ (mu[:, None] * ZL) + np.eye(2 * levels)
        step = np.linalg.solve(M, ZL.T @ (y - mu) - u)
        u = u + step * min(1.0, 2.0 / np.abs(step).max())
        if np.abs(step).max() < 1e-11:
            break
    mu = np.exp(X @ beta + ZL @ u)
    M = ZL.T @ (mu[:, None] * ZL) + np.eye(2 * levels)
    f = -2.0 * float(scipy.stats.poisson.logpmf(y, mu).sum()) + float(u @ u)
    return f + float(np.linalg.slogdet(M)[1])


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("sd_(Intercept)|room", [0.3, 0.8]),
        ("sd_x|room", [0.0, 0.45]),
        ("cor_x.(Intercept)|room", [-0.6, 0.5]),
    ],
)
def test_profiles_by_brute_force(name: str, values: list[float]) -> None:
    """Every point is the minimum of a dense criterion over everything else."""
    m = me.glmer("y ~ x + (x | room)", _nested_data(), family="poisson")
    profile = m.profile(name, 0.9)
    sd = m.covariance_parameters
    start = np.array([sd["sd_(Intercept)|room"], sd["cor_x.(Intercept)|room"], sd["sd_x|room"]])
    place = list(sd.index).index(name)
    for value in values:

        def deviance(free: Matrix, value: float = value) -> float:
            inner = np.insert(free[:2], place, 0.0)
            s0, r, s1 = np.exp(inner[0]), np.tanh(inner[1]), np.exp(inner[2])
            own = [s0, r, s1]
            own[place] = max(value, 1e-9) if place != 1 else value
            return _dense_laplace(m, np.array([own[0], own[2]]), own[1], free[2:])

        scales = np.array([np.log(start[0]), np.arctanh(start[1]), np.log(start[2])])
        first = np.concatenate([np.delete(scales, place), m.fixef.to_numpy()])
        found = scipy.optimize.minimize(
            deviance, first, method="BFGS", options={"gtol": 1e-4, "maxiter": 200}
        )
        zeta = profile.zeta(name, value)
        assert zeta**2 == pytest.approx(found.fun - m.criterion, abs=3e-6)


def test_profiles_and_criteria_go_over_rows_sorted_by_level(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a design whose rows are in another order too, and every time."""
    m = me.glmer("y ~ x + (x | room)", _nested_data(), family="poisson")
    rows, passes = GeneralizedDesign.rows, 0

    def checked(self: GeneralizedDesign, *given: Any, **named: Any) -> RowTerms:
        nonlocal passes
        passes += 1
        assert (np.diff(self.codes_of(0)) >= 0).all()
        return rows(self, *given, **named)

    monkeypatch.setattr(GeneralizedDesign, "rows", checked)
    assert m.loglik_at(m.theta, m.fixef) == pytest.approx(m.loglik, abs=1e-9)
    assert passes > 0
    for name in ("x", "sd_x|room", "cor_x.(Intercept)|room"):
        passes = 0
        m.profile(name, 0.9)
        assert passes > 0
    passes = 0
    assert m.laplace_check() is not None
    assert passes > 0


def test_a_profile_says_what_it_is_and_gives_its_points() -> None:
    m = cbpp()
    profile = m.profile(["period2", "sd_(Intercept)|herd"], 0.95)
    assert profile.parameters == ["sd_(Intercept)|herd", "period2"]
    assert profile.criterion == pytest.approx(m.criterion)
    points = profile.to_frame()
    at = points[points["parameter"] == "period2"].iloc[0]
    again = m.loglik_at(
        [at["sd_(Intercept)|herd"]],
        at[["(Intercept)", "period2", "period3", "period4"]].to_numpy(float),
    )
    assert -2.0 * again == pytest.approx(at["deviance"], abs=1e-8)
    assert at["period2"] == at["value"]
    with pytest.raises(me.ModelError, match="There is no parameter 'sigma'"):
        m.profile("sigma")


def test_a_theta_that_may_be_infinite_has_no_upper_end() -> None:
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"g": np.repeat(np.arange(40), 10), "x": rng.normal(size=400)})
    effect = 0.6 * rng.normal(size=40)[data["g"]]
    data["y"] = rng.poisson(np.exp(0.3 + 0.5 * data["x"] + effect))
    m = me.glmer("y ~ x + (1 | g)", data, family="negative_binomial")
    poisson = m.update(family="poisson")
    assert 0.0 < poisson.criterion - m.criterion < HALF
    table = m.confint("profile", "theta")
    assert 0.0 < table.loc["theta", "lower"] < m.phi
    assert table.loc["theta", "upper"] == np.inf
    assert "no upper end" in str(table)


# --- bootstrap ------------------------------------------------------------------------------------


def test_a_draw_is_a_refit_to_a_simulated_response() -> None:
    m = ticks()
    boot = m.bootstrap(4, seed=5)
    simulated = m.simulate(4, seed=5)
    again = m.refit(simulated["sim_3"])
    own = [*again.covariance_parameters, again.phi, *again.fixef]
    np.testing.assert_allclose(boot.draws.iloc[2], own, rtol=1e-6)
    assert list(boot.draws) == [
        "sd_(Intercept)|BROOD",
        "theta",
        "(Intercept)",
        "cHEIGHT",
        "YEAR96",
        "YEAR97",
    ]
    np.testing.assert_allclose(boot.estimates.iloc[1], m.phi)


def test_a_bootstrap_goes_on_where_it_was() -> None:
    m = cbpp()
    whole, first = m.bootstrap(12, seed=2), m.bootstrap(5, seed=2)
    pd.testing.assert_frame_equal(first.resume(12).draws, whole.draws)
    assert whole.confint().shape == (5, 2)


def test_what_is_done_stays_after_an_interruption() -> None:
    m = cbpp()

    def stop(line: Any) -> None:
        if line.done >= 3:
            raise KeyboardInterrupt

    with pytest.raises(me.Interrupted) as stopped:
        m.bootstrap(2_000, seed=1, progress=stop)
    partial = stopped.value.partial
    done = len(partial.draws)
    assert 3 <= done < 2_000
    rest = partial.resume(done + 2)
    pd.testing.assert_frame_equal(rest.draws, m.bootstrap(done + 2, seed=1).draws)


def test_a_statistic_gets_a_model() -> None:
    m = cbpp()
    boot = m.bootstrap(3, seed=1, statistic=lambda each: each.ranef()["herd"].iloc[0, 0])
    again = m.refit(m.simulate(3, seed=1)["sim_2"])
    assert boot.draws.iloc[1, 0] == pytest.approx(again.ranef()["herd"].iloc[0, 0], abs=1e-6)


def test_a_draw_with_separation_is_a_refit_that_failed() -> None:
    rng = np.random.default_rng(0)
    n = 60
    data = pd.DataFrame({"g": np.repeat(np.arange(12), 5), "rare": np.arange(n) < 6})
    data["y"] = rng.random(n) < 0.5
    data.loc[:5, "y"] = [True, True, True, True, True, False]
    m = me.glmer("y ~ rare + (1 | g)", data, family="binomial")
    boot = m.bootstrap(30, seed=1)
    Y = m.simulate(30, seed=1).to_numpy()[:6]
    separated = (Y[0] == Y).all(axis=0)
    assert 0 < separated.sum() < 30
    np.testing.assert_array_equal(boot.draws.isna().any(axis=1), separated)
    assert boot.n_failed == separated.sum()


# --- the sandwich ---------------------------------------------------------------------------------


def _gamma() -> Any:
    data = _nested_data()
    data["y"] = data["y"] + 0.5
    return me.glmer("y ~ x + (1 | room)", data, family=me.families.Gamma("log"), weights="w")


CASES = {
    "one factor": lambda: (cbpp(), "herd"),
    "slopes nested in another factor, weights, theta": lambda: (nested(), "school"),
    "poisson, nested": lambda: (nested("poisson"), "school"),
    "dispersion, clusters above the levels": lambda: (_gamma(), "school"),
    "quadrature": lambda: (cbpp(7), "herd"),
    "quadrature of slopes": lambda: (
        me.glmer("y ~ x + (x | room)", _nested_data(), family="poisson", nagq=5),
        "school",
    ),
}


def _scores(m: Any, cluster: str) -> tuple[Matrix, NDArray[np.int64]]:
    from mixedeffects.inference.cluster_factor import read_cluster

    factor = read_cluster(m.fit, cluster)
    found = m.fit.found
    return (
        cluster_scores(found.evaluation, found.joint, factor.codes, factor.n_levels),
        factor.codes,
    )


@pytest.mark.parametrize("case", CASES)
def test_scores_of_clusters_sum_to_the_gradient(case: str) -> None:
    m, cluster = CASES[case]()
    scores, _ = _scores(m, cluster)
    found = m.fit.found
    here = found.evaluation
    directions = zip(here.score, found.joint.directions, strict=True)
    whole = [sum(np.einsum("ab,rab->r", F, D) for F, D in directions), here.beta_gradient]
    if found.phi is not None:
        whole.append(np.array([here.phi_gradient]))
    size = np.abs(scores).sum(axis=0)
    assert np.abs(scores.sum(axis=0) - np.concatenate(whole)).max() < 1e-12 * size.max()
    assert size.min() > 0.0


def _alone(m: Any, rows: NDArray[np.bool_]) -> Any:
    """The criterion of some rows alone, at changes of the coordinates of the joint Hessian."""
    found = m.fit.found
    joint, design, frame = found.joint, found.design, m.frame
    terms = []
    for term in frame.terms:
        own, codes = np.unique(term.codes[rows], return_inverse=True)
        grouping = [t.group for t in frame.terms].index(term.group)
        terms.append(
            EngineTerm(
                codes.astype(np.int32), len(own), np.ascontiguousarray(term.z[rows]), grouping
            )
        )
    response = frame.response

    def some(values: Matrix | None) -> Matrix | None:
        return None if values is None else values[rows]

    own_response = Response(response.y[rows], some(response.trials), some(response.weights))
    # Columns may be collinear within a cluster: the basis is that of the identity then.
    X = np.ascontiguousarray(frame.X[rows])
    offset = X @ found.beta
    small = GeneralizedDesign(
        terms, np.empty((len(X), 0)), own_response, design.family, offset=offset
    )

    def criterion(x: Matrix) -> float:
        S = []
        for C, T, D in zip(design.basis.terms, found.T, joint.directions, strict=True):
            own = T @ T.T + np.tensordot(x[: joint.n_covariance], D, axes=1)
            S.append(C @ own @ C.T)
        beta = design.basis.fixed @ x[joint.fixed]
        moved = small.changed(offset=offset + X @ beta)
        T = [small.basis.engine_factor(t, np.linalg.cholesky(own)) for t, own in enumerate(S)]
        phi = found.evaluation.phi + (x[-1] if found.phi is not None else 0.0)
        return float(evaluate_criterion(moved, T, np.empty(0), phi, nodes=found.nagq).criterion)

    return criterion


def _of_levels(m: Any, number: int, codes: NDArray[np.int64]) -> Any:
    """The same by quadrature, whose grid turns with the basis: levels of the whole design."""
    found = m.fit.found
    joint, design = found.joint, found.design
    (term,) = m.frame.terms
    levels = np.unique(term.codes[codes == number])

    def criterion(x: Matrix) -> float:
        T = [
            np.linalg.cholesky(own @ own.T + np.tensordot(x[: joint.n_covariance], D, axes=1))
            for own, D in zip(found.T, joint.directions, strict=True)
        ]
        beta = found.evaluation.beta + x[joint.fixed]
        at = evaluate_laplace(design, T, beta, 0.0, near=found.evaluation)
        return float(quadrature_parts(at, found.nagq).criterion[levels].sum())

    return criterion


@pytest.mark.parametrize("case", CASES)
def test_a_cluster_alone_has_its_score_as_derivative(case: str) -> None:
    m, cluster = CASES[case]()
    scores, codes = _scores(m, cluster)
    weights = np.array([45.0, -9.0, 1.0]) / 60.0
    size = np.abs(scores).max()
    for number in (0, 3):
        by_levels = m.nagq > 1
        criterion = _of_levels(m, number, codes) if by_levels else _alone(m, codes == number)
        for j in range(scores.shape[1]):
            step = np.zeros(scores.shape[1])
            found = 0.0
            for k, weight in enumerate(weights, start=1):
                step[j] = 2e-3 * k
                found += weight * (criterion(step) - criterion(-step)) / 2e-3
            assert abs(scores[number, j] - found) < 2e-9 * max(size, 1.0)


def test_the_sandwich_is_made_of_scores_and_the_joint_hessian() -> None:
    m = nested()
    scores, _ = _scores(m, "school")
    found = m.fit.found
    C = found.joint.covariance
    meat = scores.T @ scores / 4.0
    at, Q = found.joint.fixed, found.design.basis.fixed
    wanted = Q @ (C @ meat @ C)[at, at] @ Q.T
    np.testing.assert_allclose(m.vcov("CR0", cluster="school"), wanted, rtol=1e-10)
    np.testing.assert_allclose(m.vcov("CR1", cluster="school"), wanted * 9.0 / 8.0, rtol=1e-10)
    robust = m.robust("CR0")
    assert robust.cluster == ("school",)
    np.testing.assert_allclose(robust.vcov, wanted, rtol=1e-10)
    assert np.abs(robust.scores.sum()).max() < 1e-4


def test_tests_take_the_sandwich() -> None:
    m = nested()
    robust = m.robust("CR1")
    table = m.coef_table("CR1")
    np.testing.assert_allclose(table["Std. Error"], robust.se)
    np.testing.assert_allclose(table["z value"], m.fixef / robust.se)
    assert m.wald("x", "CR1").statistic == pytest.approx(table.loc["x", "z value"] ** 2)
    assert m.anova(vcov="CR1").loc["x", "Chisq"] == pytest.approx(table.loc["x", "z value"] ** 2)
    assert m.contrast("x", "CR1").loc["x", "Std. Error"] == pytest.approx(robust.se["x"])
    assert robust.test("x").statistic == pytest.approx(table.loc["x", "z value"] ** 2)
    ends = m.confint(vcov="CR1").loc["x"]
    np.testing.assert_allclose(ends, robust.table.loc["x", ["lower", "upper"]].astype(float))


def test_what_has_no_scores_is_refused() -> None:
    data = me.load_dataset("grouseticks")
    m = me.glmer("TICKS ~ cHEIGHT + (1 | BROOD) + (1 | YEAR)", data, family="poisson")
    with pytest.raises(me.ModelError, match="The likelihood is no product over these clusters"):
        m.robust(cluster="BROOD")
    with pytest.raises(me.ModelError, match="'CR2' is not there for generalized models"):
        m.robust("CR2")
    with pytest.raises(me.ModelError, match="'CR3' is not there for generalized models"):
        m.coef_table("CR3")
    with pytest.raises(me.ModelError, match="Multiway clusters are for linear models"):
        m.robust(cluster=["BROOD", "YEAR"])
    with pytest.raises(me.ModelError, match="cluster= is for robust covariance matrices"):
        m.vcov("model", cluster="YEAR")


def test_a_coefficient_of_one_cluster_has_no_robust_variance() -> None:
    data = _nested_data()
    data["first"] = (data["school"] == 0).astype(float)
    m = me.glmer("y ~ x + first + (1 | school)", data, family="poisson")
    with pytest.warns(me.ClusterWarning, match="determine 'first' one by one"):
        robust = m.robust()
    assert np.isnan(robust.se["first"])
    assert np.isfinite(robust.se["x"])
    with pytest.raises(me.ModelError, match="The variance of these contrasts is not known"):
        robust.test("first")
