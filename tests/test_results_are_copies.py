"""Whatever is done to what a fit hands out, the fit stays as it is."""

from __future__ import annotations

import contextlib
import copy
import inspect
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from numpy.testing import assert_allclose

import mixedeffects as me

TEXT = "Reaction ~ Days + (Days | Subject)"
#: What takes long, draws pictures, writes files, or makes another fit.
LEFT_OUT = {"bootstrap", "profile", "plot", "report", "ranova", "caic", "simulate", "sample"}
LEFT_OUT |= {"refit", "update", "without_data", "marginaleffects", "to_json", "save", "resume"}
#: The engine's working memory.
LEFT_OUT |= {"factorisation", "computed"}


@pytest.fixture(scope="module")
def sleep() -> pd.DataFrame:
    data = me.load_dataset("sleepstudy")
    return data.assign(w=np.linspace(1, 2, 180))


def numbers(m: me.LinearMixedModel, data: pd.DataFrame) -> list[Any]:
    """Everything that is computed from what a fit keeps."""
    return [
        m.X,
        m.y,
        m.Z.toarray(),
        m.theta,
        m.criterion,
        m.fitted,
        m.resid("cholesky"),
        m.coef_table().to_numpy(),
        m.coef_table(ddf="kr").to_numpy(),
        m.confint().to_numpy(),
        m.anova().to_numpy(),
        m.vcov("CR2").to_numpy(),
        m.ranef(cond_var=True).to_frame()[["condval", "condsd"]].to_numpy(),
        m.leverage(),
        m.influence("Subject").cooks_distance,
        m.variogram("Days").table.to_numpy(),
        m.emmeans("Days").to_frame().to_numpy(),
        m.predict(data, interval="prediction").to_numpy(),
        m.V.dense(),
        m.V.logdet(),
        m.V.solve(m.y),
        m.V.parts.share(),
        np.concatenate([rows for _, rows, _ in m.V.blocks()]),
        m.G.dense(),
        m.R.diag(),
        m.varcorr["Subject"].to_numpy(),
        m.frame.data["Days"],
        m.augment()["_fitted"],
        m.loglik_at(m.theta),
        m.refit(data["Reaction"]).criterion,
        m.update(reml=False).criterion,
        float(m.optimum.certificate.holds),
    ]


def arrays(
    value: Any, path: str, seen: dict[int, Any], depth: int = 0
) -> Iterator[tuple[str, Any]]:
    """Arrays and tables that can be reached by public attributes, keys and plain calls."""
    if id(value) in seen or depth > 5:
        return
    seen[id(value)] = value
    if isinstance(value, (np.ndarray, pd.DataFrame, pd.Series)) or scipy.sparse.issparse(value):
        yield path, value
        # The methods of a table are pandas'.
        return
    named = callable(getattr(value, "keys", None))
    if isinstance(value, (dict, list, tuple)) or named:
        keys = value.keys() if named else range(len(value))
        for key in keys:
            yield from arrays(value[key], f"{path}[{key!r}]", seen, depth + 1)
    elif inspect.isgenerator(value):
        for number, each in enumerate(value):
            yield from arrays(each, f"{path}: {number}", seen, depth + 1)
    if type(value).__module__.startswith("mixedeffects"):
        for name in set(dir(value)) - LEFT_OUT:
            if not name.startswith("_"):
                yield from arrays(_got(value, name), f"{path}.{name}", seen, depth + 1)


def _got(value: Any, name: str) -> Any:
    try:
        got = getattr(value, name)
        if not inspect.ismethod(got):
            return None if callable(got) else got
        parameters = inspect.signature(got).parameters.values()
        needed = [p for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
        return None if needed else got()
    except (me.MixedEffectsError, AttributeError):
        return None


REFUSALS = (ValueError, TypeError, AttributeError, KeyError, NotImplementedError)


def spoil(value: Any) -> None:
    """Write into it in every way there is."""
    writes = [
        lambda: value.__setitem__(..., 3),
        lambda: value.__isub__(value.mean()),
        lambda: value.data.__setitem__(..., 3.0),
        lambda: value.iloc.__setitem__(slice(None), 3.0),
        lambda: value.to_numpy().__setitem__(..., 3),
        lambda: [value.__setitem__(name, 3.0) for name in list(value.columns)],
    ]
    for write in writes:
        with contextlib.suppress(*REFUSALS):
            write()


def handed_out(m: me.LinearMixedModel, data: pd.DataFrame) -> dict[str, Any]:
    out: dict[str, Any] = {"m": m}
    for name in m.getme_names():
        out[f"getme({name!r})"] = m.getme(name)
    planned = me.marginal_covariance("~ Days + (Days | Subject)", data, G=m.varcorr)
    return out | {
        "V.rows": m.V.rows([0, 1]),
        "V.block": m.V.block("308"),
        "V.at": m.V.at(m.theta),
        "V.blocks": m.V.blocks("Subject"),
        "robust": m.robust(),
        "emmeans": m.emmeans("Days"),
        "contrasts": m.emmeans("Days", at={"Days": [0, 1]}).contrasts(),
        "wald": m.wald("Days"),
        "influence": m.influence("Subject"),
        "variogram": m.variogram("Days"),
        "predict": m.predict(),
        "ranef": m.ranef(cond_var=True),
        "marginal_covariance": planned,
        "gls": me.gls(m.X, m.y, m.V),
        "compare": me.compare(m, m.update("Reaction ~ 1 + (1 | Subject)")),
    }


@pytest.mark.parametrize("stored", [False, True], ids=["fitted", "unpickled"])
@pytest.mark.filterwarnings("ignore")
def test_nothing_that_is_handed_out_changes_the_fit(sleep: pd.DataFrame, stored: bool) -> None:
    m = me.lmer(TEXT, sleep, weights="w")
    expected = copy.deepcopy(numbers(m, sleep))
    if stored:
        m = pickle.loads(pickle.dumps(m))
    seen: dict[int, Any] = {}
    paths = []
    for name, value in handed_out(m, sleep).items():
        for path, found in list(arrays(value, name, seen)):
            paths.append(path)
            spoil(found)
    assert len(paths) > 200
    for number, (found, right) in enumerate(zip(numbers(m, sleep), expected, strict=True)):
        assert_allclose(found, right, rtol=1e-8, atol=1e-10, err_msg=f"number {number}")


def test_what_is_handed_out_is_read_only_or_a_copy(sleep: pd.DataFrame) -> None:
    m = me.lmer(TEXT, sleep)
    for array in (m.X, m.y, m.getme("X"), m.frame.terms[0].z, m.frame.terms[0].codes):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    for array in (m.satterthwaite.vcov, m.kenward_roger.vcov, m.optimum.T[0]):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    fitted = m.fitted
    fitted -= fitted.mean()
    assert m.fitted.mean() == pytest.approx(sleep["Reaction"].mean())
    Z = m.Z
    Z.data[:] = 0.0
    assert m.Z.sum() > 0.0
    data = m.frame.data
    data["Days"] = 0.0
    assert m.frame.data["Days"].sum() == sleep["Days"].sum()


def test_the_data_given_may_change_after_the_fit(sleep: pd.DataFrame) -> None:
    data = sleep.copy()
    m = me.lmer(TEXT, data, weights=data["w"].to_numpy(), offset=data["w"].to_numpy())
    expected = copy.deepcopy(m.robust("CR0", cluster="Subject").vcov), m.variogram("Days").table
    criterion = m.update(reml=False).criterion
    data["Days"] = 0.0
    del data["Subject"]
    assert m.robust("CR0", cluster="Subject").vcov.equals(expected[0])
    assert m.variogram("Days").table.equals(expected[1])
    assert m.emmeans("Days").to_frame()["Days"].item() == pytest.approx(4.5)
    assert m.update(reml=False).criterion == criterion
    assert m.predict().equals(m.fitted.rename("estimate"))
    # So may the columns of a dict.
    columns = {name: sleep[name] for name in sleep}
    m = me.lmer(TEXT, columns)
    columns.clear()
    assert m.update(reml=False).nobs == 180
