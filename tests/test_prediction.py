"""Predictions against lme4's, and their variances against dense algebra from the definition."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.linalg
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import mixedeffects as me
import mixedeffects.inference.prediction_variance as prediction_variance
from design_models import model_of
from designs import KINDS, Design, designs, make_design
from inference_references import FOLDER
from references import fitted_model

Matrix = np.ndarray
fast = settings(max_examples=40, deadline=None)


# --- lme4 --------------------------------------------------------------------------------


def _orthodont() -> pd.DataFrame:
    data = me.load_dataset("orthodont")
    return data.assign(w=np.resize([1, 2, 0.5, 4], len(data)))


LME4: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "sleepstudy": ("Reaction ~ Days + (Days | Subject)", "sleepstudy", {}),
    "double_bar": ("Reaction ~ poly(Days, 2) + (Days || Subject)", "sleepstudy", {}),
    "threelevel": ("y ~ x1 + (1 | sch.cl/tch.cl)", "threelevel", {}),
    "star_sample": ("read ~ cltype + sx + (sx | sch/tch)", "star_sample", {}),
    "penicillin": ("diameter ~ 1 + (1 | plate) + (1 | sample)", "penicillin", {}),
    "cake": ("angle ~ recipe + scale(temp) + (1 | recipe:replicate)", "cake", {}),
    "orthodont": (
        "distance ~ I(age - 11) * Sex + offset(log(age)) + (I(age - 11) | Subject)",
        _orthodont,
        {"weights": "w"},
    ),
}


@cache
def lme4(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / "predict.json").read_text())[name]


@pytest.mark.parametrize("name", LME4)
def test_lme4(name: str) -> None:
    formula, source, options = LME4[name]
    r = lme4(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        m = me.lmer(
            formula,
            me.load_dataset(source) if isinstance(source, str) else source(),
            start=np.atleast_1d(r["theta"]),
            control=me.Control(max_evaluations=1),
            **options,
        )
    new = pd.DataFrame(r["newdata"])
    assert_allclose(m.predict(new, new_levels="population"), r["all"], rtol=1e-7)
    assert_allclose(m.predict(new, re=None), r["none"], rtol=1e-7)
    for re, expected in dict(r["parts"]).items():
        assert_allclose(m.predict(new, re=re, new_levels="population"), expected, rtol=1e-7)


# --- variances, from the definition ------------------------------------------------------


class Dense:
    """Prediction of new rows with dense matrices; unseen levels are levels without rows."""

    def __init__(self, m: me.LinearMixedModel, new: pd.DataFrame, labels: list[list[str]]) -> None:
        data, self.m, n = m.frame.data, m, m.nobs
        Z, Z_new, G = [], [], []
        for term, own, block in zip(m.frame.terms, labels, m.fit.G_blocks, strict=True):
            levels = list(dict.fromkeys([*term.levels, *own]))
            Z.append(self.columns(term, data, list(data[term.group]), levels))
            Z_new.append(self.columns(term, new, own, levels))
            G.append(np.kron(np.eye(len(levels)), block))
        self.widths = [z.shape[1] for z in Z]
        self.Z, self.Z_new = np.hstack(Z), np.hstack(Z_new)
        self.G = scipy.linalg.block_diag(*G)
        R = m.sigma**2 * (np.eye(n) if m.frame.weights is None else np.diag(1 / m.frame.weights))
        self.V = self.Z @ self.G @ self.Z.T + R
        self.X = m.X
        self.X_new = np.column_stack([np.ones(len(new)), new["x1"], new["x2"]])

    @staticmethod
    def columns(term: Any, data: pd.DataFrame, of_row: list[str], levels: list[str]) -> Matrix:
        z = data[list(term.columns)].to_numpy()
        out = np.zeros((len(data), len(levels), z.shape[1]))
        out[np.arange(len(data)), [levels.index(label) for label in of_row]] = z
        return out.reshape(len(data), -1)

    def __call__(self, keep: list[bool]) -> tuple[Matrix, Matrix]:
        """Prediction and variance of its error with the effects of some terms."""
        z = self.Z_new * np.repeat(keep, self.widths)
        V_inverse = np.linalg.inv(self.V)
        C = np.linalg.inv(self.X.T @ V_inverse @ self.X)
        beta = C @ self.X.T @ V_inverse @ self.m.y
        GZ = self.G @ self.Z.T
        b = GZ @ V_inverse @ (self.m.y - self.X @ beta)
        rest = self.X_new - z @ GZ @ V_inverse @ self.X
        conditional = self.G - GZ @ V_inverse @ GZ.T
        variance = np.einsum("iq,qr,ir->i", z, conditional, z)
        variance += np.einsum("ip,pr,ir->i", rest, C, rest)
        return self.X_new @ beta + z @ b, variance


def new_rows(
    m: me.LinearMixedModel, seed: int, n: int, unseen: bool
) -> tuple[pd.DataFrame, list[list[str]]]:
    """New rows with any combination of levels, and their levels in each term."""
    rng = np.random.default_rng(seed)
    new = pd.DataFrame({"x1": rng.normal(size=n), "x2": rng.normal(20, 3, size=n)})
    for term in m.frame.terms:
        pool = [*term.levels, "new1", "new2"] if unseen else list(term.levels)
        if term.group not in new:
            new[term.group] = rng.choice(pool, n)
        for name in term.columns:
            new[name] = rng.normal(size=n)
    return new, [list(new[term.group]) for term in m.frame.terms]


@fast
@given(
    design=designs,
    seed=st.integers(0, 99),
    n=st.sampled_from([1, 7, 200]),
    unseen=st.booleans(),
    subset=st.integers(0, 31),
)
def test_fit_and_intervals_from_the_definition(
    design: Design, seed: int, n: int, unseen: bool, subset: int
) -> None:
    m, _ = model_of(design)
    new, labels = new_rows(m, seed, n, unseen)
    dense = Dense(m, new, labels)
    keep = [bool(subset >> t & 1) for t in range(len(labels))]
    re = [
        f"~ (0 + {' + '.join(term.columns)} | {term.group})"
        for term, kept in zip(m.frame.terms, keep, strict=True)
        if kept
    ]
    form = "~ " + " + ".join(part[2:] for part in re) if re else None
    fit, variance = dense(keep)
    # inv(V) loses as many digits as its condition number has.
    lost = 1e-14 * np.linalg.cond(dense.V)
    tolerance = {"rtol": 1e-8 + lost, "atol": lost * float(variance.max())}
    ours = m.predict(
        new, re=form, new_levels="population", interval="confidence", level=0.9, ddf="inf"
    )
    assert_allclose(ours["estimate"], fit, rtol=1e-9 + lost)
    assert_allclose(ours["std_error"] ** 2, variance, **tolerance)
    half = scipy.stats.norm.ppf(0.95) * ours["std_error"]
    assert_allclose(ours["conf_high"] - ours["estimate"], half, rtol=1e-9)
    assert_allclose(ours["estimate"] - ours["conf_low"], half, rtol=1e-9)

    weights = np.random.default_rng(seed).uniform(0.5, 3, n)
    drawn = dense.Z_new * np.repeat(np.logical_not(keep), dense.widths)
    variance = variance + np.einsum("iq,qr,ir->i", drawn, dense.G, drawn) + m.sigma**2 / weights
    ours = m.predict(new, re=form, new_levels="population", interval="prediction", weights=weights)
    assert_allclose(ours["std_error"] ** 2, variance, **tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_henderson_at_a_singular_fit(kind: str) -> None:
    # Henderson's matrix with the inverse of G avoided: [X'X, X'ZL; L'Z'X, L'Z'ZL + I].
    m, _ = model_of(make_design(kind, 11, weighted=True, singular=True))
    root = m.getme("Lambda").toarray()
    W = np.diag(m.frame.weights)
    XZ = np.hstack([m.X, m.Z.toarray() @ root])
    H = XZ.T @ W @ XZ
    H[3:, 3:] += np.eye(len(root))
    # Scaled, because the columns differ much in size.
    size = np.sqrt(np.diag(H))
    inverse = np.linalg.inv(H / np.outer(size, size)) / np.outer(size, size)
    expected = m.sigma**2 * np.einsum("ia,ab,ib->i", XZ, inverse, XZ)
    assert_allclose(m.predict(se=True)["std_error"] ** 2, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["nested", "three crossed", "deep nested with two crossed"])
def test_blocks_and_single_solves_and_chunks_agree(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    m, _ = model_of(make_design(kind, 5, weighted=False, singular=False))
    new, _ = new_rows(m, 1, 90, unseen=True)
    options: dict[str, Any] = {"interval": "confidence", "new_levels": "population"}
    whole = m.predict(new, **options)
    for chunk_size in (1, 7, 89, 90, 91):
        assert_allclose(m.predict(new, chunk_size=chunk_size, **options), whole, rtol=1e-9)
    monkeypatch.setattr(prediction_variance, "_CHUNK", 1.0)
    assert_allclose(m.predict(new, **options), whole, rtol=1e-9)
    monkeypatch.setattr(prediction_variance, "_PAIRS", 1.0)
    assert_allclose(m.predict(new, chunk_size=7, **options), whole, rtol=1e-9)


@pytest.mark.parametrize("name", ["sleepstudy", "threelevel", "star_sample", "penicillin", "cake"])
def test_rows_of_the_fit(name: str) -> None:
    m = fitted_model(name)
    assert_array_equal(m.predict(), m.fitted)
    assert m.predict().index.equals(m.frame.index)
    own = m.predict(interval="prediction")
    again = m.predict(m.frame.data, interval="prediction")
    assert_allclose(again, own, rtol=1e-8)
    assert_allclose(m.predict(re=None), m.X @ m.fixef, rtol=1e-12)
    assert_allclose(
        m.predict(re=None, se=True)["std_error"],
        np.sqrt(np.einsum("ip,pq,iq->i", m.X, m.vcov(), m.X)),
        rtol=1e-8,
    )


def test_many_rows_and_crossed_factors() -> None:
    m = fitted_model("insteval")
    ours = m.predict(se=True)
    rows = [0, 1000, 73_420]
    # Few rows are solved for one by one.
    few = m.predict(m.frame.data.iloc[rows], se=True)
    assert_allclose(ours.iloc[rows], few, rtol=1e-8)
    new = pd.concat([m.frame.data[["service", "dept", "s"]], m.frame.data["d"].shift(1)], axis=1)
    mixed = m.predict(new, se=True, new_levels="population", chunk_size=10_000)
    assert mixed.iloc[0].isna().all()
    assert_allclose(
        mixed.iloc[[500, 70_000]],
        m.predict(new.iloc[[500, 70_000]], se=True, new_levels="population"),
        rtol=1e-8,
    )


# --- degrees of freedom ------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"ddf": "satterthwaite"},
        {"ddf": "kr"},
        {"ddf": "residual"},
        {"vcov": "CR2"},
        {"vcov": "kr", "ddf": "inf"},
    ],
)
def test_intervals_of_the_intercept_are_those_of_the_table(options: dict[str, Any]) -> None:
    m = fitted_model("sleepstudy")
    ours = m.predict({"Days": [0.0, 0.0, 5.0]}, re=None, interval="confidence", **options)
    table = m.coef_table(**{"ddf": "satterthwaite", **options}).iloc[0]
    assert_allclose(ours.iloc[0], table[["Estimate", "Std. Error", "lower", "upper"]], rtol=1e-10)
    assert_allclose(ours.iloc[1], ours.iloc[0])
    assert ours.iloc[2, 0] == pytest.approx(float(m.fixef @ [1, 5]))
    at_row = m.predict(re=None, interval="confidence", **options)
    assert_allclose(at_row.iloc[0], ours.iloc[0])


@pytest.mark.parametrize("options", [{}, {"ddf": "KR"}, {"ddf": "inf"}, {"vcov": "CR2"}])
def test_a_mean_has_one_interval(options: dict[str, Any]) -> None:
    """predict, emmeans and contrast of the same mean, by default and with the same options."""
    m = fitted_model("sleepstudy")
    days = [0.0, 2.5, 10.0]
    ours = m.predict({"Days": days}, re=None, interval="confidence", level=0.9, **options)
    means = m.emmeans("Days", at={"Days": days}, level=0.9, **options).to_frame()
    assert_allclose(ours, means[["estimate", "std_error", "conf_low", "conf_high"]], rtol=1e-12)
    rows = np.column_stack([np.ones(3), days])
    contrasts = m.contrast(rows, level=0.9, **options)
    assert_allclose(ours, contrasts[["Estimate", "Std. Error", "lower", "upper"]], rtol=1e-12)


@pytest.mark.parametrize("name", ["cake", "star_sample", "threelevel"])
def test_every_cell_has_the_interval_of_emmeans(name: str) -> None:
    m = fitted_model(name)
    axes = {"cake": ["recipe", "temperature"], "star_sample": ["cltype", "sx"], "threelevel": "x1"}
    means = m.emmeans(axes[name]).to_frame()
    ours = m.predict(means, re=None, interval="confidence")
    assert_allclose(ours, means[["estimate", "std_error", "conf_low", "conf_high"]], rtol=1e-10)
    polars = m.predict(pl.from_pandas(means), re=None, interval="confidence", chunk_size=2)
    assert_allclose(polars.to_numpy(), ours, rtol=1e-10)


def test_a_new_observation_of_a_balanced_design() -> None:
    """From the two mean squares, each a multiple of a chi-squared variable."""
    data = me.load_dataset("dyestuff")
    groups = data.groupby("Batch", observed=True)["Yield"]
    a, n, between, within = 6, 5, 5 * groups.mean().var(), groups.var().mean()
    parts = np.array([between * (1 / (a * n) + 1 / n), within * (1 - 1 / n)])
    df = parts.sum() ** 2 / (parts**2 / [a - 1, a * (n - 1)]).sum()
    se = np.sqrt(parts.sum())
    m = me.lmer("Yield ~ 1 + (1 | Batch)", data)
    ours = m.predict({"none": [0]}, re=None, interval="prediction", level=0.9)
    upper = data["Yield"].mean() + scipy.stats.t.ppf(0.95, df) * se
    assert_allclose(ours[["std_error", "conf_high"]], [[se, upper]], rtol=1e-6)
    few = m.predict({"none": [0]}, re=None, interval="prediction", ddf="residual")
    half = scipy.stats.t.ppf(0.975, 29) * se
    assert_allclose(few["conf_high"] - few["estimate"], half, rtol=1e-6)


def hessian(function: Any, at: np.ndarray, step: np.ndarray) -> np.ndarray:
    m = len(at)
    H, eye = np.empty((m, m)), np.diag(step)
    for i in range(m):
        for j in range(m):
            corners = [
                s * t * function(at + s * eye[i] + t * eye[j]) for s in (1, -1) for t in (1, -1)
            ]
            H[i, j] = sum(corners) / (4.0 * step[i] * step[j])
    return H


@pytest.mark.parametrize(
    "formula",
    [
        "Reaction ~ Days + (Days | Subject)",
        "Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)",
        "Reaction ~ 0 + (Days | Subject)",
        "Reaction ~ Days + cs(0 + f | Subject, hom = TRUE)",
    ],
)
def test_a_new_observation_from_the_definition(formula: str) -> None:
    """Variance, gradient and curvature by dense algebra and differences of parameters."""
    data = me.load_dataset("sleepstudy")
    data["f"] = np.where(data["Days"] < 5, "a", "b")
    m = me.lmer(formula, data)
    structured = "cs" in formula
    Z, k = m.Z.toarray(), [term.z.shape[1] for term in m.frame.terms]
    x = m.X[3:4]
    z = np.zeros((1, Z.shape[1]))
    z[:, :] = Z[3:4]

    def parts(at: np.ndarray) -> tuple[np.ndarray, float]:
        blocks, i = [], 0
        if structured:
            sd, rho = at[:2]
            blocks = [sd**2 * np.array([[1.0, rho], [rho, 1.0]])]
        for size in () if structured else k:
            T = np.zeros((size, size))
            rows, columns = np.tril_indices(size)
            order = np.lexsort((rows, columns))
            T[rows[order], columns[order]] = at[i : i + len(order)]
            i += len(order)
            blocks.append(at[-1] ** 2 * T @ T.T)
        G = scipy.linalg.block_diag(*[b for b in blocks for _ in range(18)])
        return G, at[-1] ** 2

    def deviance(at: np.ndarray) -> float:
        G, s2 = parts(at)
        V = Z @ G @ Z.T + s2 * np.eye(len(Z))
        A = m.X.T @ np.linalg.solve(V, m.X)
        beta = np.linalg.solve(A, m.X.T @ np.linalg.solve(V, m.y)) if len(A) else np.zeros(0)
        e = m.y - m.X @ beta
        D = np.linalg.slogdet(V)[1] + e @ np.linalg.solve(V, e)
        return float(D + (np.linalg.slogdet(A)[1] if len(A) else 0.0))

    def variance(at: np.ndarray) -> float:
        G, s2 = parts(at)
        V = Z @ G @ Z.T + s2 * np.eye(len(Z))
        C = np.linalg.inv(m.X.T @ np.linalg.solve(V, m.X)) if x.size else np.zeros((0, 0))
        return float((x @ C @ x.T + z @ G @ z.T)[0, 0] + s2)

    natural = m.covariance_parameters.to_numpy()
    at = natural if structured else np.append(m.theta, m.sigma)
    step = 1e-3 * np.maximum(np.abs(at), 0.02)
    gradient = np.array(
        [(variance(at + e) - variance(at - e)) / (2 * e.sum()) for e in np.diag(step)]
    )
    spread = 2.0 * gradient @ np.linalg.solve(hessian(deviance, at, step), gradient)
    df = 2.0 * variance(at) ** 2 / spread
    ours = m.predict(data.iloc[3:4], re=None, interval="prediction").iloc[0]
    assert ours["std_error"] ** 2 == pytest.approx(variance(at), rel=1e-7)
    quantile = scipy.stats.t.ppf(0.975, df)
    assert (ours["conf_high"] - ours["estimate"]) / ours["std_error"] == pytest.approx(
        quantile, rel=1e-4
    )


def test_predictions_with_random_effects_use_the_normal_distribution() -> None:
    m = fitted_model("sleepstudy")
    for interval in ("confidence", "prediction"):
        ours = m.predict(interval=interval)
        half = scipy.stats.norm.ppf(0.975) * ours["std_error"]
        assert_allclose(ours["conf_high"] - ours["estimate"], half)
        assert_allclose(m.predict(interval=interval, ddf="inf"), ours)


def test_a_row_of_zeros_has_no_width() -> None:
    m = me.lmer("Reaction ~ 0 + Days + (1 | Subject)", me.load_dataset("sleepstudy"))
    ours = m.predict({"Days": [0.0]}, re=None, interval="confidence", ddf="satterthwaite")
    assert_array_equal(ours, [[0.0, 0.0, 0.0, 0.0]])


def test_without_fixed_effects() -> None:
    m = me.lmer("Reaction ~ 0 + (1 | Subject)", me.load_dataset("sleepstudy"))
    new = pd.DataFrame({"Subject": ["308", "new"]})
    ours = m.predict(new, se=True, new_levels="population")
    assert ours["std_error"][0] ** 2 == pytest.approx(
        float(m.ranef(True).cond_var["Subject"][0, 0, 0])
    )
    assert ours["std_error"][1] ** 2 == pytest.approx(float(m.G["Subject"].iloc[0, 0]))
    assert_array_equal(m.predict(new, re=None, se=True, ddf="residual"), np.zeros((2, 2)))


# --- kinds of data -----------------------------------------------------------------------


def test_the_same_kind_comes_back() -> None:
    m = fitted_model("sleepstudy")
    new = pd.DataFrame({"Days": [1, 2, None], "Subject": ["308", "309", "310"]}, index=list("abc"))
    column = m.predict(new)
    table = m.predict(new, interval="prediction")
    assert column.index.tolist() == table.index.tolist() == ["a", "b", "c"]
    assert list(table) == ["estimate", "std_error", "conf_low", "conf_high"]
    assert column.isna().tolist() == table["std_error"].isna().tolist() == [False, False, True]
    assert list(m.predict(new, se=True)) == ["estimate", "std_error"]

    frame = pl.from_pandas(new)
    categorical = frame.with_columns(pl.col("Subject").cast(pl.Categorical))
    for polars in (frame, categorical, frame.lazy()):
        assert isinstance(m.predict(polars), pl.Series)
        assert_array_equal(m.predict(polars).to_numpy(), column)
        ours = m.predict(polars, interval="prediction")
        assert isinstance(ours, pl.DataFrame)
        assert_array_equal(ours.to_numpy(), table)
    arrow = pa.table(frame.to_dict(as_series=False))
    assert isinstance(m.predict(arrow), pa.Array)
    assert_array_equal(m.predict(arrow).to_numpy(zero_copy_only=False), column)
    assert m.predict(arrow, interval="prediction").column_names == list(table)
    mapping = {"Days": np.array([1, 2, np.nan]), "Subject": [308, 309, 310]}
    assert_array_equal(m.predict(mapping), column)
    assert m.predict(mapping).index.equals(pd.RangeIndex(3))


def test_iterators_give_generators() -> None:
    m = fitted_model("sleepstudy")
    data = me.load_dataset("sleepstudy")
    parts = m.predict((data.iloc[i : i + 50] for i in range(0, 180, 50)), se=True)
    assert isinstance(parts, Iterator)
    assert_allclose(pd.concat(list(parts)), m.predict(se=True), rtol=1e-9)
    arrow = pa.table({"Days": data["Days"], "Subject": data["Subject"].astype(str)})
    batches = arrow.to_reader(max_chunksize=70)
    assert_allclose(pa.concat_arrays(list(m.predict(batches))), m.fitted, rtol=1e-12)
    with pytest.raises(me.DataError, match="`offset` must be a number or the name of a column"):
        m.predict(iter([data]), offset=np.zeros(180))
    # Arguments are checked at once, not at the first frame.
    with pytest.raises(me.ModelError, match="interval 'conf' is not known"):
        m.predict(iter([data]), interval="conf")


def test_no_rows() -> None:
    m = fitted_model("star_sample")
    none = m.frame.data.iloc[:0]
    assert len(m.predict(none)) == 0
    assert m.predict(none, interval="prediction").shape == (0, 4)
    assert m.predict(pl.from_pandas(none), se=True).shape == (0, 2)
    with pytest.raises(me.DataError, match="no column `sx`"):
        m.predict(none.drop(columns="sx"))


def test_only_what_is_needed() -> None:
    m = fitted_model("star_sample")
    new = m.frame.data[["cltype", "sx", "sch", "tch"]]
    assert_allclose(m.predict(new), m.fitted, rtol=1e-10)
    population = new[["cltype", "sx"]]
    assert_allclose(m.predict(population, re=None), m.predict(re=None), rtol=1e-12)
    # A new school: its column sx is needed for the variance, its name is not.
    assert len(m.predict(population, re="none", interval="prediction")) == m.nobs
    assert_allclose(m.predict(new.drop(columns="tch"), re="sch"), m.predict(re=["sch"]))
    with pytest.raises(me.DataError, match="no column `tch`"):
        m.predict(new.drop(columns="tch"))
    intercept = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
    assert_allclose(intercept.predict({"z": [1, 2]}, re=None), intercept.fixef.iloc[0])
    assert_allclose(intercept.predict(pl.DataFrame({"z": [1, 2]}), re="~0")[1], 1527.5)


# --- transforms, offsets, weights --------------------------------------------------------


def test_transforms_are_those_of_the_fit() -> None:
    data = me.load_dataset("orthodont")
    m = me.lmer(
        "distance ~ scale(age) * (Sex == 'Male') + I(age - mean(age)) + bs(age, df = 4) "
        "+ (scale(age) | Subject)",
        data,
    )
    one_by_one = m.predict((data.iloc[[i]] for i in range(40)), se=True)
    assert_allclose(pd.concat(list(one_by_one)), m.predict(se=True).iloc[:40], rtol=1e-7)
    assert_allclose(m.predict(data, chunk_size=3), m.fitted, rtol=1e-10)


def test_levels_that_one_chunk_lacks() -> None:
    data = me.load_dataset("star_sample").astype({"cltype": str, "sx": str})
    m = me.lmer(
        "read ~ (cltype == 'reg') + (cltype != 'small') + factor(sx, levels = c('M', 'F')) "
        "+ relevel(cltype, ref = 'small') + (1 | sch)",
        data,
    )
    used = data.loc[m.frame.index]
    assert_allclose(m.predict(used.iloc[:40], chunk_size=1), m.fitted.iloc[:40], rtol=1e-10)
    graded = data.assign(
        cltype=pd.Categorical(data["cltype"], ["small", "reg", "reg+A"], ordered=True)
    )
    m = me.lmer("read ~ (cltype > 'small') + (1 | sch)", graded)
    assert_allclose(m.predict(graded.loc[m.frame.index], chunk_size=20), m.fitted, rtol=1e-10)


def test_offsets() -> None:
    data = me.load_dataset("sleepstudy").assign(known=lambda d: np.sqrt(d["Days"]))
    formula = "Reaction ~ Days + offset(scale(Days)) + (1 | Subject)"
    m = me.lmer(formula, data, offset="known")
    assert_allclose(m.predict(data, chunk_size=11), m.fitted, rtol=1e-12)
    assert_allclose(m.predict(data, offset=0), m.fitted - data["known"], rtol=1e-12)
    assert_allclose(m.predict(data, offset=data["Days"]), m.predict(data, offset="Days"))
    shuffled = data["known"].sample(frac=1.0, random_state=1)
    assert_allclose(m.predict(data, offset=shuffled), m.fitted, rtol=1e-12)
    with pytest.raises(me.DataError, match="no column `known`"):
        m.predict(data.drop(columns="known"))
    by_values = me.lmer(formula, data, offset=data["known"].to_numpy())
    assert_array_equal(by_values.predict(), by_values.fitted)
    with pytest.raises(me.ModelError, match="give theirs as offset="):
        by_values.predict(data)


def test_weights() -> None:
    data = me.load_dataset("sleepstudy").assign(w=np.resize([1.0, 4.0], 180))
    m = me.lmer("Reaction ~ Days + (Days | Subject)", data, weights="w")
    ours = m.predict(interval="prediction")
    assert_allclose(m.predict(data, interval="prediction", weights="w"), ours)
    assert_allclose(
        ours["std_error"] ** 2 - m.predict(se=True)["std_error"] ** 2, m.sigma**2 / data["w"]
    )
    plain = m.predict(data, interval="prediction", weights=1)
    assert_allclose(m.predict(data, interval="prediction"), plain)
    some = data["w"].where(data.index != 3)
    assert m.predict(data, interval="prediction", weights=some).isna().any(axis=1).sum() == 1
    with pytest.raises(me.DataError, match="Weights must be positive"):
        m.predict(data, interval="prediction", weights=data["w"] - 1)
    with pytest.raises(me.ModelError, match="weights= is for interval='prediction'"):
        m.predict(data, weights="w")
    with pytest.raises(me.ModelError, match="weights= describes new rows"):
        m.predict(interval="prediction", weights="w")


# --- levels, missing values --------------------------------------------------------------


def test_combined_levels_go_by_their_parts() -> None:
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"a": ["p", "p:q"] * 20, "b": ["q:r", "r"] * 20, "y": rng.normal(size=40)})
    data = pd.concat([data, data.assign(a="s", y=rng.normal(5, 1, 40))])
    m = me.lmer("y ~ 1 + (1 | a:b)", data)
    assert_allclose(m.predict(data), m.fitted)
    with pytest.raises(me.DataError, match="`a:b` has a level that the fit did not see: 'p:r'"):
        m.predict({"a": ["p"], "b": ["r"]})


def test_unseen_levels_are_named() -> None:
    m = fitted_model("sleepstudy")
    new = {"Days": np.zeros(9), "Subject": [308, *range(7), 6]}
    with pytest.raises(
        me.DataError, match=r"`Subject` has 7 levels .*: '0', '1', .* and 2 more \(8 of 9 rows\)"
    ):
        m.predict(new)
    assert_allclose(m.predict(new, new_levels="population")[1:], m.fixef.iloc[0])
    with pytest.raises(me.DataError, match=r"did not see: 'D'.*Known are A, B, C"):
        fitted_model("cake").predict({"recipe": ["A", "D"], "temperature": ["175", "175"]}, re=None)


def test_missing_values_make_missing_rows() -> None:
    m = fitted_model("star_sample")
    new = m.frame.data.iloc[:6].astype(object)
    new.iloc[0, new.columns.get_loc("cltype")] = None
    new.iloc[1, new.columns.get_loc("tch")] = np.nan
    ours = m.predict(new, interval="confidence")
    assert_array_equal(ours.isna().all(axis=1), [True, True, False, False, False, False])
    assert_allclose(ours.dropna(), m.predict(interval="confidence").iloc[2:6], rtol=1e-8)
    # The teacher does not matter to the population's mean.
    assert m.predict(new, re=None).isna().sum() == 1
    assert m.predict(new.iloc[:1]).isna().all()
    log = me.lmer("Reaction ~ log(Days + 1) + (1 | Subject)", me.load_dataset("sleepstudy"))
    new = pd.DataFrame({"Days": [-2.0, 1.0], "Subject": [308, 308]})
    assert log.predict(new, interval="confidence").isna().all(axis=1).tolist() == [True, False]
    kr = log.predict(new, re=None, interval="confidence", ddf="kr")
    assert kr.isna().all(axis=1).tolist() == [True, False]


def test_rows_that_cannot_be_estimated() -> None:
    data = me.load_dataset("cake")
    hot = (data["recipe"] == "C") & (data["temperature"].astype(int) > 195)
    data = data.assign(twice=data["temp"] * 2.0 + 1e4)
    m = me.lmer("angle ~ recipe * temperature + twice + temp + (1 | recipe:replicate)", data[~hot])
    assert len(m.dropped.columns) >= 4
    assert_allclose(m.predict(data[~hot]), m.fitted, rtol=1e-9)
    with pytest.raises(me.DataError, match=r"nothing about 45 of these rows.*`recipeC:temperat"):
        m.predict(data)
    broken = data[~hot].assign(temp=lambda d: d["temp"].where(d.index != 0, 176))
    with pytest.raises(me.DataError, match=r"nothing about 1 of these rows.*`temp`.*it is not"):
        m.predict(broken, re=None)


# --- refusals ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"re": "Days"}, r"no random-effects term 'Days'; name 'Subject', or write \(Days \| Subj"),
        ({"re": "~ (1 | Subject)"}, r"no random-effects term \(1 \| Subject\); name 'Subject'"),
        ({"re": "~ Days + (1 | Subject)"}, "must have random-effects terms only"),
        ({"re": "~ (1 | "}, "cannot be read"),
        ({"re": 3}, "re must be 'all', None, or names"),
        ({"re": True}, "re must be 'all', None, or names"),
        ({"interval": "confident"}, "'confidence', 'prediction' or None"),
        ({"interval": ["confidence"]}, "is not known"),
        ({"new_levels": "zero"}, "it is 'error', 'population'"),
        ({"level": 95}, "between 0 and 1, for example 0.95; got 95"),
        ({"level": "0.95"}, "level must lie between 0 and 1"),
        ({"se": 1}, "se must be True or False"),
        ({"chunk_size": 0}, "chunk_size must be a positive number"),
        ({"ddf": "kr", "se": True}, "normal distribution"),
        ({"ddf": "satterthwaite", "interval": "prediction"}, "normal distribution"),
        ({"re": None, "interval": "prediction", "vcov": "CR2"}, "of means|for means"),
        ({"re": None, "interval": "prediction", "ddf": "KR"}, "for means"),
        ({"re": None, "ddf": "kr"}, "ask for them with"),
        ({"re": None, "ddf": "x", "se": True}, "ddf 'x' is not known"),
        ({"re": None, "vcov": "CR9", "se": True}, "CR9"),
        ({"re": None, "cluster": "Subject", "se": True}, "cluster= is for robust"),
    ],
)
def test_bad_arguments(options: dict[str, Any], sentence: str) -> None:
    m = fitted_model("sleepstudy")
    with pytest.raises(me.ModelError, match=sentence):
        m.predict({"Days": [1], "Subject": [308]}, **options)


@pytest.mark.parametrize(
    ("new", "sentence"),
    [
        ({"Days": [1]}, "no column `Subject`"),
        ({"days": [1], "Subject": [308]}, "no column `Days`.*Did you mean `days`"),
        ({"Days": ["one"], "Subject": [308]}, "`Days` was numeric in the fit"),
        ({"Days": [np.inf, 1], "Subject": [308, 308]}, "`Days` is infinite in 1 row"),
        ({"Days": [1, 2], "Subject": [308]}, "differ in length"),
        ({}, "no columns"),
        ([1, 2], "is a list"),
        (3, "is a int"),
    ],
)
def test_bad_data(new: Any, sentence: str) -> None:
    with pytest.raises(me.DataError, match=sentence):
        fitted_model("sleepstudy").predict(new)
    if isinstance(new, dict) and len(new) == 2 and len(set(map(len, new.values()))) == 1:
        with pytest.raises(me.DataError, match=sentence):
            fitted_model("sleepstudy").predict(pl.DataFrame(new))


@pytest.mark.parametrize(
    ("offset", "sentence"),
    [
        ([1.0, 2.0], "`offset` has 2 values, but the data have 1 row"),
        (["a"], "must be a number, a column's name or numbers"),
        ("Subject", "`Subject` is text or categorical"),
        ("nothing", "no column `nothing`"),
        (np.inf, "`offset` is infinite"),
    ],
)
def test_bad_offsets(offset: Any, sentence: str) -> None:
    with pytest.raises(me.DataError, match=sentence):
        fitted_model("sleepstudy").predict({"Days": [1], "Subject": ["308"]}, offset=offset)
