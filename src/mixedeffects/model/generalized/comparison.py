"""How much of the variance the parts of a generalized model account for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mixedeffects.model.generalized.of_record import OfRecord

if TYPE_CHECKING:
    from mixedeffects.comparison.variance_explained import ICC, R2

__all__ = ["GeneralizedVarianceExplained"]

Method = Literal["theoretical", "delta", "lognormal", "trigamma"]


class GeneralizedVarianceExplained(OfRecord):
    """How much of the variance the parts of a generalized model account for."""

    def icc(self, by_group: bool = False, method: Method | None = None) -> ICC:
        """Intraclass correlation on the scale of the link.

        The residual is the family's own variance there. Of effects that each row has for itself the
        variance counts with the residual.

        Parameters
        ----------
        by_group : bool
            Also the share of each grouping factor.
        method : {"theoretical", "delta", "lognormal", "trigamma"}, optional
            How the family's variance is brought to the scale of the link. ``"theoretical"``, for
            binomial models: of the latent variable, pi^2 / 3 with the logit, 1 with the probit,
            pi^2 / 6 with cloglog, for one trial. ``"lognormal"`` and ``"trigamma"``, for the link
            log: log(1 + 1 / lambda) and the trigamma function of lambda for counts, with
            1 / lambda + 1 / theta in place of 1 / lambda for negative binomial ones, log(1 + 1 /
            nu) and trigamma(nu) for the Gamma family. ``"delta"``: the variance over the squared
            derivative of the mean, for all. By default the first of theoretical, lognormal and
            delta that there is.

        Returns
        -------
        ICC
            ``adjusted``, the random effects' share of the variance that the fixed part leaves, and
            ``unadjusted``, that of all variance.

        Raises
        ------
        ModelError
            If the method is not known, or not defined for the family.

        Notes
        -----
        lambda is the mean of the population by the null model, which has the intercept, the same
        random effects and the mean offset: ``exp(beta0 + v / 2)`` with the link log. (R's
        performance 0.10 leaves out ``v / 2``.) With random slopes v and the variance of the random
        effects are the mean of ``z'G z`` over the rows.

        References
        ----------
        Nakagawa, S., Johnson, P. C. D. and Schielzeth, H. (2017). The coefficient of determination
        R2 and intra-class correlation coefficient from generalized linear mixed-effects models
        revisited and expanded. Journal of the Royal Society Interface 14, 20170213.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> print(m.icc())
        Intraclass correlation: adjusted 0.1114, unadjusted 0.1019
          variance of the binomial family on the scale of the link: 3.29, theoretical
        """
        from mixedeffects.comparison.latent_variance import generalized_icc

        return generalized_icc(self._record, by_group, method)

    def r2(self, method: Method | None = None) -> R2:
        """Nakagawa and Schielzeth's R2 on the scale of the link.

        Parameters
        ----------
        method : {"theoretical", "delta", "lognormal", "trigamma"}, optional
            As for `icc`.

        Returns
        -------
        R2
            ``marginal``, the share of the fixed part, and ``conditional``, that of fixed and random
            effects.

        Raises
        ------
        ModelError
            As for `icc`.

        References
        ----------
        Nakagawa, S., Johnson, P. C. D. and Schielzeth, H. (2017). The coefficient of determination
        R2 and intra-class correlation coefficient from generalized linear mixed-effects models
        revisited and expanded. Journal of the Royal Society Interface 14, 20170213.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> print(m.r2())
        R2: marginal 0.0854, conditional 0.1873
          variance of the binomial family on the scale of the link: 3.29, theoretical
        """
        from mixedeffects.comparison.latent_variance import generalized_r2

        return generalized_r2(self._record, method)
