"""Marginal means of factors nested in others, against R's emmeans and averages by hand."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import mixedeffects as me
from references import REFERENCE

FOLDER = REFERENCE / "nested_factors"

FORMULAS = {
    "strains": "y ~ geno + strain + (1 | trial)",
    "doses": "y ~ kind / (drug * dose) + (1 | block)",
    "areas": "y ~ trt + region * x + district + school + (1 | site)",
    "levels": "y ~ a / b + (1 | g)",
}


@cache
def fit(name: str) -> me.LinearMixedModel:
    data = pd.read_csv(FOLDER / f"{name}.csv", dtype={"dose": str})
    if name == "doses":
        # R's model matrix has columns of their own for a level of one dose: the same fits.
        data["dose"] = data["dose"].astype(str)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        return me.lmer(FORMULAS[name], data)


CALLS: dict[str, Callable[[me.LinearMixedModel], Any]] = {
    "strains: geno": lambda m: m.emmeans("geno"),
    "strains: geno pairs": lambda m: m.emmeans("geno").contrasts(),
    "strains: strain": lambda m: m.emmeans("strain"),
    "strains: strain by geno": lambda m: m.emmeans("strain", by="geno"),
    "strains: strain by geno pairs": lambda m: m.emmeans("strain", by="geno").contrasts(),
    "strains: overall": lambda m: m.emmeans("1"),
    "doses: kind": lambda m: m.emmeans("kind"),
    "doses: drug": lambda m: m.emmeans("drug"),
    "doses: drug by dose": lambda m: m.emmeans("drug", by="dose"),
    "areas: region": lambda m: m.emmeans("region"),
    "areas: district": lambda m: m.emmeans("district"),
    "areas: trt": lambda m: m.emmeans("trt"),
    "areas: region by trt": lambda m: m.emmeans("region", by="trt"),
    "areas: district pairs": lambda m: m.emmeans("district").contrasts(),
    "areas: trend by region": lambda m: m.emtrends("region", "x"),
    "areas: trend by district": lambda m: m.emtrends("district", "x"),
    "levels: a": lambda m: m.emmeans("a"),
    "levels: b": lambda m: m.emmeans("b"),
}


def words(text: str) -> tuple[str, ...]:
    return tuple(sorted(text.replace("(", " ").replace(")", " ").split()))


@pytest.mark.parametrize("name", CALLS)
def test_means_are_those_of_r(name: str) -> None:
    reference = json.loads((FOLDER / "nested_factors.json").read_text())[name]
    table = CALLS[name](fit(name.split(":")[0])).to_frame()
    labels = table.iloc[:, : table.columns.get_loc("estimate")]
    found = {
        words(" ".join(map(str, row))) or ("overall",): (estimate, se)
        for row, estimate, se in zip(
            labels.to_numpy().tolist(), table["estimate"], table["std_error"], strict=True
        )
        if np.isfinite(se)
    }
    expected = {
        words(label): (estimate, se)
        for label, estimate, se in zip(
            reference["label"], reference["estimate"], reference["SE"], strict=True
        )
        # R keeps a group with nothing to compare, and combinations that do not occur, as NA.
        if isinstance(se, float)
    }
    assert found.keys() == expected.keys()
    for label, pair in expected.items():
        assert_allclose(found[label], pair, rtol=2e-4, atol=1e-5, err_msg=str(label))


def test_averages_by_hand() -> None:
    """Schools within districts within regions: means of means, layer by layer."""
    m = fit("areas")
    data = m.frame.data
    cells = data[["region", "district", "school"]].drop_duplicates().assign(x=data["x"].mean())
    both = pd.concat([cells.assign(trt=t) for t in ("c", "t")])
    both["mean"] = m.predict(both, re=None).to_numpy()
    layers = both.groupby(["region", "district", "school"])["mean"].mean()
    regions = layers.groupby(["region", "district"]).mean().groupby("region").mean()
    assert_allclose(m.emmeans("region").to_frame()["estimate"], regions, rtol=1e-8)
    assert_allclose(m.emmeans("1").to_frame()["estimate"], regions.mean(), rtol=1e-8)


def test_what_is_left_out_is_said() -> None:
    means = fit("strains").emmeans("strain")
    assert list(means.to_frame().columns[:2]) == ["strain", "geno"]
    assert len(means.to_frame()) == 6
    assert "nested factors: strain in geno; combinations that do not occur are left" in repr(means)
    assert "not estimable" not in repr(means)
    assert "district in region" in repr(fit("areas").emmeans("trt"))
    assert "nested" not in repr(fit("levels").emmeans("a", at={"b": "b1"}))


def test_groups_of_different_sizes_are_compared_within() -> None:
    means = fit("strains").emmeans("strain", by="geno")
    table = means.contrasts().to_frame()
    assert table["geno"].tolist() == ["g1", "g2", "g2", "g2"]
    assert table["contrast"].tolist() == ["u - v", "w - x", "w - y", "x - y"]
    # Two means need no adjustment, three do.
    plain = means.contrasts(adjust="none").to_frame()
    assert table["p_value"][0] == pytest.approx(plain["p_value"][0])
    assert (table["p_value"][1:] > plain["p_value"][1:]).all()
    assert "at most 3 means" in repr(means.contrasts())
    assert len(means.contrasts("trt.vs.ctrl").to_frame()) == 3
    with pytest.raises(me.ModelError, match="There is no mean 'u'"):
        means.contrasts({"first": {"u": 1, "v": -1}})
    everything = fit("strains").emmeans("strain").contrasts().to_frame()
    assert len(everything) == 15 and everything["contrast"][0] == "u g1 - v g1"


@pytest.mark.parametrize("weights", ["equal", "proportional", "cells"])
def test_every_weighting_leaves_out_what_cannot_be(weights: str) -> None:
    m = fit("strains")
    means = m.emmeans("geno", weights=weights).to_frame()
    by_hand = m.emmeans("strain").to_frame().groupby("geno", observed=True)["estimate"].mean()
    # As many rows in every strain.
    assert_allclose(means["estimate"], by_hand, rtol=1e-8)


def test_a_factor_with_one_level_for_each_of_another() -> None:
    """Two names of one thing: either is nested in the other, and both have all their means."""
    data = pd.read_csv(FOLDER / "strains.csv")
    data["code"] = data["strain"].map(dict(zip("uvwxyz", "UVWXYZ", strict=True)))
    m = me.lmer("y ~ strain + code + (1 | trial)", data)
    for name in ("strain", "code"):
        table = m.emmeans(name).to_frame()
        assert len(table) == 6 and table["estimate"].notna().all()


def test_cells_without_rows_are_not_nesting() -> None:
    """One empty cell of a crossed design stays not estimable, and the note says what to do."""
    cake = me.load_dataset("cake")
    kept = cake[~((cake["recipe"] == "A") & (cake["temperature"] == "175"))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        m = me.lmer("angle ~ recipe * temperature + (1 | replicate)", kept)
    means = m.emmeans("recipe")
    assert means.to_frame()["estimate"].isna().tolist() == [True, False, False]
    shown = " ".join(repr(means).split())
    assert "weights='cells' averages over the cells that have rows" in shown
    assert m.emmeans("recipe", weights="cells").to_frame()["estimate"].notna().all()


def test_robust_errors_and_joint_adjustments_of_nested_means() -> None:
    means = fit("strains").emmeans("strain", vcov="CR2", cluster="trial", adjust="mvt")
    assert means.to_frame()["std_error"].notna().all()
    assert means.contrasts(adjust="mvt").to_frame()["p_value"].notna().all()
    assert means.plot() is not None
    import matplotlib.pyplot as plt

    plt.close("all")
    assert np.isfinite(means.contrasts("eff").to_frame()["estimate"]).all()
