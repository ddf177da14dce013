"""Every argument of every public function: values that it does not take, and values of NumPy's.

Whatever is given, what comes is a sensible answer or an error of the package: nothing raw, no
warning of another's, and no waiting.
"""

from __future__ import annotations

import functools
import inspect
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import mixedeffects as me

Call = tuple[Callable[..., Any], dict[str, Any], Callable[..., Any]]

#: One of each kind of thing that an argument may be given by mistake.
FEW: list[Any] = [
    None,
    "no such thing",
    float("nan"),
    -1,
    10**12,
    [],
    {},
    pd.DataFrame({"a": [1.0]}),
    b"x",
    1j,
]
MANY: list[Any] = [
    *FEW,
    "",
    float("inf"),
    0,
    2**70,
    1.5,
    True,
    (),
    set(),
    object(),
    lambda x: x,
    Exception,
    pd.NaT,
    "x" * 5000,
    np.ma.masked_array([1.0, 2.0], [True, False]),
    np.array([]),
    np.array(3),
    np.full((2, 2), np.nan),
    ["a", None],
    [[1], [1, 2]],
]

OWN_WARNINGS = tuple(
    value
    for value in vars(me).values()
    if isinstance(value, type) and issubclass(value, UserWarning)
)


@functools.cache
def data() -> pd.DataFrame:
    sleep = me.load_dataset("sleepstudy")
    return sleep.assign(arm=np.where(sleep["Subject"].cat.codes % 2 == 0, "a", "b"))


@functools.cache
def fit() -> me.LinearMixedModel:
    return me.lmer("Reaction ~ Days + arm + (Days | Subject)", data())


def results() -> dict[str, Any]:
    """Objects whose methods are public."""
    m = fit()
    return {
        "m": m,
        "V": m.V,
        "G": m.G,
        "R": m.R,
        "parts": m.V.parts,
        "varcorr": m.varcorr,
        "ranef": m.ranef(cond_var=True),
        "boot": m.bootstrap(5, seed=1),
        "profile": m.profile("sigma", level=0.8),
        "influence": m.influence("Subject"),
        "emmeans": m.emmeans("arm"),
        "contrasts": m.emmeans("arm").contrasts(),
        "effects": m.effects("Days"),
        "robust": m.robust("CR2"),
        "kr": m.kenward_roger,
        "satterthwaite": m.satterthwaite,
        "variogram": m.variogram("Days"),
        "checks": m.check(["levels", "collinearity"]),
        "etable": me.etable(m),
        "compare": me.compare(m),
        "wald": m.wald("Days"),
        "gls": me.gls(m.X, m.y, m.V),
        "cv": me.cross_validate(m, folds=2, seed=1),
        "power": me.power(m, "Days", draws=2, seed=1),
        "planned": me.marginal_covariance(
            "Reaction ~ Days + (1 | Subject)", data(), G={"Subject": 2.0}, sigma=1.0
        ),
    }


def given() -> dict[str, Any]:
    """What methods get for arguments without a default, by their names."""
    m = fit()
    return {
        "hypothesis": "Days",
        "contrasts": [[0, 1, 0]],
        "contrast": [[0, 1, 0]],
        "L": [[0, 1, 0]],
        "newdata": data().head(3),
        "data": data(),
        "specs": "arm",
        "variables": "Days",
        "var": "Days",
        "name": "X",
        "theta": m.theta,
        "distance": "Days",
        "y": m.y,
        "X": m.X,
        "B": m.y,
        "r": m.y,
        "level": "308",
        "rows": [1],
        "label": "Subject",
        "parameter": "sigma",
        "value": 30.0,
        "path": "V.npz",
        "check": "levels",
    }


#: What takes less time, or is needed beside the arguments without a default.
OPTIONS: dict[str, dict[str, Any]] = {
    "m.bootstrap": {"n": 2, "seed": 1},
    "m.profile": {"parameters": "sigma", "level": 0.8},
    "m.simulate": {"seed": 1},
    "m.check": {"which": "outliers", "draws": 19},
    "plot.checks": {"which": "simulation", "draws": 19},
    "m.report": {"path": "fit.html"},
    "m.to_json": {"path": "fit.json"},
    "etable.save": {"path": "t.tex"},
    "boot.resume": {"n": 6},
    "planned.at": {"theta": [1.0]},
    "V.sample": {"size": 2},
    "planned.sample": {"size": 2},
}

#: Not for users to call, or in need of packages that are not here.
LEFT_OUT = {"satterthwaite.df_of", "m.marginaleffects"}


@functools.cache
def calls() -> dict[str, Call]:
    """Valid calls by name: the function, its arguments, and where its signature is."""
    m = fit()
    formula = "Reaction ~ Days + (Days | Subject)"
    planned = {"G": {"Subject": 2.0}, "sigma": 1.0}
    functions: dict[str, Call] = {
        "lmer": (me.lmer, {"formula": formula, "data": data()}, me.lmer),
        "gls": (me.gls, {"X": m.X, "y": m.y, "V": m.V}, me.gls),
        "marginal_covariance": (
            me.marginal_covariance,
            {"formula": "Reaction ~ Days + (1 | Subject)", "data": data(), **planned},
            me.marginal_covariance,
        ),
        "cross_validate": (
            functools.partial(me.cross_validate, m),
            {"folds": 2, "seed": 1},
            me.cross_validate,
        ),
        "power": (me.power, {"model": m, "test": "Days", "draws": 2, "seed": 1}, me.power),
        "etable": (me.etable, {"models": m}, me.etable),
        "anova": (functools.partial(me.anova, m, m), {}, me.anova),
        "compare": (functools.partial(me.compare, m), {}, me.compare),
        "load_dataset": (me.load_dataset, {"name": "dyestuff"}, me.load_dataset),
        "Control": (me.Control, {}, me.Control),
    }
    for name in me.plot.__all__:
        picture = getattr(me.plot, name)
        first = next(iter(inspect.signature(picture).parameters))
        what = m if first == "model" else np.eye(3)
        functions[f"plot.{name}"] = (picture, {first: what}, picture)
    known = given()
    for owner, result in results().items():
        for name in dir(type(result)):
            static = inspect.getattr_static(type(result), name)
            if name.startswith("_") or not inspect.isfunction(static):
                continue
            method = getattr(result, name)
            needed = {
                argument.name: known[argument.name]
                for argument in arguments_of(method)
                if argument.default is argument.empty and f"{owner}.{name}" not in LEFT_OUT
            }
            own = needed | OPTIONS.get(f"{owner}.{name}", {})
            functions[f"{owner}.{name}"] = (method, own, method)
    return {name: call for name, call in functions.items() if name not in LEFT_OUT}


def arguments_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return [
        argument
        for argument in inspect.signature(function).parameters.values()
        if argument.kind not in (argument.VAR_KEYWORD, argument.VAR_POSITIONAL)
        and not argument.name.startswith("_")
    ]


def outcome(function: Callable[..., Any], options: dict[str, Any]) -> str:
    """What comes of a call, in a word; the error itself where it should not have come."""

    def too_long(*_: Any) -> None:
        raise TimeoutError("took more than ten seconds")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, 10.0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = function(**options)
            if isinstance(found, Iterator):
                next(found, None)
        return "answer"
    except (me.MixedEffectsError, *OWN_WARNINGS):
        return "own"
    except IndexError as error:
        # V[rows] is a sequence to Python, which ends at this error.
        own = "by position" in str(error) or "there is no position" in str(error)
        return "own" if own else repr(error)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:80]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
        plt.close("all")


def sweep(names: list[str], values: list[Any]) -> list[str]:
    wrong = []
    for name in names:
        function, options, signature = calls()[name]
        for argument in arguments_of(signature):
            for value in values:
                found = outcome(function, {**options, argument.name: value})
                if found not in ("own", "answer"):
                    wrong.append(f"{name}({argument.name}={value!r:.40}): {found}")
    return wrong


needs_alarm = pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="no alarm to stop a wait")


@needs_alarm
def test_the_calls_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = {
        name: outcome(function, options)
        for name, (function, options, _) in calls().items()
        if name not in ("m.report", "plot.panel")
    }
    assert {name: how for name, how in found.items() if how != "answer"} == {}
    assert len(found) > 120


@needs_alarm
def test_wrong_arguments_end_in_errors_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    slow = ("m.report", "plot.", "m.bootstrap", "boot.", "power", "cross_validate", "m.plot")
    names = [name for name in calls() if not name.startswith(slow)]
    assert sweep(names, FEW) == []


@pytest.mark.slow
@needs_alarm
def test_all_wrong_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert sweep(list(calls()), MANY) == []


# --- NumPy's scalars --------------------------------------------------------------------------


def variants(value: Any) -> list[Any]:
    """The same value in NumPy's types."""
    if isinstance(value, bool):
        return [np.bool_(value), np.array(value)]
    if isinstance(value, int):
        return [np.int64(value), np.int8(value % 128), np.array(value)][:: 2 if value > 127 else 1]
    if isinstance(value, float):
        return [np.float64(value), np.array(value)]
    if isinstance(value, str):
        return [np.str_(value)]
    return []


def shown(result: Any) -> str:
    if isinstance(result, Iterator):
        result = list(result)
    if hasattr(result, "get_title") or type(result).__name__ == "ndarray":
        return type(result).__name__
    return repr(result)


#: Values other than the defaults, where the default is None or takes too long.
VALUES: dict[str, dict[str, Any]] = {
    "lmer": {"reml": False},
    "m.bootstrap": {"n": 2, "seed": 1, "workers": 1},
    "m.simulate": {"n": 2, "seed": 1},
    "m.predict": {"interval": "prediction", "se": True, "chunk_size": 2, "level": 0.9},
    "m.variogram": {"bins": 3, "max_pairs": 500, "by": "Subject"},
    "m.influence": {"by": "Subject", "refit": True},
    "m.check": {"which": "outliers", "draws": 19, "seed": 2, "level": 0.1},
    "plot.checks": {"which": "simulation", "draws": 19, "seed": 2},
    "m.robust": {"kind": "CR0", "cluster": "Subject", "crossed": False, "level": 0.9},
    "m.confint": {"method": "boot", "n": 3, "seed": 1, "kind": "basic", "progress": False},
    "m.getme": {"name": "theta"},
    "cross_validate": {"folds": 2, "seed": 1},
    "power": {"draws": 2, "seed": 1, "alpha": 0.1, "n": 4, "sigma": 20.0},
    "etable": {"digits": 2, "statistic": "t", "output": "text"},
    "V.sample": {"size": 2, "seed": 1, "mean": 1.5},
    "V.block": {"by": "Subject"},
    "Control": {"tolerance": 1e-9, "max_evaluations": 50},
    "plot.matrix": {"limit": 2.0, "center": 0.5, "max_pixels": 10, "annotate": True, "label": "a"},
    "plot.groups": {"most": 3, "by": "Subject"},
}


@pytest.mark.filterwarnings("ignore::mixedeffects.errors.ConvergenceWarning")
def test_scalars_of_numpy_are_what_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    skipped = (
        "m.report",
        "plot.panel",
        "plot.influence",
        "checks.plot",
        "m.to_json",
        "V.save",
        "planned.save",
    )
    wrong = []
    for name, (function, options, signature) in calls().items():
        if name in skipped:
            continue
        for argument in arguments_of(signature):
            value = VALUES.get(name, {}).get(
                argument.name, options.get(argument.name, argument.default)
            )
            if (name, argument.name) in (("m.bootstrap", "statistic"), ("m.confint", "n")):
                continue
            base = {**options, argument.name: value}
            if name == "m.confint" and argument.name in ("n", "seed", "kind", "method"):
                base = {**VALUES["m.confint"], argument.name: value}
            if name == "m.predict" and argument.name == "level":
                base["interval"] = "prediction"
            expected = None
            for variant in variants(value):
                expected = shown(function(**base)) if expected is None else expected
                try:
                    found = shown(function(**{**base, argument.name: variant}))
                except Exception as error:
                    found = f"{type(error).__name__}: {str(error)[:80]}"
                if found != expected:
                    wrong.append(f"{name}({argument.name}={variant!r}): {found[:90]}")
                plt.close("all")
    assert not wrong, "\n".join(wrong)


def test_misspelt_names_are_recognised() -> None:
    m = fit()
    for call, meant in (
        (lambda: m.resid("pearsn"), "pearson"),
        (lambda: m.coef_table("satterthwait"), "satterthwaite"),
        (lambda: m.plot("caterpilar"), "caterpillar"),
        (lambda: m.bootstrap(3, seed=1).confint(kind="percentle"), "percentile"),
        (lambda: m.robust("CR9"), "CR"),
        (lambda: m.confint("profil"), "profile"),
    ):
        with pytest.raises(me.ModelError, match=f"is not known; there are .*Did you mean '{meant}"):
            call()
