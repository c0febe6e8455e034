"""How often does a study support a claim that is false? The verdicts' rule, simulated.

    .venv/bin/python scripts/false_claims.py  # --studies 20000; a quarter of a minute

Seeds are drawn from laws that studies make: normal, log-normal, with outliers (15 % of seeds lie
30 deviations off) and counts (0 … 5 right of 5); the other arm has the same law or another: normal
and narrow. A claim is false where it is hardest to see, at exactly Δ = by.

  typical seed   Δ is the median of the difference, what verdicts are about: at most 2.5 % of
                 studies may support the claim by the rule, whatever the law. "of three": any of
                 three primary claims that share an arm. "refused": a true claim called not
                 supported.
  mean           the same were the claim read as one about the mean, which no rule can promise
                 (Bahadur & Savage 1956): where outliers are rare, studies have none.
  power          share of studies that support a claim whose Δ lies 2.8 standard errors beyond
                 `by` (of the interquartile range, as if normal): what agreement costs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from rlhf_jax import cli
from rlhf_jax.config import ConfigError
from rlhf_jax.expectations import PRIMARY
from rlhf_jax.ops.evidence import p_values

ERROR = 0.025
SEEDS = (8, 16, 64)
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
LAWS: dict[str, Draw] = {
    "normal": lambda r, size: r.normal(size=size),
    "log-normal": lambda r, size: r.lognormal(size=size),
    "outliers": lambda r, size: 3.0 * (r.random(size) < 0.15) + 0.1 * r.normal(size=size),
    "counts": lambda r, size: r.binomial(5, 0.2, size=size).astype(float),
}


def narrow(r: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """An arm of another shape."""
    return 0.1 * r.normal(size=size)


class Rates(NamedTuple):
    """Shares of studies; the worse of both directions, of power the smaller."""

    law: str
    arms: str
    n: int
    typical_t: float
    """A false claim about the typical seed is supported by Student's t alone."""
    typical: float
    """… by the rule."""
    family: float
    """… any of three primary ones."""
    refused: float
    """A true claim about the typical seed is called not supported."""
    mean_t: float
    """A false claim about the mean is supported by Student's t alone."""
    mean: float
    """… by the rule."""
    power_t: float
    power: float


def simulate(law: str, arms: str, n: int, studies: int, seed: int = 0) -> Rates:
    """Rates of one row of the table."""
    ways = []
    for sign in (1, -1):
        r = np.random.default_rng([seed, sign % 3, n])
        other = LAWS[law] if arms == "same" else narrow
        # One arm a and three others: claims of a study share what they are compared with.
        draw = lambda k, r=r, other=other, sign=sign: (
            sign * (LAWS[law](r, (k, 1, n)) - other(r, (k, PRIMARY, n)))
        )
        many = draw(max(1, 600_000 // (n * PRIMARY))).ravel()
        ways.append(_rates(draw(studies), many, n))
    worst = np.max([w[:-2] for w in ways], axis=0)
    return Rates(law, arms, n, *map(float, (*worst, *np.min([w[-2:] for w in ways], axis=0))))


def _rates(gap: np.ndarray, many: np.ndarray, n: int) -> tuple[float, ...]:
    """gap [studies, claims, seeds]; `many` numbers of its law, to know where its middle is."""
    low, middle, high = np.quantile(many, [0.25, 0.5, 0.75], method="lower")
    beyond = middle - 2.8 / np.sqrt(n) * (high - low) / 1.349
    one = gap[:, 0]
    supported = lambda by: float(np.mean(p_values(one, by)[0] <= ERROR))
    alone = lambda by: float(np.mean(_student(one, by) <= ERROR))
    family = (p_values(gap, middle)[0].min(axis=1) * PRIMARY <= ERROR).mean()
    refused = (p_values(one, np.nextafter(middle, -np.inf))[1] <= ERROR).mean()
    centre = many.mean()
    false = (alone(middle), supported(middle), float(family), float(refused))
    return (*false, alone(centre), supported(centre), alone(beyond), supported(beyond))


def _student(each: np.ndarray, by: float) -> np.ndarray:
    """p of "mean ≤ by" by t alone."""
    from scipy import special

    n = each.shape[-1]
    spread = np.maximum(each.std(axis=-1, ddof=1), 1e-12)
    return special.stdtr(n - 1, -np.sqrt(n) * (each.mean(axis=-1) - by) / spread)


def table(studies: int) -> Iterator[Rates]:
    """Every law, shape and number of seeds."""
    for law in LAWS:
        for arms in ("same", "other"):
            for n in SEEDS:
                yield simulate(law, arms, n, studies)


HEAD = f"""{"":20s}{"typical seed: false supported":>32s}{"refused":>9s}{"mean":>14s}{"power":>14s}
{"seeds, other arm":16s}{"n":>4s}{"t alone":>12s}{"rule":>8s}{"of three":>12s}{"rule":>9s}\
{"t":>8s}{"rule":>6s}{"t":>8s}{"rule":>6s}"""


def line(r: Rates) -> str:
    """A row of the table, in per cent."""
    parts = f"{r.typical_t:12.1%}{r.typical:8.1%}{r.family:12.1%}{r.refused:9.1%}"
    parts += f"{r.mean_t:8.1%}{r.mean:6.1%}{r.power_t:8.0%}{r.power:6.0%}"
    return f"{f'{r.law}, {r.arms}':16s}{r.n:4d}{parts}"


def work(arguments: list[str]) -> None:
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return
    studies = 20_000
    if arguments:
        if len(arguments) != 2 or arguments[0] != "--studies" or not arguments[1].isdigit():
            raise ConfigError("usage: scripts/false_claims.py [--studies N]")
        studies = max(1, int(arguments[1]))
    print(HEAD)
    worst = 0.0
    for rates in table(studies):
        print(line(rates), flush=True)
        worst = max(worst, rates.typical, rates.family, rates.refused)
    noise = 3 * (ERROR * (1 - ERROR) / studies) ** 0.5
    said = "within" if worst <= ERROR + noise else "BEYOND"
    print(f"worst of the rule: {worst:.2%}, {said} {ERROR:.1%} + {noise:.2%} (three deviations)")


if __name__ == "__main__":
    sys.exit(cli.main(work, sys.argv[1:]))
