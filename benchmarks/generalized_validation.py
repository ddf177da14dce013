"""Generalized models against stored answers: python benchmarks/generalized_validation.py.

Writes benchmarks/generalized_validation.json, of which `validation.py --page` makes a section.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mixedeffects as me

HERE = Path(__file__).parent
STORE = HERE / "generalized_validation.json"

Matrix = NDArray[np.float64]

#: Keys of a comparison and the headings of their columns.
ESTIMATES = {
    "theta": "theta",
    "phi": "family parameter",
    "fixef": "fixed effects",
    "se": "standard errors",
    "modes": "conditional modes",
    "conditional_variances": "their variances",
}

TEXT = """## Generalized models

Binomial, Poisson, negative binomial, gamma, inverse Gaussian and beta responses, compared with the
optimum of Laplace's approximation in `tests/reference/glmm`: that of glmmTMB after further Newton
steps, of the inverse Gaussian that of a definition in R. `criterion` is -2 log-likelihood with all
constants. Fixed effects differ in standard errors, standard errors relatively, all else plainly, on
the scale of the link; the family parameter is a logarithm. A dash: there is none, or it is not
stored."""

ARITHMETIC_TEXT = """### Arithmetic of the criterion

At the same parameters, so that no search matters: this package's criterion less R's where R
stopped, and less that of dense matrices at this package's own estimates. The last two columns are
the dense criterion at R's estimates less that at this package's, and what R says its criterion is
less the dense one there."""

SEARCH_TEXT = """### Each at its own optimum

The evaluations of criterion and gradient are those of the search and, after the sign, of its start.
`R above` is R's stored optimum less this package's. In the second table are lme4 and glmmTMB as
they come: lme4's criterion taken exactly at its estimates, for what it says is up to 1.3e-2 off
there, and glmmTMB's as it says it, less this package's; and lme4's evaluations, of the criterion
alone. There is no difference for families with a dispersion, where lme4's value is no likelihood
(`cake_gamma` 1605.6 where it is 1664.4, `ig_sim` 427.7 where it is 456.3). On
`schizophrenia_probit` lme4 minimises another criterion, with expected second derivatives in place
of observed ones; `loglik_at(..., weights="expected")` has that one."""

EXACT_TEXT = """### Where R's digits end

With one random intercept per level the criterion is a sum of small integrals, and it and its
minimum can be had from the definition in floating-point numbers of 80 bits
(`tests/extended_precision.py`). Differences from those, of R's stored optimum and of this
package's: of the criterion, of theta, and of the fixed effects in standard errors. R stopped short
on `toenail`, where the criterion is flat: the differences of that model above are R's."""

QUADRATURE_TEXT = """### Adaptive quadrature

lme4's fits with `nAGQ`, tightened. `R` is lme4's criterion less that in 80 bits at lme4's
estimates, `here` this package's less that in 80 bits there, and the rest as above. lme4's value is
1.4e-6 too low for `toenail` by nine points, for its modes are not exact; at the same parameters
this package's has all digits. Nine points are too few for that model, of which the fit warns."""


DERIVATIVES_TEXT = """### Derivatives

On 514 generated designs (`benchmarks/generalized_designs.py`: families, links, one factor, slopes,
nested, crossed, structured, weights, offsets, singular) the criterion is that of dense matrices
within 7e-11, the gradient that of differences within 8e-8 of its length, and with one factor (393
of them) the exact Hessian that of differences of the gradient within 2e-8 of its largest entry.
`tests/test_glmer_invariance.py` holds it, and that neither the order of rows and levels nor the
number of threads changes an evaluation."""


def _factors(m: me.GeneralizedLinearMixedModel) -> list[Matrix]:
    found = m.fit.found
    return [np.asarray(found.design.basis.relative_factor(t, T)) for t, T in enumerate(found.T)]


def _largest(ours: Any, theirs: Any, scale: Any = 1.0) -> float:
    difference = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    return float(np.abs(difference / scale).max())


def _modes(m: me.GeneralizedLinearMixedModel, answer: dict[str, Any]) -> dict[str, float | None]:
    """Differences of the modes that are stored, of the first levels, and of their variances."""
    modes, of_modes, of_variances = m.ranef(cond_var=True), [], []
    for group, own in answer.get("ranef", {}).items():
        rows = [list(modes[group].index).index(level) for level in own["levels"]]
        shape = (len(rows), -1)
        of_modes.append(_largest(modes[group].to_numpy()[rows], np.reshape(own["values"], shape)))
        given = modes.cond_var[group][rows[: len(own["cond_var"])]]
        of_variances.append(_largest(given, np.reshape(own["cond_var"], given.shape)))
    return {
        "modes": max(of_modes, default=None),
        "conditional_variances": max(of_variances, default=None),
    }


def compare(name: str) -> dict[str, Any]:
    """Everything about Laplace's approximation to one model."""
    from generalized_designs import dense_criterion

    from generalized_references import MODELS, laplace_optimum, reference
    from test_glmer import fitted

    # A warning of the fit is an error there.
    m, stored, model = fitted(name), reference(name), MODELS[name]
    answer, found = stored["laplace"], m.fit.found
    theirs, beta, shape = laplace_optimum(name)
    T = [theirs[term.label] for term in m.frame.terms]
    own = _factors(m)
    se = np.atleast_1d(answer["se"])
    phi = 0.0 if shape is None else shape
    at_theirs = dense_criterion(m, T, beta, phi)
    at_ours = dense_criterion(m, own, m.fixef.to_numpy(), found.phi)
    lme4, other = stored.get("lme4_default") or {}, stored.get("glmmTMB_default") or {}
    return {
        "name": name,
        "formula": model.formula,
        "family": m.family.name,
        "link": model.link,
        "weights": model.weights,
        "structure": [f"{t.n_levels} x {t.z.shape[1]}" for t in m.frame.terms],
        "nobs": m.nobs,
        "criterion": m.criterion,
        "at_theirs": found.criterion_at(T, beta, shape) - answer["deviance"],
        "less_dense": m.criterion - at_ours,
        "dense_at_theirs": at_theirs - at_ours,
        "theirs_less_dense": answer["deviance"] - at_theirs,
        "excess": answer["deviance"] - m.criterion,
        "theta": max(_largest(a, b) for a, b in zip(own, T, strict=True)),
        "phi": None if shape is None else abs(found.phi - shape),
        "fixef": _largest(m.fixef, beta, se),
        "se": _largest(m.se, se, se),
        **_modes(m, answer),
        "evaluations": found.search_evaluations,
        "start": found.evaluations - found.search_evaluations,
        "certificate": bool(found.certificate.holds),
        "lme4_above": lme4.get("short_by"),
        "lme4_evaluations": lme4.get("evaluations"),
        "glmmTMB_above": other["deviance"] - m.criterion if other else None,
    }


def exact(name: str) -> dict[str, Any]:
    """R's optimum and this package's beside that in extended precision."""
    from extended_precision import RandomIntercept, laplace_minimum
    from generalized_references import reference
    from test_glmer import fitted

    least, own = laplace_minimum(name), RandomIntercept(name)
    answer, m = reference(name)["laplace"], fitted(name)
    out: dict[str, Any] = {"name": name}
    for who, theta, beta, se in (
        ("theirs", answer["theta"], answer["beta"], answer["se"]),
        ("ours", m.theta[0], m.fixef, m.se),
    ):
        at = np.array([theta, *beta], np.longdouble)
        out[who] = {
            "criterion": float(own.laplace(at)) - least.criterion,
            "theta": abs(theta - least.theta),
            "fixef": _largest(beta, least.beta, least.se),
            "se": _largest(se, least.se, least.se),
        }
    return out


def quadrature(name: str, nodes: int) -> dict[str, Any]:
    """One fit by quadrature beside lme4's, and both beside extended precision."""
    from extended_precision import RandomIntercept
    from generalized_references import quadrature_optimum, reference
    from test_glmer import fitted

    answer, own = reference(name)["agq"][str(nodes)], RandomIntercept(name)
    theirs, beta = quadrature_optimum(name, nodes)
    se = np.atleast_1d(answer["se"])
    # Nine points are too few for the toenails, of which the fit warns.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        m = fitted(name).update(nagq=nodes)
    at_theirs = float(own.quadrature(np.array([answer["theta"], *beta], np.longdouble), nodes))
    at_ours = float(own.quadrature(np.array([m.theta[0], *m.fixef], np.longdouble), nodes))
    return {
        "name": name,
        "nodes": nodes,
        "criterion": m.criterion,
        "less_exact": m.fit.found.criterion_at(list(theirs.values()), beta) - at_theirs,
        "theirs_less_exact": answer["deviance"] - at_theirs,
        "excess": at_theirs - at_ours,
        "theta": _largest(m.theta[0], answer["theta"]),
        "fixef": _largest(m.fixef, beta, se),
        "se": _largest(m.se, se, se),
        "evaluations": m.fit.found.search_evaluations,
    }


def section(table: Any, cell: Any) -> str:
    """The section of the page, from what is stored."""
    stored = json.loads(STORE.read_text(encoding="utf-8"))
    results = stored["laplace"]
    lines = [TEXT, "", "| model | formula | family, link | levels x effects | rows |"]
    lines.append("|---|---|---|---|---:|")
    for r in results:
        asked = r["formula"] + (f', weights="{r["weights"]}"' if r["weights"] else "")
        call = asked.replace("|", "\\|")
        family = f"{r['family'].replace('_', ' ')}, {r['link']}"
        levels = ", ".join(r["structure"])
        lines.append(f"| `{r['name']}` | `{call}` | {family} | {levels} | {r['nobs']:,} |")
    lines += ["", ARITHMETIC_TEXT, ""]
    lines += table(
        ["model", "less R's", "less dense", "dense: R's less ours", "R's less dense"],
        [
            [
                f"`{r['name']}`",
                *(
                    cell(r[key], signed=True)
                    for key in ("at_theirs", "less_dense", "dense_at_theirs", "theirs_less_dense")
                ),
            ]
            for r in results
        ],
    )
    lines += ["", SEARCH_TEXT, ""]
    lines += table(
        ["model", "criterion", "R above", *ESTIMATES.values(), "evaluations"],
        [
            [
                f"`{r['name']}`",
                f"{r['criterion']:.4f}",
                cell(r["excess"], signed=True),
                *(cell(r[key]) for key in ESTIMATES),
                f"{r['evaluations']} + {r['start']}",
            ]
            for r in results
        ],
    )
    lines.append("")
    lines += table(
        ["model", "lme4", "lme4, evaluations", "glmmTMB"],
        [
            [
                f"`{r['name']}`",
                cell(r["lme4_above"], signed=True),
                f"{r['lme4_evaluations']:,}" if r["lme4_evaluations"] else "–",
                cell(r["glmmTMB_above"], signed=True),
            ]
            for r in results
        ],
    )
    lines += ["", reading(stored), "", EXACT_TEXT, ""]
    keys = ("criterion", "theta", "fixef", "se")
    names = ("criterion", "theta", "fixed effects", "standard errors")
    lines += table(
        ["model", *(f"R: {each}" for each in names), *(f"here: {each}" for each in names)],
        [
            [f"`{r['name']}`", *(cell(r[who][key]) for who in ("theirs", "ours") for key in keys)]
            for r in stored["exact"]
        ],
    )
    lines += ["", QUADRATURE_TEXT, ""]
    lines += table(
        ["model", "points", "criterion", "R", "here", "R above", *names[1:], "evaluations"],
        [
            [
                f"`{r['name']}`",
                str(r["nodes"]),
                f"{r['criterion']:.4f}",
                *(
                    cell(r[key], signed=True)
                    for key in ("theirs_less_exact", "less_exact", "excess")
                ),
                *(cell(r[key]) for key in keys[1:]),
                str(r["evaluations"]),
            ]
            for r in stored["quadrature"]
        ],
    )
    return "\n".join([*lines, "", DERIVATIVES_TEXT]) + "\n"


def reading(stored: dict[str, Any]) -> str:
    """What the tables say, in words."""
    results = stored["laplace"]
    search = [r["evaluations"] for r in results]
    both = [r["evaluations"] + r["start"] for r in results]
    lower = min(r["excess"] for r in results)
    theirs = [r["lme4_evaluations"] for r in results if r["lme4_evaluations"]]
    return (
        f"The search took {min(search)} to {max(search)} evaluations, {np.median(search):.0f} in "
        f"the median; with its start, which is as dear, {min(both)} to {max(both)}, "
        f"{np.median(both):.0f} in the median; lme4's took {min(theirs):,} to {max(theirs):,}. "
        f"The certificate holds for {sum(r['certificate'] for r in results)} of {len(results)} "
        "fits, and none warned. R's criterion is nowhere lower by more than "
        f"{max(-lower, 0.0):.0e}."
    )


def main() -> None:
    """Compare, and write the results."""
    from generalized_references import MODELS, QUADRATURE

    stored = {
        "laplace": [compare(name) for name in MODELS],
        "exact": [exact(name) for name in QUADRATURE],
        "quadrature": [quadrature(name, k) for name, each in QUADRATURE.items() for k in each],
    }
    STORE.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


#: The models, and the answers to them, are those of the tests.
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

if __name__ == "__main__":
    main()
