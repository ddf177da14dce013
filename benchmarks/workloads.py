"""The workloads: each a data frame and a formula, generated from a fixed seed or bundled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

import mixedeffects as me

__all__ = ["WORKLOADS", "Workload"]


@dataclass(frozen=True)
class Workload:
    """One thing to time.

    Attributes
    ----------
    name : str
        Short name.
    formula : str
        In lme4's grammar.
    make : callable
        Returns the data.
    factors : tuple of str
        Columns that are grouping factors or categorical, for packages that must be told.
    peers : tuple of str
        Packages that can express the model.
    """

    name: str
    formula: str
    make: Callable[[], pd.DataFrame]
    factors: tuple[str, ...]
    peers: tuple[str, ...] = ("mixedlm", "lme4")


def _sleepstudy() -> pd.DataFrame:
    return me.load_dataset("sleepstudy")


def _insteval() -> pd.DataFrame:
    return me.load_dataset("insteval")


def _chem97() -> pd.DataFrame:
    """31,000 pupils in 2,410 schools in 131 local education authorities."""
    rng = np.random.default_rng(97)
    n, schools, leas = 31_022, 2_410, 131
    lea_of = np.concatenate([np.arange(leas), rng.integers(0, leas, schools - leas)])
    size = rng.gamma(1.0, 1.0, schools)
    school = np.concatenate(
        [np.arange(schools), rng.choice(schools, n - schools, p=size / size.sum())]
    )
    gcse = rng.normal(size=n)
    score = (
        5.6
        + 2.5 * gcse
        + rng.normal(size=leas)[lea_of[school]] * 0.3
        + rng.normal(size=schools)[school]
        + rng.normal(size=n) * 2.3
    )
    return pd.DataFrame({"score": score, "gcse": gcse, "school": school, "lea": lea_of[school]})


def _maximal() -> pd.DataFrame:
    """A maximal psycholinguistic model: 200 subjects by 60 items, two crossed conditions."""
    rng = np.random.default_rng(1)
    n, subjects, items = 20_000, 200, 60
    subject, item = rng.integers(0, subjects, n), rng.integers(0, items, n)
    a, b = rng.choice([-0.5, 0.5], n), rng.choice([-0.5, 0.5], n)
    X = np.column_stack([np.ones(n), a, b, a * b])
    by_subject = rng.normal(size=(subjects, 4)) @ (rng.normal(size=(4, 4)) * 0.3)
    by_item = rng.normal(size=(items, 4)) @ (rng.normal(size=(4, 4)) * 0.2)
    y = (
        X @ [1.0, 0.2, 0.3, 0.1]
        + (X * by_subject[subject]).sum(1)
        + (X * by_item[item]).sum(1)
        + rng.normal(size=n)
    )
    return pd.DataFrame({"y": y, "a": a, "b": b, "subject": subject, "item": item})


def _crossed() -> pd.DataFrame:
    """A million rows, 100,000 by 2,000 crossed levels."""
    rng = np.random.default_rng(2)
    n, big, small = 1_000_000, 100_000, 2_000
    g, h = rng.integers(0, big, n), rng.integers(0, small, n)
    x = rng.normal(size=n)
    y = (
        1.0
        + 0.5 * x
        + 0.7 * rng.normal(size=big)[g]
        + 0.4 * rng.normal(size=small)[h]
        + rng.normal(size=n)
    )
    return pd.DataFrame({"y": y, "x": x, "g": g, "h": h})


def _slopes() -> pd.DataFrame:
    """A million rows, 100,000 groups with a random intercept and slope."""
    rng = np.random.default_rng(3)
    n, groups = 1_000_000, 100_000
    g, x = rng.integers(0, groups, n), rng.normal(size=n)
    b = rng.normal(size=(groups, 2)) @ np.array([[0.8, 0.2], [0.0, 0.4]])
    y = 1.0 + 0.5 * x + b[g, 0] + b[g, 1] * x + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "g": g})


def _value_added(parts: int = 1) -> pd.DataFrame:
    """Pupils in three years with three teachers; one row in twenty in another school."""
    rng = np.random.default_rng(4)
    pupils, teachers, schools = 333_333 // parts, 30_000 // parts, 2_000 // parts
    home = rng.integers(0, schools, pupils)
    pupil = np.repeat(np.arange(pupils), 3)
    school = np.repeat(home, 3)
    moved = rng.random(len(pupil)) < 0.05
    school[moved] = rng.integers(0, schools, int(moved.sum()))
    teacher = school * (teachers // schools) + rng.integers(0, teachers // schools, len(pupil))
    year = np.tile(np.arange(3.0), pupils)
    y = (
        50.0
        + 2.0 * year
        + 3.0 * rng.normal(size=pupils)[pupil]
        + 1.5 * rng.normal(size=teachers)[teacher]
        + 1.0 * rng.normal(size=schools)[school]
        + 4.0 * rng.normal(size=len(pupil))
    )
    return pd.DataFrame(
        {"y": y, "year": year, "pupil": pupil, "teacher": teacher, "school": school}
    )


def _movielens() -> pd.DataFrame:
    """A million ratings of 3,706 films by 6,040 people, with heavy-tailed counts."""
    rng = np.random.default_rng(5)
    n, people, films = 1_000_209, 6_040, 3_706
    by_person, by_film = rng.pareto(1.3, people) + 0.3, rng.pareto(0.9, films) + 0.1
    person = np.concatenate(
        [np.arange(people), rng.choice(people, n - people, p=by_person / by_person.sum())]
    )
    film = np.concatenate(
        [np.arange(films), rng.choice(films, n - films, p=by_film / by_film.sum())]
    )
    y = (
        3.5
        + 0.4 * rng.normal(size=people)[person]
        + 0.5 * rng.normal(size=films)[film]
        + 0.9 * rng.normal(size=n)
    )
    return pd.DataFrame({"y": y, "person": person, "film": film})


def _three_crossed() -> pd.DataFrame:
    """Three crossed factors of 500, 400 and 300 levels, a slope on the first."""
    rng = np.random.default_rng(6)
    n, sizes = 100_000, (500, 400, 300)
    a, b, c = (rng.integers(0, size, n) for size in sizes)
    x = rng.normal(size=n)
    effects = rng.normal(size=(sizes[0], 2)) @ np.array([[0.6, 0.1], [0.0, 0.3]])
    y = (
        1.0
        + 0.3 * x
        + effects[a, 0]
        + effects[a, 1] * x
        + 0.5 * rng.normal(size=sizes[1])[b]
        + 0.4 * rng.normal(size=sizes[2])[c]
        + rng.normal(size=n)
    )
    return pd.DataFrame({"y": y, "x": x, "a": a, "b": b, "c": c})


ALL = ("mixedlm", "gpboost", "lme4")

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(
            "sleepstudy",
            "Reaction ~ Days + (Days | Subject)",
            _sleepstudy,
            ("Subject",),
            ("mixedlm", "statsmodels", "lme4", "glmmTMB"),
        ),
        Workload(
            "chem97", "score ~ gcse + (1 | school) + (1 | lea)", _chem97, ("school", "lea"), ALL
        ),
        Workload(
            "insteval",
            "y ~ service + (1 | s) + (1 | d) + (1 | dept:service)",
            _insteval,
            ("s", "d", "dept", "service"),
        ),
        Workload(
            "insteval slope",
            "y ~ service + (1 | s) + (1 | d) + (1 + service | dept)",
            _insteval,
            ("s", "d", "dept", "service"),
        ),
        Workload(
            "maximal",
            "y ~ a * b + (a * b | subject) + (a * b | item)",
            _maximal,
            ("subject", "item"),
        ),
        Workload("crossed", "y ~ x + (1 | g) + (1 | h)", _crossed, ("g", "h"), ALL),
        Workload(
            "slopes",
            "y ~ x + (x | g)",
            _slopes,
            ("g",),
            ("mixedlm", "lme4"),
        ),
        Workload(
            "movielens", "y ~ 1 + (1 | person) + (1 | film)", _movielens, ("person", "film"), ALL
        ),
        Workload(
            "three crossed", "y ~ x + (x | a) + (1 | b) + (1 | c)", _three_crossed, ("a", "b", "c")
        ),
        Workload(
            "value added, a tenth",
            "y ~ year + (1 | teacher) + (1 | school) + (1 | pupil)",
            lambda: _value_added(10),
            ("teacher", "school", "pupil"),
            ALL,
        ),
        Workload(
            "value added",
            "y ~ year + (1 | teacher) + (1 | school) + (1 | pupil)",
            _value_added,
            ("teacher", "school", "pupil"),
            ALL,
        ),
    )
}


def crossed_with_parameters(n: int, columns: tuple[int, ...]) -> tuple[str, pd.DataFrame]:
    """Formula and data with one crossed factor for each number of columns; 60, 50, ... levels."""
    rng = np.random.default_rng(7)
    widest = max(columns)
    data = {f"x{a}": rng.normal(size=n) for a in range(1, widest)}
    X = np.column_stack([np.ones(n), *data.values()])
    y, terms = rng.normal(size=n), []
    for f, k in enumerate(columns):
        levels = 60 - 10 * f
        code = rng.integers(0, levels, n)
        root = 0.3 * rng.normal(size=(k, k)) + 0.5 * np.eye(k)
        y = y + (X[:, :k] * (rng.normal(size=(levels, k)) @ root.T)[code]).sum(1)
        data[f"g{f}"] = code
        terms.append("(" + " + ".join(["1", *(f"x{a}" for a in range(1, k))]) + f" | g{f})")
    formula = "y ~ " + " + ".join([*(f"x{a}" for a in range(1, widest)), *terms])
    return formula, pd.DataFrame({"y": y, **data})
