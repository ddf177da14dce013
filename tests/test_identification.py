"""What the data cannot determine is said at the fit, and nothing else is."""

from __future__ import annotations

import json
import warnings
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
from numpy.testing import assert_allclose
from numpy.typing import NDArray

import mixedeffects as me
from mixedeffects.covariance.roots import covariance_root
from mixedeffects.engine.basis import lower_factor
from mixedeffects.engine.identification import (
    Design,
    may_be_undetermined,
    undetermined_directions,
)
from mixedeffects.engine.parameters import lower_entries
from mixedeffects.fitting.assembly import engine_terms
from references import MODELS, fitted_model

Matrix = NDArray[np.float64]


def flat_fit(formula: str, data: pd.DataFrame, **options: object) -> me.LinearMixedModel:
    with pytest.warns(me.IdentifiabilityWarning):
        return me.lmer(formula, data, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    site, plot = np.repeat(np.arange(4), 30), np.repeat(np.arange(12), 10)
    d = pd.DataFrame(
        {
            "site": [f"s{i}" for i in site],
            "plot": np.tile(np.repeat(list("abc"), 10), 4),
            "unit": plot.astype(str),
            "arm": np.where(plot % 2, "A", "B"),
            "x": rng.normal(size=120),
            "t": np.tile(np.arange(10.0), 12),
            "f": np.tile(list("uvwuv"), 24),
        }
    )
    effects = rng.normal(size=4)[site] + 0.7 * rng.normal(size=12)[plot]
    return d.assign(y=effects + rng.normal(size=120) + 0.3 * d["x"])


# --- the verdict ----------------------------------------------------------------------------------


def dense_nullity(m: me.LinearMixedModel) -> int:
    """Dimension of the directions D with ``A'K_D A = 0``, from n x n matrices."""
    n = m.nobs
    contrasts = scipy.linalg.null_space(m.X.T) if m.reml and m.X.shape[1] else np.eye(n)
    weights = m.frame.weights
    K = [np.eye(n) if weights is None else np.diag(1.0 / weights)]
    for term in m.frame.terms:
        same = term.codes[:, None] == term.codes
        z = term.z / np.linalg.norm(term.z, axis=0) * np.sqrt(n)
        if term.structure == "us":
            z = np.linalg.qr(z)[0] * np.sqrt(n)
        for a, b in zip(*lower_entries(term.n_columns), strict=True):
            if term.structure == "us" or a == b:
                own = same * np.outer(z[:, a], z[:, b])
                K.append(0.5 * (own + own.T))
    sizes = [np.linalg.norm(each) for each in K]
    rows = [
        (contrasts.T @ each @ contrasts).ravel() / size if size > 1e-8 else np.zeros(1)
        for each, size in zip(K, sizes, strict=True)
    ]
    rows = [np.broadcast_to(row, rows[0].shape) for row in rows]
    return int((np.linalg.svd(np.array(rows), compute_uv=False) < 1e-7).sum())


FIXED = ["1", "x", "g", "g + x", "g * x", "arm", "f", "f + arm", "arm * f", "0", "g:h", "f * x"]
RANDOM = [
    "(1 | g)",
    "(x | g)",
    "(0 + arm | g)",
    "(arm | g)",
    "(f | g)",
    "(0 + f | g)",
    "(1 | g) + (0 + f | g)",
    "(x || g)",
    "(1 | g) + (1 | h)",
    "(1 | g/h)",
    "(x | g) + (1 | h)",
    "(0 + x | g) + (1 | g:h)",
    "(1 | g) + (1 | g:f)",
    "(1 | g:f) + (0 + f | g)",
    "(x | g) + (w | h)",
    "(x + w | g)",
    "(arm | h) + (1 | g)",
    "diag(0 + f | g) + (1 | g)",
    "(1 | g) + (1 | g:h) + (1 | h)",
    "(0 + f | g) + (1 | g:h)",
    "(1 | g) + (1 | nearly_g)",
    "(1 + w | g) + (0 + x | g)",
    "(f | g) + (1 | g:arm)",
]


def generated(seed: int) -> me.LinearMixedModel | None:
    """A small model, identified or not; None if it is refused."""
    rng = np.random.default_rng(seed)
    n, levels = int(rng.integers(16, 48)), int(rng.integers(2, 7))
    g = rng.integers(0, levels, n)
    g = np.sort(g) if rng.random() < 0.5 else g
    d = pd.DataFrame(
        {
            "g": g.astype(str),
            "x": rng.normal(size=n) if rng.random() < 0.6 else rng.integers(0, 3, n) * 1.0,
            "w": rng.normal(size=n),
            "h": rng.integers(0, int(rng.integers(2, 5)), n).astype(str),
            "f": rng.choice(list("uvw"[: int(rng.integers(2, 4))]), n),
            "arm": np.where(g % 2, "A", "B"),
            "weight": rng.uniform(0.5, 2.0, n),
        }
    )
    d["nearly_g"] = d["g"].where(np.arange(n) > 0, "other")
    d["y"] = rng.normal(size=n) + rng.normal(size=levels)[g]
    formula = f"y ~ {rng.choice(FIXED)} + {rng.choice(RANDOM)}"
    reml = bool(rng.random() < 0.65)
    weights = "weight" if rng.random() < 0.3 else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", me.ConvergenceWarning)
            return me.lmer(formula, d, reml=reml, weights=weights)
    except me.MixedEffectsError:
        return None


def check_generated(seeds: range) -> Counter[bool]:
    counts: Counter[bool] = Counter()
    for seed in seeds:
        m = generated(seed)
        if m is None:
            continue
        expected = dense_nullity(m)
        found = m.optimum.null_directions
        assert (0 if found is None else len(found)) == expected, (seed, m.formula, m.reml)
        assert bool(m.optimum.undetermined) == (expected > 0)
        assert len(m.optimum.reasons) > 0 or expected == 0
        # What is said to be open may be open, and what is said to be settled is.
        assert expected == 0 or may_be_undetermined(m.fit.crossproducts, m.optimum)
        design = Design(m.frame.X, tuple(engine_terms(m.frame.terms)), m.frame.weights)
        if m.reml:
            assert len(undetermined_directions(m.fit.crossproducts, m.optimum, design)) == expected
        counts[expected > 0] += 1
    return counts


def test_the_verdict_is_that_of_dense_algebra() -> None:
    counts = check_generated(range(10_000, 10_120))
    assert counts[True] > 25
    assert counts[False] > 50


@pytest.mark.slow
def test_the_verdict_is_that_of_dense_algebra_on_many_designs() -> None:
    counts = check_generated(range(2_000))
    assert counts[True] > 500
    assert counts[False] > 1_000


@pytest.mark.parametrize("name", sorted(MODELS))
def test_no_alarm_on_known_models(name: str) -> None:
    m = fitted_model(name)
    assert m.converged
    assert not m.optimum.undetermined
    assert m.optimum.null_directions is None


def test_along_a_null_direction_the_likelihood_is_constant(data: pd.DataFrame) -> None:
    """Halved and doubled where it is a variance, moved where it is a sum."""
    m = flat_fit("y ~ site + x + (1 | site/plot)", data)
    for factor in (0.01, 0.1):
        assert m.loglik_at(m.theta * [1.0, factor]) == pytest.approx(m.loglik, abs=1e-5)
    assert abs(m.loglik_at(m.theta * [2.0, 1.0]) - m.loglik) > 0.01
    m = flat_fit("y ~ x + (1 | unit) + (0 + f | unit)", data)
    intercept, factors = m.varcorr["unit"].to_numpy(), m.varcorr["unit.1"].to_numpy()
    for share in (0.3, 1.0):
        move = share * intercept[0, 0]
        root = covariance_root(factors + move)
        padded = np.hstack([root, np.zeros((3, 3 - root.shape[1]))])
        T = lower_factor(padded)[lower_entries(3)] / m.sigma
        sd = np.sqrt(intercept[0, 0] - move) / m.sigma
        assert m.loglik_at(np.append(sd, T)) == pytest.approx(m.loglik, abs=1e-6)


# --- what is said ---------------------------------------------------------------------------------

SAID = {
    "y ~ site + x + (1 | site)": (
        ["sd_(Intercept)|site"],
        "The fixed effects explain already .* Leave `(1 | site)` out",
    ),
    "y ~ 0 + site + (1 | site)": (["sd_(Intercept)|site"], "any value fits"),
    "y ~ site + x + (1 | site/plot)": (["sd_(Intercept)|site"], "Leave `(1 | site)` out"),
    "y ~ site * x + (x | site)": (
        ["sd_(Intercept)|site", "cor_x.(Intercept)|site", "sd_x|site"],
        "any values fit .* Leave `(x | site)` out",
    ),
    "y ~ site + x + (x | site)": (
        ["sd_(Intercept)|site", "cor_x.(Intercept)|site"],
        "Write `(0 + x | site)` in place of `(x | site)`",
    ),
    "y ~ arm + (0 + arm | unit)": (
        ["cor_armB.armA|unit"],
        "No level of `unit` has rows with both effects.* `diag(0 + arm | unit)`",
    ),
    "y ~ arm + (arm | unit)": (["cor_armB.(Intercept)|unit", "sd_armB|unit"], "one combination of"),
    "y ~ f + (1 | unit) + (0 + f | unit)": (
        None,
        "Leave `(1 | unit)` or `(0 + f | unit)` out",
    ),
    "y ~ x + (x | unit) + (t | unit)": (
        ["sd_(Intercept)|unit", "sd_(Intercept)|unit.1"],
        r"`(Intercept)` in `(x | unit)` or `(Intercept)` in `(t | unit)`",
    ),
}


@pytest.mark.parametrize("formula", SAID)
def test_the_warning_names_parameters_reason_and_cure(formula: str, data: pd.DataFrame) -> None:
    names, said = SAID[formula]
    pattern = ".*".join(map(_literally, said.split(".*")))
    with pytest.warns(me.IdentifiabilityWarning, match=pattern) as caught:
        m = me.lmer(formula, data)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert names is None or list(m.optimum.undetermined) == names
    assert set(m.optimum.undetermined) <= set(m.covariance_parameters.index)
    assert not m.converged
    assert not m.optimum.certificate.holds
    assert "single maximum" in m.optimum.message


def _literally(text: str) -> str:
    return "".join(f"\\{c}" if c in "()|+." else c for c in text)


def test_the_cures_are_cures(data: pd.DataFrame) -> None:
    for formula in (
        "y ~ arm + diag(0 + arm | unit)",
        "y ~ site + x + (0 + x | site)",
        "y ~ x + (x | unit) + (0 + t | unit)",
        "y ~ f + (0 + f | unit)",
    ):
        assert not me.lmer(formula, data).optimum.undetermined


def test_maximum_likelihood(data: pd.DataFrame) -> None:
    """The mean takes part in it: a variance beside its own fixed effects is zero, not anything."""
    m = me.lmer("y ~ site + x + (1 | site)", data, reml=False)
    assert m.is_singular
    assert m.converged
    m = flat_fit("y ~ arm + (0 + arm | unit)", data, reml=False)
    assert m.optimum.undetermined == ("cor_armB.armA|unit",)


def test_one_group_per_treatment() -> None:
    rng = np.random.default_rng(0)
    two = pd.DataFrame({"g": np.repeat([0, 1], 10), "t": np.repeat([0.0, 1.0], 10)})
    m = flat_fit("y ~ t + (1 | g)", two.assign(y=rng.normal(size=20)))
    assert m.optimum.undetermined == ("sd_(Intercept)|g",)


def test_structures(data: pd.DataFrame) -> None:
    """Where V is not linear in its parameters, special estimates are not special designs."""
    m = flat_fit("y ~ f + cs(0 + f | unit) + (f | unit)", data)
    assert "cor|unit" in m.optimum.undetermined
    with warnings.catch_warnings():
        warnings.simplefilter("error", me.IdentifiabilityWarning)
        for formula in ("y ~ f + ar1(0 + f | unit)", "y ~ f + cs(0 + f | unit, hom = TRUE)"):
            assert not me.lmer(formula, data).optimum.undetermined


# --- what goes with it ----------------------------------------------------------------------------


def test_tests_that_do_not_depend_on_it_are_right(data: pd.DataFrame) -> None:
    for formula, without in (
        ("y ~ site + x + (1 | site)", None),
        ("y ~ site + x + (1 | site/plot)", "y ~ site + x + (1 | site:plot)"),
    ):
        m = flat_fit(formula, data)
        table = m.coef_table()
        expected = 115.0 if without is None else me.lmer(without, data).coef_table()["df"]["x"]
        assert table["df"]["x"] == pytest.approx(expected, rel=1e-3)
        # The mean of a site moves with its random effect, the variance of which is anything.
        assert table.loc["(Intercept)", ["df", "Pr(>|t|)", "lower"]].isna().all()
        for ddf in ("inf", "residual"):
            assert np.isnan(m.coef_table(ddf)["df"]["(Intercept)"])
            assert m.coef_table(ddf)["df"]["x"] > 100
        assert np.isnan(m.anova().loc["site", "DenDF"])
        assert m.anova().loc["x", "DenDF"] == pytest.approx(expected, rel=1e-3)
    same = flat_fit("y ~ arm + x + (0 + arm | unit)", data)
    apart = me.lmer("y ~ arm + x + diag(0 + arm | unit)", data)
    assert_allclose(same.coef_table()["df"], apart.coef_table()["df"], rtol=1e-3)
    assert_allclose(same.coef_table(ddf="kr")["df"], apart.coef_table(ddf="kr")["df"], rtol=1e-6)


def test_terms_that_stand_in_for_each_other_have_the_tests_of_one(data: pd.DataFrame) -> None:
    both = flat_fit("y ~ f + x + (1 | unit) + (0 + f | unit)", data)
    one = me.lmer("y ~ f + x + (0 + f | unit)", data)
    if not both.is_singular and not one.is_singular:
        assert_allclose(both.coef_table()["df"], one.coef_table()["df"], rtol=1e-2)
    kr = [m.coef_table(ddf="kr")["df"] for m in (both, one)]
    assert_allclose(kr[0], kr[1], rtol=1e-3)


def test_kenward_roger_says_why(data: pd.DataFrame) -> None:
    m = flat_fit("y ~ site + x + (1 | site/plot)", data)
    with pytest.raises(me.ModelError, match=r"does not exist.*`\(Intercept\)`, `sites1`.*Leave"):
        m.coef_table(ddf="kr")
    with pytest.raises(me.ModelError, match="does not exist"):
        m.summary(ddf="kr")


@pytest.mark.parametrize("formula", SAID)
def test_intervals_along_it_have_no_ends(formula: str, data: pd.DataFrame) -> None:
    m = flat_fit(formula, data)
    bounds = m.confint("wald")
    assert bounds.loc[list(m.optimum.undetermined)].isna().all(axis=None)
    determined = [n for n in m.covariance_parameters.index if n not in m.optimum.undetermined]
    if not m.is_singular:
        assert bounds.loc[determined].notna().all(axis=None)
    assert bounds.loc["sigma"].notna().all()


def test_refits_say_nothing_about_it_either(data: pd.DataFrame) -> None:
    """Each of them starts from the same value of it, and stays there."""
    m = flat_fit("y ~ site + x + (1 | site/plot)", data)
    bounds = m.bootstrap(12, seed=1).confint()
    known = bounds.notna().all(axis=1)
    assert list(known.index[known]) == ["sd_(Intercept)|plot:site", "sigma", "x"]


def test_every_table_carries_the_sign(data: pd.DataFrame) -> None:
    m = flat_fit("y ~ site + x + (1 | site/plot)", data)
    assert not m.glance()["converged"].iloc[0]
    assert m.coef_table().attrs["undetermined"] == ("sd_(Intercept)|site",)
    assert m.anova().attrs["undetermined"] == ("sd_(Intercept)|site",)
    document = json.loads(json.dumps(m.to_dict()))
    assert document["converged"] is False
    assert document["undetermined"] == ["sd_(Intercept)|site"]
    assert "Leave `(1 | site)` out" in document["optimum"]["reasons"][0]
    assert document["optimum"]["certificate"]["holds"] is False
    text = " ".join(str(m).split())
    assert "NOT DETERMINED BY THE DATA: `sd_(Intercept)|site`" in text
    assert "DOES NOT HOLD" in text
    assert "undetermined sd_(Intercept)|site" in repr(m.optimum)
    other = me.lmer("y ~ site + x + (1 | site:plot)", data)
    assert "do not determine sd_(Intercept)|site of m2" in str(me.anova(other, m))
    assert "NOT DETERMINED" in str(me.etable([other, m]))
    fine = other.to_dict()
    assert fine["undetermined"] == []
    assert fine["converged"] is True
    assert other.glance()["converged"].iloc[0]
    assert not other.coef_table().attrs


def test_a_term_that_could_be_anything_does_not_stop_the_rest(data: pd.DataFrame) -> None:
    m = flat_fit("y ~ site * x + (x | site)", data)
    assert m.summary()._repr_html_()
    assert len(m.ranef()["site"]) == 4
    assert m.simulate(2, seed=1).shape == (120, 2)
    assert np.isfinite(m.V.solve(m.y)).all()
    with pytest.warns(me.IdentifiabilityWarning):
        assert len(m.refit(m.y).optimum.undetermined) == 3


# --- what only the numbers show -------------------------------------------------------------------


def test_nearly_the_same_column(data: pd.DataFrame) -> None:
    """A slope on a column that hardly differs from one, beside an intercept."""
    rng = np.random.default_rng(1)
    nearly = data.assign(one=1.0 + 1e-5 * rng.normal(size=120))
    with pytest.warns(me.IdentifiabilityWarning, match=r"as good as flat along `sd_\(Intercept\)"):
        m = me.lmer("y ~ x + (1 | unit) + (0 + one | unit)", nearly)
    certificate = m.optimum.certificate
    assert not certificate.holds
    assert abs(certificate.smallest_curvature) < certificate.least_curvature


def test_rounding_is_not_curvature() -> None:
    """A certificate asks for more than rounding, whatever the number is."""
    certificate = me.Certificate(1e-9, 1e-12, None, 5e-3, 1e-3)
    assert not certificate.holds
    assert me.Certificate(1e-9, 1e-12, None, 5e-3, 1e-5).holds
    assert not me.Certificate(1e-9, 1e-12, None, 5e-5).holds
