"""How to cite the package, and the methods that a fit rests on."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from mixedeffects.base.default_ddf import ddf_of_the_fit
from mixedeffects.base.habits import explained
from mixedeffects.fitting.fit import Fit, fit_of
from mixedeffects.inference.variance import check_normal, ddf_name, is_robust

__all__ = ["Citation", "cite"]

_AUTHORS, _TITLE = "The mixedeffects developers", "mixedeffects: Linear mixed models in Python"
_YEAR = 2026

#: Works by what was used; (key, authors, year, title, where).
_WORKS = {
    "lme4": (
        "bates2015",
        "Bates, D., Mächler, M., Bolker, B. and Walker, S.",
        2015,
        "Fitting linear mixed-effects models using lme4",
        "Journal of Statistical Software 67(1)",
    ),
    "reml": (
        "patterson1971",
        "Patterson, H. D. and Thompson, R.",
        1971,
        "Recovery of inter-block information when block sizes are unequal",
        "Biometrika 58, 545-554",
    ),
    "residual": (
        "gilmour1995",
        "Gilmour, A. R., Thompson, R. and Cullis, B. R.",
        1995,
        "Average information REML: an efficient algorithm for variance parameter estimation in "
        "linear mixed models",
        "Biometrics 51, 1440-1450",
    ),
    "glmm": (
        "pinheiro2006",
        "Pinheiro, J. C. and Chao, E. C.",
        2006,
        "Efficient Laplacian and adaptive Gaussian quadrature algorithms for multilevel "
        "generalized linear mixed models",
        "Journal of Computational and Graphical Statistics 15, 58-81",
    ),
    "white": (
        "white1982",
        "White, H.",
        1982,
        "Maximum likelihood estimation of misspecified models",
        "Econometrica 50, 1-25",
    ),
    "satterthwaite": (
        "fai1996",
        "Fai, A. H.-T. and Cornelius, P. L.",
        1996,
        "Approximate F-tests of multiple degree of freedom hypotheses in generalized least squares "
        "analyses of unbalanced split-plot experiments",
        "Journal of Statistical Computation and Simulation 54, 363-378",
    ),
    "kr": (
        "kenward1997",
        "Kenward, M. G. and Roger, J. H.",
        1997,
        "Small sample inference for fixed effects from restricted maximum likelihood",
        "Biometrics 53, 983-997",
    ),
    "robust": (
        "pustejovsky2018",
        "Pustejovsky, J. E. and Tipton, E.",
        2018,
        "Small-sample methods for cluster-robust variance estimation and hypothesis testing in "
        "fixed effects models",
        "Journal of Business and Economic Statistics 36, 672-683",
    ),
    "r2": (
        "nakagawa2017",
        "Nakagawa, S., Johnson, P. C. D. and Schielzeth, H.",
        2017,
        "The coefficient of determination R2 and intra-class correlation coefficient from "
        "generalized linear mixed-effects models revisited and expanded",
        "Journal of the Royal Society Interface 14, 20170213",
    ),
}
_FOR = {
    "lme4": "the formulas and the parameters theta",
    "reml": "restricted maximum likelihood",
    "residual": "residuals with a covariance structure: the average information",
    "glmm": "Laplace's approximation and adaptive quadrature",
    "white": "cluster-robust standard errors from scores",
    "satterthwaite": "Satterthwaite's degrees of freedom",
    "kr": "Kenward-Roger's method",
    "robust": "cluster-robust standard errors with small-sample tests",
    "r2": "R2 and the intraclass correlation",
}


@dataclass(frozen=True)
class Citation:
    """What to cite; printing it gives a reference list.

    Attributes
    ----------
    works : tuple of str
        Names of the methods, of those that were used.

    Examples
    --------
    >>> import mixedeffects as me
    >>> print(me.cite())
    The mixedeffects developers (2026). mixedeffects: Linear mixed models in Python (version ...)
    [Computer software].
    """

    works: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"{_AUTHORS} ({_YEAR}). {_TITLE} (version {version('mixedeffects')}) "
            "[Computer software]."
        ]
        for name in self.works:
            _, authors, year, title, where = _WORKS[name]
            lines.append(f"{authors} ({year}). {title}. {where}.  -- {_FOR[name]}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def to_bibtex(self) -> str:
        """The same as BibTeX entries.

        Examples
        --------
        >>> import mixedeffects as me
        >>> print(me.cite().to_bibtex())
        @software{mixedeffects,
          author = {{The mixedeffects developers}},
          title = {{mixedeffects: Linear mixed models in Python}},
          year = {2026},
          version = {...},
        }
        """
        entries = [
            "@software{mixedeffects,\n"
            f"  author = {{{{{_AUTHORS}}}}},\n  title = {{{{{_TITLE}}}}},\n"
            f"  year = {{{_YEAR}}},\n  version = {{{version('mixedeffects')}}},\n}}"
        ]
        for name in self.works:
            key, authors, year, title, where = _WORKS[name]
            people = authors.replace(" and ", ", ").replace("., ", ". and ")
            entries.append(
                f"@article{{{key},\n  author = {{{people}}},\n  title = {{{{{title}}}}},\n"
                f"  year = {{{year}}},\n  note = {{{where}}},\n}}"
            )
        return "\n\n".join(entries)


@explained
@ddf_of_the_fit
def cite(model: Any = None, ddf: str = "satterthwaite", vcov: str = "model") -> Citation:
    """How to cite the package, and with a model the methods behind its tables.

    Parameters
    ----------
    model : LinearMixedModel or GeneralizedLinearMixedModel, optional
        A fit; what it used is listed after the package.
    ddf, vcov : str
        As for `LinearMixedModel.coef_table`, if the tables had others than its defaults.

    Returns
    -------
    Citation
        Text when printed; ``to_bibtex()`` for a reference manager.

    Raises
    ------
    ModelError
        If ``ddf`` is not known, or the model is none.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> me.cite(m, ddf="kr").works
    ('lme4', 'reml', 'kr', 'r2')
    """
    if model is None:
        return Citation()
    fit: Fit = fit_of(model, "What is cited for", any_kind=True)
    if not fit.has_degrees_of_freedom:
        check_normal(ddf if ddf != "satterthwaite" else "inf")
        return Citation(("lme4", "glmm", "white") if is_robust(vcov) else ("lme4", "glmm"))
    method = ddf_name(ddf)
    adjusted = "kr" in (method, vcov) or "kr-observed" in (method, vcov)
    tests = "robust" if is_robust(vcov) else "kr" if adjusted else method
    used = ["lme4", *(["reml"] if fit.reml else [])]
    used += ["residual"] if fit.residual is not None else []
    # Without random effects there is nothing to share the variance with.
    used += [tests, "r2"] if fit.frame.terms else [tests]
    return Citation(tuple(name for name in used if name in _WORKS))
