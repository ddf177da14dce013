"""This package against R, model by model: python benchmarks/validation.py [--page].

R's answers are those stored in tests/reference, so R is not needed. Writes
benchmarks/validation.json, and docs/validation.md from it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mixedeffects as me

HERE = Path(__file__).parent
STORE = HERE / "validation.json"
PAGE = HERE.parent / "docs" / "validation.md"

#: Deviance above the minimum that counts as having stopped short; below it is rounding.
SHORT = 1e-8

#: Keys of a comparison and the headings of their columns.
ESTIMATES = {
    "fixef": "fixed effects",
    "se": "standard errors",
    "variances": "(co)variances",
    "sigma": "sigma",
    "modes": "conditional modes",
    "fitted": "fitted values",
}
MATRIX = {"nnz": "nonzeros", "trace": "trace", "sum": "sum", "logdet": "log det", "block": "cells"}
INFERENCE = {
    "satterthwaite": "Satterthwaite df",
    "anova": "type 3 F",
    "kr_se": "KR SE",
    "kr_df": "KR df",
    "cr2_se": "CR2 SE",
    "cr2_df": "CR2 df",
}

INTRODUCTION = """# Validation against R

Models nested and crossed, with and without random slopes, at the boundary and off it, compared with
the stored answers of R 4.2: lme4 1.1-31 (estimates), lmerTest (Satterthwaite), pbkrtest
(Kenward-Roger) and clubSandwich (CR2). `criterion` is the REML criterion, or -2 log-likelihood.

Made by `python benchmarks/validation.py` from `tests/reference/*.json`; the R script that made
those is beside them. The test suite holds the same comparisons to tolerances."""

AT_R = """## The same parameters, the same numbers

Two programs that stop at different points of the same likelihood disagree in the digits beyond
their stopping rules, whatever else they compute. To take that apart, this package is first
evaluated at R's own variance parameters `theta`, with no search at all. What then differs is
arithmetic.

The numbers are the largest relative differences of a model: of fixed effects in standard errors, of
covariances relative to the largest entry of their matrix, of conditional modes relative to the
largest mode, of fitted values in residual standard deviations. The criterion is a plain difference.
For `star_sample` R's theta lies 5e-5 off the boundary; the fit here takes that as on it, hence
the larger differences of its estimates."""

INFERENCE_TEXT = """## Degrees of freedom, tests, robust standard errors

Also at R's parameters, relative differences. A dash: R's answer is not stored, for the fit is by
maximum likelihood, the model has no terms to test, the design has no clusters, or R's method is too
slow. Satterthwaite's method needs second derivatives of the likelihood, which lmerTest takes
numerically; the differences are of the size of its error, but for `orthodont`. There R stopped
furthest from the optimum, and where the gradient is not zero second derivatives depend on the
parameters they are taken in. At the optimum the degrees of freedom of that balanced design are
25, of which this package gives 25.0000 and R, where it stopped, 25.01.

The F tests of `cake` differ by 1e-7. It is a balanced split plot, whose F of `recipe` is a ratio of
two mean squares, 0.2487887871. This package's at its own optimum agrees with that to 12 digits;
lmerTest's is 0.2487888123."""

V_TEXT = """## The matrix V

Facts about V at R's theta and sigma: the number of nonzeros (a difference of counts), and relative
differences of trace, sum of all entries, log determinant, and the first six rows and columns
(relative to the largest). For the two largest models V is not stored."""

OPTIMA_TEXT = """## Each at its own optimum

Here each program searches for itself. `R, default` is the criterion with lme4's default optimiser
less this package's; `R, stored` the same for the fit that R's answers on this page come from, which
is the one that R's `deviance()` put lowest among that and two other optimisers with tight
tolerances. Positive: R stopped short. The columns after that compare with the stored fit as above,
and `theta` is a plain difference."""


def largest(ours: Any, theirs: Any, scale: Any = None) -> float:
    """Largest difference, relative to each number or to the scale given."""
    a = np.asarray(ours, dtype=np.float64)
    b = np.asarray(theirs, dtype=np.float64).reshape(a.shape)
    unit = np.abs(b) if scale is None else scale
    difference = np.abs(a - b)
    if not difference.any():
        return 0.0
    return float(np.max(difference / np.where(unit == 0.0, 1.0, unit)))


def estimates(m: me.LinearMixedModel, r: dict[str, Any]) -> dict[str, float]:
    """Differences of what lme4 estimates."""
    se = np.sqrt(np.diag(np.atleast_2d(r["vcov"])))
    modes = m.ranef()
    return {
        "fixef": largest(m.fixef, r["fixef"], se),
        "se": largest(m.se, se),
        "variances": max(
            largest(m.varcorr[group], block, max(np.abs(block).max(), r["sigma"] ** 2 * 1e-6))
            for group, block in r["varcorr"].items()
        ),
        "sigma": largest(m.sigma, r["sigma"]),
        "modes": max(
            largest(
                modes[group].iloc[: len(np.atleast_2d(stored["values"]))],
                stored["values"],
                max(np.abs(stored["values"]).max(), 1e-6 * r["sigma"]),
            )
            for group, stored in r["ranef"].items()
        ),
        "fitted": largest(m.fitted.iloc[:10], r["fitted_head"], r["sigma"]),
    }


def inference(m: me.LinearMixedModel, r: dict[str, Any]) -> dict[str, float | None]:
    """Differences of degrees of freedom, F tests and robust standard errors."""

    def column(table: dict[str, Any], name: str) -> NDArray[np.float64]:
        return np.atleast_2d(table["values"])[:, table["columns"].index(name)]

    result: dict[str, float | None] = dict.fromkeys(INFERENCE)
    result["satterthwaite"] = largest(m.coef_table()["df"], column(r["coefficients"], "df"))
    if r["anova3"] and r["anova3"]["rows"]:
        result["anova"] = largest(m.anova()["F value"], column(r["anova3"], "F value"))
    if r["kenward_roger"]:
        table = m.coef_table(ddf="kr")
        result["kr_se"] = largest(table["Std. Error"], column(r["kenward_roger"], "Std. Error"))
        result["kr_df"] = largest(table["df"], column(r["kenward_roger"], "df"))
    if r["robust"] and "CR2" in r["robust"]:
        robust = m.coef_table(vcov="CR2", cluster=r["cluster"])
        result["cr2_se"] = largest(robust["Std. Error"], r["robust"]["CR2"]["se"])
        result["cr2_df"] = largest(robust["df"], r["robust"]["CR2"]["df"])
    return result


def matrix(m: me.LinearMixedModel, r: dict[str, Any]) -> dict[str, float]:
    """Differences of facts about V."""
    V, stored = m.V.at(r["theta"], r["sigma"]), r["V"]
    sparse, block = V.sparse(), np.asarray(stored["block"])
    return {
        "nnz": float(sparse.nnz - stored["nnz"]),
        "trace": largest(V.diag().sum(), stored["trace"]),
        "sum": largest(sparse.sum(), stored["sum"]),
        "logdet": largest(V.logdet(), stored["logdet"]),
        "block": largest(V.rows(np.arange(6)), block, np.abs(block).max()),
    }


def compare(name: str) -> dict[str, Any]:
    """Everything about one model."""
    from references import MODELS, fitted_model, model_at_reference, reference

    r, at_theirs, ours = reference(name), model_at_reference(name), fitted_model(name)
    theta = np.atleast_1d(r["theta"])
    return {
        "name": name,
        "formula": MODELS[name][0],
        "reml": bool(r["reml"]),
        "nobs": int(r["nobs"]),
        "singular": bool(r["singular"]),
        "at_theirs": {
            "criterion": abs(ours.getme("devfun")(theta) - r["criterion"]),
            **estimates(at_theirs, r),
            "inference": inference(at_theirs, r),
            "V": matrix(at_theirs, r) if r["V"] else None,
        },
        "at_optimum": {
            "criterion": ours.criterion,
            "excess_default": r["criterion_lme4_default"] - ours.criterion,
            "excess_stored": r["criterion"] - ours.criterion,
            "evaluations": ours.optimum.search_evaluations,
            "evaluations_default": int(r["lme4_evals"]),
            "certificate": bool(ours.optimum.certificate.holds),
            "theta": float(np.abs(ours.theta - theta).max()),
            **estimates(ours, r),
        },
    }


def cell(value: float | None, signed: bool = False) -> str:
    """A difference, to one digit: more would be noise."""
    if value is None:
        return "–"
    if value == 0.0:
        return "0"
    return f"{value:+.0e}" if signed else f"{value:.0e}"


def table(headings: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table with its numbers at the right."""
    lines = ["| " + " | ".join(headings) + " |", "|---|" + "---:|" * (len(headings) - 1)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def page(results: list[dict[str, Any]]) -> str:
    """The page of the documentation."""
    models = [
        [
            f"`{r['name']}`",
            f"`{r['formula']}`".replace("|", "\\|"),
            f"{r['nobs']:,}",
            ("REML" if r["reml"] else "ML") + (", singular" if r["singular"] else ""),
        ]
        for r in results
    ]
    lines = [INTRODUCTION, "", "| model | formula | rows | fit |", "|---|---|---:|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in models]
    lines += ["", AT_R, ""]
    keys = ["criterion", *ESTIMATES]
    lines += table(
        ["model", "criterion", *ESTIMATES.values()],
        [[f"`{r['name']}`", *(cell(r["at_theirs"][key]) for key in keys)] for r in results],
    )
    lines += ["", INFERENCE_TEXT, ""]
    lines += table(
        ["model", *INFERENCE.values()],
        [
            [f"`{r['name']}`", *(cell(r["at_theirs"]["inference"][key]) for key in INFERENCE)]
            for r in results
        ],
    )
    lines += ["", V_TEXT, ""]
    lines += table(
        ["model", *MATRIX.values()],
        [
            [f"`{r['name']}`", *(cell(r["at_theirs"]["V"][key]) for key in MATRIX)]
            for r in results
            if r["at_theirs"]["V"]
        ],
    )
    lines += ["", OPTIMA_TEXT, ""]
    kept = {key: ESTIMATES[key] for key in ("fixef", "se", "variances")}
    lines += table(
        ["model", "criterion", "R, default", "R, stored", "theta", *kept.values()],
        [
            [
                f"`{r['name']}`",
                f"{r['at_optimum']['criterion']:.4f}",
                cell(r["at_optimum"]["excess_default"], signed=True),
                cell(r["at_optimum"]["excess_stored"], signed=True),
                cell(r["at_optimum"]["theta"]),
                *(cell(r["at_optimum"][key]) for key in kept),
            ]
            for r in results
        ],
    )
    import generalized_validation
    import generated_residuals
    import residual_validation

    residual = f"{residual_validation.section(table, cell)}\n{generated_residuals.section()}"
    generalized = generalized_validation.section(table, cell)
    return "\n".join([*lines, "", reading(results), "", residual, generalized]) + FURTHER


def reading(results: list[dict[str, Any]]) -> str:
    """What the last table says, in words."""
    short = {
        kind: [r for r in results if r["at_optimum"][f"excess_{kind}"] > SHORT]
        for kind in ("default", "stored")
    }
    worst = max(results, key=lambda r: r["at_optimum"]["excess_default"])
    below = min(r["at_optimum"][f"excess_{kind}"] for r in results for kind in short)
    evaluations = [r["at_optimum"]["evaluations"] for r in results]
    theirs = [r["at_optimum"]["evaluations_default"] for r in results]
    certified = sum(r["at_optimum"]["certificate"] for r in results)
    names = {
        kind: ", ".join(f"`{r['name']}`" for r in models) or "none"
        for kind, models in short.items()
    }
    return (
        "### Where R stopped short\n\n"
        f"By more than {SHORT:.0e}, R's default optimiser stopped above this package's criterion "
        f"in {len(short['default'])} of {len(results)} models: {names['default']}. The stored fits "
        f"did in {len(short['stored'])}: {names['stored']}. The largest excess is "
        f"{worst['at_optimum']['excess_default']:.1e}, in `{worst['name']}`. R's criterion is "
        f"nowhere lower by more than {max(-below, 0.0):.0e}, which is rounding.\n\n"
        "Differences of this size move no conclusion. They are why the estimates of two programs "
        "agree to fewer digits than their arithmetic: where the second derivative is c, an excess "
        "d leaves theta free to move by sqrt(2 d / c), which for 1e-8 is some 1e-4.\n\n"
        f"The search took {min(evaluations)} to {max(evaluations)} evaluations of criterion and "
        f"gradient together, lme4's {min(theirs)} to {max(theirs)} of the criterion alone. The "
        f"certificate of the optimum holds for {certified} of {len(results)} fits, those on the "
        "boundary included."
    )


FURTHER = """
## What else is held against R

The test suite compares the rest with stored answers in the same way:

| what | against | in |
|---|---|---|
| likelihood-ratio tests, `ranova` | lme4, lmerTest | `tests/reference/comparison/` |
| ICC, R², conditional AIC | performance, cAIC4 | `tests/reference/comparison/` |
| variance inflation, principal components | performance, lme4 | `tests/reference/checks/` |
| marginal means, slopes, comparisons | emmeans | `tests/reference/marginal_means/` |
| Kenward-Roger, with prior weights and crossed | pbkrtest | `tests/reference/inference/kr_*.json` |
| all robust kinds, saddlepoint, HTZ | clubSandwich | `tests/reference/inference/robust_*.json` |
| residuals, leverages, likelihoods, deletion diagnostics | lme4 | `tests/reference/inference/` |
| prediction | lme4 | `tests/reference/inference/predict.json` |
| generalized: tests, intervals | glmmTMB, lme4 | `tests/reference/glmm/inference.json` |
| generalized: prediction, means | glmmTMB, emmeans | `tests/reference/glmm/predictions.json` |

Where R has no answer, or another one by definition, the tests compute it anew with dense matrices.
"""


def main() -> None:
    """Compare, and write results and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true", help="only write the page again")
    options = parser.parse_args()
    if not options.page:
        from references import MODELS

        results = [compare(name) for name in MODELS]
        STORE.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(json.loads(STORE.read_text(encoding="utf-8"))), encoding="utf-8")


#: The models, and R's answers to them, are those of the tests.
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

if __name__ == "__main__":
    main()
