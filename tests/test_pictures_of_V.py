"""Pictures of V at any size: what the pixels say is the mean of the cells they stand for."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

import mixedeffects as me
from design_models import model_of
from designs import Design, designs
from mixedeffects.covariance import pictures
from references import fitted_model


def axes(inches: float = 6.0) -> Any:
    return Figure(figsize=(inches, inches)).subplots()


def means_by_hand(V: np.ndarray, size: int) -> np.ndarray:
    starts = range(0, len(V), size)
    return np.array([[V[i : i + size, j : j + size].mean() for j in starts] for i in starts])


@settings(max_examples=30, deadline=None)
@given(design=designs, size=st.integers(1, 40), threshold=st.sampled_from([0.0, 0.1, 1.0]))
def test_block_means_are_those_of_the_dense_matrix(
    design: Design, size: int, threshold: float
) -> None:
    m, dense = model_of(design)
    rows = np.random.default_rng(0).permutation(m.nobs)[5:]
    V = dense.V[np.ix_(rows, rows)]
    picture = m.V._as_picture(rows)
    scale = np.abs(V).max()
    before, pictures._DENSE = pictures._DENSE, threshold
    try:
        assert_allclose(picture.block_means(size), means_by_hand(V, size), atol=1e-9 * scale)
        sd = np.sqrt(np.diag(V))
        correlations = picture.correlations()
        expected = means_by_hand(V / np.outer(sd, sd), size)
        assert_allclose(correlations.block_means(size), expected, atol=1e-8)
    finally:
        pictures._DENSE = before
    assert_allclose(picture.dense(), V, atol=1e-9 * scale)
    assert_allclose(picture.diagonal(), np.diag(V), rtol=1e-8)
    assert_allclose(correlations.diagonal(), 1.0)


def test_V_with_a_pixel_for_every_cell_shows_its_entries() -> None:
    m = fitted_model("sleepstudy")
    for ax in (m.V.plot(ax=axes()), me.plot.matrix(m.V, ax=axes())):
        assert_allclose(ax.images[0].get_array(), m.V.dense())
    correlations = m.V.plot(ax=axes(), kind="correlation")
    sd = np.sqrt(m.V.diag())
    assert_allclose(correlations.images[0].get_array(), m.V.dense() / np.outer(sd, sd))
    assert correlations.images[0].get_clim() == (-1, 1)


def test_a_reduced_picture_says_that_it_shows_means() -> None:
    m = fitted_model("star_sample")
    ax = m.V.plot(by="sch", ax=axes(), max_pixels=230)
    order = np.argsort(m.frame.terms[-1].codes, kind="stable")
    V = m.V.dense()[np.ix_(order, order)]
    assert_allclose(ax.images[0].get_array(), means_by_hand(V, 5), atol=1e-9)
    texts = [text.get_text() for text in ax.texts]
    assert "1,150 x 1,150, each pixel 5 x 5 cells\n(mean)" in texts
    # Some schools are named beside the picture.
    assert len(set(texts) & set(m.frame.terms[-1].levels)) > 10


def test_a_V_that_cannot_be_formed_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("V was formed")

    m = fitted_model("insteval")
    for name in ("sparse", "dense"):
        monkeypatch.setattr(me.MarginalCovariance, name, refuse)
    ax = m.V.plot(ax=axes(), max_pixels=200)
    pixels = np.asarray(ax.images[0].get_array())
    assert pixels.shape == (200, 200)
    # One pixel by multiplication: 368 rows.
    ones = np.zeros(m.nobs)
    ones[: 73_421 // 200 + 1] = 1.0
    assert pixels[0, 0] == pytest.approx(ones @ (m.V @ ones) / ones.sum() ** 2, rel=1e-10)
    assert "73,421 x 73,421, each pixel 368 x 368 cells\n(mean)" in ax.texts[-1].get_text()
    level = m.frame.terms[-1].levels[0]
    one = m.V.plot(level, by="dept:service", ax=axes(), max_pixels=200)
    assert one.get_title("left") == f"V of dept:service {level}"
    assert "(mean)" in one.texts[-1].get_text()


def test_one_level_has_its_name_its_row_labels_and_numbers() -> None:
    m = fitted_model("threelevel")
    for level in (("a", 3), "3:a"):
        assert m.V.plot(level, ax=axes()).get_title("left") == "V of tch.cl:sch.cl 3:a"
    ax = m.V.plot("b", ax=axes())
    assert ax.get_title("left") == "V of sch.cl b"
    assert [text.get_text() for text in ax.get_yticklabels()] == [str(i) for i in range(15, 30)]
    numbers = [text for text in ax.texts if not hasattr(text, "xycoords")]
    assert len(numbers) == 15 * 15
    assert numbers[0].get_text() == "2.63"
    (scale,) = ax.child_axes
    assert scale.get_ylabel() == "covariance (response units²)"


def test_units_of_G_are_named_where_there_is_one() -> None:
    for name, expected in {
        "threelevel": "covariance (response units²)",
        "sleepstudy": "covariance",
    }.items():
        (scale,) = fitted_model(name).G.plot(ax=axes()).child_axes
        assert scale.get_ylabel() == expected


def test_of_a_generalized_model_units_are_those_of_the_link() -> None:
    cbpp = me.load_dataset("cbpp")
    formula = "incidence / size ~ period + (1 | herd)"
    m = me.glmer(formula, cbpp, family="binomial", weights="size")
    for each in (m, m.without_data(), pickle.loads(pickle.dumps(m))):
        if each is m:
            ax = each.V.plot(ax=axes())
            assert ax.get_title("left").startswith("V, working covariance, link scale")
            for matrix in (each.V, each.R):
                ax = matrix.plot(ax=axes())
                assert ax.child_axes[0].get_ylabel() == "covariance (link units²)"
            assert each.V.plot("1", ax=axes()).child_axes[0].get_ylabel().endswith("(link units²)")
            G = each.V.G.plot(ax=axes()).child_axes[0]
            assert G.get_ylabel() == "covariance (link units²)"
        (scale,) = each.G.plot(ax=axes()).child_axes
        assert scale.get_ylabel() == "covariance (link units²)"
