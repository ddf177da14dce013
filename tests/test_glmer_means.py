"""Marginal means of generalized models: against R's emmeans, predictions and definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats
from matplotlib.figure import Figure

import mixedeffects as me
from generalized_references import model_data
from test_glmer import fitted, simulated
from test_glmer_prediction import MODELS, r_predictions


def _numbers(table: Any, names: tuple[str, ...]) -> list[np.ndarray]:
    return [np.atleast_1d(np.asarray(table[name], dtype=float)) for name in names]


@pytest.mark.parametrize("name", MODELS)
def test_means_and_comparisons_are_those_of_emmeans(name: str) -> None:
    m, answer = fitted(name), r_predictions()[name]
    for kind in ("link", "response"):
        means = m.emmeans(answer["specs"], type=kind)
        theirs = answer[f"emmeans_{kind}"]
        column = next(each for each in ("emmean", "prob", "response") if each in theirs)
        estimate, se = _numbers(theirs, (column, "SE"))
        own = means.to_frame()
        assert "df" not in own
        assert own["estimate"].to_numpy() == pytest.approx(estimate, rel=3e-5)
        assert own["std_error"].to_numpy() == pytest.approx(se, rel=1e-4)
        theirs = answer[f"pairs_{kind}"]
        column = next(each for each in ("odds.ratio", "ratio", "estimate") if each in theirs)
        estimate, se, z = _numbers(theirs, (column, "SE", "t.ratio"))
        own = means.contrasts().to_frame()
        assert own["estimate"].to_numpy() == pytest.approx(estimate, rel=1e-3, abs=1e-5)
        assert own["std_error"].to_numpy() == pytest.approx(se, rel=1e-4)
        assert own["statistic"].to_numpy() == pytest.approx(z, rel=1e-3, abs=1e-5)
        sign = " / " if column != "estimate" else " - "
        assert all(sign in each for each in own["contrast"])


def test_intervals_come_from_the_link() -> None:
    m = fitted("cbpp")
    link, own = (
        m.emmeans("period", type=kind, level=0.9).to_frame() for kind in ("link", "response")
    )
    half = scipy.stats.norm.ppf(0.95) * link["std_error"]
    expit = m.family.link.inverse
    assert own["conf_low"].to_numpy() == pytest.approx(expit(link["estimate"] - half).to_numpy())
    assert own["conf_high"].to_numpy() == pytest.approx(expit(link["estimate"] + half).to_numpy())
    ratios = m.emmeans("period").contrasts(adjust="none")
    assert "ratios of the odds of incidence" in repr(ratios)
    assert "for random effects of zero" in repr(m.emmeans("period"))
    robust = m.emmeans("period", type="link", vcov="CR1").to_frame()["std_error"]
    L = m.emmeans("period").L.to_numpy()
    assert robust.to_numpy() == pytest.approx(np.sqrt(np.diag(L @ m.vcov("CR1").to_numpy() @ L.T)))


def test_exposure_and_offset_are_part_of_the_grid() -> None:
    m, data = simulated("poisson")
    own = m.emmeans("f", at={"x": 0.5}).to_frame()["estimate"].to_numpy()
    new = {
        "f": ["a", "b", "c"],
        "x": [0.5] * 3,
        "known": [data["known"].mean()] * 3,
        "hours": [data["hours"].mean()] * 3,
    }
    assert own == pytest.approx(m.predict(new, re=None).to_numpy())
    by_values = m.update(exposure=data["hours"].to_numpy())
    shifted = by_values.emmeans("f", at={"x": 0.5}, type="link").to_frame()["estimate"].to_numpy()
    difference = np.log(data["hours"]).mean() - np.log(data["hours"].mean())
    assert shifted == pytest.approx(np.log(own) + difference, abs=1e-5)


def test_population_averages_are_those_of_predict() -> None:
    for m, specs, new in (
        (fitted("cbpp"), "period", {"period": ["1", "2", "3", "4"]}),
        (fitted("beta_slope"), "t", {"t": ["a", "b"], "x": [0.3, 0.3]}),
    ):
        at = {"x": 0.3} if "x" in new else None
        own = m.emmeans(specs, at=at, marginal=True)
        expected = m.predict(new, marginal=True, interval="confidence")
        names = ["estimate", "std_error", "conf_low", "conf_high"]
        found = own.to_frame()[names].to_numpy()
        assert found == pytest.approx(np.asarray(expected[names]), rel=1e-6)
    curve = fitted("beta_slope").effects("x", at={"x": [-1.0, 1.0]}, by="t", marginal=True)
    assert (curve.to_frame()["estimate"].between(0.0, 1.0)).all()
    with pytest.raises(me.ModelError, match="averages means"):
        fitted("cbpp").emmeans("period", type="link", marginal=True)


def test_trends_are_slopes_of_the_linear_predictor() -> None:
    m = fitted("cake_gamma")
    table = m.emtrends("recipe", "temp").to_frame()
    beta = m.fixef
    expected = [
        beta["temp"],
        beta["temp"] + beta["recipeB:temp"],
        beta["temp"] + beta["recipeC:temp"],
    ]
    assert table["estimate"].to_numpy() == pytest.approx(expected, rel=1e-6)
    assert "on the scale of the link, log" in repr(table)


def test_names_of_means() -> None:
    left = "cbind(incidence, size - incidence)"
    m = me.glmer(f"{left} ~ period + (1 | herd)", me.load_dataset("cbpp"), family="binomial")
    assert m.emmeans("period").scale.shown == "probability of incidence"
    women = me.load_dataset("contraception")
    m = me.glmer("use ~ urban + (1 | district)", women, family="binomial")
    assert m.emmeans("urban").scale.shown == "probability of use = Y"
    m = me.glmer("use == 'Y' ~ urban + (1 | district)", women, family="binomial")
    assert m.emmeans("urban").scale.shown == 'probability of use == "Y"'
    assert fitted("owls_nb").emmeans("SexParent").scale.shown == "mean of SiblingNegotiation"


def test_effect_sizes_are_refused() -> None:
    with pytest.raises(me.ModelError, match="standard deviation"):
        fitted("cbpp").emmeans("period").contrasts().effect_size()


def test_pictures() -> None:
    ticks = me.load_dataset("grouseticks")
    m = me.glmer("TICKS ~ cHEIGHT + YEAR + (1 | BROOD)", ticks, family="poisson")
    curve = m.effects(["cHEIGHT", "YEAR"])
    ax = curve.plot(Figure().subplots(), data=True, groups=5)
    assert ax.get_ylabel() == "mean of TICKS"
    on_link = m.effects("cHEIGHT", type="link")
    on_link.plot(Figure().subplots(), data="partial")
    with pytest.raises(me.ModelError, match="not on the scale of the link"):
        on_link.plot(Figure().subplots(), data=True)
    from mixedeffects.inference.effects_rows import row_points
    from mixedeffects.inference.means_layout import layout_of

    means = curve.means
    layout = layout_of(means.levels, means.by)
    raw = row_points(m.fit, means, layout, "raw")
    assert np.sort(raw.y) == pytest.approx(np.sort(m.y))
    partial = row_points(m.fit, on_link.means, layout_of(on_link.means.levels, ()), "partial")
    expected = m.fixef["cHEIGHT"] * model_data("grouseticks")["cHEIGHT"] + m.resid("working")
    centred = partial.y - expected.to_numpy()
    assert centred == pytest.approx(np.full(len(centred), centred[0]), abs=1e-6)


# --- variance explained ----------------------------------------------------------------


def test_variance_explained_by_its_definition() -> None:
    m = fitted("cbpp")
    fixed = np.var(m.X @ m.fixef.to_numpy(), ddof=1)
    random, latent = m.theta[0] ** 2, np.pi**2 / 3.0
    total = fixed + random + latent
    assert m.icc().adjusted == pytest.approx(random / (random + latent))
    assert m.icc().unadjusted == pytest.approx(random / total)
    assert m.r2().marginal == pytest.approx(fixed / total)
    assert m.r2().conditional == pytest.approx((fixed + random) / total)
    null = m.update("~ . - period")
    p = null.predict(marginal=True).iloc[0]
    delta = 1.0 / (p * (1.0 - p))
    assert m.icc(method="delta").adjusted == pytest.approx(random / (random + delta), rel=1e-5)
    assert m.icc(by_group=True).by_group["herd"] == pytest.approx(m.icc().adjusted)
    with pytest.raises(me.ModelError, match="is not defined for the binomial"):
        m.r2("trigamma")
    with pytest.raises(me.ModelError, match="method"):
        m.r2("other")


def test_variance_explained_of_counts() -> None:
    from scipy.special import polygamma

    m = fitted("owls_nb")
    null = m.update("~ . - FoodTreatment * SexParent")
    offset = float(m.frame.offset.mean())
    mean = np.exp(null.fixef.iloc[0] + offset + null.theta[0] ** 2 / 2.0)
    inner = 1.0 / mean + 1.0 / m.phi
    expected = {
        "delta": inner,
        "lognormal": np.log1p(inner),
        "trigamma": float(polygamma(1, 1.0 / inner)),
    }
    for method, latent in expected.items():
        found = m.icc(method=method)
        assert found.variances.residual == pytest.approx(latent, rel=1e-4)
    assert m.icc().adjusted == m.icc(method="lognormal").adjusted


def test_effects_of_single_rows_count_with_the_residual() -> None:
    m = fitted("grouseticks")
    v = m.icc(by_group=True)
    assert list(v.by_group.index) == ["BROOD", "LOCATION"]
    assert v.variances.residual > m.G["INDEX"].iloc[0, 0]
    assert "INDEX, which has a level for each row" in repr(v)


def test_random_slopes_by_their_mean_variance() -> None:
    m = fitted("beta_slope")
    z = m.frame.terms[0].z
    G = m.G["g"].to_numpy()
    mean = np.einsum("ia,ab,ib->i", z, G, z).mean()
    assert float(m.icc().variances.random.sum()) == pytest.approx(mean)


@pytest.mark.parametrize("marginal", [False, True])
def test_robust_standard_errors_of_means_are_those_of_predict(marginal: bool) -> None:
    m, new = fitted("cbpp"), {"period": ["1", "2", "3", "4"]}
    names = ["estimate", "std_error", "conf_low", "conf_high"]
    how = {"re": None, "interval": "confidence", "marginal": marginal}
    errors = []
    for vcov in ("model", "conditional", "CR0", "CR1"):
        own = m.emmeans("period", vcov=vcov, marginal=marginal).to_frame()
        expected = m.predict(new, vcov=vcov, **how)
        assert own[names].to_numpy() == pytest.approx(np.asarray(expected[names]), rel=1e-6)
        errors.append(own["std_error"].to_numpy())
    n = m.ngroups["herd"]
    assert errors[3] == pytest.approx(errors[2] * np.sqrt(n / (n - 1.0)))
    assert not np.allclose(errors[0], errors[3], rtol=1e-3)
    assert not np.allclose(errors[0], errors[1], rtol=1e-4)


def test_contrasts_of_averages_are_differences_by_the_delta_method() -> None:
    m = fitted("cbpp")
    means = m.emmeans("period", marginal=True)
    risks = means.to_frame()["estimate"].to_numpy()
    found = means.contrasts("trt.vs.ctrl", adjust="none")
    table = found.to_frame()
    assert table["contrast"].tolist() == ["2 - 1", "3 - 1", "4 - 1"]
    assert table["estimate"].to_numpy() == pytest.approx(risks[1:] - risks[0])
    assert "differences of the probability of incidence, averaged over" in repr(found)
    assert "estimates are the probability" not in repr(found)

    # The same by numerical derivatives in the fixed effects and the standard deviation.
    def risk(beta: np.ndarray, sd: float, period: int) -> float:
        at = np.linspace(-8.0, 8.0, 400)
        weight = np.exp(-0.5 * at**2)
        eta = beta[0] + (beta[period] if period else 0.0) + sd * at
        return float(weight @ (1.0 / (1.0 + np.exp(-eta))) / weight.sum())

    beta, sd = m.fixef.to_numpy(), float(m.theta[0])
    held = m.emmeans("period", marginal=True, vcov="conditional").contrasts(
        "trt.vs.ctrl", adjust="none"
    )
    step, gradient = 1e-5, np.zeros(4)
    for j in range(4):
        moved = np.zeros(4)
        moved[j] = step
        ends = [risk(beta + s * moved, sd, 1) - risk(beta + s * moved, sd, 0) for s in (-1.0, 1.0)]
        gradient[j] = (ends[1] - ends[0]) / (2.0 * step)
    known = np.sqrt(gradient @ m.vcov("conditional").to_numpy() @ gradient)
    assert held.to_frame()["std_error"].iloc[0] == pytest.approx(known, rel=1e-5)
    assert table["std_error"].iloc[0] == pytest.approx(known, rel=0.1)


def test_pictures_of_averages_have_letters_and_arrows() -> None:
    means = fitted("cbpp").emmeans("period", marginal=True)
    assert means.letters()["letters"].iloc[0] != means.letters()["letters"].iloc[3]
    ax = means.plot(Figure().subplots(), letters=True, arrows=True)
    assert "arrows" in ax.get_title(loc="left") + "".join(t.get_text() for t in ax.texts)
