"""Confidence intervals: Wald, profile likelihood, bootstrap; and tests of the random effects."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Self

import pandas as pd

from mixedeffects.base.workers import Workers
from mixedeffects.model.generalized.of_record import OfRecord
from mixedeffects.model.shared.held import OfModel
from mixedeffects.progress import ProgressOption

if TYPE_CHECKING:
    from mixedeffects.comparison.ranova import RandomEffectsTests
    from mixedeffects.inference.bootstrap import Bootstrap
    from mixedeffects.inference.profile import Profile

__all__ = ["GeneralizedIntervals"]


class GeneralizedIntervals(OfRecord):
    """Confidence intervals: Wald, profile likelihood, bootstrap; tests of the random effects."""

    def confint(
        self,
        method: Literal["wald", "profile", "boot"] = "wald",
        parameters: Any = None,
        level: float = 0.95,
        *,
        vcov: str = "model",
        cluster: Any = None,
        n: int = 1000,
        seed: Any = None,
        kind: str = "percentile",
        ddf: str = "inf",
        progress: ProgressOption = None,
    ) -> pd.DataFrame:
        """Confidence intervals for fixed effects, standard deviations, correlations and phi.

        Parameters
        ----------
        method : {"wald", "profile", "boot"}
            ``wald``: normal intervals, from the joint Hessian of -2 log L; for the logarithm of a
            standard deviation and of the family's parameter, and Fisher's z of a correlation (NaN
            beside a singular covariance). ``profile``: by profile likelihood, see `profile`.
            ``boot``: parametric bootstrap, see `bootstrap`.
        parameters : str or list of str, optional
            Names, or ``"fixed"`` (``"beta_"``) or ``"random"`` (``"theta_"``); by default all. The
            family's parameter goes by its own name, ``theta``, ``precision`` or ``dispersion``.
        level : float
            Confidence level.
        vcov, cluster, ddf
            For ``wald``, as for `coef_table`.
        n, seed, kind
            For ``boot``: number of refits, seed, and kind of interval as for its ``confint``.
        progress : bool, callable or None
            For ``profile`` and ``boot``, as there.

        Returns
        -------
        DataFrame, one row per parameter
            Columns ``lower`` and ``upper``, on the scale of the link.

        Raises
        ------
        ModelError
            If a method or parameter is not known, the level is not between 0 and 1, or the method
            has no use for an argument given.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.confint(parameters="random")
                             lower  upper
        sd_(Intercept)|herd 0.3724 1.1076
        ---
        95 % Wald intervals
        >>> m.confint("profile", "period2")
                  lower   upper
        period2 -1.6168 -0.4078
        ---
        95 % profile-likelihood intervals
        """
        from mixedeffects.inference.intervals import confidence_intervals

        return confidence_intervals(
            self.fit,
            method,
            parameters,
            level,
            ddf=ddf,
            vcov=vcov,
            cluster=cluster,
            n=n,
            seed=seed,
            kind=kind,
            progress=progress,
        )

    def profile(
        self, parameters: Any = None, level: float = 0.99, *, progress: ProgressOption = None
    ) -> Profile:
        """Profile likelihood of standard deviations, correlations, phi and fixed effects.

        Each parameter is held at values around its estimate while -2 log L, by the approximation
        of the fit, is minimised over all others.

        Parameters
        ----------
        parameters : str or list of str, optional
            Names as in ``profile.parameters``, or ``"fixed"`` or ``"random"``; by default all.
        level : float
            Each profile goes as far as the ends of intervals of this level.
        progress : bool, callable or None
            True shows count, rate and time left on standard error; a callable gets each
            `Repetitions`; None shows them after some seconds on a terminal or in a notebook.

        Returns
        -------
        Profile
            With ``confint(level)``, ``to_frame()``, ``zeta(parameter, value)`` and ``plot()``.

        Raises
        ------
        ModelError
            If a parameter is not known, the level is not between 0 and 1, random effects have a
            covariance structure, or profiling finds better and better fits.

        Warns
        -----
        ConvergenceWarning
            If profiling finds a better fit than this one, from which it then starts again, or a
            minimisation does not converge; the point is named.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.profile("random").confint()
                             lower  upper
        sd_(Intercept)|herd 0.3461 1.1000
        ---
        95 % profile-likelihood intervals
        """
        from mixedeffects.inference.generalized_profile import generalized_profile

        return generalized_profile(self.fit, parameters, level, progress)

    def bootstrap(
        self,
        n: int = 1000,
        seed: Any = None,
        *,
        re: Any = None,
        statistic: Callable[[Self], Any] | None = None,
        workers: Workers = None,
        progress: ProgressOption = None,
    ) -> Bootstrap:
        """Parametric bootstrap: fit the model again to responses drawn from it.

        Each refit starts from the estimates. Ctrl-C raises `Interrupted`, which keeps what is
        done; ``partial.resume()`` goes on from there. A response without finite estimates, one
        that a fixed effect separates, is a refit without an optimum: its row is NaN.

        Parameters
        ----------
        n : int
            Number of refits.
        seed : int, Generator or None
            Refit i depends on the seed and on i alone; None takes a fresh seed, which the result
            shows.
        re : None, "all", str or list of str
            As for `simulate`.
        statistic : callable, optional
            A function of a fitted model that returns a number, an array, a Series or a dict of
            numbers; by default the estimates of all parameters.
        workers : int or Executor, optional
            Refits at a time, in threads; by default one. Or an executor of `concurrent.futures`,
            whose processes may be on other machines. The draws do not depend on it.
        progress : bool, callable or None
            True shows count, rate and time left on standard error; a callable gets each
            `Repetitions`; None shows them after some seconds on a terminal or in a notebook.

        Returns
        -------
        Bootstrap
            With ``draws``, ``confint(level, kind)`` and ``plot()``.

        Raises
        ------
        ModelError
            If an argument is not what it should be.

        References
        ----------
        Davison, A. C. and Hinkley, D. V. (1997). Bootstrap Methods and their Application. Cambridge
        University Press.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> boot = m.bootstrap(100, seed=1)
        >>> boot.draws.shape, boot.n_failed
        ((100, 5), 0)
        """
        from mixedeffects.inference.generalized_bootstrap import generalized_bootstrap

        own = OfModel(statistic, type(self)) if callable(statistic) else statistic
        return generalized_bootstrap(self.fit, n, seed, re, own, workers, progress)

    def ranova(
        self,
        boundary: bool = False,
        reduce_terms: bool = True,
        *,
        progress: ProgressOption = None,
    ) -> RandomEffectsTests:
        """Likelihood-ratio tests of the random effects, each taken out in turn.

        The smaller models are fitted to the same rows with the same `nagq`. Where the last random
        term goes, what is left is the generalized linear model.

        Parameters
        ----------
        boundary : bool
            Where one variance is taken out, with its covariances with q other effects of its
            term, take the p-value from the even mixture of chi-squared distributions with q and
            q + 1 degrees of freedom, because a variance cannot be negative. Where it does not
            apply, the usual p-value stays, and a note says why.
        reduce_terms : bool
            Take out the variables of a random term one by one, ``(x | g)`` to ``(1 | g)``, but none
            that is part of an interaction there. False takes out whole terms.
        progress : bool, callable or None
            True shows count, rate and time left on standard error; a callable gets each
            `Repetitions`; None shows them after some seconds on a terminal or in a notebook.

        Returns
        -------
        RandomEffectsTests
            One row for each smaller model, in the order of ``m.ngroups``.

        Raises
        ------
        ModelError
            If an option is neither True nor False, or a smaller model cannot be fitted.

        References
        ----------
        Stram, D. O. and Lee, J. W. (1994). Variance components testing in the longitudinal mixed
        effects model. Biometrics 50, 1171-1177.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.ranova(boundary=True).table["Chisq"].round(2).to_dict()
        {'<none>': nan, '(1 | herd)': 14.01}
        """
        from mixedeffects.comparison.ranova import random_effects_tests

        return random_effects_tests(self.fit, boundary, reduce_terms, progress)
