"""Inference about fixed effects where residuals have a structure, against stored references.

And against the definitions with dense matrices.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
from numpy.testing import assert_allclose
from numpy.typing import NDArray

import mixedeffects as me
from dense_robust import DenseRobust
from mixedeffects.comparison.nesting import contains_variance
from mixedeffects.errors import ModelError
from mixedeffects.inference.kenward_roger import KenwardRoger
from mixedeffects.inference.residual_information import residual_information_parts

Matrix = NDArray[np.float64]

FOLDER = Path(__file__).parent / "reference" / "residual_inference"
#: The whole references, of which these are an extract; most data are there.
WHOLE = Path(__file__).parent / "reference" / "residual"
REFERENCES: dict[str, Any] = json.loads((FOLDER / "inference.json").read_text())
SAS: dict[str, Any] = json.loads((WHOLE / "sas_fev.json").read_text())

#: Relative deviation of degrees of freedom and standard errors that is allowed.
CLOSE = 2e-5


def table_of(file: str) -> pd.DataFrame:
    return pd.read_csv(next(f / file for f in (FOLDER, WHOLE) if (f / file).exists()))


def data_of(name: str) -> pd.DataFrame:
    reference = REFERENCES[name]
    data = table_of(reference["data"])
    for column, levels in reference["columns"].items():
        values = data[column].astype(str)
        data[column] = pd.Categorical(values, categories=levels) if levels else values
    return data


def quietly(formula: str, data: pd.DataFrame, **options: Any) -> me.LinearMixedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        return me.lmer(formula, data, **options)


@cache
def fitted(name: str) -> me.LinearMixedModel:
    own, data = REFERENCES[name], data_of(name)
    residual = known_covariance(data) if name == "berkey_known_V" else own["residual"]
    return quietly(
        own["formula"],
        data,
        residual=residual,
        variance=own["variance"],
        reml=own["reml"],
        sigma=own.get("sigma"),
        weights=own.get("weights"),
    )


def known_covariance(data: pd.DataFrame) -> me.KnownCovariance:
    """Of two outcomes in each trial."""
    blocks = [own[["v1i", "v2i"]].to_numpy() for _, own in data.groupby("trial", observed=True)]
    return me.known(scipy.linalg.block_diag(*blocks))


@cache
def fev(residual: str | None = None, formula: str = "FEV1 ~ ARMCD", **options: Any) -> Any:
    return quietly(formula, data_of("fev_us"), residual=residual, **options)


def one_line(found: Any) -> str:
    """As it prints, with the breaks of long lines taken out."""
    return " ".join(repr(found).split())


def errors(vcov: Any) -> Matrix:
    return np.sqrt(np.diag(np.asarray(vcov)))


# --- Kenward and Roger ----------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n, own in REFERENCES.items() if own["kenward_roger"]])
def test_kenward_roger(name: str) -> None:
    model, own = fitted(name), REFERENCES[name]["kenward_roger"]
    expected = model.coef_table(ddf="kr")
    assert_allclose(expected["Std. Error"], own["expected_information"]["se"], rtol=CLOSE)
    assert_allclose(expected["df"], own["expected_information"]["df"], rtol=CLOSE)
    observed = model.coef_table(ddf="kr-observed")
    assert_allclose(observed["Std. Error"], own["observed_information"]["se"], rtol=CLOSE)
    assert_allclose(observed["df"], own["observed_information"]["df"], rtol=CLOSE)
    assert_allclose(errors(model.vcov("kr")), expected["Std. Error"])
    assert_allclose(errors(model.vcov("kr-observed")), observed["Std. Error"])
    # Of single contrasts, with any covariance matrix.
    assert_allclose(observed["df"], model.coef_table()["df"], rtol=1e-6)


SAS_STRUCTURES = {
    "ar1": "ar1(AVISIT | USUBJID)",
    "ar1h": "ar1(AVISIT | USUBJID, hom = FALSE)",
    "cs": "cs(1 | USUBJID)",
    "csh": "cs(AVISIT | USUBJID, hom = FALSE)",
    "adh": "ante(AVISIT | USUBJID, hom = FALSE)",
    "toep": "toep(AVISIT | USUBJID)",
    "toeph": "toep(AVISIT | USUBJID, hom = FALSE)",
    "us": "us(AVISIT | USUBJID)",
}


@pytest.mark.parametrize("name", list(SAS_STRUCTURES))
def test_first_order_kenward_roger_of_sas(name: str) -> None:
    _, error, df = SAS["kenward_roger_of_ARMCD"]["values"][name]
    table = fev(SAS_STRUCTURES[name]).coef_table(ddf="kr-observed")
    # SAS stops about 1e-5 short of the optimum.
    assert table["Std. Error"].iloc[1] == pytest.approx(error, rel=2e-4)
    assert table["df"].iloc[1] == pytest.approx(df, rel=4e-4)


def test_expected_and_observed_information_differ_where_the_structure_does_not_fit() -> None:
    model = fev(SAS_STRUCTURES["ar1"])
    assert model.kenward_roger.df([[0.0, 1.0]])[0] == pytest.approx(220.5, abs=0.05)
    assert model.coef_table(ddf="kr-observed")["df"].iloc[1] == pytest.approx(188.5, abs=0.05)


def test_a_trial_as_sas_prints_it() -> None:
    own, model = SAS["mmrm_example"], fitted("fev_us")
    assert model.criterion == pytest.approx(own["minus2"], abs=1e-5)
    table = model.coef_table()
    for name, figures in own["fixef"].items():
        row = table.loc["(Intercept)" if name == "Intercept" else name]
        found = row[["Estimate", "Std. Error", "df"]].to_numpy(np.float64)
        # SAS stops short of the optimum.
        assert_allclose(found[:2], figures[:2], atol=5e-4 * figures[1])
        assert round(found[2]) == figures[2]
    means = model.emmeans("ARMCD", by="AVISIT").to_frame()
    columns = ["estimate", "std_error", "df"]
    for cell, figures in own["lsmeans"].items():
        visit, arm = cell.split()
        row = means[(means["AVISIT"] == visit) & (means["ARMCD"] == arm)][columns]
        assert_allclose(row.to_numpy(np.float64)[0, :2], figures[:2], atol=5e-4 * figures[1])
        assert float(row["df"].iloc[0]) == pytest.approx(figures[2], abs=0.55)
    differences = model.emmeans("ARMCD", by="AVISIT").contrasts("revpairwise").to_frame()
    for visit, figures in own["differences_TRT_minus_PBO"].items():
        row = differences[differences["AVISIT"] == visit][columns]
        assert_allclose(row.to_numpy(np.float64)[0, :2], figures[:2], atol=5e-4 * figures[1])
        assert float(row["df"].iloc[0]) == pytest.approx(figures[2], abs=0.55)
    anova = model.anova()
    for term, (num_df, den_df, F) in own["type3"].items():
        row = anova.loc[{"AVISIT*ARMCD": "ARMCD:AVISIT"}.get(term, term)]
        assert row["NumDF"] == num_df
        assert row["DenDF"] == pytest.approx(den_df, abs=0.55)
        assert row["F value"] == pytest.approx(F, abs=0.011)


def dense_sleepstudy() -> tuple[me.LinearMixedModel, Matrix, list[Matrix]]:
    """A random intercept and ar1: V, and its derivatives in G, rho and sigma squared."""
    model = fitted("sleepstudy_intercept_ar1")
    data = data_of("sleepstudy_intercept_ar1")
    same = (data["Subject"].to_numpy()[:, None] == data["Subject"].to_numpy()).astype(float)
    gap = np.abs(data["Days"].to_numpy(float)[:, None] - data["Days"].to_numpy(float))
    rho, sigma2 = float(model.R.parameters["cor"]), model.sigma**2
    G = float(model.fit.G_blocks[0][0, 0])
    V = same * (G + sigma2 * rho**gap)
    slope = same * sigma2 * gap * rho ** np.maximum(gap - 1.0, 0.0)
    return model, V, [same, slope, same * rho**gap]


def test_kenward_roger_by_its_definition() -> None:
    model, V, derivatives = dense_sleepstudy()
    X = model.fit.frame.X
    W = np.linalg.inv(V)
    Phi = np.linalg.inv(X.T @ W @ X)
    P = [-X.T @ W @ K @ W @ X for K in derivatives]
    Q = [[X.T @ W @ K @ W @ other @ W @ X for other in derivatives] for K in derivatives]
    information = np.array(
        [
            [
                np.trace(W @ K @ W @ other)
                - 2.0 * np.trace(Phi @ Q[r][s])
                + np.trace(Phi @ P[r] @ Phi @ P[s])
                for s, other in enumerate(derivatives)
            ]
            for r, K in enumerate(derivatives)
        ]
    )
    covariance = 2.0 * np.linalg.inv(information)
    spread = sum(
        covariance[r, s] * (Q[r][s] - P[r] @ Phi @ P[s]) for r in range(3) for s in range(3)
    )
    dense = KenwardRoger(
        Phi + 2.0 * Phi @ spread @ Phi,
        Phi,
        np.array([-Phi @ own @ Phi for own in P]),
        covariance,
        np.zeros((0, 3)),
    )
    assert_allclose(model.vcov("kr"), dense.vcov, rtol=1e-7)
    df, scaling = dense.f_test(np.eye(2))
    found = model.wald(np.eye(2), ddf="kr")
    assert found.den_df == pytest.approx(df, rel=1e-7)
    assert found.scaling == pytest.approx(scaling, rel=1e-7)


def test_all_tables_take_the_same_degrees_of_freedom() -> None:
    model = fitted("fev_us")
    for ddf in ("kr", "kr-observed"):
        table = model.coef_table(ddf=ddf)
        name = "SEXFemale"
        assert model.contrast(name, ddf=ddf)["df"].iloc[0] == pytest.approx(table["df"][name])
        anova = model.anova(ddf=ddf)
        assert anova["DenDF"]["SEX"] == pytest.approx(table["df"][name])
        assert anova["F value"]["SEX"] == pytest.approx(table["t value"][name] ** 2)
        assert model.wald(name, ddf=ddf).den_df == pytest.approx(table["df"][name])
        joint = model.joint_tests(ddf=ddf).set_index("term")
        assert joint["den_df"]["SEX"] == pytest.approx(table["df"][name], rel=1e-6)
    assert "observed information" in one_line(model.coef_table(ddf="kr-observed"))
    assert_allclose(
        model.coef_table(ddf="Kenward-Roger-Linear")["df"],
        model.coef_table(ddf="kr-observed")["df"],
    )


def second_differences(criterion: Callable[[Matrix], float], here: Matrix, steps: Matrix) -> Matrix:
    """Second derivatives of a criterion, each of four points, shape (m, m)."""
    m = len(here)
    H = np.empty((m, m))
    for a in range(m):
        for b in range(m):
            total = 0.0
            for i in (1.0, -1.0):
                for j in (1.0, -1.0):
                    moved = here.copy()
                    moved[a] += i * steps[a]
                    moved[b] += j * steps[b]
                    total += i * j * criterion(moved)
            H[a, b] = total / (4.0 * steps[a] * steps[b])
    return H


def observed_by_differences(model: me.LinearMixedModel, k: int) -> Matrix:
    """Covariance of (G entries, sigma^2) from second differences of the restricted likelihood."""
    rows, columns = np.tril_indices(k)
    G, s2 = model.fit.G_blocks[0], model.sigma**2
    here = np.append(G[rows, columns], s2)
    steps = 1e-3 * np.append(np.sqrt(np.outer(np.diag(G), np.diag(G)))[rows, columns], s2)

    def criterion(values: Matrix) -> float:
        own = np.zeros((k, k))
        own[rows, columns] = own[columns, rows] = values[:-1]
        factor = np.linalg.cholesky(own / values[-1])
        theta = np.concatenate([factor[c:, c] for c in range(k)])
        return -2.0 * model.loglik_at(theta, float(np.sqrt(values[-1])))

    H = second_differences(criterion, here, steps)
    return 2.0 * np.linalg.inv(H)


@pytest.mark.parametrize(
    "formula", ["(1 | Subject)", "(Days | Subject)", "(Days + Days2 | Subject)"]
)
def test_observed_information_of_ordinary_fits(formula: str) -> None:
    """V is linear in G and sigma squared, so Q and P are sums over the subjects."""
    data = me.load_dataset("sleepstudy").iloc[:-7].copy()
    data["Days2"] = np.cos(data["Days"].astype(float))
    model = quietly(f"Reaction ~ Days + {formula}", data)
    term = model.fit.frame.terms[0]
    k = term.n_columns
    W_parameters = observed_by_differences(model, k)
    V, X = model.V.dense(), model.fit.frame.X
    W = np.linalg.inv(V)
    Phi = np.linalg.inv(X.T @ W @ X)
    same = (term.codes[:, None] == term.codes).astype(float)
    derivatives = []
    for a, b in zip(*np.tril_indices(k), strict=True):
        K = same * np.outer(term.z[:, a], term.z[:, b])
        derivatives.append(K if a == b else K + K.T)
    derivatives.append(np.eye(len(V)))
    P = [-X.T @ W @ K @ W @ X for K in derivatives]
    m = len(P)
    spread = np.zeros((2, 2))
    for r in range(m):
        for s in range(m):
            Q = X.T @ W @ derivatives[r] @ W @ derivatives[s] @ W @ X
            spread += W_parameters[r, s] * (Q - P[r] @ Phi @ P[s])
    adjusted = model.vcov("kr-observed").to_numpy()
    added = adjusted - Phi
    assert_allclose(added, 2.0 * Phi @ spread @ Phi, rtol=2e-3, atol=1e-4 * np.abs(added).max())
    assert_allclose(model.coef_table(ddf="kr-observed")["df"], model.coef_table()["df"], rtol=1e-6)


ORDINARY = {
    "singular slopes": (
        "height ~ age + I(age^2) + (age + I(age^2) + I(age^3) | Subject)",
        "oxboys",
    ),
    "weights": ("distance ~ age * Sex + (age | Subject)", "ortho"),
    "diag": ("distance ~ age + diag(age | Subject)", "ortho"),
    "cs": ("distance ~ age + cs(0 + factor(age) | Subject)", "ortho"),
    "ar1": ("distance ~ Sex + ar1(0 + factor(age) | Subject)", "ortho"),
    "crossed": ("y ~ x + (x | subj) + (1 | item)", "crossed"),
}


@pytest.mark.parametrize("name", list(ORDINARY))
def test_degrees_of_freedom_with_the_observed_information_are_satterthwaites(name: str) -> None:
    """The same derivatives in other coordinates: of T, of G, of structures, at bounds."""
    formula, source = ORDINARY[name]
    data = table_of(f"{source}.csv")
    weights = np.linspace(0.5, 2.0, len(data)) if name == "weights" else None
    model = quietly(formula, data, weights=weights)
    table = model.coef_table(ddf="kr-observed")
    assert_allclose(table["df"], model.coef_table()["df"], rtol=1e-5)
    assert (table["Std. Error"] >= model.se * (1.0 - 1e-9)).all()


def test_observed_information_takes_variances_of_zero_as_known() -> None:
    data = me.load_dataset("dyestuff2")
    model = quietly("Yield ~ 1 + (1 | Batch)", data)
    assert_allclose(model.vcov("kr-observed"), model.vcov())
    assert model.coef_table(ddf="kr-observed")["df"].iloc[0] == pytest.approx(29.0)


def test_rows_in_any_order() -> None:
    data = data_of("bodyweight_slopes_car1").sample(frac=1.0, random_state=1)
    own = REFERENCES["bodyweight_slopes_car1"]
    model = quietly(own["formula"], data, residual=own["residual"])
    assert_allclose(
        model.coef_table(ddf="kr")["df"],
        own["kenward_roger"]["expected_information"]["df"],
        rtol=1e-6,
    )
    assert_allclose(model.robust("CR2").se, own["robust_se"]["CR2"], rtol=CLOSE)


def test_nothing_is_estimated_where_all_is_known() -> None:
    data = data_of("berkey_known_V")
    model = quietly("yi ~ 0 + outcome", data, residual=known_covariance(data), sigma=1)
    for ddf in ("kr", "kr-observed"):
        table = model.coef_table(ddf=ddf)
        assert_allclose(table["Std. Error"], model.se)
        assert np.isinf(table["df"]).all()


def test_blocks_that_are_too_large_are_named() -> None:
    fit = fitted("crossed_ar1").fit
    with pytest.raises(
        ModelError, match=r"`subj` and `item` together have \d+ rows .* limit is 50"
    ):
        residual_information_parts(fit, most_rows=50)
    with pytest.raises(ModelError, match="`USUBJID` has 4 rows in one block; the limit is 3"):
        residual_information_parts(fitted("fev_us").fit, most_rows=3)


def test_maximum_likelihood_has_no_kenward_roger() -> None:
    for ddf in ("kr", "kr-observed"):
        with pytest.raises(ModelError, match="defined for REML fits"):
            fitted("ortho_toep_ml").coef_table(ddf=ddf)


# --- robust ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n, own in REFERENCES.items() if own["robust_se"]])
def test_robust(name: str) -> None:
    model = fitted(name)
    for kind, own in REFERENCES[name]["robust_se"].items():
        assert_allclose(model.robust(kind).se, own, rtol=CLOSE)
        assert_allclose(errors(model.vcov(kind)), own, rtol=CLOSE)


@pytest.mark.parametrize("kind", ["CR0", "CR1", "CR1S", "CR2", "CR3"])
def test_robust_by_clusters_of_several_residual_groups(kind: str) -> None:
    model = fitted("fev_us")
    frame = model.fit.frame
    subjects = frame.residual.codes if frame.residual is not None else np.empty(0, dtype=int)
    clusters = subjects // 7
    dense = DenseRobust(model.V.dense(), frame.X, frame.y, clusters, kind)
    found = model.robust(kind, cluster=pd.Series(clusters, index=frame.index))
    assert_allclose(found.vcov, dense.vcov, rtol=1e-7, atol=1e-10)
    first = np.eye(len(frame.X.T))[4]
    assert found.df.iloc[4] == pytest.approx(dense.df(first), rel=1e-6)


def test_robust_where_only_variances_differ() -> None:
    model = quietly(
        "distance ~ age * Sex + (1 | Subject)", data_of("ortho_toep_ml"), variance="Sex"
    )
    frame = model.fit.frame
    dense = DenseRobust(model.V.dense(), frame.X, frame.y, frame.terms[0].codes, "CR2")
    assert_allclose(model.robust("CR2").vcov, dense.vcov, rtol=1e-7, atol=1e-10)


def test_clusters_hold_whole_residual_groups() -> None:
    with pytest.raises(ModelError, match=r"V is not block-diagonal by 'AVISIT'.*'USUBJID'"):
        fitted("fev_us").robust("CR2", cluster="AVISIT")
    model = quietly("distance ~ age", data_of("ortho_toep_ml"), variance="Sex")
    with pytest.raises(ModelError, match="no grouping factor, so cluster= must say"):
        model.robust("CR2")
    assert model.robust("CR2", cluster="Subject").n_clusters == (27,)


# --- other summaries of the fixed effects ---------------------------------------------------


def test_effect_sizes_in_the_mean_standard_deviation() -> None:
    model = quietly(
        "distance ~ age + Sex + (1 | Subject)", data_of("ortho_intercept_varsex"), variance="Sex"
    )
    sizes = model.effect_size({"a year": {"age": 1.0}})
    V = model.V.dense()
    assert sizes.sigma == pytest.approx(np.sqrt(np.diag(V).mean()))
    # 2 v^2 / Var(v) with the observed information, in the natural parameters.
    curvature, satterthwaite = model.fit.optimum.curvature, model.satterthwaite
    assert len(satterthwaite.jacobian) == 3
    covariance = satterthwaite.parameter_covariance
    basis = model.fit.crossproducts.basis
    eta, phi = curvature.theta
    sigma = curvature.sigma
    R = np.diag(model.V.dense()).mean() - float(model.fit.G_blocks[0][0, 0])
    delta = 1e-5
    residual = model.fit.residual
    assert residual is not None
    means = [
        float((1.0 / residual.model.at(np.array([phi + step])).scale ** 2).mean())
        for step in (delta, -delta)
    ]
    scale = sigma**2 / basis.weight_scale
    G = float(model.fit.G_blocks[0][0, 0])
    gradient = np.array(
        [2.0 * G / eta, scale * (means[0] - means[1]) / (2.0 * delta), 2.0 * (G + R) / sigma]
    )
    variance = gradient @ covariance @ gradient
    assert sizes.edf == pytest.approx(2.0 * (G + R) ** 2 / variance, rel=1e-5)


def test_standardised_coefficients() -> None:
    data = data_of("sleepstudy_intercept_ar1")
    model = fitted("sleepstudy_intercept_ar1")
    basic, again = model.standardize("basic"), model.standardize("refit")
    scale = data["Days"].std() / data["Reaction"].std()
    assert basic["estimate"].iloc[1] == pytest.approx(model.fixef["Days"] * scale)
    assert again["estimate"].iloc[1] == pytest.approx(model.fixef["Days"] * scale, rel=1e-5)
    assert again["std_error"].iloc[1] == pytest.approx(model.se["Days"] * scale, rel=1e-4)
    with pytest.raises(ModelError, match="Use method='refit' or 'basic'"):
        model.standardize("pseudo")


# --- intervals of covariance parameters -----------------------------------------------------


def wald_by_differences(criterion: Any, here: Matrix) -> Matrix:
    """Normal intervals from second differences of a criterion, shape (m, 2)."""
    H = second_differences(criterion, here, np.full(len(here), 1e-4))
    half = 1.959963984540054 * np.sqrt(np.diag(2.0 * np.linalg.inv(H)))
    return np.column_stack([here - half, here + half])


def restricted(V: Matrix, X: Matrix, y: Matrix) -> float:
    W = np.linalg.inv(V)
    XWX = X.T @ W @ X
    e = y - X @ np.linalg.solve(XWX, X.T @ W @ y)
    return float(np.linalg.slogdet(V)[1] + np.linalg.slogdet(XWX)[1] + e @ W @ e)


def test_intervals_of_a_correlation() -> None:
    model = fitted("sleepstudy_intercept_ar1")
    data = data_of("sleepstudy_intercept_ar1")
    same = (data["Subject"].to_numpy()[:, None] == data["Subject"].to_numpy()).astype(float)
    gap = np.abs(data["Days"].to_numpy(float)[:, None] - data["Days"].to_numpy(float))
    X, y = model.fit.frame.X, model.fit.frame.y

    def criterion(values: Matrix) -> float:
        sd, rho, sigma = np.exp(values[0]), np.tanh(values[1]), np.exp(values[2])
        return restricted(same * (sd**2 + sigma**2 * rho**gap), X, y)

    parameters = model.covariance_parameters
    here = np.array([np.log(parameters.iloc[0]), np.arctanh(parameters.iloc[1])])
    dense = wald_by_differences(criterion, np.append(here, np.log(model.sigma)))
    found = model.confint(parameters="random").to_numpy()
    assert_allclose(found[[0, 2]], np.exp(dense[[0, 2]]), rtol=1e-4)
    assert_allclose(found[1], np.tanh(dense[1]), rtol=1e-4)
    assert list(model.confint().index[:3]) == list(parameters.index)


def test_intervals_of_standard_deviations_by_stratum() -> None:
    """Sigma is that of the first stratum, and moves with the others in a search."""
    model = fitted("ortho_intercept_varsex")
    data = data_of("ortho_intercept_varsex")
    subject, sex = data["Subject"].to_numpy(), data["Sex"].to_numpy()
    same = (subject[:, None] == subject).astype(float)
    first = (sex == data["Sex"].cat.categories[0]).astype(float)
    X, y = model.fit.frame.X, model.fit.frame.y

    def criterion(values: Matrix) -> float:
        sd, other, sigma = np.exp(values)
        return restricted(same * sd**2 + np.diag(np.where(first > 0.0, sigma, other) ** 2), X, y)

    dense = wald_by_differences(criterion, np.log(model.covariance_parameters.to_numpy()))
    assert_allclose(model.confint(parameters="random"), np.exp(dense), rtol=1e-4)


@pytest.mark.parametrize(
    "name", ["fev_us", "fev_adh", "fev_toep", "wheat2_gau_nugget", "dialyzer_ar1_varpower"]
)
def test_every_parameter_of_the_residuals_has_an_interval(name: str) -> None:
    model = fitted(name)
    bounds, estimates = model.confint(parameters="random"), model.covariance_parameters
    assert list(bounds.index) == list(estimates.index)
    assert (bounds["lower"] < estimates).all() and (estimates < bounds["upper"]).all()


def test_a_known_sigma_has_no_interval() -> None:
    bounds = fitted("konstantopoulos_known_R").confint(parameters="random")
    assert bounds.loc["sigma"].isna().all()
    assert bounds.drop(index="sigma").notna().all(axis=None)


# --- comparisons ----------------------------------------------------------------------------

STRUCTURES = {
    **SAS_STRUCTURES,
    "us hom": "us(AVISIT | USUBJID, hom = TRUE)",
    "us by arm": "us(AVISIT | USUBJID, by = ARMCD)",
}
#: Models of ``FEV1 ~ ARMCD``, and what each contains besides itself and independent residuals.
CONTAINS = {
    "none": "",
    "intercept": "",
    "visits": "",
    "intercept, visits": "intercept, visits",
    "ar1": "",
    "ar1h": "ar1, visits",
    "cs": "intercept",
    "csh": "cs, visits, intercept",
    "adh": "ar1, ar1h, visits",
    "toep": "ar1, cs, intercept, intercept + ar1",
    "toeph": "ar1, ar1h, cs, csh, toep, visits, intercept",
    "us hom": "ar1, cs, toep, intercept, intercept + ar1",
    "us": "ar1, ar1h, cs, csh, adh, toep, toeph, us hom, intercept, visits, both, intercept + ar1",
    "us by arm": "ar1, us, cs, toeph, intercept, us hom, intercept + ar1",
    "intercept + ar1": "ar1, intercept",
}


def model_called(name: str) -> me.LinearMixedModel:
    if name in STRUCTURES:
        return fev(STRUCTURES[name])
    formula = "FEV1 ~ ARMCD + (1 | USUBJID)"
    return {
        "intercept": lambda: fev(None, formula),
        "visits": lambda: fev(None, variance="AVISIT"),
        "intercept, visits": lambda: fev(None, formula, variance="AVISIT"),
        "both": lambda: fev(None, formula, variance="AVISIT"),
        "intercept + ar1": lambda: fev(STRUCTURES["ar1"], formula),
    }[name]()


@pytest.mark.parametrize("large", [name for name in CONTAINS if name != "none"])
def test_which_structures_are_cases_of_others(large: str) -> None:
    inside = set(CONTAINS[large].split(", ")) if large != "intercept, visits" else {"intercept"}
    one = model_called(large)
    for name in inside - {""}:
        assert contains_variance(one.fit, model_called(name).fit), name
    outside = {"ar1", "toeph", "us", "adh", "csh", "visits"} - inside - {large}
    if large == "us by arm":
        outside = set()
    if large == "intercept, visits":
        outside -= {"visits"}
    for name in outside:
        assert not contains_variance(one.fit, model_called(name).fit), name


def test_structures_are_compared_by_restricted_likelihood() -> None:
    small, middle, large = (fev(STRUCTURES[name]) for name in ("ar1", "toeph", "us"))
    found = me.anova(large, small, middle)
    assert found.reml and not found.refitted
    table = found.to_frame()
    assert list(table.index) == ["m2", "m3", "m1"]
    assert table["npar"].tolist() == [4, 9, 12]
    assert_allclose(table["Chisq"].iloc[1], small.criterion - middle.criterion)
    assert_allclose(table["Chisq"].iloc[2], middle.criterion - large.criterion)
    assert table["Df"].tolist()[1:] == [5.0, 3.0]
    assert not any("nested" in note for note in found.notes)
    assert_allclose(table["AIC"]["m1"], large.criterion + 24.0)
    assert "m1: FEV1 ~ ARMCD, residual=us(AVISIT | USUBJID)" in one_line(found)
    beside = me.anova(fev(STRUCTURES["adh"]), fev(STRUCTURES["us hom"]), fev(STRUCTURES["ar1"]))
    assert beside.to_frame()["Df"].iloc[2] == 0.0
    other = me.anova(fev(STRUCTURES["cs"]), fev(STRUCTURES["ar1h"]))
    assert any("do not look nested" in note for note in other.notes)


def test_a_structure_against_none() -> None:
    plain = fev(None, "FEV1 ~ ARMCD + (1 | USUBJID)")
    both = fev(STRUCTURES["ar1"], "FEV1 ~ ARMCD + (1 | USUBJID)")
    found = me.anova(plain, both, boundary=True)
    assert found.to_frame()["Df"].iloc[1] == 1.0
    assert_allclose(found.to_frame()["Chisq"].iloc[1], plain.criterion - both.criterion)
    assert "the parameters of the residuals that are added have no boundary" in one_line(found)
    rows = both.ranova().to_frame()
    assert list(rows.index) == ["<none>", "(1 | USUBJID)", "residual structure"]
    assert_allclose(rows["Chisq"]["residual structure"], plain.criterion - both.criterion)
    assert rows["Df"].tolist()[1:] == [1.0, 1.0]
    alone = fev(STRUCTURES["ar1"])
    assert rows["logLik"]["(1 | USUBJID)"] == pytest.approx(alone.loglik, abs=1e-6)


@pytest.mark.parametrize("reml", [True, False])
def test_what_is_left_without_structure_and_random_effects(reml: bool) -> None:
    """The linear model, by its own formula."""
    data = data_of("ortho_toep_ml")
    data["w"] = np.linspace(0.5, 2.0, len(data))
    model = quietly(
        "distance ~ age * Sex", data, residual="ar1(1 | Subject)", reml=reml, weights="w"
    )
    rows = model.ranova().to_frame()
    assert list(rows.index) == ["<none>", "residual structure"]
    X, y, w = model.fit.frame.X, model.fit.frame.y, data["w"].to_numpy()
    n, p = X.shape
    XWX = X.T @ (w[:, None] * X)
    residuals = y - X @ np.linalg.solve(XWX, X.T @ (w * y))
    df = n - p if reml else n
    s2 = float(w @ residuals**2) / df
    criterion = df * (1.0 + np.log(2.0 * np.pi * s2)) - np.log(w).sum()
    if reml:
        criterion += np.linalg.slogdet(XWX)[1]
    assert rows["logLik"].iloc[1] == pytest.approx(-0.5 * criterion)
    assert rows["npar"].tolist() == [6, 5]


def test_both_structures_have_a_row() -> None:
    model = quietly(
        "distance ~ age * Sex + (1 | Subject)",
        data_of("ortho_toep_ml"),
        residual="ar1(1 | Subject)",
        variance="Sex",
    )
    found = model.ranova(boundary=True)
    table = found.to_frame()
    assert list(table.index[1:]) == ["(1 | Subject)", "residual structure", "residual variance"]
    reference = REFERENCES["ortho_intercept_varsex"]
    assert table["logLik"]["residual structure"] == pytest.approx(-0.5 * reference["criterion"])
    assert "its parameters have no boundary where there is no structure" in one_line(found)


def test_known_variances_are_compared() -> None:
    data = data_of("berkey_known_V")
    K = known_covariance(data)
    large = fitted("berkey_known_V")
    small = quietly("yi ~ 0 + outcome + (1 | trial)", data, residual=K, sigma=1)
    none = quietly("yi ~ 0 + outcome", data, residual=K, sigma=1)
    found = me.anova(large, none, small)
    assert found.to_frame()["Df"].tolist()[1:] == [1.0, 2.0]
    assert_allclose(found.to_frame()["Chisq"].iloc[1], none.criterion - small.criterion)
    assert not any("nested" in note for note in found.notes)
    assert list(small.ranova().to_frame().index) == ["<none>", "(1 | trial)"]
    assert small.ranova().to_frame()["logLik"].iloc[1] == pytest.approx(none.loglik)
    other = quietly("yi ~ 0 + outcome", data, residual=me.known(2.0 * K.matrix), sigma=1)
    assert not contains_variance(small.fit, other.fit)
    assert not contains_variance(large.fit, quietly("yi ~ 0 + outcome + (1 | trial)", data).fit)


def test_different_fixed_effects_are_compared_by_maximum_likelihood() -> None:
    large = fev(STRUCTURES["us"])
    small = fev(STRUCTURES["us"], "FEV1 ~ 1")
    found = me.anova(small, large)
    assert found.refitted
    again = [fev(STRUCTURES["us"], f, reml=False) for f in ("FEV1 ~ 1", "FEV1 ~ ARMCD")]
    assert_allclose(found.to_frame()["deviance"], [m.criterion for m in again], atol=1e-6)
    assert found.to_frame()["Df"].iloc[1] == 1.0
