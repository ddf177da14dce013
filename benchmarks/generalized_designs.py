"""Searches for the optimum of generalized models, beside many starts, on generated designs.

    python benchmarks/generalized_designs.py [--designs 600] [--seed 0] [--starts 4] [--dense 0]
        [--harsh]

Each design is small and harsh: family and link, one factor, slopes, nested, crossed or structured,
weights, trials, offsets, variances of zero or large, few rows a level. With ``--harsh`` they are of
every family and link, with one row a level, means near the ends of their range, separation all but
there, and weights far apart besides. A fit counts as missed if its criterion is more than 1e-4
above the best of L-BFGS descents from random starts (and of a dense Laplace criterion minimised by
SciPy without derivatives on ``--dense`` of the designs). The criterion at every optimum is compared
with that of dense matrices, its gradient at a point near the optimum with central differences.
Printed are the fits missed, those with a warning whose certificate holds, those without one whose
certificate does not, warnings of NumPy, and errors that are no sentence of this package.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.optimize
from numpy.typing import NDArray

import mixedeffects as me
from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.generalized import GeneralizedEvaluation, evaluate_laplace
from mixedeffects.engine.generalized.information import logdet_hessian, penalised_hessian
from mixedeffects.engine.generalized.space import Parameters, Space
from mixedeffects.engine.parameters import symmetric_directions

Matrix = NDArray[np.float64]

#: Difference of criteria that counts.
MISSED = 1e-4
#: Standard deviation of random effects on the scale of the link beyond which the criterion can have
#: minima that the likelihood has not.
ABSURD = 10.0
#: Standard deviation of the random starts.
SPREAD = 1.0

FAMILIES: dict[str, tuple[me.families.Family, float | None, float]] = {
    "logit": (me.families.Binomial(), None, 0.0),
    "probit": (me.families.Binomial("probit"), None, 0.0),
    "cloglog": (me.families.Binomial("cloglog"), None, -0.4),
    "cauchit": (me.families.Binomial("cauchit"), None, 0.0),
    "poisson": (me.families.Poisson(), None, 0.7),
    "poisson sqrt": (me.families.Poisson("sqrt"), None, 2.5),
    "negative binomial": (me.families.NegativeBinomial(), 2.0, 1.0),
    "gamma": (me.families.Gamma(), 0.4, 0.5),
    "inverse gaussian": (me.families.InverseGaussian(), 0.2, 0.5),
    "beta": (me.families.Beta(), 10.0, 0.3),
    "gaussian log": (me.families.Gaussian("log"), 0.3, 1.0),
}
RANDOM = {
    "one": "(1 | g)",
    "slopes": "(x | g)",
    "independent": "(x || g)",
    "nested": "(1 | top / g)",
    "crossed": "(1 | g) + (1 | h)",
    "diag": "diag(1 + x | g)",
    "cs": "cs(1 + x | g)",
    "ar1": "ar1(0 + time | g)",
    "rows": "(1 | row)",
}
LAYOUTS = ("one", "slopes", "independent", "nested", "crossed", "diag", "cs", "ar1")


#: Every family and link: a parameter, linear predictors in the middle and near the ends of the
#: range of means, and how far they may vary.
EVERY: dict[str, tuple[me.families.Family, float | None, tuple[float, ...], float]] = {
    "logit": (me.families.Binomial(), None, (0.0, -4.0, 4.0), 1.0),
    "probit": (me.families.Binomial("probit"), None, (0.0, -2.0, 2.0), 0.7),
    "cloglog": (me.families.Binomial("cloglog"), None, (-0.4, -4.0, 1.2), 1.0),
    "cauchit": (me.families.Binomial("cauchit"), None, (0.0, -5.0, 5.0), 1.0),
    "binomial log": (me.families.Binomial("log"), None, (-2.5, -4.0), 0.5),
    "binomial identity": (me.families.Binomial("identity"), None, (0.5, 0.2), 0.12),
    "poisson": (me.families.Poisson(), None, (0.7, -3.0, 8.0), 1.0),
    "poisson sqrt": (me.families.Poisson("sqrt"), None, (2.5, 0.7, 100.0), 0.4),
    "poisson identity": (me.families.Poisson("identity"), None, (5.0, 1.5, 1e4), 0.4),
    "negative binomial": (me.families.NegativeBinomial(), 2.0, (1.0, -2.0, 8.0), 1.0),
    "negative binomial sqrt": (me.families.NegativeBinomial("sqrt"), 2.0, (2.5, 50.0), 0.4),
    "negative binomial identity": (me.families.NegativeBinomial("identity"), 2.0, (5.0,), 0.4),
    "gamma": (me.families.Gamma(), 0.4, (0.5, -12.0, 12.0), 1.0),
    "gamma inverse": (me.families.Gamma("inverse"), 0.2, (2.0, 0.5), 0.15),
    "gamma identity": (me.families.Gamma("identity"), 0.2, (5.0, 1.5), 0.3),
    "inverse gaussian": (me.families.InverseGaussian(), 0.2, (0.5, -6.0, 6.0), 0.4),
    "inverse gaussian 1/mu^2": (me.families.InverseGaussian("1/mu^2"), 0.1, (2.0, 0.7), 0.15),
    "inverse gaussian inverse": (me.families.InverseGaussian("inverse"), 0.1, (2.0,), 0.15),
    "inverse gaussian identity": (me.families.InverseGaussian("identity"), 0.05, (3.0,), 0.3),
    "beta": (me.families.Beta(), 10.0, (0.3, -4.0, 4.0), 0.5),
    "beta probit": (me.families.Beta("probit"), 10.0, (0.3, -2.0), 0.4),
    "beta cloglog": (me.families.Beta("cloglog"), 10.0, (-0.3, -3.0), 0.4),
    "beta cauchit": (me.families.Beta("cauchit"), 10.0, (0.3, -4.0), 0.5),
    "gaussian log": (me.families.Gaussian("log"), 0.3, (1.0, -4.0, 6.0), 0.4),
    "gaussian inverse": (me.families.Gaussian("inverse"), 0.05, (2.0, 0.7), 0.15),
}


@dataclass(frozen=True)
class Design:
    """Data and a model for them."""

    name: str
    layout: str
    formula: str
    data: pd.DataFrame
    family: me.families.Family
    arguments: dict[str, Any]


def design(seed: int) -> Design:
    """One small design and a model for it, drawn at random."""
    rng = np.random.default_rng([30, seed])
    name = list(FAMILIES)[seed % len(FAMILIES)]
    family, parameter, centre = FAMILIES[name]
    layout = str(rng.choice(LAYOUTS))
    groups, rows = int(rng.integers(6, 21)), int(rng.integers(3, 11))
    n = groups * rows
    g = np.repeat(np.arange(groups), rows)
    times = np.tile(np.arange(rows), groups) % 4
    h = rng.integers(0, int(rng.integers(4, 9)), n)
    x, f = rng.normal(size=n), rng.integers(0, 3, n)
    shrink = 0.4 if name in ("poisson sqrt", "inverse gaussian", "gaussian log", "beta") else 1.0
    sd = shrink * float(rng.choice([0.0, 0.3, 0.8, 1.5], p=[0.2, 0.3, 0.35, 0.15]))
    eta = centre + shrink * rng.choice([0.0, 0.3]) * x + sd * rng.normal(size=groups)[g]
    if layout in ("slopes", "independent", "cs", "diag"):
        eta += 0.6 * sd * rng.normal(size=groups)[g] * x
    if layout == "ar1":
        eta += 0.6 * sd * rng.normal(size=(groups, 4))[g, times]
    if layout == "crossed":
        eta += 0.7 * sd * rng.normal(size=9)[h]
    if layout == "nested":
        eta += 0.7 * sd * rng.normal(size=groups)[g // 3]
    offset = rng.random() < 0.3
    off = 0.2 * rng.normal(size=n) if offset else np.zeros(n)
    table = {"x": x, "f": [f"f{i}" for i in f], "g": [f"g{i}" for i in g], "off": off}
    table |= {"top": [f"t{i}" for i in g // 3], "h": [f"h{i}" for i in h]}
    table["time"] = pd.Categorical(times)
    mu, arguments, left = family.link.inverse(eta + off), dict[str, Any](), "y"
    if offset:
        arguments["offset"] = "off"
    if family.name == "binomial":
        most = int(rng.choice([1, 6]))
        trials = rng.integers(1, most + 1, n)
        table["y"] = rng.binomial(trials, np.clip(mu, 0.0, 1.0))
        table["failures"] = trials - table["y"]
        if most > 1:
            left = "cbind(y, failures)"
    else:
        phi = None if parameter is None else float(family.search(parameter))
        at = me.families.Response(mu)
        table["y"] = family.simulate(rng, mu, at, phi)
        if family.name == "beta":
            table["y"] = np.clip(table["y"], 1e-6, 1.0 - 1e-6)
        if family.name in ("gamma", "inverse_gaussian"):
            table["y"] = np.maximum(table["y"], 1e-6)
    if rng.random() < 0.3:
        table["w"] = rng.integers(1, 4, n) if family.discrete else rng.uniform(0.5, 2.0, n)
        arguments["weights"] = "w"
    data = pd.DataFrame(table)
    keep = rng.random(n) > rng.choice([0.0, 0.2])
    keep[::rows] = True
    fixed = str(rng.choice(["1", "x", "f", "x + f"]))
    formula = f"{left} ~ {fixed} + {RANDOM[layout]}"
    return Design(name, layout, formula, data[keep].reset_index(drop=True), family, arguments)


def harsh_design(seed: int) -> Design:
    """One small design of any family and link, with a trap or two, drawn at random."""
    rng = np.random.default_rng([33, seed])
    name = list(EVERY)[seed % len(EVERY)]
    family, parameter, centres, shrink = EVERY[name]
    layouts = LAYOUTS if family.has_parameter else (*LAYOUTS, "rows")
    layout = str(rng.choice(layouts))
    groups, rows = int(rng.integers(4, 21)), int(rng.integers(2, 11))
    n = groups * rows
    g = np.repeat(np.arange(groups), rows)
    times = np.tile(np.arange(rows), groups) % 4
    h, x, f = rng.integers(0, 5, n), rng.normal(size=n), rng.integers(0, 3, n)
    sd = shrink * float(rng.choice([0.0, 0.3, 0.8, 2.0], p=[0.25, 0.3, 0.3, 0.15]))
    draw = rng.normal
    parts = {
        "crossed": 0.7 * sd * draw(size=5)[h],
        "nested": 0.7 * sd * draw(size=groups)[g // 3],
        "ar1": 0.6 * sd * draw(size=(groups, 4))[g, times],
        "rows": sd * draw(size=n),
    }
    centre = float(
        rng.choice(centres, p=[0.6, *[0.4 / (len(centres) - 1)] * (len(centres) - 1)])
        if len(centres) > 1
        else centres[0]
    )
    spread = max(abs(centre), 1.0) if family.link.name in ("identity", "sqrt") else 1.0
    if family.name == "binomial":
        spread = 1.0
    eta = shrink * rng.choice([0.0, 0.3]) * x + sd * draw(size=groups)[g]
    eta = eta + parts.get(layout, 0.6 * sd * draw(size=groups)[g] * x * (layout != "one"))
    off = 0.2 * shrink * draw(size=n) * (rng.random() < 0.3)
    eta = centre + spread * eta
    if not family.valid(np.array([-20.0, 20.0])).all():
        low, high = 0.1 * abs(centre), math.inf
        if family.name == "binomial":
            low, high = {"log": (-math.inf, -0.02)}.get(family.link.name, (0.02, 0.98))
        eta = np.clip(eta, low, high)
        off = 0.0 * off
    table = {"x": x, "f": [f"f{i}" for i in f], "g": [f"g{i}" for i in g], "off": off}
    table |= {"top": [f"t{i}" for i in g // 3], "h": [f"h{i}" for i in h], "row": np.arange(n)}
    table["time"] = pd.Categorical(times)
    mu, arguments, left = family.link.inverse(eta + off), dict[str, Any](), "y"
    if off.any():
        arguments["offset"] = "off"
    if family.name == "binomial":
        most = int(rng.choice([1, 6, 1000]))
        trials = rng.integers(1, most + 1, n)
        y = rng.binomial(trials, np.clip(mu, 0.0, 1.0))
        if rng.random() < 0.25:
            # All but separated: one failure among the rows of a level.
            own = np.flatnonzero(f == 0)
            y[own] = trials[own]
            y[own[:1]] = 0
        table["y"], table["failures"] = y, trials - y
        if most > 1:
            left = "cbind(y, failures)"
    else:
        phi = None if parameter is None else float(family.search(parameter))
        y = family.simulate(rng, mu, me.families.Response(mu), phi)
        if family.name == "beta":
            y = np.clip(y, 1e-12, 1.0 - 1e-12)
        if family.name in ("gamma", "inverse_gaussian"):
            y = np.maximum(y, 1e-12)
        if family.discrete and rng.random() < 0.2:
            own = np.flatnonzero(f == 0)
            y[own[1:]] = 0
        table["y"] = y
    kind = rng.random()
    if kind < 0.3:
        table["w"] = rng.integers(1, 4, n) if family.discrete else rng.uniform(0.5, 2.0, n)
        arguments["weights"] = "w"
    elif kind < 0.4 and not family.discrete:
        table["w"] = 10.0 ** rng.uniform(-3.0, 3.0, n)
        arguments["weights"] = "w"
    data = pd.DataFrame(table)
    keep = rng.random(n) > rng.choice([0.0, 0.2])
    keep[::rows] = True
    fixed = str(rng.choice(["1", "x", "f", "x + f"]))
    formula = f"{left} ~ {fixed} + {RANDOM[layout]}"
    return Design(name, layout, formula, data[keep].reset_index(drop=True), family, arguments)


def dense_criterion(
    model: me.GeneralizedLinearMixedModel, T: list[Matrix], beta: Matrix, phi: float
) -> float:
    """Laplace's criterion from dense matrices; T and beta in the user's columns."""
    fit = model.fit
    rows_of, response, known = fit.family.rows, fit.response, phi if model.phi is not None else None
    n = len(model.X)
    parts = []
    for term, factor in zip(fit.frame.terms, T, strict=True):
        wide = np.zeros((n, term.n_levels, term.z.shape[1]))
        wide[np.arange(n), term.codes] = term.z
        parts.append((wide @ factor).reshape(n, -1))
    Z = np.hstack(parts)
    linear = model.X @ beta + (0.0 if fit.frame.offset is None else fit.frame.offset)
    u = np.zeros(Z.shape[1])
    terms = rows_of(response, linear, known)
    value = float(terms.d.sum())
    if not math.isfinite(value):
        return math.inf
    expected = fit.family.expected_weights
    for _ in range(200):
        W = terms.W
        slope = Z.T @ terms.r - u
        M = Z.T @ (W[:, None] * Z) + np.eye(len(u))
        if (W < 0.0).any() and np.linalg.eigvalsh(M)[0] <= 0.0:
            W = expected(response, linear + Z @ u, known)
            M = Z.T @ (W[:, None] * Z) + np.eye(len(u))
        step = np.linalg.solve(M, slope)
        if slope @ step < 1e-10:
            # The error after this step is the square, for the weights in log |M| too.
            u = u + step
            terms = rows_of(response, linear + Z @ u, known)
            value = float(terms.d.sum() + u @ u)
            break
        size, there = 1.0, terms
        while size > 1e-12:
            moved = u + size * step
            there = rows_of(response, linear + Z @ moved, known)
            new = float(there.d.sum() + moved @ moved)
            if math.isfinite(new) and new <= value:
                break
            size /= 2.0
        else:
            break
        u, value, terms = moved, new, there
    sign, logdet = np.linalg.slogdet(Z.T @ (terms.W[:, None] * Z) + np.eye(len(u)))
    return value + float(logdet) if sign > 0 else math.inf


class Descents:
    """The engine's criterion as SciPy wants it, and a dense one."""

    def __init__(self, model: me.GeneralizedLinearMixedModel) -> None:
        self.model, self.optimum = model, model.fit.found
        self.design = self.optimum.design
        self.space = Space(self.design)
        p = self.design.parameterisation
        self.n_theta = p.n_parameters
        eta = p.nearest(self.optimum.T) if self.optimum.eta is None else self.optimum.eta
        here = self.optimum.evaluation
        self.best = self.space.coordinates(Parameters(eta, here.beta, here.phi))

    def at(self, x: Matrix) -> tuple[float, Matrix]:
        """Criterion and gradient."""
        at, _, _ = self.space.parameters(x)
        try:
            factors = at.factors(self.design.parameterisation)
            found = evaluate_laplace(self.design, factors, at.beta, at.phi)
        except (NotPositiveDefiniteError, np.linalg.LinAlgError):
            return 1e10, np.zeros(len(x))
        if not math.isfinite(found.criterion):
            return 1e10, np.zeros(len(x))
        return found.criterion, self.space.gradient(at, found)

    def dense(self, x: Matrix) -> float:
        """Criterion from dense matrices."""
        at, _, _ = self.space.parameters(x)
        basis = self.design.basis
        factors = at.factors(self.design.parameterisation)
        T = [np.asarray(basis.relative_factor(t, own)) for t, own in enumerate(factors)]
        found = dense_criterion(self.model, T, basis.beta(at.beta), at.phi)
        return found if math.isfinite(found) else 1e10

    def bounds(self) -> list[tuple[float, float]]:
        """Of structured covariances their own, none otherwise."""
        free = [(-30.0, 30.0)] * self.n_theta
        if self.design.is_structured:
            p = self.design.parameterisation
            free = [
                (float(max(low, -30.0)), float(min(high, 30.0)))
                for low, high in zip(p.lower, p.upper, strict=True)
            ]
        return [*free, *[(-np.inf, np.inf)] * self.design.p, *[(-5.0, 14.0)] * self.space.has_phi]

    def is_absurd(self, x: Matrix) -> bool:
        """Whether random effects are so large that Laplace's approximation means nothing."""
        at, _, _ = self.space.parameters(x)
        factors = at.factors(self.design.parameterisation)
        sizes = [
            ((z @ T) ** 2).sum(axis=1).mean() for z, T in zip(self.design.z, factors, strict=True)
        ]
        return max(sizes) > ABSURD**2

    def lowest(self, starts: int, seed: int, dense: bool = False) -> tuple[float, float]:
        """The lowest end of descents from random starts, without and with absurd ones."""
        rng, lowest, absurd = np.random.default_rng([31, seed]), math.inf, math.inf
        low, high = np.array(self.bounds()).T
        for _ in range(starts):
            x = self.best + SPREAD * rng.normal(size=len(self.best))
            x[: self.n_theta] = SPREAD * rng.normal(size=self.n_theta)
            x = np.clip(x, low, high)
            try:
                result = scipy.optimize.minimize(
                    self.dense if dense else self.at,
                    x,
                    jac=None if dense else True,
                    method="L-BFGS-B",
                    bounds=self.bounds(),
                    options={"ftol": 1e-13, "gtol": 1e-7, "maxiter": 300},
                )
            except (ArithmeticError, np.linalg.LinAlgError):
                continue
            if not self._is_at_rest(result):
                # It came to where there is no criterion, and not to a minimum.
                continue
            absurd = min(absurd, float(result.fun))
            if not self.is_absurd(result.x):
                lowest = min(lowest, float(result.fun))
        return lowest, absurd

    def _is_at_rest(self, result: Any) -> bool:
        """Whether the gradient vanishes at the end of a descent, but for what bounds hold."""
        value, slope = self.at(result.x)
        low, high = np.array(self.bounds()).T
        held = ((result.x <= low) & (slope > 0.0)) | ((result.x >= high) & (slope < 0.0))
        size = np.maximum(np.abs(result.x), 1.0)
        steep = float((np.abs(slope) * size * ~held).max(initial=0.0))
        return value < 1e10 and steep < 1e-3 * max(abs(value), 1.0)

    def error_of_gradient(self, seed: int) -> float:
        """Relative, against central differences at a point near the optimum."""
        rng, step = np.random.default_rng([32, seed]), 1e-5
        x = self.best + 0.05 * rng.normal(size=len(self.best))
        low, high = np.array(self.bounds()).T
        x = np.clip(x, low + 1e-3, high - 1e-3)
        value, gradient = self.at(x)
        if value >= 1e10:
            return 0.0
        way = rng.normal(size=len(x)) / math.sqrt(len(x))
        ends = [self.at(x + s * step * way)[0] for s in (-2.0, -1.0, 1.0, 2.0)]
        numeric = (8.0 * (ends[2] - ends[1]) - (ends[3] - ends[0])) / (12.0 * step)
        return abs(float(gradient @ way) - numeric) / max(float(np.linalg.norm(gradient)), 1.0)

    def error_of_hessian(self) -> float | None:
        """Of the second derivatives in covariances and coefficients, relative to the largest.

        Against differences of the gradient, beside the optimum where no covariance is singular.
        None with several factors, where they are not exact, or if there is no criterion there.
        """
        if len(self.design.skeleton.factors) > 1:
            return None
        best, ways = self.optimum.evaluation, [symmetric_directions(len(T)) for T in self.optimum.T]
        sigma = [T @ T.T + 0.1 * np.eye(len(T)) for T in self.optimum.T]
        ends = np.cumsum([len(own) for own in ways])

        def at(move: Matrix) -> GeneralizedEvaluation:
            parts = zip(sigma, ways, np.split(move[: ends[-1]], ends[:-1]), strict=True)
            T = [np.linalg.cholesky(S + np.einsum("r,rab->ab", own, E)) for S, E, own in parts]
            beta = best.beta + move[ends[-1] :]
            return evaluate_laplace(self.design, T, beta, best.phi, near=best)

        def gradient(move: Matrix) -> Matrix:
            there = at(move)
            of_sigma = [
                np.einsum("rab,ab->r", E, F) for E, F in zip(ways, there.score, strict=True)
            ]
            return np.concatenate([*of_sigma, there.beta_gradient])

        n, step = ends[-1] + self.design.p, 1e-4
        try:
            here = at(np.zeros(n))
        except NotPositiveDefiniteError:
            return None
        exact = penalised_hessian(here, ways)[:n, :n] + logdet_hessian(here, ways)
        numeric = np.empty((n, n))
        for j, way in enumerate(step * np.eye(n)):
            far, near = (gradient(s * way) - gradient(-s * way) for s in (2.0, 1.0))
            numeric[j] = (8.0 * near - far) / (12.0 * step)
        return float(np.abs(exact - numeric).max() / np.abs(exact).max())


@dataclass(frozen=True)
class Outcome:
    """What became of one design."""

    evaluations: int
    seconds: float
    above: float
    absurd: bool
    dense: float
    gradient: float
    holds: bool
    warned: bool
    singular: bool
    text: str


def outcome(each: Design, seed: int, starts: int, dense: int) -> Outcome:
    """Fit, and compare."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        began = time.process_time()
        model = me.glmer(each.formula, each.data, family=each.family, **each.arguments)
        seconds = time.process_time() - began
    optimum = model.fit.found
    descents = Descents(model)
    lowest, absurd = descents.lowest(starts, seed)
    if dense:
        lowest = min(lowest, descents.lowest(dense, seed, dense=True)[0])
    warned = any(w.category is me.ConvergenceWarning for w in caught)
    text = " ".join(str(w.message) for w in caught) or str(optimum.certificate)
    return Outcome(
        optimum.evaluations,
        seconds,
        optimum.criterion - lowest,
        absurd < min(lowest, optimum.criterion) - MISSED,
        abs(descents.dense(descents.best) - optimum.criterion),
        descents.error_of_gradient(seed),
        optimum.certificate.holds,
        warned,
        optimum.singular,
        f"{each.name}, {each.formula}, {each.arguments}: {optimum.message}; {text}",
    )


def main() -> None:
    """Counts over all designs."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("designs", 600), ("seed", 0), ("starts", 4), ("dense", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    found: list[Outcome] = []
    refused: dict[str, int] = {}
    for seed in range(options.seed, options.seed + options.designs):
        try:
            one = outcome(design(seed), seed, options.starts, 2 * (len(found) < options.dense))
        except me.MixedEffectsError as error:
            reason = str(error)[:60]
            refused[reason] = refused.get(reason, 0) + 1
            continue
        found.append(one)
        if one.above > MISSED or one.holds == one.warned or one.dense > 1e-6 or one.gradient > 1e-5:
            print(
                f"{seed:5d} {one.above:+.1e} dense {one.dense:.0e} gradient {one.gradient:.0e} "
                f"{'warned' if one.warned else ''} {one.text}",
                flush=True,
            )
    evaluations = [one.evaluations for one in found]
    print(
        f"{len(found)} fits, {sum(one.singular for one in found)} singular: "
        f"{sum(one.above > MISSED for one in found)} missed, "
        f"{sum(one.above < -MISSED for one in found)} below all other searches, "
        f"{sum(one.absurd for one in found)} with a lower minimum at absurd deviations, "
        f"{sum(one.warned and one.holds for one in found)} warned without reason, "
        f"{sum(not one.warned and not one.holds for one in found)} not certified without warning, "
        f"{sum(one.warned and not one.holds for one in found)} warned rightly; "
        f"largest error of the criterion {max(one.dense for one in found):.0e}, "
        f"of the gradient {max(one.gradient for one in found):.0e}; "
        f"{np.median(evaluations):.0f} evaluations in the median, "
        f"{np.quantile(evaluations, 0.95):.0f} at 95 %, {max(evaluations)} at most, "
        f"{1e3 * np.mean([one.seconds for one in found]):.0f} ms each"
    )
    for reason, count in refused.items():
        print(f"{count:5d} refused: {reason}...")


if __name__ == "__main__":
    main()
