"""Laws of over-optimisation: gold R as a function of d = √KL(π ‖ π_ref), R(0) = 0.

Gao et al. 2022 (arXiv 2210.10760) give the two laws BON and RL. POWER holds both (up to a
shift of α) and lets the data say which; SATURATING gains less and less and loses at a steady
rate; LINEAR is the proxy's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from scipy import special

PARAMETERS = ("alpha", "beta")


class Law(NamedTuple):
    """R(d) = basis(d, shape) · (α, β)."""

    name: str
    formula: str
    basis: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, ...]]
    """(d, shape) → one array for each coefficient"""
    peak: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    """(α, β, shape) → d of the maximum over d ≥ 0; ∞ where R rises for ever"""
    shape: str = ""
    """What the shape is called; empty where there is none."""
    shapes: Callable[[float], np.ndarray] = lambda longest: np.ones(1)
    """largest d → grid of shapes; an interval that touches its end is set by it, not by data"""


def _where(
    condition: np.ndarray, then: Callable[[], np.ndarray], otherwise: np.ndarray
) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.where(condition, then(), otherwise)


def _ends(alpha: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Where a curve without a maximum inside has it: 0 if it only falls, else ∞."""
    return np.where((beta > 0) | ((beta == 0) & (alpha <= 0)), 0.0, np.inf)


def _power_basis(d: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, ...]:
    return d, -_where(d > 0, lambda: d * special.boxcox(d, q), np.zeros(()))


def _power_peak(alpha: np.ndarray, beta: np.ndarray, q: np.ndarray) -> np.ndarray:
    """R′(d) = α + β/q − β (1 + q)/q d^q: one root or none; for q < 0 it tends to α + β/q."""
    with np.errstate(all="ignore"):
        step = np.where(q == 0, 1.0, q)
        log_peak = (np.log1p(q * alpha / beta) - np.log1p(q)) / step
        inside = np.exp(np.where(q == 0, alpha / beta - 1, log_peak))
        slope = alpha + beta / step
        rises = (slope > 0) | ((slope == 0) & (beta > 0))
        out = np.where(q < 0, np.where(rises, np.inf, 0.0), _ends(alpha, beta))
        return np.where((beta > 0) & (1 + q * alpha / beta > 0), inside, out)


BON = Law(
    "best-of-n",
    "d (α − β d)",
    lambda d, _: (d, -d * d),
    lambda a, b, _: _where((a > 0) & (b > 0), lambda: a / (2 * b), _ends(a, b)),
)
RL = Law(
    "RL",
    "d (α − β log d)",
    lambda d, _: (d, -special.xlogy(d, d)),
    lambda a, b, _: _where(b > 0, lambda: np.exp(a / b - 1), _ends(a, b)),
)
POWER = Law(
    "power",
    "d (α − β (d^q − 1)/q): RL at q = 0, best-of-n at q = 1",
    _power_basis,
    _power_peak,
    "q",
    lambda longest: np.arange(-18, 61) / 20,
)
SATURATING = Law(
    "saturating",
    "α s (1 − exp(−d/s)) − β d",
    lambda d, s: (-s * np.expm1(-d / s), -d),
    lambda a, b, s: _where((a > b) & (b > 0), lambda: s * np.log(a / b), _ends(a, b)),
    "s",
    lambda longest: longest * np.geomspace(0.05, 3, 80),
)
LINEAR = Law("linear", "α d", lambda d, _: (d,), lambda a, b, _: np.where(a > 0, np.inf, 0.0))
LAWS = (BON, RL, POWER, SATURATING, LINEAR)


def predict(law: Law, parameters: Mapping[str, np.ndarray], d: np.ndarray) -> np.ndarray:
    """R(d) for parameters {"alpha": [...], "beta": [...], law.shape: [...]} that broadcast to d."""
    basis = law.basis(d, parameters.get(law.shape, np.ones(1)))
    pairs = zip(basis, PARAMETERS, strict=False)
    with np.errstate(over="ignore", invalid="ignore"):
        return sum((b * parameters[k] for b, k in pairs), np.zeros(()))
