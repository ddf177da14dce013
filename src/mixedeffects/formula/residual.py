"""The covariance of the residuals as text: ``ar1(week | id, hom = FALSE, by = arm)``."""

from __future__ import annotations

from dataclasses import dataclass, field

from mixedeffects.base.options import meant
from mixedeffects.errors import FormulaError
from mixedeffects.formula.bars import group_name, group_variables
from mixedeffects.formula.reader import fail, problem, read
from mixedeffects.formula.residual_elsewhere import refuse_other_names
from mixedeffects.formula.syntax import (
    Argument,
    Binary,
    Call,
    Constant,
    Group,
    Name,
    Node,
    Number,
    Text,
    Unary,
    chain_of,
    deparse,
    quote_name,
    walk,
)

__all__ = ["RESIDUAL_DEFAULTS", "ResidualSpec", "read_residual"]

#: The structures, and whether all rows have one standard deviation unless told otherwise.
RESIDUAL_DEFAULTS = {
    "diag": False,
    "cs": True,
    "ar1": True,
    "car1": True,
    "ante": True,
    "toep": True,
    "us": False,
    "exp": True,
    "gau": True,
}
_SPATIAL = ("exp", "gau")
_OPTIONS = ("hom", "by", "nugget")


@dataclass(frozen=True)
class ResidualSpec:
    """The covariance structure of the residuals, read but not yet joined to data.

    Attributes
    ----------
    kind : str
        One of ``diag``, ``cs``, ``ar1``, ``car1``, ``ante``, ``toep``, ``us``, ``exp``, ``gau``.
    position : tuple of Node
        What says where in its group a row is; empty for ``1``.
    group : str
        Name of the factor whose levels are the residual groups: ``"Subject"``, ``"Subject:side"``.
    variables : tuple of str
        The columns whose combinations are its levels, in the order of the name.
    homogeneous : bool
        Whether all positions have one standard deviation.
    by : str or None
        The column whose levels have parameters of their own.
    nugget : bool
        Whether a part of each residual is its own, also where distances are zero.
    text : str
        The structure as it would be written, defaults left out.

    Examples
    --------
    >>> spec = read_residual("ar1(week|id, hom=TRUE)")
    >>> spec.text, spec.kind, spec.group, spec.names
    ('ar1(week | id)', 'ar1', 'id', ('week',))
    """

    kind: str
    position: tuple[Node, ...] = field(repr=False)
    group: str
    variables: tuple[str, ...]
    homogeneous: bool
    by: str | None
    nugget: bool
    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def names(self) -> tuple[str, ...]:
        """Text of each part of the position."""
        return tuple(deparse(tree) for tree in self.position)


def read_residual(text: str) -> ResidualSpec:
    """Read the covariance structure of the residuals.

    Parameters
    ----------
    text : str
        ``"STRUCTURE(position | group, hom = TRUE, by = stratum, nugget = FALSE)"``: ``diag`` (a
        variance for each position), ``cs`` (one correlation), ``ar1`` (its power by whole steps),
        ``car1`` (by any distance in time), ``ante`` (a correlation for each two neighbouring
        positions), ``toep`` (for each distance), ``us`` (for each pair), ``exp`` and ``gau`` (by
        the distance in one coordinate or in several, ``x + y``).

    Returns
    -------
    ResidualSpec

    Raises
    ------
    FormulaError
        If it cannot be read or has no meaning. The message shows the place.

    Examples
    --------
    >>> read_residual("exp(x + y | field, nugget = TRUE)").text
    'exp(x + y | field, nugget = TRUE)'
    >>> read_residual("csh(visit | id)")
    Traceback (most recent call last):
        ...
    mixedeffects.errors.FormulaError: What other packages call `csh` is
    `cs(visit | id, hom = FALSE)` here.
    <BLANKLINE>
        csh(visit | id)
        ^^^
    """
    if not isinstance(text, str):
        raise FormulaError(
            f"`residual` is text, such as 'ar1(week | id)'; got {type(text).__name__}."
        )
    text = " ".join(text.split())
    if not text:
        raise FormulaError("`residual` is empty; write for example 'ar1(week | id)'.")
    refuse_other_names(text, RESIDUAL_DEFAULTS)
    tree = read(text)
    while isinstance(tree, Group):
        tree = tree.inner
    names = ", ".join(f"`{name}`" for name in RESIDUAL_DEFAULTS)
    if not isinstance(tree, Call):
        fail(
            "The covariance of the residuals is one structure with its position and group, such "
            f"as `ar1(week | id)`; the structures are {names}.",
            text,
            tree.start,
            tree.end,
        )
    if tree.function not in RESIDUAL_DEFAULTS:
        fail(
            f"`{tree.function}` is not a covariance structure of residuals; the structures are "
            f"{names}.{meant(tree.function, RESIDUAL_DEFAULTS)}",
            text,
            tree.start,
            tree.start + len(tree.function),
        )
    bar = _bar(tree, text)
    group, variables = _grouping(tree, bar, text)
    position = _position(tree.function, bar.left, text)
    return _checked(tree, position, group, variables, _options(tree, text), text)


# --- the parts -------------------------------------------------------------------------


def _bar(call: Call, text: str) -> Binary:
    first = call.arguments[0] if call.arguments else None
    node = first.value if first is not None and first.name is None else None
    while isinstance(node, Group) or (isinstance(node, Unary) and node.operator == "~"):
        node = node.inner if isinstance(node, Group) else node.operand
    example = "1" if call.function == "cs" else "x + y" if call.function in _SPATIAL else "week"
    if not isinstance(node, Binary) or node.operator not in ("|", "||"):
        shown = deparse(node) if node is not None else example
        fail(
            f"`{call.function}` needs the group whose rows are correlated behind a bar: "
            f"`{call.function}({shown} | id)`.",
            text,
            call.start,
            call.end,
        )
    if node.operator == "||":
        fail(
            f"Inside `{call.function}()` write one bar: `{call.function}({deparse(node.left)} | "
            f"{deparse(node.right)})`.",
            text,
            node.left.end,
            node.right.start,
        )
    for side in (node.left, node.right):
        for part in walk(side):
            if isinstance(part, Binary) and part.operator in ("|", "||"):
                fail("A residual structure has one bar.", text, part.start, part.end)
    return node


def _grouping(call: Call, bar: Binary, text: str) -> tuple[str, tuple[str, ...]]:
    group = bar.right
    while isinstance(group, Group):
        group = group.inner
    if isinstance(group, Binary) and group.operator == "/":
        outer, inner = deparse(group.left), deparse(group.right)
        fail(
            "Residual groups are not nested. For parameters of its own in each level of "
            f"`{outer}` write `{call.function}({deparse(bar.left)} | {inner}, by = {outer})`; for "
            f"groups that are combinations write `{outer}:{inner}`.",
            text,
            group.start,
            group.end,
        )
    return group_name(group), tuple(group_variables(group, text))


def _position(kind: str, node: Node, text: str) -> tuple[Node, ...]:
    first, chain = chain_of(node, ("+", "-"))
    parts = [first, *(each.right for each in chain)]
    for part in parts:
        inner: Node = part
        while isinstance(inner, Group):
            inner = inner.inner
        refused = isinstance(inner, Binary) and inner.operator in ("*", ":", "/", "^", "%in%")
        if refused or (isinstance(inner, Name) and inner.name == "."):
            fail(
                f"`{deparse(part)}` is no position: name a column, or a function of one such as "
                "`log(t)`; of combinations make one column in the data first.",
                text,
                part.start,
                part.end,
            )
    if any(each.operator == "-" for each in chain):
        fail("Coordinates are joined with `+`.", text, node.start, node.end)
    if len(parts) == 1 and isinstance(first, Number) and first.value == 1.0:
        return ()
    for part in parts:
        if isinstance(part, (Number, Constant, Text)):
            rest = [deparse(each) for each in parts if not isinstance(each, (Number, Constant))]
            advice = f"; write `{' + '.join(rest)}` alone" if rest else "; name a column"
            fail(
                f"`{deparse(part)}` says nothing about the position of a row{advice}.",
                text,
                part.start,
                part.end,
            )
    if len(parts) > 1 and kind not in _SPATIAL:
        fail(
            f"`{kind}` has one position; several coordinates belong to `exp` and `gau`.",
            text,
            node.start,
            node.end,
        )
    seen = [deparse(part) for part in parts]
    for part, name in zip(parts, seen, strict=True):
        if seen.count(name) > 1:
            fail(f"The coordinate `{name}` is there twice.", text, part.start, part.end)
    return tuple(parts)


@dataclass
class _Options:
    hom: bool | None = None
    by: str | None = None
    nugget: bool = False
    places: dict[str, Node] = field(default_factory=dict)


def _options(call: Call, text: str) -> _Options:
    options = _Options()
    for argument in call.arguments[1:]:
        name, value = argument.name, argument.value
        if name not in _OPTIONS:
            given = deparse(value) if name is None else f"{name} = ..."
            fail(
                f"After the group `{call.function}` takes `hom`, `by` and `nugget`, not "
                f"`{given}`.{meant(name, _OPTIONS)}",
                text,
                value.start,
                value.end,
            )
        if name in options.places:
            fail(f"`{call.function}` takes `{name}` once.", text, value.start, value.end)
        options.places[name] = value
        if name == "by":
            options.by = _stratum(argument, text)
        elif isinstance(value, Constant) and isinstance(value.value, bool):
            setattr(options, name, value.value)
        else:
            what = (
                "(one standard deviation for all positions) or FALSE (one for each)"
                if name == "hom"
                else "(a part of each residual is its own) or FALSE"
            )
            fail(
                f"`{name}` must be TRUE {what}, not `{deparse(value)}`.",
                text,
                value.start,
                value.end,
            )
    return options


def _stratum(argument: Argument, text: str) -> str | None:
    value = argument.value
    if isinstance(value, Constant) and value.value is None:
        return None
    if isinstance(value, Text):
        return value.value
    if isinstance(value, Name) and value.name != ".":
        return value.name
    raise problem(
        f"`by` must name one column, not `{deparse(value)}`; of combinations make one column "
        "in the data first.",
        text,
        value.start,
        value.end,
    )


def _checked(
    call: Call,
    position: tuple[Node, ...],
    group: str,
    variables: tuple[str, ...],
    options: _Options,
    text: str,
) -> ResidualSpec:
    """The structure, if its parts go together."""
    kind, by, start, end = call.function, options.by, call.start, call.end
    default = RESIDUAL_DEFAULTS[kind]
    homogeneous = default if options.hom is None else options.hom
    shown = quote_name(group) if variables == (group,) else group

    def place(name: str) -> tuple[int, int]:
        node = options.places[name]
        return node.start, node.end

    if kind == "diag" and homogeneous:
        fail(
            "`diag` with one variance for all positions is what residuals have without "
            "`residual`. Leave it out, or leave `hom` out for a variance of each position.",
            text,
            *place("hom"),
        )
    if options.nugget and kind not in _SPATIAL:
        instead = f" For `{kind}` with a nugget write `exp({deparse(position[0])} | {shown}, "
        fail(
            "`nugget` is an argument of `exp` and `gau`."
            + (f"{instead}nugget = TRUE)`." if position and kind in ("ar1", "car1") else ""),
            text,
            *place("nugget"),
        )
    if not position and kind not in ("cs", "diag", "ar1"):
        fail(
            f"`{kind}` needs the position of a row in its group: `{kind}("
            f"{'x + y' if kind in _SPATIAL else 'week'} | {shown})`.",
            text,
            start,
            end,
        )
    if not position and kind == "diag" and by is None:
        fail(
            "`diag` needs what the variances differ by, such as `diag(visit | "
            f"{shown})` or `diag(1 | {shown}, by = arm)`.",
            text,
            start,
            end,
        )
    if not position and kind == "cs" and not homogeneous:
        fail(
            "Compound symmetry with a variance for each position needs the position: "
            f"`cs(visit | {shown}, hom = FALSE)`.",
            text,
            *place("hom"),
        )
    if len(position) > 1 and not homogeneous:
        fail(
            "With several coordinates there is no variance for each position; how the variance "
            "differs is said by `variance`, for example variance='x'.",
            text,
            *place("hom"),
        )
    said = [f"{' + '.join(map(deparse, position)) or '1'} | {shown}"]
    if homogeneous != default:
        said.append(f"hom = {str(homogeneous).upper()}")
    if by is not None:
        said.append(f"by = {quote_name(by)}")
    if options.nugget:
        said.append("nugget = TRUE")
    return ResidualSpec(
        kind=kind,
        position=position,
        group=group,
        variables=variables,
        homogeneous=homogeneous,
        by=by,
        nugget=options.nugget,
        text=f"{kind}({', '.join(said)})",
    )
