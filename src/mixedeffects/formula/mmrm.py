"""Formulas of R's mmrm, with the covariance structure of the visits among the terms."""

from __future__ import annotations

from mixedeffects.formula.reader import fail, read
from mixedeffects.formula.syntax import (
    Binary,
    Call,
    Group,
    Node,
    chain_of,
    children,
    deparse,
    walk,
)

__all__ = ["MMRM_STRUCTURES", "split_mmrm"]

#: mmrm's structures, and what each is called in ``residual=``.
MMRM_STRUCTURES = {
    "us": "us({p} | {g}{by})",
    "toep": "toep({p} | {g}{by})",
    "toeph": "toep({p} | {g}, hom = FALSE{by})",
    "ar1": "ar1({p} | {g}{by})",
    "ar1h": "ar1({p} | {g}, hom = FALSE{by})",
    "ad": "ante({p} | {g}{by})",
    "adh": "ante({p} | {g}, hom = FALSE{by})",
    "cs": "cs({p} | {g}{by})",
    "csh": "cs({p} | {g}, hom = FALSE{by})",
    "sp_exp": "exp({p} | {g}{by})",
}
_NAMES = ", ".join(f"`{name}`" for name in MMRM_STRUCTURES)


def split_mmrm(text: str) -> tuple[str, str]:
    """A formula of mmrm as a formula without the structure, and the structure for ``residual=``.

    Parameters
    ----------
    text : str
        For example ``"FEV1 ~ ARMCD * AVISIT + us(AVISIT | USUBJID)"``.

    Returns
    -------
    formula : str
        What is left without the structure.
    residual : str
        The structure, as `mixedeffects.lmer` takes it.

    Raises
    ------
    FormulaError
        If there is not one structure, as a term by itself, or there are random effects.

    Examples
    --------
    >>> split_mmrm("y ~ arm * visit + csh(visit | arm / id)")
    ('y ~ arm * visit', 'cs(visit | id, hom = FALSE, by = arm)')
    """
    tree = read(text)
    if not isinstance(tree, Binary) or tree.operator != "~":
        fail("A formula of `mmrm` needs a response: `y ~ x + us(visit | id)`.", text, 0, len(text))
    first, chain = chain_of(tree.right, ("+", "-"))
    found = _structures(tree.right, text)
    if not found:
        fail(
            "The formula of `mmrm` needs the covariance structure of the visits as a term, such as "
            f"`us(visit | id)`; the structures are {_NAMES}.",
            text,
            tree.right.start,
            tree.right.end,
        )
    if len(found) > 1:
        fail(
            "`mmrm` takes one covariance structure. For two sources of correlation, such as "
            'random effects beside it, use `lmer` with `residual="..."`.',
            text,
            found[1].start,
            found[1].end,
        )
    structure = found[0]
    operands = [(first, "+"), *((each.right, each.operator) for each in chain)]
    position = next((i for i, (node, _) in enumerate(operands) if node is structure), None)
    if position is None or operands[position][1] == "-":
        fail(
            "The covariance structure is a term by itself, joined with `+`.",
            text,
            structure.start,
            structure.end,
        )
    return _without(text, tree, operands, position), _residual(structure, text)


def _structures(node: Node, text: str) -> list[Call]:
    """The calls with a bar, in the order written; any other bar is refused."""
    found: list[Call] = []
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if isinstance(current, Call):
            bars = any(_is_bar(part) for each in current.arguments for part in walk(each.value))
            if current.function in MMRM_STRUCTURES:
                found.append(current)
            elif bars:
                fail(
                    f"`{current.function}` is not a structure of `mmrm`; these are {_NAMES}. "
                    '`lmer` takes others: residual="car1(t | id)".',
                    text,
                    current.start,
                    current.end,
                )
        elif _is_bar(current):
            fail(
                "`mmrm` has no random effects; the covariance of the visits takes their place, "
                "such as `us(visit | id)`. For both together use `lmer` with `residual=`.",
                text,
                current.start,
                current.end,
            )
        else:
            waiting += reversed(children(current))
    return found


def _is_bar(node: Node) -> bool:
    return isinstance(node, Binary) and node.operator in ("|", "||")


def _without(text: str, tree: Binary, operands: list[tuple[Node, str]], position: int) -> str:
    """The formula without one operand of its right-hand side."""
    structure = operands[position][0]
    if len(operands) == 1:
        before, after = text[: structure.start] + "1", text[structure.end :]
    elif position == 0:
        following, operator = operands[1]
        # `us(v | id) - 1 + x`: the sign belongs to what it takes away.
        start = following.start if operator == "+" else text.index("-", structure.end)
        before, after = text[: structure.start], text[start:]
    else:
        # From the sign, which is the last thing but blanks between the two operands.
        sign = text.rindex("+", operands[position - 1][0].end, structure.start)
        before, after = text[:sign].rstrip(), text[structure.end :]
    return f"{before}{after}".strip()


def _residual(structure: Call, text: str) -> str:
    """The structure as `read_residual` reads it."""
    name = structure.function
    several = name == "sp_exp"
    arguments = structure.arguments
    last = arguments[-1].value if arguments else None
    named = [each for each in arguments if each.name is not None]
    one_bar = isinstance(last, Binary) and last.operator == "|"
    if named or not one_bar or (len(arguments) > 1 and not several):
        example = "sp_exp(x, y | id)" if several else f"{name}(visit | id)"
        fail(
            f"`{name}` takes the visit and the group, separated by a bar: `{example}`, or "
            f"`{example.replace('| ', '| arm / ')}` for parameters of its own in each arm.",
            text,
            structure.start,
            structure.end,
        )
    assert isinstance(last, Binary)
    positions = [*(each.value for each in arguments[:-1]), last.left]
    group, by = last.right, ""
    while isinstance(group, Group):
        group = group.inner
    if isinstance(group, Binary) and group.operator == "/":
        by, group = f", by = {deparse(group.left)}", group.right
    return MMRM_STRUCTURES[name].format(
        p=" + ".join(map(deparse, positions)), g=deparse(group), by=by
    )
