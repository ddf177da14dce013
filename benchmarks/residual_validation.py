"""Residual covariances against stored answers: python benchmarks/residual_validation.py.

Writes benchmarks/residual_validation.json, of which `validation.py --page` makes a section.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
STORE = HERE / "residual_validation.json"

#: Keys of a comparison and the headings of their columns.
ESTIMATES = {
    "criterion": "criterion",
    "fixef": "fixed effects",
    "se": "standard errors",
    "parameters": "sd, correlations",
    "G": "(co)variances",
}
INFERENCE = {
    "satterthwaite": "Satterthwaite df",
    "kr_expected": "KR, expected: SE, df",
    "kr_observed": "KR, observed: SE, df",
    "cr2": "CR2 SE",
}

TEXT = """## Residual covariance

Models with `residual=` or `variance=`. R's packages stop up to 4 above the optimum of such models,
so the answers are those of dense algebra at an optimum with a gradient of about 1e-11, beside what
nlme, mmrm, glmmTMB or metafor returned by default; `tests/reference/residual` has both. Differences
as above, each at its own optimum; of correlations plain, of standard deviations, ranges and powers
relative. A dash: there are no such parameters, or no answer is stored. The last column is how far
the nearest of R's packages stopped above the optimum. glmmTMB's model of `fev_us` has a small
residual variance more, so that its criterion is lower."""


def compare(name: str) -> dict[str, Any]:
    """The largest differences of one model."""
    from residual_references import answer, fitted, natural

    m, stored = fitted(name), answer(name)
    se = np.asarray(stored["se"])
    found, expected = dict(m.R.parameters), natural(name)
    sizes = {
        key: 1.0 if key.startswith(("cor", "nugget")) else abs(v) for key, v in expected.items()
    }
    G = [
        np.abs(np.asarray(m.varcorr[term]) - block).max() / np.abs(block).max()
        for term, block in (stored["G"] or {}).items()
    ]
    out: dict[str, Any] = {
        "name": name,
        **{
            key: stored["ours"].get(key)
            for key in ("formula", "residual", "variance", "weights", "sigma")
        },
        "nobs": m.nobs,
        "reml": m.reml,
        "singular": m.is_singular,
        "criterion": m.criterion - stored["criterion"],
        "fixef": float(np.max(np.abs((m.fixef - stored["fixef"]) / se))),
        "se": float(np.max(np.abs(m.se / se - 1.0))),
        "parameters": max(
            (abs(found[k] - v) / sizes[k] for k, v in expected.items()), default=None
        ),
        "G": max(G, default=None),
        "evaluations": m.optimum.evaluations,
    }
    table = m.coef_table()
    if stored["satterthwaite_df"]:
        out["satterthwaite"] = _relative(table["df"], stored["satterthwaite_df"])
    for information in ("expected", "observed"):
        theirs = (stored["kenward_roger"] or {}).get(f"{information}_information")
        if theirs:
            table = m.coef_table(ddf="kr" if information == "expected" else "kr-observed")
            out[f"kr_{information}"] = max(
                _relative(table["Std. Error"], theirs["se"]), _relative(table["df"], theirs["df"])
            )
    if stored["robust_se"]:
        robust = m.robust("CR2", cluster=stored["cluster"]).vcov
        out["cr2"] = _relative(np.sqrt(np.diag(robust)), stored["robust_se"]["CR2"])
    excess = [each.get("above_optimum") for each in (stored["packages"] or {}).values()]
    out["packages"] = min((e for e in excess if isinstance(e, (int, float))), default=None)
    return out


def _relative(ours: Any, theirs: Any) -> float:
    return float(np.max(np.abs(np.asarray(ours) / np.asarray(theirs, dtype=float) - 1.0)))


def section(table: Any, cell: Any) -> str:
    """The section of the page, from what is stored."""
    results = json.loads(STORE.read_text(encoding="utf-8"))
    lines = [TEXT, "", "| model | call | rows | fit |", "|---|---|---:|---|"]
    for r in results:
        asked = [
            r["formula"],
            *(f'{k}="{r[k]}"' for k in ("residual", "variance", "weights") if r[k]),
        ]
        asked += ["sigma=1"] if r["sigma"] else []
        call = ", ".join(asked).replace("|", "\\|")
        fit = ("REML" if r["reml"] else "ML") + (", singular" if r["singular"] else "")
        lines.append(f"| `{r['name']}` | `{call}` | {r['nobs']:,} | {fit} |")
    keys = [*ESTIMATES, *INFERENCE]
    lines.append("")
    lines += table(
        ["model", *ESTIMATES.values(), *INFERENCE.values(), "evaluations", "R above"],
        [
            [
                f"`{r['name']}`",
                *(cell(r.get(key)) for key in keys),
                str(r["evaluations"]),
                cell(r["packages"], signed=True),
            ]
            for r in results
        ],
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compare, and write the results."""
    from residual_references import NAMES

    results = [compare(name) for name in NAMES]
    STORE.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


#: The models, and the answers to them, are those of the tests.
sys.path.insert(0, str(HERE.parent / "tests"))

if __name__ == "__main__":
    main()
