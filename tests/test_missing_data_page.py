"""The page on missing data: its code runs, and its numbers are those that it makes."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me

_PAGE = (Path(__file__).parents[1] / "docs" / "missing-data.md").read_text(encoding="utf-8")
_BLOCKS = re.findall(r"^```(.*?)\n(.*?)^```$", _PAGE, re.MULTILINE | re.DOTALL)


def blocks(kind: str) -> list[str]:
    return [code for language, code in _BLOCKS if language.strip() == kind]


def run(code: list[str], names: dict[str, Any]) -> str:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        for each in code:
            exec(compile(each, "docs/missing-data.md", "exec"), names)
    return shown.getvalue()


def test_code_cells_run() -> None:
    names: dict[str, Any] = {}
    shown = run(blocks("{code-cell} ipython3"), names)
    means = {name: float(mean.estimates.estimate[0]) for name, mean in names["boys"].items()}
    truth = means["nothing missing"]
    # What the page says: the likelihood of all rows is near the truth, the others are not.
    assert abs(means["all rows there are"] - truth) < 0.3
    assert abs(means["complete children only"] - truth) > 0.7
    assert "'all rows there are'" in shown


@pytest.mark.filterwarnings("default")
def test_the_imputation_runs_and_says_what_the_page_says() -> None:
    pytest.importorskip("sklearn")
    names: dict[str, Any] = {"me": me, "np": np, "pd": pd}
    with warnings.catch_warnings():
        # scikit-learn's: draws do not converge.
        warnings.simplefilter("ignore")
        shown = run(blocks("python"), names)
    (stated,) = blocks("text")
    assert shown.splitlines()[1] == stated.splitlines()[1]
    table = names["pooled"].coef_table()
    assert table["Estimate"].round(1).tolist() == [0.4, 0.4]
    assert 0.2 < table.loc["x", "FMI"] < 0.6
    complete = me.lmer(names["formula"], names["data"])
    rows = me.lmer(names["formula"], names["holes"])
    assert complete.fixef.round(2).tolist() == [0.38, 0.36]
    assert (rows.nobs, round(rows.fixef["(Intercept)"], 2)) == (103, 0.06)
    sds = [each.varcorr.sd("teacher:school").iloc[0] for each in (complete, rows)]
    assert [round(sd, 2) for sd in sds] == [1.11, 0.92]
