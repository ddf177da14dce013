"""What users of other packages type, and what it is called here.

One table, from which errors take their hints, docs/migration.md its lists, and the tests their
cases.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from mixedeffects.base.options import meant
from mixedeffects.base.value_method import ValueMethod

__all__ = [
    "OF_ARGUMENTS",
    "OF_A_FIT",
    "OF_A_GENERALIZED_FIT",
    "OF_A_MATRIX",
    "OF_A_SUMMARY",
    "OF_MEANS",
    "OF_POOLED_FITS",
    "OF_THE_PACKAGE",
    "explained",
    "explains_arguments",
    "habits_page",
    "hint",
    "unknown_attribute",
]

Function = TypeVar("Function", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)

#: Attributes and methods of a fit elsewhere: where, and what to write here.
OF_A_FIT: dict[str, tuple[str, str]] = {
    # statsmodels
    "fe_params": ("statsmodels", "m.fixef"),
    "bse_fe": ("statsmodels", "m.se"),
    "bse_re": ("statsmodels", "m.confint('wald', 'random') for intervals of the variances"),
    "cov_re": ("statsmodels", "m.G['group'], or m.varcorr"),
    "vcomp": ("statsmodels", "m.varcorr"),
    "random_effects": ("statsmodels", "m.ranef()"),
    "random_effects_cov": ("statsmodels", "m.ranef(cond_var=True).cond_var"),
    "scale": ("statsmodels", "m.sigma**2"),
    "summary2": ("statsmodels", "m.summary(), m.tidy() for a table"),
    "t_test": ("statsmodels", "m.contrast(...)"),
    "f_test": ("statsmodels", "m.wald(...)"),
    "wald_test": ("statsmodels", "m.wald(...)"),
    "wald_test_terms": ("statsmodels", "m.anova()"),
    "t_test_pairwise": ("statsmodels", "m.emmeans(...).contrasts()"),
    "get_robustcov_results": ("statsmodels", "m.robust('CR2', cluster=...)"),
    "get_prediction": ("statsmodels", "m.predict(..., interval='confidence')"),
    "get_influence": ("statsmodels", "m.influence()"),
    "likelihood_ratio": ("statsmodels", "me.anova(m1, m2)"),
    "compare_lr_test": ("statsmodels", "me.anova(m1, m2)"),
    "profile_re": ("statsmodels", "m.profile('random')"),
    "df_model": ("statsmodels", "m.n_parameters"),
    "model": ("statsmodels", "m.fit, m.frame"),
    "endog": ("statsmodels", "m.y"),
    "exog": ("statsmodels", "m.X"),
    "exog_re": ("statsmodels", "m.Z"),
    "hessian": ("statsmodels", "m.optimum.curvature"),
    # lme4, lmerTest and other packages of R
    "VarCorr": ("lme4", "m.varcorr"),
    "logLik": ("R", "m.loglik"),
    "logLikelihood": ("R", "m.loglik"),
    "log_likelihood": ("R", "m.loglik"),
    "AIC": ("R", "m.aic"),
    "BIC": ("R", "m.bic"),
    "deviance": ("R", "m.criterion, of a fit with reml=False"),
    "REMLcrit": ("lme4", "m.criterion"),
    "residuals": ("R", "m.resid()"),
    "rstandard": ("R", "m.resid('studentized')"),
    "rstudent": ("R", "m.resid('studentized')"),
    "coefficients": ("R", "m.fixef; m.coef() has those of each level"),
    "coefs": ("R", "m.fixef, m.coef_table()"),
    "fixed_effects": ("R", "m.fixef"),
    "fixedef": ("lme4", "m.fixef"),
    "getME": ("lme4", "m.getme(...)"),
    "isSingular": ("lme4", "m.is_singular"),
    "isREML": ("lme4", "m.reml"),
    "isLMM": ("lme4", "always true here"),
    "model_matrix": ("R", "m.X"),
    "model_frame": ("R", "m.frame"),
    "hatvalues": ("R", "m.leverage()"),
    "cooks_distance": ("R", "m.influence().cooks_distance"),
    "cooks": ("R", "m.influence().cooks_distance"),
    "dfbetas": ("R", "m.influence().dfbetas"),
    "drop1": ("R", "m.anova(type=2) for fixed, m.ranova() for random effects"),
    "rand": ("lmerTest", "m.ranova()"),
    "step": ("lmerTest", "nothing; selection makes p-values too small; see me.compare"),
    "ls_means": ("lmerTest", "m.emmeans(...)"),
    "lsmeans": ("R", "m.emmeans(...)"),
    "refitML": ("lme4", "m.update(reml=False)"),
    "bootMer": ("lme4", "m.bootstrap()"),
    "rePCA": ("lme4", "numpy.linalg.eigvalsh(m.G['group'])"),
    "df_residual": ("R", "m.df_resid"),
    "n_obs": ("R", "m.nobs"),
    "terms": ("R", "m.frame.formula"),
    "vif": ("R", "m.check('collinearity')"),
    "check_model": ("performance", "m.check(), m.plot()"),
    "r2_nakagawa": ("performance", "m.r2()"),
    "rsquared": ("R", "m.r2()"),
    "rsquared_adj": ("R", "m.r2()"),
    "cohens_d": ("effectsize", "m.effect_size('term'), m.emmeans(...).contrasts().effect_size()"),
    "eff_size": ("emmeans", "m.emmeans(...).contrasts().effect_size()"),
    "eta_squared": ("effectsize", "m.anova_effect_sizes('eta')"),
    "omega_squared": ("effectsize", "m.anova_effect_sizes('omega')"),
    "standardize_parameters": ("effectsize", "m.standardize()"),
    "dredge": ("MuMIn", "nothing; selection makes p-values too small; see me.compare"),
    "r_squaredGLMM": ("MuMIn", "m.r2()"),
    "allEffects": ("effects", "m.effects(...), m.plot('effects')"),
    "ggpredict": ("ggeffects", "m.effects(...)"),
    # nlme
    "intervals": ("nlme", "m.confint()"),
    "getVarCov": ("nlme", "m.V.block('level'), or m.G"),
    "augPred": ("nlme", "m.predict(new rows)"),
    # pymer4, rpy2
    "post_hoc": ("pymer4", "m.emmeans(...).contrasts()"),
    "ranef_var": ("pymer4", "m.varcorr"),
    "coef_": ("scikit-learn", "m.fixef"),
    "intercept_": ("scikit-learn", "m.fixef['(Intercept)']"),
    "score": ("scikit-learn", "m.r2()"),
    "save": ("statsmodels", "pickle.dump(m, file)"),
    "plot_diagnostics": ("statsmodels", "m.plot()"),
}

#: Those that are something else of a generalized fit.
OF_A_GENERALIZED_FIT: dict[str, tuple[str, str]] = {
    "deviance": ("R", "m.criterion for -2 log L; (m.resid('deviance')**2).sum() given the modes"),
    "dispersion": ("glmmTMB", "m.phi of a family with one; m.sigma is its root"),
    "precision": ("glmmTMB", "m.phi of a beta family"),
    "theta_nb": ("MASS", "m.phi of a negative binomial family"),
    "alpha": ("statsmodels", "1 / m.phi of a negative binomial family"),
    "isLMM": ("lme4", "not one; m.family"),
    "isGLMM": ("lme4", "always true here; m.family"),
    "nAGQ": ("lme4", "m.nagq"),
    "mu": ("statsmodels", "m.fitted"),
    "linear_predictor": ("R", "m.predict(type='link')"),
    "rstandard": ("R", "m.resid('scaled')"),
    "resid_pearson": ("statsmodels", "m.resid('pearson')"),
    "resid_deviance": ("statsmodels", "m.resid('deviance')"),
    "pearson_chi2": ("statsmodels", "(m.resid('scaled')**2).sum()"),
    "odds_ratios": ("Stata", "m.tidy('fixed', level=0.95, exponentiate=True)"),
    "margins": ("Stata", "m.emmeans(..., marginal=True), m.predict(..., marginal=True)"),
}

#: Functions of packages elsewhere.
OF_THE_PACKAGE: dict[str, tuple[str, str]] = {
    "mixedlm": ("statsmodels", 'me.lmer("y ~ x + (1 | group)", data)'),
    "MixedLM": ("statsmodels", 'me.lmer("y ~ x + (1 | group)", data)'),
    "Lmer": ("pymer4", 'me.lmer("y ~ x + (1 | group)", data)'),
    "nlmer": ("lme4", "no nonlinear models"),
    "lme": ("nlme", 'me.lmer("y ~ x + (x | group)", data)'),
    "lm": ("R", "a regression without random effects: statsmodels' ols"),
    "ols": ("statsmodels", "a regression without random effects: statsmodels' ols"),
    "fit": ("MixedModels.jl", "me.lmer(formula, data)"),
    "LMM": ("MixedModels.jl", "me.lmer(formula, data)"),
    "fixef": ("lme4", "m.fixef"),
    "ranef": ("lme4", "m.ranef()"),
    "emmeans": ("emmeans", "m.emmeans(...)"),
    "confint": ("R", "m.confint()"),
    "predict": ("R", "m.predict(...)"),
    "summary": ("R", "m.summary()"),
    "ranova": ("lmerTest", "m.ranova()"),
    "bootMer": ("lme4", "m.bootstrap()"),
    "lmerControl": ("lme4", "me.Control(...)"),
    "anova_lm": ("statsmodels", "m.anova(), me.anova(m1, m2)"),
    "AIC": ("R", "m.aic, me.compare(m1, m2)"),
    "vcovCR": ("clubSandwich", "m.robust('CR2', cluster=...)"),
    "modelsummary": ("modelsummary", "me.etable([m1, m2])"),
    "stargazer": ("stargazer", "me.etable([m1, m2])"),
    "tab_model": ("sjPlot", "me.etable([m1, m2])"),
    "ggpredict": ("ggeffects", "m.effects(...)"),
    "ggemmeans": ("ggeffects", "m.effects(...)"),
    "allEffects": ("effects", "m.effects(...), m.plot('effects')"),
    "mice": ("mice", "me.pool(fits) of data sets that an imputer made"),
    "effectsize": ("effectsize", "m.effect_size(...)"),
    "allFit": ("lme4", "m.optimum.starts"),
    "glmer_nb": ("lme4", "me.glmer(..., family='negative_binomial')"),
    "glmerControl": ("lme4", "me.Control(...)"),
    "glmmTMB": ("glmmTMB", "me.glmer(..., family=...); of a normal response me.lmer"),
    "GLMM": ("MixedModels.jl", "me.glmer(formula, data, family=...)"),
    "BinomialBayesMixedGLM": ("statsmodels", "me.glmer(..., family='binomial')"),
    "PoissonBayesMixedGLM": ("statsmodels", "me.glmer(..., family='poisson')"),
    "df_1d": ("mmrm", "m.contrast(...)"),
    "df_md": ("mmrm", "m.wald(...)"),
    "corAR1": ("nlme", 'me.lmer(..., residual="ar1(time | group)")'),
    "corCompSymm": ("nlme", 'me.lmer(..., residual="cs(1 | group)")'),
    "corSymm": ("nlme", 'me.lmer(..., residual="us(time | group, hom = TRUE)")'),
    "varIdent": ("nlme", 'me.lmer(..., variance="sex")'),
    "varPower": ("nlme", 'me.lmer(..., variance="log(x)")'),
    "read_csv": ("pandas", 'me.read_table("file.csv")'),
    "read_excel": ("pandas", 'me.read_table("file.xlsx")'),
    "read_spss": ("pandas", 'me.read_table("file.sav")'),
    "read_sav": ("haven", 'me.read_table("file.sav")'),
    "isSingular": ("lme4", "m.is_singular"),
    "load": ("statsmodels", "pickle.load(file)"),
    "cross_val_score": ("scikit-learn", "me.cross_validate(m, by=...)"),
    "powerSim": ("simr", "me.power(m, ...)"),
}

#: Of what a fit gives: marginal means, the printed summary, V and its parts, and pooled fits.
OF_MEANS: dict[str, tuple[str, str]] = {
    "cld": ("multcomp", "means.letters()"),
    "cohens_d": ("effectsize", "means.contrasts().effect_size()"),
    "contrast": ("emmeans", "means.contrasts(...)"),
    "eff_size": ("emmeans", "means.contrasts().effect_size()"),
    "effect_size": ("emmeans", "means.contrasts().effect_size()"),
    "pairs": ("emmeans", "means.contrasts()"),
    "regrid": ("emmeans", "m.emmeans(..., marginal=True).contrasts() for differences of means"),
    "pairwise": ("emmeans", "means.contrasts()"),
    "summary": ("R", "print(means), means.to_frame()"),
}
OF_A_SUMMARY: dict[str, tuple[str, str]] = {
    "as_text": ("statsmodels", "m.summary().to_text()"),
    "as_latex": ("statsmodels", "m.summary().to_latex()"),
    "as_html": ("statsmodels", "m.summary().to_html()"),
    "as_csv": ("statsmodels", "m.coef_table().to_csv()"),
    "tables": ("statsmodels", "m.coef_table() and m.varcorr"),
}
OF_A_MATRIX: dict[str, tuple[str, str]] = {
    "toarray": ("SciPy", "m.V.dense()"),
    "todense": ("SciPy", "m.V.dense()"),
    "to_numpy": ("pandas", "m.V.dense()"),
    "tocsc": ("SciPy", "m.V.sparse()"),
    "tocsr": ("SciPy", "m.V.sparse()"),
    "diagonal": ("SciPy", "m.V.diag()"),
}
OF_POOLED_FITS: dict[str, tuple[str, str]] = {
    "params": ("statsmodels", "pooled.estimates"),
    "fixef": ("lme4", "pooled.estimates"),
    "bse": ("statsmodels", 'pooled.coef_table()["Std. Error"]'),
    "pvalues": ("statsmodels", 'pooled.coef_table()["Pr(>|t|)"]'),
    "conf_int": ("statsmodels", "pooled.coef_table(level=...)"),
    "confint": ("R", "pooled.coef_table(level=...)"),
    "summary": ("R", "print(pooled), pooled.coef_table()"),
    "nobs": ("statsmodels", "pooled.glance()"),
}

_SELECT = "select the rows first: data[...]"

#: Arguments of functions and methods elsewhere, by the function here.
OF_ARGUMENTS: dict[str, dict[str, tuple[str, str]]] = {
    "lmer": {
        "REML": ("lme4", "reml="),
        "groups": ("statsmodels", 'in the formula: "y ~ x + (1 | group)"'),
        "re_formula": ("statsmodels", 'in the formula: "y ~ x + (x | group)"'),
        "vc_formula": ("statsmodels", 'in the formula: "y ~ x + (1 | a) + (1 | b)"'),
        "random": ("nlme", 'in the formula: "y ~ x + (x | group)"'),
        "fixed": ("nlme", "formula="),
        "method": ("nlme", "reml=True or reml=False; there is one optimiser"),
        "subset": ("R", _SELECT),
        "na_action": ("R", "incomplete rows are left out and counted in m.dropped"),
        "missing": ("statsmodels", "incomplete rows are left out and counted in m.dropped"),
        "correlation": ("nlme", 'residual="ar1(time | group)"'),
        "family": ("lme4", "me.glmer(..., family=...)"),
        "link": ("lme4", "me.glmer(..., family=me.families.Binomial('probit'))"),
        "optimizer": ("lme4", "there is one optimiser: control=me.Control(...)"),
        "verbose": ("lme4", "progress=True"),
        "devFunOnly": ("lme4", "m.getme('devfun') of the fit"),
        "factors": ("pymer4", "factor(x) in the formula, contrasts="),
        "exposure": ("statsmodels", "offset="),
        "var_weights": ("statsmodels", "weights="),
        "freq_weights": ("statsmodels", "repeat the rows; weights= are those of precision"),
        "use_sqrt": ("statsmodels", "nothing, the factor is always fitted"),
        "ddf": ("lmerTest", "an argument of tables: m.coef_table(ddf=...)"),
        "cluster": ("R", "an argument of tables: m.coef_table(vcov='CR2', cluster=...)"),
        "repeated": ("SAS", 'residual="us(visit | id)"'),
        "dispformula": ("glmmTMB", "variance="),
        "ziformula": ("glmmTMB", "nothing; there is no zero inflation"),
        "covariance": ("mmrm", "residual=, or me.mmrm(...) with the structure in the formula"),
    },
    "glmer": {
        "nAGQ": ("lme4", "nagq="),
        "n_agq": ("lme4", "nagq="),
        "link": ("R", "part of the family: me.families.Binomial('probit')"),
        "trials": ("R", 'weights=, with "successes / trials" on the left side'),
        "size": ("R", 'weights=, with "successes / trials" on the left side'),
        "reml": ("lme4", "nothing; a generalized model is fitted by maximum likelihood"),
        "REML": ("lme4", "nothing; a generalized model is fitted by maximum likelihood"),
        "method": ("glmmTMB", "nagq=1 is Laplace's approximation, more is quadrature"),
        "groups": ("statsmodels", 'in the formula: "y ~ x + (1 | group)"'),
        "vc_formulas": ("statsmodels", 'in the formula: "y ~ x + (1 | a) + (1 | b)"'),
        "random": ("MASS", 'in the formula: "y ~ x + (x | group)"'),
        "subset": ("R", _SELECT),
        "na_action": ("R", "incomplete rows are left out and counted in m.dropped"),
        "missing": ("statsmodels", "incomplete rows are left out and counted in m.dropped"),
        "optimizer": ("lme4", "there is one optimiser: control=me.Control(...)"),
        "verbose": ("lme4", "progress=True"),
        "mustart": ("lme4", "start="),
        "etastart": ("lme4", "start="),
        "var_weights": ("statsmodels", "weights="),
        "freq_weights": ("statsmodels", "weights="),
        "ziformula": ("glmmTMB", "nothing; there is no zero inflation"),
        "dispformula": ("glmmTMB", "nothing; the dispersion is one number"),
        "fast": ("MixedModels.jl", "nothing; Laplace's approximation is fitted at once"),
        "theta": ("MASS", "part of the family: me.families.NegativeBinomial(theta=2.0)"),
    },
    "mmrm": {
        "method": ("mmrm", "an argument of tables: m.coef_table(ddf='satterthwaite')"),
        "vcov": ("mmrm", "an argument of tables: m.coef_table(vcov='CR2', cluster=...)"),
        "ddf": ("lmerTest", "an argument of tables: m.coef_table(ddf=...)"),
        "covariance": ("mmrm", 'in the formula: "y ~ x + us(visit | id)"'),
        "correlation": ("nlme", 'in the formula: "y ~ x + us(visit | id)"'),
        "REML": ("lme4", "reml="),
        "random": ("nlme", 'me.lmer("y ~ x + (1 | group)", data, residual=...)'),
        "residual": ("lmer", 'in the formula: "y ~ x + us(visit | id)"'),
        "variance": ("lmer", "me.lmer(..., residual=..., variance=...)"),
        "offset": ("R", 'in the formula: "y ~ x + offset(z) + us(visit | id)"'),
        "optimizer": ("mmrm", "there is one optimiser: control=me.Control(...)"),
        "start": ("mmrm", "nothing, one start is enough"),
        "n_cores": ("mmrm", "nothing"),
        "accept_singular": ("mmrm", "columns that others determine are in m.dropped"),
        "drop_visit_levels": ("mmrm", "nothing, declared levels count as visits"),
        "subset": ("R", _SELECT),
        "na_action": ("R", "incomplete rows are left out and counted in m.dropped"),
    },
    "predict": {
        "re_form": ("lme4", "re='all', None or terms"),
        "re_formula": ("brms", "re='all', None or terms"),
        "allow_new_levels": ("lme4", "new_levels='population'"),
        "se_fit": ("R", "se=True"),
        "exog": ("statsmodels", "newdata="),
        "data": ("R", "newdata="),
        "new_data": ("R", "newdata="),
        "trials": ("brms", "weights="),
    },
    "confint": {
        "parm": ("R", "parameters="),
        "alpha": ("statsmodels", "level=1 - alpha"),
        "nsim": ("lme4", "n="),
        "boot_type": ("lme4", "kind="),
        "oldNames": ("lme4", "nothing, names are those of oldNames = FALSE"),
        "exponentiate": ("broom", "m.tidy('fixed', level=0.95, exponentiate=True)"),
    },
    "coef_table": {
        "alpha": ("statsmodels", "level=1 - alpha"),
        "conf_level": ("R", "level="),
        "robust": ("Stata", "vcov='CR2', cluster=..."),
        "cov_type": ("statsmodels", "vcov='CR2', cluster=..."),
        "type": ("clubSandwich", "vcov='CR2'"),
        "exponentiate": ("broom", "m.tidy('fixed', level=0.95, exponentiate=True)"),
    },
    "tidy": {
        "conf_int": ("broom", "level=0.95"),
        "conf_level": ("broom", "level="),
        "component": ("broom", "effects="),
    },
    "anova": {
        "test": ("R", "ddf= for the degrees of freedom; me.anova(m1, m2) for likelihood ratios"),
        "typ": ("statsmodels", "type="),
        "refit": ("lme4", "me.anova(m1, m2, refit=...)"),
    },
    "ranef": {"condVar": ("lme4", "cond_var=True"), "postVar": ("lme4", "cond_var=True")},
    "resid": {"type": ("R", "kind="), "level": ("nlme", "kind='marginal' or 'response'")},
    "simulate": {
        "nsim": ("lme4", "n="),
        "re_form": ("lme4", "re="),
        "use_u": ("lme4", "re='all'"),
    },
    "bootstrap": {
        "nsim": ("lme4", "n="),
        "FUN": ("lme4", "statistic="),
        "use_u": ("lme4", "re='all'"),
        "re_form": ("lme4", "re="),
    },
    "emmeans": {
        "conf_level": ("R", "level="),
        "lmer_df": ("emmeans", "ddf="),
        "var": ("emmeans", "m.emtrends(specs, var)"),
        "pairwise": ("emmeans", ".contrasts() of what m.emmeans gives"),
        "offset": ("emmeans", "at={'hours': 1} of what the offset or exposure is made of"),
        "marginal": ("glmer", "nothing; means of a linear model are those over the random effects"),
    },
    "emtrends": {"lmer_df": ("emmeans", "ddf="), "variable": ("emmeans", "var=")},
    "summary": {"correlation": ("lme4", "nothing, it is printed")},
    "update": {"REML": ("lme4", "reml=")},
    "influence": {"groups": ("lme4", "by="), "group": ("influence.ME", "by=")},
    "profile": {"which": ("lme4", "parameters="), "alphamax": ("lme4", "level=")},
    "robust": {"type": ("clubSandwich", "kind="), "cov_type": ("statsmodels", "kind=")},
    "wald": {"L": ("lmerTest", "hypothesis="), "r_matrix": ("statsmodels", "hypothesis=")},
    "contrast": {"L": ("lmerTest", "hypothesis="), "r_matrix": ("statsmodels", "hypothesis=")},
    "cross_validate": {
        "cv": ("scikit-learn", "folds="),
        "n_splits": ("scikit-learn", "folds="),
        "groups": ("scikit-learn", "by="),
        "random_state": ("scikit-learn", "seed="),
        "scoring": ("scikit-learn", "nothing; rmse, mae and elpd are all given"),
    },
    "power": {
        "nsim": ("simr", "draws="),
        "effect": ("simr", "effects={name of the coefficient: value}"),
        "random_state": ("scikit-learn", "seed="),
    },
    "read_table": {
        "na_values": ("pandas", "missing="),
        "sep": ("pandas", "nothing; the first line of the file shows it"),
        "decimal": ("pandas", "nothing; the first rows of the file show it"),
    },
    "etable": {
        "se": ("fixest", "vcov="),
        "model_names": ("statsmodels", "names="),
        "coef_map": ("modelsummary", "labels="),
        "coef_omit": ("modelsummary", "drop="),
    },
}

#: Functions that are given one after the other what they take as a list.
TAKES_A_LIST: dict[str, str] = {
    "etable": "a list of fits, or a dict with their names: me.etable([m1, m2]).",
    "pool": "a list of fits: me.pool([m1, m2]).",
}

#: Calls with text in them, which may have brackets; names, formulas and arguments in a sentence.
_CALL = r"""\((?:"[^"]*"|\([^()]*\)|[^()"])*\)"""
_CODE = re.compile(
    rf"""(\b(?:me?|pickle|numpy\.linalg)\.\w+(?:{_CALL}|\[[^\]]*\]|\.\w+|\*\*2)*|"[^"]*"|"""
    r"""\b\w+=(?:'\w+'|True|False|me\.\w+\(\.\.\.\))?)"""
)


def hint(habit: tuple[str, str]) -> str:
    """Whose name it is, and what to write here: the end of a sentence.

    Examples
    --------
    >>> hint(("lme4", "m.varcorr"))
    " (that is lme4's). Here: m.varcorr"
    """
    package, here = habit
    return f" (that is {package}'s). Here: {here}"


def unknown_attribute(
    name: str, owner: str, habits: Mapping[str, tuple[str, str]], known: Iterable[str]
) -> AttributeError:
    """An AttributeError that says what a name is called here, or which is spelt most like it."""
    if name in habits:
        return AttributeError(f"{owner} has no {name!r}{hint(habits[name])}.", name=name)
    return AttributeError(f"{owner} has no {name!r}.{meant(name, known, 0.7)}", name=name)


def explained(function: Function) -> Function:
    """A function that says what an argument it does not have is called here."""
    name = function.__name__
    parameters = inspect.signature(function).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return function
    kinds = [each.kind for each in parameters.values()]
    most = sum(kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for kind in kinds)
    any_number = inspect.Parameter.VAR_POSITIONAL in kinds

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        if len(arguments) > most and not any_number and name in TAKES_A_LIST:
            raise TypeError(f"{name}() takes {TAKES_A_LIST[name]}")
        if not options.keys() <= parameters.keys():
            unknown = next(key for key in options if key not in parameters)
            raise _unknown_argument(name, unknown, list(parameters))
        return function(*arguments, **options)

    return call  # type: ignore[return-value]


def _unknown_argument(function: str, unknown: str, known: list[str]) -> TypeError:
    habits = OF_ARGUMENTS.get(function, {})
    if {"family", "nagq"} <= set(known):
        # What changes a generalized fit takes what makes one.
        habits = {**habits, **OF_ARGUMENTS["glmer"]}
    if unknown in habits:
        return TypeError(f"{function}() has no argument {unknown!r}{hint(habits[unknown])}.")
    known = [key for key in known if key != "self"]
    if question := meant(unknown, known):
        return TypeError(f"{function}() has no argument {unknown!r}.{question}")
    return TypeError(f"{function}() has no argument {unknown!r}; it takes {', '.join(known)}.")


def explains_arguments(kind: Class) -> Class:
    """Have the public methods of a class say what arguments are called here."""
    for name in dir(kind):
        method = inspect.getattr_static(kind, name)
        if name.startswith("_"):
            continue
        if inspect.isfunction(method):
            setattr(kind, name, explained(method))
        elif isinstance(method, ValueMethod):
            setattr(kind, name, ValueMethod(explained(method.__wrapped__)))
    return kind


def habits_page() -> str:
    """The table of what is typed elsewhere, in Markdown, as docs/migration.md shows it."""
    lines = ["| typed | in | here |", "|---|---|---|"]
    for name, habit in OF_A_FIT.items():
        lines.append(_row(f"m.{name}", habit))
    for name, habit in OF_A_GENERALIZED_FIT.items():
        lines.append(_row(f"m.{name}, of glmer", habit))
    for name, habit in OF_THE_PACKAGE.items():
        lines.append(_row(f"{name}(...)", habit))
    for function, habits in OF_ARGUMENTS.items():
        lines += [_row(f"{function}({name}=...)", habit) for name, habit in habits.items()]
    return "\n".join(lines)


def _row(typed: str, habit: tuple[str, str]) -> str:
    package, here = habit
    # A call within a sentence is marked as code; braces and stars would be read as markup.
    words = _CODE.sub(r"`\1`", here)
    return f"| `{typed}` | {package} | {words.replace('|', chr(92) + '|')} |"
