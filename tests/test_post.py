"""The post, with its numbers: sections 1 to 4 of "Extracting the V matrix for MLMs"."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose

import mixedeffects as me
from references import fitted_model


def test_sections_1_and_2() -> None:
    m1 = fitted_model("sleepstudy")
    assert m1.nobs == 180
    assert m1.ngroups == {"Subject": 18}
    assert_allclose(m1.fixef.round(2), [251.41, 10.47])
    assert_allclose(m1.G.blocks().round(1), [[612.1, 9.6], [9.6, 35.1]])
    assert m1.Z.shape == (180, 36)
    Gm = sp.kron(sp.eye_array(18), m1.G.blocks())
    assert_allclose(Gm.toarray()[:2, :2].round(1), [[612.1, 9.6], [9.6, 35.1]])
    V = m1.Z @ Gm @ m1.Z.T + m1.sigma**2 * sp.eye_array(180)
    assert_allclose(me.gls(m1.X, m1.y, V).coef, m1.fixef, rtol=1e-9)
    assert abs(V - m1.V.sparse()).max() < 1e-10 * V.diagonal().max()


def test_section_3() -> None:
    m2 = fitted_model("threelevel")
    assert_allclose(m2.fixef.round(3), [0.376, 0.359])
    assert m2.Z.shape == (150, 40)
    assert_allclose(np.diag(m2.G.blocks()).round(2), [1.23, 0.42])
    assert m2.sigma == pytest.approx(0.991, abs=5e-4)
    table = m2.coef_table()
    assert_allclose(table["df"], [8.9956, 124.7229], rtol=1e-3)


def test_section_4() -> None:
    m3 = fitted_model("star_sample")
    assert m3.nobs == 1150
    assert_allclose(m3.fixef.round(2), [438.91, -5.92, -2.21, 2.05])
    teacher, school = m3.G["tch:sch"], m3.G["sch"]
    # lme4's printed values; the polished optimum differs in their last digit.
    assert_allclose(teacher, [[141.8, -10.1], [-10.1, 0.72]], rtol=3e-3)
    assert_allclose(school, [[153.9, -6.4], [-6.4, 0.27]], rtol=2e-2)
    assert m3.is_singular
    assert_allclose(m3.V.gls(m3.X, m3.y).coef, m3.fixef, rtol=1e-9)
    correlation = m3.varcorr.corr("sch").iloc[0, 1]
    assert correlation == pytest.approx(-1.0, abs=1e-9)
