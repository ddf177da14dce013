"""What a formula and the arguments beside it name, before any column is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mixedeffects.formula import Formula, ResidualSpec
from mixedeffects.formula.syntax import Name, Node
from mixedeffects.formula.terms import TermTable, expand_terms
from mixedeffects.frame.variables import argument_tree

__all__ = ["NamedVariables", "named_variables"]


@dataclass(frozen=True, eq=False)
class NamedVariables:
    """The variables of a model by where they stand in it.

    Attributes
    ----------
    formula : Formula
        The formula.
    response : Node or None
        None where it is left unread.
    fixed : TermTable
        The fixed part.
    random : list of TermTable
        The columns of each random-effects term.
    residual : ResidualSpec or None
        How residuals are correlated.
    variance : tuple of str and TermTable, or None
        What their standard deviation follows.
    roles : mapping of str to object
        Weights, offset and exposure as given.
    worked_out : mapping of str to Node or None
        The expression that each of these is worked out from; None for a column, and for values.
    """

    formula: Formula
    response: Node | None
    fixed: TermTable
    random: list[TermTable]
    residual: ResidualSpec | None
    variance: tuple[str, TermTable] | None
    roles: Mapping[str, Any]
    worked_out: Mapping[str, Node | None]

    @property
    def by_name(self) -> list[str]:
        """Columns that are weights, offset or exposure as they are."""
        return _by_name(self.roles, self.worked_out)

    @property
    def grouping(self) -> list[str]:
        """Columns whose levels are groups, of random effects and of residuals."""
        names = [name for bar in self.formula.random for name in bar.variables]
        if self.residual is not None:
            names += self.residual.variables
            if self.residual.by is not None:
                names.append(self.residual.by)
        return names

    @property
    def of_residuals(self) -> list[Node]:
        """Expressions that the covariance of the residuals is made of."""
        trees: list[Node] = [] if self.residual is None else [*self.residual.position]
        return trees if self.variance is None else [*trees, *self.variance[1].variables]

    @property
    def of_effects(self) -> list[Node]:
        """Expressions that the columns of fixed and random effects are made of."""
        return [tree for table in (self.fixed, *self.random) for tree in table.variables]

    @property
    def trees(self) -> list[Node]:
        """Every expression of the model, in the order in which they are evaluated."""
        first = [] if self.response is None else [self.response]
        random = [variable for table in self.random for variable in table.variables]
        fixed = [*self.fixed.variables, *self.fixed.offsets]
        return [*first, *fixed, *random, *self.of_residuals]


def named_variables(
    formula: Formula,
    response: Node | None,
    residual: ResidualSpec | None,
    variance: tuple[str, TermTable] | None,
    roles: Mapping[str, Any],
    available: Sequence[str],
) -> NamedVariables:
    """Read what is named; see `NamedVariables`.

    Parameters
    ----------
    formula, response, residual, variance, roles
        As the attributes.
    available : sequence of str
        The columns that there are, for ``.`` and to tell a column from an expression.

    Raises
    ------
    FormulaError
        If something named is no expression.
    """
    worked_out = {role: _expression(given, available) for role, given in roles.items()}
    of_groups = [] if residual is None else list(residual.variables)
    fixed = formula.fixed_terms(
        available if formula.uses_dot else None, [*_by_name(roles, worked_out), *of_groups]
    )
    random = [expand_terms(bar.tree, formula.text) for bar in formula.random]
    return NamedVariables(formula, response, fixed, random, residual, variance, roles, worked_out)


def _by_name(roles: Mapping[str, Any], worked_out: Mapping[str, Node | None]) -> list[str]:
    return [
        given
        for role, given in roles.items()
        if isinstance(given, str) and worked_out[role] is None
    ]


def _expression(given: Any, available: Sequence[str]) -> Node | None:
    """What weights or an offset are worked out from, such as ``1 / vi``; None for a column."""
    if not isinstance(given, str):
        return None
    tree = argument_tree(given, available)
    return None if isinstance(tree, Name) else tree
