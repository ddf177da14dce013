"""Families by name."""

from __future__ import annotations

import re
from typing import Any

from mixedeffects.base.options import checked_choice, plain
from mixedeffects.errors import ModelError
from mixedeffects.families.beta import Beta
from mixedeffects.families.binomial import Binomial
from mixedeffects.families.family import Family
from mixedeffects.families.gamma import Gamma
from mixedeffects.families.gaussian import Gaussian
from mixedeffects.families.inverse_gaussian import InverseGaussian
from mixedeffects.families.links import LINKS
from mixedeffects.families.negative_binomial import NegativeBinomial
from mixedeffects.families.poisson import Poisson

__all__ = ["find_family"]

_FAMILIES: dict[str, type[Family]] = {
    "binomial": Binomial,
    "poisson": Poisson,
    "negative_binomial": NegativeBinomial,
    "gamma": Gamma,
    "inverse_gaussian": InverseGaussian,
    "beta": Beta,
    "gaussian": Gaussian,
}
_ALSO = {"nbinom": "negative_binomial"}

_NEGATIVE_BINOMIAL = 'Here it is family="negative_binomial", or me.families.NegativeBinomial(link).'
_NO_LIKELIHOOD = (
    "Quasi families have no likelihood, which a mixed model maximises. For overdispersed counts "
    'take family="negative_binomial", for overdispersed proportions a random intercept for each '
    "row."
)
_BETA_BINOMIAL = (
    "It can be written as a family of your own, a subclass of me.families.Family; or take a random "
    "intercept for each row."
)
_NO_ZERO_INFLATION = (
    "There is no zero inflation here. Many zeros alone do not call for it: see whether "
    'family="negative_binomial" draws as many, m.check("zeros").'
)
#: A family written as R prints or calls it.
_WITH_LINK = re.compile(r"""(\w+)\(\s*(?:link\s*=\s*)?["']?([\w/^]+)["']?\s*\)""")
_ELSEWHERE = {
    "Gamma": (
        'Here it is family="gamma". The default link is log, where R has inverse: '
        'me.families.Gamma("inverse").'
    ),
    "inverse.gaussian": (
        'Here it is family="inverse_gaussian". The default link is log, where R has 1/mu^2: '
        'me.families.InverseGaussian("1/mu^2").'
    ),
    "nbinom2": _NEGATIVE_BINOMIAL,
    "negative.binomial": _NEGATIVE_BINOMIAL,
    "negbin": _NEGATIVE_BINOMIAL,
    "nb": _NEGATIVE_BINOMIAL,
    "beta_family": 'Here it is family="beta".',
    "betar": 'Here it is family="beta".',
    "bernoulli": 'Here it is family="binomial", with a response of 0 and 1.',
    "normal": 'Here it is family="gaussian"; with the identity link, me.lmer.',
    "logistic": 'Here it is family="binomial".',
    "betabinomial": _BETA_BINOMIAL,
    "beta_binomial": _BETA_BINOMIAL,
    "zip": _NO_ZERO_INFLATION,
    "zinb": _NO_ZERO_INFLATION,
    "zero_inflated_poisson": _NO_ZERO_INFLATION,
    "hurdle_poisson": _NO_ZERO_INFLATION,
    "quasi": _NO_LIKELIHOOD,
    "quasipoisson": _NO_LIKELIHOOD,
    "quasibinomial": _NO_LIKELIHOOD,
}


def find_family(given: Any) -> Family:
    """The family that is meant: by its name, with its default link, or itself.

    Parameters
    ----------
    given : str, Family or subclass of Family
        ``"binomial"``, ``"poisson"``, ``"negative_binomial"`` (or ``"nbinom"``), ``"gamma"``,
        ``"inverse_gaussian"``, ``"beta"``, ``"gaussian"``, or a family of `me.families`.

    Returns
    -------
    Family

    Raises
    ------
    ModelError
        If there is no such family; names that R has are answered with ours.

    Examples
    --------
    >>> find_family("nbinom")
    Family: negative_binomial (link: log)
    >>> find_family("quasipoisson")
    Traceback (most recent call last):
        ...
    mixedeffects.errors.ModelError: There is no family 'quasipoisson'. Quasi families have no
    likelihood, which a mixed model maximises. ...
    """
    if isinstance(given, Family):
        return given
    if isinstance(given, type) and issubclass(given, Family):
        return given()
    given = plain(given)
    if given is None:
        raise ModelError(
            'A generalized model needs the family of its response: family="binomial" for yes or no '
            'and for proportions, "poisson" or "negative_binomial" for counts, "gamma" or '
            '"inverse_gaussian" for positive numbers, "beta" for shares. A normal response is a '
            "linear model's: me.lmer."
        )
    if not isinstance(given, str):
        raise ModelError(
            f"family must be a name or a family of me.families, not {given!r:.60}. "
            'For example "binomial", or me.families.Binomial("probit").'
        )
    if given in LINKS:
        raise ModelError(
            f"There is no family {given!r}: that is a link. Links stand in the family, as in "
            'me.families.Binomial("probit").'
        )
    if given in _ELSEWHERE:
        raise ModelError(f"There is no family {given!r}. {_ELSEWHERE[given]}")
    written = _WITH_LINK.fullmatch(given)
    if written is not None and written[1].lower() in _FAMILIES:
        family = _FAMILIES[written[1].lower()]
        raise ModelError(
            f"The name of a family has no link in it, as {given!r} has: write "
            f'me.families.{family.__name__}("{written[2]}").'
        )
    name = _ALSO.get(given, given)
    return _FAMILIES[checked_choice(name, "Family", list(_FAMILIES))]()
