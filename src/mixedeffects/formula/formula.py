"""The formula of a linear mixed model, parsed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mixedeffects.errors import FormulaError
from mixedeffects.formula.bars import Bar, split_bars
from mixedeffects.formula.evaluate import check_functions
from mixedeffects.formula.reader import fail, read
from mixedeffects.formula.syntax import (
    Binary,
    Name,
    Node,
    Number,
    Unary,
    deparse,
    quote_name,
    variable_names,
)
from mixedeffects.formula.terms import TermTable, expand_terms

__all__ = ["Formula", "parse_formula"]

#: Stands on the left where a formula has no response.
_NO_RESPONSE = Number(0.0, "0")


@dataclass(frozen=True)
class Formula:
    """A mixed-model formula, read but not yet joined to data.

    Attributes
    ----------
    text : str
        The formula as written, on one line.
    response : str
        The left-hand side, such as ``"Reaction"`` or ``"log(y)"``; empty if there is none.
    fixed : str
        The right-hand side without its random-effects terms.
    intercept : bool
        Whether the fixed part has an intercept.
    random : tuple of Bar
        The random-effects terms, with ``||`` and ``/`` expanded, in the order written.
    offsets : tuple of str
        Arguments of ``offset()``.

    Examples
    --------
    >>> formula = parse_formula("y ~ x + (1 | sch/tch)")
    >>> formula.fixed
    'x'
    >>> [bar.group for bar in formula.random]
    ['tch:sch', 'sch']
    """

    text: str
    response: str
    fixed: str
    intercept: bool
    random: tuple[Bar, ...]
    offsets: tuple[str, ...] = ()
    response_tree: Node = field(kw_only=True, repr=False, compare=False)
    fixed_tree: Node = field(kw_only=True, repr=False, compare=False)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        lines = [
            f"Formula: {self.text}",
            f"  response  {self.response}",
            f"  fixed     {self.fixed}",
            f"  random    {' + '.join(str(bar) for bar in self.random) or 'none'}",
        ]
        return "\n".join(lines)

    def __reduce__(self) -> Any:
        # As text: the trees of a long formula are deeper than a pickle can be.
        return _stored, (self.text, not self.response, not self.random)

    @property
    def uses_dot(self) -> bool:
        """Whether the fixed part says ``.``, all other columns."""
        return "." in variable_names(self.fixed_tree)

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the columns the formula names, response first, each once."""
        return tuple(dict.fromkeys((*variable_names(self.response_tree), *self.right_variables)))

    @property
    def right_variables(self) -> tuple[str, ...]:
        """Names of the columns that the right-hand side names, each once."""
        names = [*variable_names(self.fixed_tree)]
        for bar in self.random:
            names += [*variable_names(bar.tree), *bar.variables]
        return tuple(dict.fromkeys(name for name in names if name != "."))

    def with_response(
        self, name: str, columns: Iterable[str], excluding: Sequence[str] = ()
    ) -> Formula:
        """The formula of another response with the same right-hand side.

        Parameters
        ----------
        name : str
            The column that is the response.
        columns, excluding
            As for `fixed_terms`. What ``.`` stands for is written out, since it was all columns
            but those of the old response.

        Returns
        -------
        Formula
        """
        from mixedeffects.formula.update import update_formula

        text = update_formula(self.text, f"{quote_name(name)} ~ .")
        if self.uses_dot:
            others = " + ".join(map(quote_name, self._others(columns, excluding))) or "1"
            text = update_formula(f"{quote_name(name)} ~ {others}", text)
        return parse_formula(text, without_random=not self.random)

    def fixed_terms(
        self, columns: Iterable[str] | None = None, excluding: Sequence[str] = ()
    ) -> TermTable:
        """Expand the fixed part into terms.

        Parameters
        ----------
        columns : iterable of str, optional
            The data's columns, which ``.`` is made from.
        excluding : sequence of str
            Columns that ``.`` leaves out besides those of the response, the grouping factors and
            the offsets: weights and offset given by name.

        Returns
        -------
        TermTable
        """
        others = None if columns is None else self._others(columns, excluding)
        return expand_terms(self.fixed_tree, self.text, others)

    def _others(self, columns: Iterable[str], excluding: Sequence[str]) -> list[str]:
        """The columns that ``.`` stands for."""
        taken = {*variable_names(self.response_tree), *excluding}
        for bar in self.random:
            taken |= {*bar.variables}
        for offset in self.offsets:
            taken |= {*variable_names(read(offset))}
        return [name for name in columns if name not in taken]


#: A name or text in quotes, or a blank outside of them.
_QUOTED_OR_BLANK = re.compile(
    r"""`(?:\\.|[^`\\])*` | "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' | (?P<blank>[\r\n\t])""",
    re.VERBOSE | re.DOTALL,
)


def _on_one_line(text: str) -> str:
    """The text with line ends and tabs as blanks, but for those within quotes."""
    return _QUOTED_OR_BLANK.sub(lambda found: " " if found["blank"] else found[0], text).strip()


def _stored(text: str, one_sided: bool, without_random: bool = False) -> Formula:
    return parse_formula(text, one_sided=one_sided, without_random=without_random)


def _check_response(tree: Node, fixed: TermTable, text: str) -> None:
    if isinstance(tree, Name) and tree.name == ".":
        fail("The response cannot be `.`; name the column.", text, tree.start, tree.end)
    check_functions(tree)
    if not variable_names(tree):
        fail("The left-hand side names no column.", text, tree.start, tree.end)
    for variable in fixed.variables:
        if deparse(variable) == deparse(tree):
            fail(
                "The response also stands on the right-hand side.",
                text,
                variable.start,
                variable.end,
            )


def parse_formula(text: str, *, one_sided: bool = False, without_random: bool = False) -> Formula:
    """Read a mixed-model formula written in lme4's grammar.

    Parameters
    ----------
    text : str
        Such as ``"y ~ x + (x | g)"``. The parts: ``(x | g)`` correlated and ``(x || g)``
        uncorrelated random effects; ``us``, ``diag``, ``cs`` and ``ar1`` around a term, such as
        ``cs(0 + f | g, hom = TRUE)``, for the structure of their covariance; ``a/b`` nesting and
        ``a:b`` combinations of grouping columns; ``*``, ``:``, ``^``, ``%in%``, ``/``, ``-``
        between fixed terms;
        ``offset(z)``; calls such as ``log(x)``, ``I(x^2)``, ``poly(x, 2)``, ``bs(x, df = 5)``;
        backticks around names that are not plain words; ``.`` for all other columns.
    one_sided : bool
        Whether the response may be left out: ``"~ x + (x | g)"``.
    without_random : bool
        Whether it may have no random-effects term, as where the residuals are correlated.

    Returns
    -------
    Formula

    Raises
    ------
    FormulaError
        If the text cannot be read or is not a mixed model. The message shows the place.

    Examples
    --------
    >>> parse_formula("Reaction ~ Days + (Days || Subject)")
    Formula: Reaction ~ Days + (Days || Subject)
      response  Reaction
      fixed     Days
      random    (1 | Subject) + (0 + Days | Subject)
    """
    if not isinstance(text, str):
        raise FormulaError(
            f"A formula is text, such as 'y ~ x + (1 | group)'; got {type(text).__name__}."
        )
    text = _on_one_line(text)
    if not text:
        raise FormulaError("The formula is empty; write for example 'y ~ x + (1 | group)'.")
    if "~" not in text:
        # As word processors and web pages write it.
        text = text.replace("∼", "~").replace("˜", "~")
    if "~" not in text:
        fail("There is no `~`; write `response ~ terms`.", text, 0, len(text))
    if text.startswith("~") and not one_sided:
        fail("The response is missing on the left of `~`.", text, 0)
    if text.endswith("~"):
        fail("There is nothing on the right of `~`.", text, len(text) - 1)
    tree = read(text)
    match tree:
        case Binary(operator="~", left=response, right=right):
            for side in (response, right):
                if isinstance(side, (Binary, Unary)) and side.operator == "~":
                    fail("A formula has one `~`.", text, side.start, side.end)
        case Unary(operator="~", operand=right) if one_sided:
            response = _NO_RESPONSE
            if isinstance(right, (Binary, Unary)) and right.operator == "~":
                fail("A formula has one `~`.", text, right.start, right.end)
        case _:
            fail("`~` must separate the response from the terms.", text, 0, len(text))

    fixed_tree, bars = split_bars(right, text)
    if not bars and not without_random:
        raise FormulaError(
            f"The formula '{text}' has no random-effects term. Add one, for example "
            "`(1 | group)`. A linear model can also say how its residuals are correlated, for "
            "example residual='ar1(time | group)'. For neither there is ordinary or generalized "
            "linear regression."
        )
    if fixed_tree is None:
        fixed_tree = Number(1.0, "1")
    # Any `.` is expanded again with the data; here it only must not be an error.
    table = expand_terms(fixed_tree, text, ())
    if response is not _NO_RESPONSE:
        _check_response(response, table, text)
    return Formula(
        text=text,
        response="" if response is _NO_RESPONSE else deparse(response),
        fixed=deparse(fixed_tree),
        intercept=table.intercept,
        random=tuple(bars),
        offsets=tuple(deparse(offset) for offset in table.offsets),
        response_tree=response,
        fixed_tree=fixed_tree,
    )
