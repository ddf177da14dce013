"""CR2 and CR3 of generalized fits on their working models, against dense matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from numpy.testing import assert_allclose

import mixedeffects as me
from dense_robust import DenseRobust


class OfEstimates(DenseRobust):
    """With residuals about given estimates instead of those by generalized least squares."""

    def __init__(self, m: Any, kind: str, clusters: Any) -> None:
        # W^-1 and Z G Z' from what the working model is defined by.
        eta = m.predict(type="link").to_numpy()
        (term,) = m.frame.terms
        (G,) = m.fit.G_blocks
        same = term.codes[:, None] == term.codes
        V = np.where(same, term.z @ G @ term.z.T, 0.0)
        if m.family.name == "binomial":
            mu = 1.0 / (1.0 + np.exp(-eta))
            W = m.frame.response.trials * mu * (1.0 - mu)
            r = m.frame.response.trials * (m.frame.y - mu)
        else:
            mu = np.exp(eta)
            W, r = mu, m.frame.y - mu
        V += np.diag(1.0 / W)
        X, z = m.frame.X, eta + r / W
        super().__init__(V, X, z, np.asarray(clusters), kind)
        self.beta = m.fixef.to_numpy()
        scores = np.array([F.T @ (z - X @ self.beta) for F in self.weights])
        self.vcov = scores.T @ scores


def herds() -> Any:
    data = me.load_dataset("cbpp")
    return me.glmer(
        "incidence / size ~ period + (1 | herd)", data, family="binomial", weights="size"
    )


def ticks() -> Any:
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"g": np.repeat(np.arange(9), 7), "x": rng.normal(size=63)})
    b = rng.normal(0.0, [0.5, 0.4], (9, 2))
    eta = 1.0 + 0.3 * data["x"] + b[data["g"], 0] + b[data["g"], 1] * data["x"]
    data["y"] = rng.poisson(np.exp(eta)).astype(float)
    data["block"] = data["g"] // 2
    return me.glmer("y ~ x + (x | g)", data, family="poisson")


@pytest.mark.parametrize("kind", ["CR2", "CR3"])
@pytest.mark.parametrize("model", [herds, ticks])
def test_equals_the_definition(model: Any, kind: str) -> None:
    m = model()
    dense = OfEstimates(m, kind, m.frame.terms[0].codes)
    robust = m.robust(f"{kind}-working")
    assert_allclose(robust.vcov, dense.vcov, rtol=1e-7)
    p = len(m.fixef)
    assert_allclose(robust.df, [dense.df(row) for row in np.eye(p)], rtol=1e-7)
    assert robust.kind == f"{kind}-working"
    assert f"{kind}-working covariance, clusters" in str(robust)
    assert "On the working model" in str(robust) and "approximate" in str(robust)
    t = m.fixef / robust.se
    assert_allclose(robust.table["t value"], t)
    assert_allclose(robust.table["Pr(>|t|)"], 2.0 * scipy.stats.t.sf(abs(t), robust.df))
    statistic, df = dense.htz(np.eye(p)[1:])
    joint = robust.test(np.eye(p)[1:])
    assert (joint.statistic, joint.den_df) == pytest.approx((statistic, df), rel=1e-6)


def test_larger_clusters_and_the_order_of_the_kinds() -> None:
    m = ticks()
    block = m.frame.data["g"].astype(int).to_numpy() // 2
    dense = OfEstimates(m, "CR2", block)
    assert_allclose(m.robust("cr2-WORKING", block).vcov, dense.vcov, rtol=1e-7)
    # Corrected variances are larger than uncorrected ones, and the more so by CR3.
    raw = OfEstimates(m, "CR0", block).vcov
    sizes = [np.diag(each) for each in (raw, dense.vcov, OfEstimates(m, "CR3", block).vcov)]
    assert (sizes[0] < sizes[1]).all() and (sizes[1] < sizes[2]).all()


def test_where_there_are_none() -> None:
    m = herds()
    for kind in ("CR2", "CR3", "CR1S"):
        with pytest.raises(me.ModelError, match=r"m\.robust\('CR2-working'\)"):
            m.robust(kind)
    with pytest.raises(me.ModelError, match=r"'CR2-working'"):
        m.coef_table(vcov="CR2-working")
    rows = np.arange(m.nobs)
    with pytest.raises(me.ModelError, match="no product over these clusters"):
        m.robust("CR2-working", rows)
