"""Confidence intervals: Wald, profile likelihood, bootstrap."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Self

import pandas as pd

from mixedeffects.base.workers import Workers
from mixedeffects.model.shared.held import Held, OfModel
from mixedeffects.progress import ProgressOption

if TYPE_CHECKING:
    from mixedeffects.inference.bootstrap import Bootstrap
    from mixedeffects.inference.profile import Profile

__all__ = ["Intervals"]


class Intervals(Held):
    """Confidence intervals: Wald, profile likelihood, bootstrap."""

    def confint(
        self,
        method: Literal["wald", "profile", "boot"] = "wald",
        parameters: Any = None,
        level: float = 0.95,
        *,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        cluster: Any = None,
        n: int = 1000,
        seed: Any = None,
        kind: str = "percentile",
        progress: ProgressOption = None,
    ) -> pd.DataFrame:
        """Confidence intervals for fixed effects, standard deviations, correlations and sigma.

        Parameters
        ----------
        method : {"wald", "profile", "boot"}
            ``wald``: t intervals for the fixed effects; for the others normal intervals for the
            logarithm of a standard deviation and Fisher's z of a correlation, from the observed
            curvature of the criterion (NaN beside a singular covariance). ``profile``: by profile
            likelihood, see `profile`. ``boot``: parametric bootstrap, see `bootstrap`.
        parameters : str or list of str, optional
            Names, or ``"fixed"`` (``"beta_"``) or ``"random"`` (``"theta_"``); by default all.
        level : float
            Confidence level.
        ddf, vcov, cluster
            For ``wald``, as for `coef_table`.
        n, seed, kind
            For ``boot``: number of refits, seed, and kind of interval as for its ``confint``.
        progress : bool, callable or None
            For ``profile`` and ``boot``, as there.

        Returns
        -------
        DataFrame, one row per parameter
            Columns named after the percentiles, such as ``2.5 %`` and ``97.5 %``; in the units of
            the parameters. A fixed effect called like a variance parameter, such as ``sigma``, is
            ``beta_sigma`` here, and two of one name are ``x (1)`` and ``x (2)``.

        Raises
        ------
        ModelError
            If a method or parameter is not known, the level is not between 0 and 1, or the method
            has no use for an argument given.

        References
        ----------
        Pinheiro, J. C. and Bates, D. M. (2000). Mixed-Effects Models in S and S-PLUS. Springer,
        section 2.4.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.confint()
                                        lower    upper
        sd_(Intercept)|Subject        15.58    39.28
        cor_Days.(Intercept)|Subject  -0.5184   0.6078
        sd_Days|Subject                3.918    8.951
        sigma                         22.80    28.72
        (Intercept)                  237.0    265.8
        Days                           7.206   13.729
        ---
        95 % Wald intervals
        >>> m.confint("profile", "Days")
             lower  upper
        Days 7.359 13.576
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
        """Profile likelihood of standard deviations, correlations, sigma and fixed effects.

        Each parameter is held at values around its estimate while -2 log L is minimised over all
        others. It is the likelihood that is profiled, as in lme4: a REML fit is first fitted again
        by maximum likelihood. With ``residual=`` or ``variance=`` the parameters of the residuals
        are among them, under their names in `covariance_parameters`.

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
            If a parameter is not known, the level is not between 0 and 1, or profiling finds
            better and better fits.

        Warns
        -----
        ConvergenceWarning
            If profiling finds a better fit than this one, from which it then starts again, or a
            minimisation does not converge; the point is named.

        References
        ----------
        Bates, D., Maechler, M., Bolker, B. and Walker, S. (2015). Fitting linear mixed-effects
        models using lme4. Journal of Statistical Software 67(1), section 5.1.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.profile("random").confint()
                                       lower   upper
        sd_(Intercept)|Subject       14.38   37.72
        cor_Days.(Intercept)|Subject -0.4815  0.6850
        sd_Days|Subject               3.801   8.753
        sigma                        22.90   28.86
        ---
        95 % profile-likelihood intervals
        """
        from mixedeffects.inference.profiling import profile

        return profile(self.fit, parameters, level, progress)

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

        Ctrl-C raises `Interrupted`, which keeps what is done; ``partial.resume()`` goes on from
        there.

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
            Refits at a time, in threads; by default the number of processors, or one if a refit
            needs much memory or there is a ``statistic``. Or an executor of `concurrent.futures`,
            such as a ``ProcessPoolExecutor`` or Dask's ``client.get_executor()``, whose processes
            may be on other machines. The draws do not depend on it.
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
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> boot = m.bootstrap(500, seed=1)
        >>> boot.confint().loc[["sigma", "Days"]].round(0)
              lower upper
        sigma    22    28
        Days      7    14
        ---
        95 % bootstrap (percentile) intervals
        """
        from mixedeffects.inference.bootstrap import bootstrap

        own = OfModel(statistic, type(self)) if callable(statistic) else statistic
        return bootstrap(self.fit, n, seed, re, own, workers, progress)
