"""Models of variances only, and with one fixed effect: every method answers or says why not."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import mixedeffects as me
from mixedeffects.cli import main

pytestmark = [
    pytest.mark.filterwarnings("ignore::mixedeffects.ClusterWarning"),
    pytest.mark.filterwarnings("ignore::mixedeffects.ConvergenceWarning"),
]


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def table() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    n = 120
    data = pd.DataFrame({"a": np.arange(n) % 12, "b": rng.integers(0, 6, n)})
    data["c"] = 10 * data["a"] + rng.integers(0, 3, n)
    data["x"], data["w"] = rng.normal(size=n), rng.uniform(0.5, 2.0, n)
    data["y"] = rng.normal(size=12)[data["a"]] + rng.normal(size=6)[data["b"]]
    data["y"] += 0.5 * rng.normal(size=120)[data["c"]] + rng.normal(size=n)
    return data


DATA = table()

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "one factor": ("y ~ 0 + (1 | a)", {}),
    "crossed": ("y ~ 0 + (1 | a) + (1 | b)", {}),
    "crossed, by ML": ("y ~ 0 + (1 | a) + (1 | b)", {"reml": False}),
    "nested": ("y ~ 0 + (1 | a/c)", {}),
    "slopes and weights": ("y ~ 0 + (x | a) + (1 | b)", {"weights": "w"}),
    "structure": ("y ~ 0 + cs(1 + x | a)", {}),
    "offset": ("y ~ 0 + offset(x) + (1 | a) + (1 | b)", {}),
    "few rows": ("y ~ 0 + (1 | b)", {"rows": 14}),
    "an intercept": ("y ~ 1 + (1 | a) + (1 | b)", {}),
    "a slope": ("y ~ 0 + x + (1 | a) + (1 | b)", {}),
}


@cache
def fit(name: str) -> me.LinearMixedModel:
    formula, options = MODELS[name]
    options, data = dict(options), DATA.copy()
    data.loc[options.pop("rows", len(data)) :, "y"] = np.nan
    return me.lmer(formula, data, **options)


def no_columns(m: me.LinearMixedModel) -> np.ndarray:
    return np.empty((m.nobs, 0))


def command_line(m: me.LinearMixedModel, folder: Path) -> None:
    path = folder / "data.csv"
    DATA.to_csv(path, index=False)
    assert main(["fit", str(path), m.formula, "--json"]) == 0
    assert main(["fit", str(path), m.formula, "--html", str(folder / "fit.html")]) == 0


NEW = DATA.head(4)
CLUSTER: dict[str, Any] = {"vcov": "CR0", "cluster": ["a", "b"]}

CALLS: dict[str, Callable[[me.LinearMixedModel, Path], Any]] = {
    "repr": lambda m, _: repr(m),
    "html": lambda m, _: m._repr_html_(),
    "summary": lambda m, _: str(m.summary()),
    "summary kr": lambda m, _: str(m.summary(ddf="kr")),
    "summary robust": lambda m, _: str(m.summary(**CLUSTER)),
    "coef_table": lambda m, _: m.coef_table(),
    "coef_table kr": lambda m, _: m.coef_table(ddf="kr"),
    "coef_table robust": lambda m, _: m.coef_table(**CLUSTER),
    "robust CR0": lambda m, _: repr(m.robust("CR0", "a")),
    "robust CR1p": lambda m, _: repr(m.robust("CR1p", "a")),
    "robust CR1S": lambda m, _: repr(m.robust("CR1S", "a")),
    "robust CR2": lambda m, _: repr(m.robust("CR2", "a")),
    "robust CR3": lambda m, _: repr(m.robust("CR3", "a")),
    "robust multiway": lambda m, _: repr(m.robust("CR1S", ["a", "b"])),
    "robust crossed": lambda m, _: repr(m.robust("CR1S", "b", crossed=True)),
    "robust table": lambda m, _: [m.robust().coef_table(t) for t in ("saddlepoint", "naive-tp")],
    "vcov": lambda m, _: [m.vcov(), m.vcov("kr")],
    "anova": lambda m, _: [repr(m.anova(kind)) for kind in (1, 2, 3)],
    "anova kr": lambda m, _: m.anova(ddf="kr"),
    "wald": lambda m, _: m.wald(np.zeros((0, len(m.fixef)))),
    "wald by name": lambda m, _: m.wald("x"),
    "contrast": lambda m, _: m.contrast([]),
    "contrast by name": lambda m, _: m.contrast({"x": {"x": 1}}),
    "emmeans": lambda m, _: repr(m.emmeans("1")),
    "emmeans of x": lambda m, _: repr(m.emmeans("x")),
    "emtrends": lambda m, _: repr(m.emtrends("1", "x")),
    "tidy": lambda m, _: m.tidy(),
    "glance": lambda m, _: m.glance(),
    "augment": lambda m, _: m.augment(),
    "predict": lambda m, _: [m.predict(), m.predict(NEW), m.predict(NEW, re=None)],
    "predict confidence": lambda m, _: m.predict(NEW, interval="confidence"),
    "predict prediction": lambda m, _: m.predict(NEW, interval="prediction"),
    "population confidence": lambda m, _: m.predict(NEW, re=None, interval="confidence"),
    "population prediction": lambda m, _: m.predict(NEW, re=None, interval="prediction"),
    "population kr": lambda m, _: m.predict(re=None, interval="confidence", ddf="kr"),
    "population robust": lambda m, _: m.predict(re=None, interval="confidence", **CLUSTER),
    "simulate": lambda m, _: [m.simulate(2, seed=1), m.simulate(2, seed=1, re="all")],
    "bootstrap": lambda m, _: repr(m.bootstrap(3, seed=1)),
    "confint": lambda m, _: m.confint(),
    "profile": lambda m, _: repr(m.profile()),
    "influence": lambda m, _: repr(m.influence("a")),
    "influence of rows": lambda m, _: repr(m.influence()),
    "leverage": lambda m, _: [m.leverage(kind) for kind in ("total", "fixed", "random")],
    "resid": lambda m, _: [
        m.resid(kind)
        for kind in ("response", "pearson", "scaled", "studentized", "marginal", "cholesky")
    ],
    "resid symmetric": lambda m, _: m.resid("symmetric"),
    "V.solve": lambda m, _: m.V.solve(no_columns(m)),
    "V @": lambda m, _: m.V @ no_columns(m),
    "V.whiten": lambda m, _: [m.V.whiten(no_columns(m), k) for k in ("cholesky", "symmetric")],
    "V.gls": lambda m, _: repr(m.V.gls(no_columns(m), m.y)),
    "gls": lambda m, _: repr(me.gls(no_columns(m), m.y, m.V.sparse())),
    "V": lambda m, _: [repr(m.V), repr(m.V.parts), m.V.logdet(), m.V.sample(2, seed=1)],
    "getme": lambda m, _: [m.getme(name) for name in m.getme_names()],
    "coef": lambda m, _: [m.coef(), m.ranef(True), m.se, m.fixef],
    "variance explained": lambda m, _: [repr(m.icc()), repr(m.r2()), repr(m.caic())],
    "ranova": lambda m, _: repr(m.ranova()),
    "refit": lambda m, _: repr(m.refit(m.y[::-1].copy())),
    "update": lambda m, _: repr(m.update(reml=False)),
    "compare": lambda m, _: [repr(me.compare(m, fit("crossed, by ML")))],
    "likelihood ratio": lambda m, _: repr(me.anova(m, fit("an intercept"))),
    "satterthwaite": lambda m, _: m.satterthwaite.df(np.zeros((0, len(m.fixef)))),
    "kenward_roger": lambda m, _: m.kenward_roger.vcov,
    "power": lambda m, _: me.power(m, "x", draws=2, seed=1),
    "marginaleffects": lambda m, _: m.marginaleffects(),
    "etable": lambda m, _: [repr(me.etable(m)), me.etable(m).to_latex()],
    "json": lambda m, _: json.loads(m.to_json()),
    "pickle": lambda m, _: repr(pickle.loads(pickle.dumps(m))),
    "without data": lambda m, _: m.without_data().predict(NEW),
    "plot": lambda m, _: m.plot(),
    "report": lambda m, folder: m.report(folder / "report.html"),
    "report robust": lambda m, folder: m.report(folder / "report.html", **CLUSTER),
    "command line": command_line,
}


#: What has no answer without fixed effects, and the reason.
REFUSED = {
    "wald": "no fixed effects, so there are no contrasts",
    "wald by name": "no fixed effects, so there are no contrasts",
    "contrast": "no fixed effects, so there are no contrasts",
    "contrast by name": "no fixed effects, so there are no contrasts",
    "power": "no fixed effects, so there are no contrasts",
    "emmeans of x": "the model has none",
    "emtrends": "the model has none",
    "influence": "no fixed effects",
    "influence of rows": "no fixed effects",
    "marginaleffects": "no fixed effects",
}


@pytest.mark.parametrize("call", [call for call in CALLS if call != "report robust"])
def test_every_method_answers_or_says_why_not(call: str, tmp_path: Path) -> None:
    """A nested design, where every kind of robust errors is defined."""
    if call in REFUSED:
        with pytest.raises(me.ModelError, match=REFUSED[call]):
            CALLS[call](fit("nested"), tmp_path)
    else:
        CALLS[call](fit("nested"), tmp_path)


QUICK = [call for call in CALLS if "report" not in call and call not in ("command line", "plot")]


@pytest.mark.parametrize("name", ["crossed"])
def test_every_method_of_crossed_factors(name: str, tmp_path: Path) -> None:
    for call in QUICK:
        _answers_or_explains(name, call, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_method_of_every_model(name: str, tmp_path: Path) -> None:
    for call in CALLS:
        _answers_or_explains(name, call, tmp_path)


def _answers_or_explains(name: str, call: str, folder: Path) -> None:
    try:
        CALLS[call](fit(name), folder)
    except me.MixedEffectsError as error:
        assert len(str(error).split()) > 4, call
    except ImportError as error:
        assert "pip install" in str(error), call


@pytest.mark.parametrize("name", ["crossed", "crossed, by ML", "nested", "slopes and weights"])
def test_answers_from_dense_algebra(name: str) -> None:
    m = fit(name)
    V = m.V.dense()
    W = np.linalg.inv(V)
    n = m.nobs
    criterion = np.linalg.slogdet(V)[1] + m.y @ W @ m.y + n * np.log(2.0 * np.pi)
    assert m.criterion == pytest.approx(criterion, abs=1e-8)
    assert m.criterion == pytest.approx(m.update(reml=not m.reml).criterion, abs=1e-7)
    R = m.R.sparse().toarray()
    H = np.eye(n) - R @ W
    assert_allclose(m.fitted, H @ m.y, atol=1e-9)
    assert_allclose(m.leverage(), np.diag(H), atol=1e-9)
    assert_allclose(m.leverage("fixed"), 0.0)
    whitened = m.resid("cholesky")
    assert float(whitened @ whitened) == pytest.approx(float(m.y @ W @ m.y))
    ours = m.predict(re=None, interval="prediction")
    assert_allclose(ours["std_error"] ** 2, np.diag(V), rtol=1e-9)
    mean = m.predict(re=None, interval="confidence")
    assert (mean == 0.0).all(axis=None)
    assert m.coef_table().shape == (0, 7) and m.anova().shape == (0, 6)
    assert m.robust("CR1S", ["a", "b"]).table.shape[0] == 0


@pytest.mark.parametrize("name", ["crossed", "an intercept", "nested"])
def test_solving_for_nothing(name: str) -> None:
    """No right-hand sides give no solutions, of every operator."""
    m = fit(name)
    nothing = no_columns(m)
    for answer in (
        m.V.solve(nothing),
        m.V @ nothing,
        m.V.whiten(nothing, "cholesky"),
        m.V.whiten(nothing, "symmetric"),
    ):
        assert answer.shape == (m.nobs, 0)
    assert m.V.gls(nothing, m.y).coef.shape == (0,)
