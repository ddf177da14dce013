"""The post, section by section: extracting V from a mixed model.

Every line shown is run as shown; what follows it is what Python printed.
"""

from __future__ import annotations

import contextlib
import io
import time
from functools import partial
from pathlib import Path
from typing import Any

from mixedeffects.base.files import write_whole

__all__ = ["SECTIONS", "run"]

_SETUP = """
import numpy as np
import scipy.sparse as sp
import mixedeffects as me
"""

#: (heading, what it shows, code). Code is a list of statements, run as if typed.
SECTIONS: list[tuple[str, str, list[str]]] = [
    (
        "1. By hand: Z, G and R",
        "Reaction times of 18 subjects over ten days of sleep deprivation. A random intercept and\n"
        "slope for each subject; V is put together from its parts.",
        [
            'sleep = me.load_dataset("sleepstudy")',
            'len(sleep), sleep["Subject"].nunique()',
            'm1 = me.lmer("Reaction ~ Days + (Days | Subject)", sleep)',
            "m1",
            "Z = m1.Z",
            "Z.shape",
            "G = m1.G.blocks()",
            "G.round(1)",
            "R = m1.sigma**2 * sp.eye_array(m1.nobs)",
            "Gm = sp.kron(sp.eye_array(18), G)",
            "Gm.toarray()[:6, :6].round(1)",
            "V = sp.csc_array(Z @ Gm @ Z.T + R)",
            "me.gls(m1.X, m1.y, V, names=m1.fixef.index).coef",
            "m1.fixef  # the same",
        ],
    ),
    (
        "2. Ready-made: m.V",
        "V is an object. It solves, multiplies and is cut by cluster without being formed; as a\n"
        "matrix it equals the one made by hand.",
        [
            "m1.V",
            "float(abs(m1.V.sparse() - V).max())",
            "m1.V.gls(m1.X, m1.y, names=m1.fixef.index).coef",
            'm1.V.block("308").iloc[:4, :4].round(1)',
            'm1.V.corr("308").iloc[:4, :4].round(3)',
            "m1.V.logdet()",
        ],
    ),
    (
        "3. Three levels",
        "Five students with each of three teachers in each of ten schools; Z has a column for\n"
        "every teacher and every school, and G one variance for each kind.",
        [
            'dat = me.load_dataset("threelevel")',
            'm2 = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", dat)',
            "m2",
            "m2.Z.shape",
            "m2.G.blocks().round(2)",
            'a1 = sp.kron(sp.eye_array(30), m2.G["tch.cl:sch.cl"])  # teachers',
            'a2 = sp.kron(sp.eye_array(10), m2.G["sch.cl"])  # schools',
            "Gm = sp.block_diag([a1, a2])",
            "Gm.shape",
            "V = sp.csc_array(m2.Z @ Gm @ m2.Z.T + m2.sigma**2 * sp.eye_array(m2.nobs))",
            "me.gls(m2.X, m2.y, V, names=m2.fixef.index).coef.round(3)",
            "m2.fixef.round(3)  # the same",
            "float(abs(m2.V.sparse() - V).max())",
            'm2.V.block(("a", 3), by="tch.cl:sch.cl").round(2)',
        ],
    ),
    (
        "4. Random slopes, rows in any order",
        "One in five kindergarten pupils of the Tennessee STAR study, in random order, some with\n"
        "missing values. The fit lies on the boundary: a correlation of -1 in both terms.",
        [
            'konly = me.load_dataset("star_sample")',
            'm3 = me.lmer("read ~ cltype + sx + (sx | sch/tch)", konly)',
            "m3",
            "m3.dropped",
            "m3.V.gls(m3.X, m3.y, names=m3.fixef.index).coef.round(2)",
            "m3.fixef.round(2)  # the same",
            "m3.G.blocks().round(2)",
            "m3.Z.shape, m3.Z.nnz",
            'm3.V.block("22", by="sch").iloc[:5, :5].round(1)',
            "m3.optimum.certificate",
        ],
    ),
]

_FIGURES: list[tuple[str, str]] = [
    ("1-V-sleepstudy.png", 'm1.V.plot(units="ms²")'),
    ("2-V-subject-308.png", 'm1.V.plot("308", units="ms²")'),
    ("3-Z-threelevel.png", "me.plot.matrix(m2.Z[:30], title='Z, first 30 rows')"),
    ("4-G-threelevel.png", "m2.G.plot()"),
    ("5-Z-star.png", "me.plot.matrix(m3.Z, title='Z of the star sample')"),
]


def run(directory: Path | None) -> str:
    """Run the post and return what it printed; figures go to the directory.

    Parameters
    ----------
    directory : Path or None
        Where to write the figures; None writes none.
    """
    started = time.perf_counter()
    namespace: dict[str, Any] = {}
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(_SETUP, namespace)
        for line in _SETUP.strip().splitlines():
            print(f">>> {line}")
        for heading, text, statements in SECTIONS:
            print(f"\n{heading}\n{'=' * len(heading)}\n{text}\n")
            for statement in statements:
                print(f">>> {statement}")
                exec(compile(statement, "<demo>", "single"), namespace)
        written = [] if directory is None else _figures(directory, namespace)
        print("\nFigures" if written else "\nNo figures written")
        for path in written:
            print(f"  {path}")
        print(f"\nAll four sections took {time.perf_counter() - started:.1f} s.")
    return out.getvalue()


def _figures(directory: Path, namespace: dict[str, Any]) -> list[Path]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return []
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, code in _FIGURES:
        figure = Figure(figsize=(7.0, 5.5), layout="constrained")
        namespace["_ax"] = figure.subplots()
        eval(f"{code[:-1]}{'' if code[-2] == '(' else ', '}ax=_ax)", namespace)
        write_whole(directory / name, partial(figure.savefig, format="png", dpi=120))
        written.append(directory / name)
    return written
