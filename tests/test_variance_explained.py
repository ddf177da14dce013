"""Intraclass correlation, R2, and conditional AIC."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import mixedeffects as me
from comparison_references import data, fit_of, name_of, stored
from design_models import model_of
from designs import Design, designs

MODELS = stored()["models"]
#: R's `performance` leaves variances out of a term without intercept, and takes sigma squared for
#: the residual variance whatever the prior weights: there the answer is checked densely below.
COMPARABLE = [m for m in MODELS if "icc" in m and "(0 +" not in m["f"] and not m["weights"]]
REGULAR = [m for m in MODELS if "icc" in m]


@pytest.mark.parametrize("answer", COMPARABLE, ids=name_of)
def test_against_performance(answer: dict[str, Any]) -> None:
    m = fit_of(answer)
    icc, r2 = m.icc(by_group=True), m.r2()
    assert icc.adjusted == pytest.approx(answer["icc"]["adjusted"], abs=1e-5)
    assert icc.unadjusted == pytest.approx(answer["icc"]["unadjusted"], abs=1e-5)
    assert r2.marginal == pytest.approx(answer["r2"]["marginal"], abs=1e-5)
    assert r2.conditional == pytest.approx(answer["r2"]["conditional"], abs=1e-5)
    if all(term.columns == ("(Intercept)",) for term in m.frame.terms):
        # With slopes R counts only the intercepts here.
        by_group = dict(zip(answer["by_group"]["group"], answer["by_group"]["ICC"], strict=True))
        assert icc.by_group is not None
        assert icc.by_group.to_dict() == pytest.approx(by_group, abs=1e-5)


@given(design=designs)
@settings(max_examples=30, deadline=None)
def test_from_the_definition(design: Design) -> None:
    """``tr(Z G Z') / n`` from the dense V; singular covariances and prior weights included."""
    m, dense = model_of(design)
    fixed = np.var(dense.X @ m.fixef.to_numpy(), ddof=1)
    random = np.trace(dense.V - dense.R) / m.nobs
    residual = np.trace(dense.R) / m.nobs
    total = fixed + random + residual
    icc, r2 = m.icc(by_group=True), m.r2()
    assert icc.adjusted == pytest.approx(random / (random + residual))
    assert icc.unadjusted == pytest.approx(random / total)
    assert r2.marginal == pytest.approx(fixed / total)
    assert r2.conditional == pytest.approx((fixed + random) / total)
    assert icc.by_group is not None
    for group, share in icc.by_group.items():
        assert share == pytest.approx(m.V.parts[group].diag().mean() / (random + residual))


def test_singular_fit() -> None:
    m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff2"))
    assert m.icc().adjusted == 0.0
    assert m.icc().unadjusted == 0.0
    assert (m.r2().marginal, m.r2().conditional) == pytest.approx((0.0, 0.0), abs=1e-12)


def test_prior_weights() -> None:
    d = data("comparison")
    m = me.lmer("y ~ x + (1 | g)", d, weights="w")
    assert m.icc().variances.residual == pytest.approx(m.sigma**2 * np.mean(1 / d["w"]))
    assert "mean of sigma^2 / w" in repr(m.icc())
    assert "mean of sigma^2 / w" in m.r2()._repr_html_()
    assert "mean of sigma^2" not in repr(me.lmer("y ~ x + (1 | g)", d).icc())
    # Weights on another scale are another sigma and the same model.
    scaled = me.lmer("y ~ x + (1 | g)", d.assign(w=10 * d["w"]), weights="w")
    assert scaled.icc().adjusted == pytest.approx(m.icc().adjusted, rel=1e-6)


def test_offsets_are_left_out() -> None:
    d = data("comparison")
    m = me.lmer("y ~ x + offset(5 * o) + (1 | g)", d)
    less = me.lmer("y ~ x + (1 | g)", d.assign(y=d["y"] - 5 * d["o"]))
    assert m.r2().to_frame().equals(less.r2().to_frame())
    assert m.icc().to_frame().equals(less.icc().to_frame())


def test_layout() -> None:
    m = me.lmer("strength ~ 1 + (1 | batch/cask)", me.load_dataset("pastes"))
    assert m.icc().by_group is None
    frame = m.icc(by_group=True).to_frame()
    assert list(frame.index) == ["adjusted", "unadjusted", "cask:batch", "batch"]
    assert frame["ICC"].iloc[2:].sum() == pytest.approx(frame.loc["adjusted", "ICC"])
    assert "cask:batch" in m.icc(by_group=True)._repr_html_()
    with pytest.raises(me.ModelError, match="by_group must be True or False, not 'batch'"):
        m.icc(by_group="batch")  # type: ignore[arg-type]


# --- conditional AIC ------------------------------------------------------------------------------


def _trace_by_refits(m: me.LinearMixedModel) -> float:
    """Sum of d yhat_i / d y_i, each response moved and everything estimated anew."""
    step, total = 0.01 * m.sigma, 0.0
    for i in range(m.nobs):
        sides = []
        for sign in (1.0, -1.0):
            y = m.y.copy()
            y[i] += sign * step
            sides.append(m.refit(y).fitted.to_numpy()[i])
        total += (sides[0] - sides[1]) / (2 * step)
    return total


@pytest.mark.parametrize(
    ("formula", "name", "options"),
    [
        ("Yield ~ 1 + (1 | Batch)", "dyestuff", {}),
        ("Yield ~ 1 + (1 | Batch)", "dyestuff", {"reml": False}),
        ("Reaction ~ Days + (Days | Subject)", "sleepstudy", {}),
        ("y ~ x + offset(o) + (x | g) + (1 | h)", "comparison", {"weights": "w"}),
        ("y ~ x + f + (0 + f + k | g)", "comparison", {}),
        ("y ~ x + cs(0 + f | g)", "comparison", {}),
        ("y ~ x + diag(x | g) + (1 | h)", "comparison", {"weights": "w"}),
        ("y ~ x + ar1(0 + f | g, hom = TRUE)", "comparison", {"reml": False}),
    ],
)
def test_degrees_of_freedom_by_refits(formula: str, name: str, options: dict[str, Any]) -> None:
    """Greven and Kneib's definition itself, at a singular covariance of rank 3 of 4 too."""
    m = me.lmer(formula, data(name), **options)
    assert m.caic().df - 1.0 == pytest.approx(_trace_by_refits(m), abs=1e-3)


@pytest.mark.parametrize("answer", REGULAR, ids=name_of)
def test_against_caic4(answer: dict[str, Any]) -> None:
    """Its likelihood; its degrees of freedom are a few percent off the definition."""
    ours = fit_of(answer).caic()
    assert ours.loglik == pytest.approx(answer["caic"]["loglik"], abs=2e-3)
    assert ours.df == pytest.approx(answer["caic"]["df"], rel=0.02)
    assert ours.caic == pytest.approx(-2 * ours.loglik + 2 * ours.df)


def test_effects_without_variance_take_no_degrees_of_freedom() -> None:
    m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff2"))
    assert m.caic().df == pytest.approx(2.0)
    assert m.caic().correction == 0.0
    assert m.caic().to_frame()["df"].iloc[0] == m.caic().df
    assert "<th" in m.caic()._repr_html_()
    assert "effective df 2.00" in repr(m.caic())
