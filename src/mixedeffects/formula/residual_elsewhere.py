"""What nlme, SAS, glmmTMB, mmrm and others call the covariances of residuals that are here."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass

from mixedeffects.errors import FormulaError
from mixedeffects.formula.reader import fail, read
from mixedeffects.formula.syntax import (
    Binary,
    Call,
    Constant,
    Group,
    Name,
    Node,
    Unary,
    deparse,
    walk,
)

__all__ = ["VARIANCE_FUNCTIONS", "refuse_other_names"]

#: nlme's classes of variance functions, in lower case, and what to write here for them.
VARIANCE_FUNCTIONS = {
    "varident": "variance='sex' for a factor `sex`",
    "varpower": "variance='log(age)'; a power of the fitted values has no likelihood of its own, "
    "so a covariate must be named",
    "varexp": "variance='age'",
    "varcomb": "variance='sex + age', the parts joined with `+`",
    "varfixed": "weights='1 / age'",
    "varconstpower": "nearest to variance='log(age)'",
    "varconstprop": "nearest to variance='log(age)'",
}

_AR1, _AR1_HET = "ar1({p} | {g})", "ar1({p} | {g}, hom = FALSE)"
_CS, _CS_HET = "cs(1 | {g})", "cs({p} | {g}, hom = FALSE)"
_TOEP, _TOEP_HET = "toep({p} | {g})", "toep({p} | {g}, hom = FALSE)"
_ANTE, _ANTE_HET = "ante({p} | {g})", "ante({p} | {g}, hom = FALSE)"
_CAR1, _US, _DIAG = "car1({p} | {g})", "us({p} | {g})", "diag({p} | {g})"
_EXP, _GAU = "exp({p} | {g}{n})", "gau({p} | {g}{n})"
#: What other packages call a structure, in lower case, and what to write here: with the position,
#: the group, and where they have one the nugget.
_ELSEWHERE = {
    "corar1": _AR1,
    "corcar1": _CAR1,
    "corcompsymm": _CS,
    "corsymm": "us({p} | {g}, hom = TRUE)",
    "cornatural": "us({p} | {g}, hom = TRUE)",
    "corexp": _EXP,
    "corgaus": _GAU,
    "un": _US,
    "unr": _US,
    "chol": _US,
    "unstructured": _US,
    "un(1)": _DIAG,
    "csh": _CS_HET,
    "hetcs": _CS_HET,
    "homcs": _CS,
    "exchangeable": _CS,
    "ar": _AR1,
    "ar(1)": _AR1,
    "autoregressive": _AR1,
    "arh": _AR1_HET,
    "arh(1)": _AR1_HET,
    "arh1": _AR1_HET,
    "ar1h": _AR1_HET,
    "hetar1": _AR1_HET,
    "toeplitz": _TOEP,
    "toeph": _TOEP_HET,
    "hettoep": _TOEP_HET,
    "homtoep": _TOEP,
    "ante(1)": _ANTE_HET,
    "ad": _ANTE,
    "adh": _ANTE_HET,
    "ou": _CAR1,
    "exponential": _EXP,
    "gaussian": _GAU,
    "sp_exp": _EXP,
    "sp_gau": _GAU,
    "sp_pow": _CAR1,
    "sp(pow)": _CAR1,
    "sp(exp)": _EXP,
    "sp(gau)": _GAU,
}
#: One variance and no correlation: what residuals have anyway.
_NONE = ("vc", "simple", "homdiag", "iid", "ind", "independent", "independence", "none")
_SERIES, _SPACE, _FREE = "`ar1` and `toep` come", "`exp` and `gau` come", "`us` comes"
#: Structures that are not here at all, and those that come nearest.
_NEAREST = {
    "corarma": _SERIES,
    "arma": _SERIES,
    "arma(1,1)": _SERIES,
    "arma11": _SERIES,
    "ar2": _SERIES,
    "corlin": _SPACE,
    "corratio": _SPACE,
    "corspher": _SPACE,
    "mat": _SPACE,
    "matern": _SPACE,
    "sph": _SPACE,
    "sp_sph": _SPACE,
    "sp": _SPACE,
    "fa": _FREE,
    "fa0": _FREE,
    "fa1": _FREE,
    "rr": _FREE,
    "hf": "`cs` with `hom = FALSE` comes",
}
#: The same where a number of bands, lags or steps is given that is not the one above.
_NEAREST_WITH_NUMBER = {
    "ar": _SERIES,
    "arh": _SERIES,
    "toep": "`toep`, with a correlation for each lag, comes",
    "toeph": "`toep`, with a correlation for each lag, comes",
    "ante": "`ante` comes",
    "un": _FREE,
    "unr": _FREE,
    "chol": _FREE,
}
#: Matrices that are given.
_KNOWN = ("equalto", "propto", "lin", "gdata")
#: A name that begins the text, with SAS's kind of the structure: ``ARH(1)``, ``SP(POW)``, and a
#: product of two: ``UN@AR(1)``.
_LEADING = re.compile(
    r"\s*(?:type\s*=\s*)?"
    r"([A-Za-z]\w*(?:\s*\(\s*(?:\d+\s*(?:,\s*\d+\s*)?|[A-Za-z]+)\s*\))?(?:@\w+(?:\(\d+\))?)?)",
    re.IGNORECASE,
)
#: SAS's list of coordinates, and its nugget.
_COORDINATES = re.compile(r"\s*\(\s*([A-Za-z_]\w*(?:\s+[A-Za-z_]\w*)*)\s*\)")
_LOCAL = re.compile(r"\blocal\b", re.IGNORECASE)


def refuse_other_names(text: str, structures: Container[str]) -> None:
    """Say what the structure of another package is called here.

    Parameters
    ----------
    text : str
        What was given for ``residual=``.
    structures : container of str
        Names that are known here.

    Raises
    ------
    FormulaError
        If the text begins with a name that other packages have.

    Examples
    --------
    >>> refuse_other_names("ARH(1)", ("ar1",))
    Traceback (most recent call last):
        ...
    mixedeffects.errors.FormulaError: What other packages call `ARH(1)` is
    `ar1(position | group, hom = FALSE)` here.
    <BLANKLINE>
        ARH(1)
        ^^^^^^
    """
    found = _LEADING.match(text)
    if found is None:
        return
    leading = found[1]
    given = re.sub(r"\s+", "", leading)
    name = given.lower()
    nearest = _NEAREST.get(name)
    if nearest is None and name not in _ELSEWHERE and name not in structures:
        base, _, inside = name.partition("(")
        if "@" in name:
            nearest = _FREE
        elif inside[:1].isdigit() and base in _NEAREST_WITH_NUMBER:
            nearest = _NEAREST_WITH_NUMBER[base]
        elif inside and not (base == "sp" and given.endswith(")")):
            # What is in brackets belongs to the call: its position.
            leading = leading.split("(")[0].strip()
            given, name = leading, base
            nearest = _NEAREST.get(base)
        elif inside:
            nearest = _SPACE
    start, end = found.start(1), found.start(1) + len(leading)
    if name in VARIANCE_FUNCTIONS:
        fail(f"What nlme writes `{given}` is {VARIANCE_FUNCTIONS[name]}.", text, start, end)
    if nearest is not None:
        fail(f"There is no structure like `{given}` here; {nearest} nearest.", text, start, end)
    if name in _KNOWN:
        fail(
            f"`{given}` stands for a matrix that is known: give it as residual=me.known(V).",
            text,
            start,
            end,
        )
    if name in _NONE:
        fail(
            f"`{given}` gives all residuals one variance and no correlation, as they have without "
            "`residual`. Leave it out; for variances that differ write `diag(visit | id)`.",
            text,
            start,
            end,
        )
    in_capitals = name in structures and given != name
    if name not in _ELSEWHERE and not in_capitals:
        return
    if name not in structures:
        template = _ELSEWHERE[name]
    elif name == "cs":
        template = _CS
    else:
        template = name + "({p} | {g}{n})"
    here = _parts(text, end).within(template)
    fail(f"What other packages call `{given}` is `{here}` here.", text, start, end)


@dataclass
class _Parts:
    """What was given to another package's structure, or stand-ins."""

    position: str = "position"
    group: str = "group"
    by: str = ""
    nugget: bool = False

    def within(self, template: str) -> str:
        """The structure here."""
        nugget = ", nugget = TRUE" if self.nugget else ""
        here = template.format(p=self.position, g=self.group, n=nugget)
        return f"{here[:-1]}, by = {self.by})" if self.by else here


def _parts(text: str, end: int) -> _Parts:
    out = _Parts(nugget=_LOCAL.search(text, end) is not None)
    coordinates = _COORDINATES.match(text, end)
    if coordinates is not None:
        out.position = " + ".join(coordinates[1].split())
        return out
    try:
        tree = read("f" + text[end:].lstrip())
    except FormulaError:
        tree = Name("f")
    for node in walk(tree):
        if isinstance(node, Call):
            out.nugget = out.nugget or any(
                each.name == "nugget"
                and isinstance(each.value, Constant)
                and each.value.value is True
                for each in node.arguments
            )
        if isinstance(node, Binary) and node.operator == "|":
            position: Node = node.left
            while isinstance(position, (Group, Unary)):
                position = position.inner if isinstance(position, Group) else position.operand
            group = node.right
            if isinstance(group, Binary) and group.operator == "/":
                out.by, group = deparse(group.left), group.right
            out.position, out.group = deparse(position), deparse(group)
            return out
        if isinstance(node, Unary) and node.operator == "~":
            out.position = deparse(node.operand)
    return out
