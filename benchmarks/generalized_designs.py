"""Searches for the optimum of generalized models, beside many starts, on generated designs.

    python benchmarks/generalized_designs.py [--designs 600] [--seed 0] [--starts 4] [--dense 0]

Each design is small and harsh: family and link, one factor, slopes, nested, crossed or structured,
weights, trials, offsets, variances of zero or large, few rows a level. A fit counts as missed if
its criterion is more than 1e-4 above the best of L-BFGS descents from random starts (and of a
dense Laplace criterion minimised by SciPy without derivatives on ``--dense`` of the designs). The
criterion at every optimum is compared with that of dense matrices, its gradient at a point near the
optimum with central differences. Printed are the fits missed, those with a warning whose
certificate holds, and those without one whose certificate does not.
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
LAYOUTS = ("one", "slopes", "independent", "nested", "crossed", "diag", "cs", "ar1")


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
    random = {
        "one": "(1 | g)",
        "slopes": "(x | g)",
        "independent": "(x || g)",
        "nested": "(1 | top / g)",
        "crossed": "(1 | g) + (1 | h)",
        "diag": "diag(1 + x | g)",
        "cs": "cs(1 + x | g)",
        "ar1": "ar1(0 + time | g)",
    }[layout]
    formula = f"{left} ~ {fixed} + {random}"
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
            absurd = min(absurd, float(result.fun))
            if not self.is_absurd(result.x):
                lowest = min(lowest, float(result.fun))
        return lowest, absurd

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
