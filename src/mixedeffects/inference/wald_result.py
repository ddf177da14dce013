"""What a Wald test of the fixed effects found."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from mixedeffects.display.result_table import ResultTable

__all__ = ["WaldTest"]


@dataclass(frozen=True, eq=False)
class WaldTest:
    """A test that linear combinations of the fixed effects are zero.

    Attributes
    ----------
    test : str
        The reference distribution, ``"F"``, ``"chi2"`` or ``"z"``, or the name of a robust test
        such as ``"HTZ"``.
    statistic : float
        The statistic, scaled where the method asks for it; with its sign for z.
    num_df : int
        Number of linearly independent contrasts.
    den_df : float
        Denominator degrees of freedom; infinite for chi-squared and z.
    p : float
        Probability of a larger statistic if the hypothesis holds. NaN where the degrees of freedom
        are not positive: too few clusters for so many contrasts.
    scaling : float
        Factor in the statistic: Kenward and Roger's, or that of a robust test; otherwise one.
    contrasts : DataFrame
        The hypothesis, one row per contrast, one column per fixed effect.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> m.wald("Days", ddf="kr")
    F(1, 17.0) = 45.85, p = 3.264e-06
    >>> m.robust("CR2").test("Days")
    HTZ: F(1, 17.0) = 45.85, p = 3.264e-06
    """

    test: str
    statistic: float
    num_df: int
    den_df: float
    p: float
    scaling: float
    contrasts: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """One row in the layout of `LinearMixedModel.anova`.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> list(m.wald("Days").to_frame())
        ['NumDF', 'DenDF', 'F value', 'Pr(>F)']
        """
        if self.test == "z":
            return ResultTable({"z value": [self.statistic], "Pr(>|z|)": self.p})
        chi2 = self.test == "chi2"
        name, p = ("Chisq", "Pr(>Chisq)") if chi2 else ("F value", "Pr(>F)")
        return ResultTable(
            {"NumDF": [self.num_df], "DenDF": self.den_df, name: self.statistic, p: self.p}
        )

    def __repr__(self) -> str:
        p = "p < 2.2e-16" if self.p < 2.2e-16 else f"p = {self.p:.4g}"
        if self.test == "z":
            return f"z = {self.statistic:.4g}, {p}"
        if self.test == "chi2":
            return f"chi2({self.num_df}) = {self.statistic:.4g}, {p}"
        name = "" if self.test == "F" else f"{self.test}: "
        return f"{name}F({self.num_df}, {self.den_df:.1f}) = {self.statistic:.4g}, {p}"
