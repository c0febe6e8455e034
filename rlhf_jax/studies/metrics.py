"""What studies compare learners and feedback by, named once.

At the end of a run gold is the value of what little a policy has narrowed to, and at equal KL a
race between the reward and what the learner wastes. At equal *proxy* the exact optimum, best-of-n
and PPO agree on the gold that a reward is worth, as Gao et al. 2022 (arXiv 2210.10760) saw of
best-of-n and RL; what the learner wasted on the way there is a number of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from rlhf_jax import scaling
from rlhf_jax.study import Metric

if TYPE_CHECKING:
    from rlhf_jax.report.records import Record

PROXY = 1.5
"""Deviations of the reference's samples: reached within a nat or two, and by most runs."""
RATING = "mean human rating, −4…4"


def gold_at_kl(kl: float, unit: str = RATING) -> Metric:
    """Gold where the last round first reaches this KL, nats; NaN for a seed that never does."""
    read = lambda record: _passage(record, "kl_exact", "gold", kl)
    return Metric(f"gold at KL {kl:g}", f"gold at a KL of {kl:g} nats", unit, derive=read)


def gold_at_proxy(proxy: float = PROXY, unit: str = RATING) -> Metric:
    """Gold where the last round first reaches this proxy; NaN for a seed that never does."""
    read = lambda record: _passage(record, "scores", "gold", proxy)
    return Metric(f"gold at proxy {proxy:g}", f"gold at a proxy of {proxy:g}", unit, derive=read)


def gold_of_optimum(proxy: float = PROXY, unit: str = RATING) -> Metric:
    """Gold of the exact optimum of this proxy, on samples of the reference; no learner in it."""
    label = f"gold of the exact optimum at a proxy of {proxy:g}"
    return Metric(f"optimum's gold at proxy {proxy:g}", label, unit, derive=_optimum("gold", proxy))


def kl_wasted(proxy: float = PROXY) -> Metric:
    """KL that the last round has spent where it first reaches this proxy, less what the exact
    optimum of that proxy spends."""

    def read(record: Record) -> np.ndarray:
        return _passage(record, "scores", "kl_exact", proxy) - _optimum("kl", proxy)(record)

    label = f"KL wasted by a proxy of {proxy:g}"
    return Metric("KL wasted", label, "nats", derive=read, better="lower")


def _passage(record: Record, over: str, what: str, level: float) -> np.ndarray:
    """[members]: `what` where `over` first reaches `level` in the last round."""
    found = [record.metrics["policy", f"objective/{name}"] for name in (over, what)]
    rows = found[0].rounds == found[0].rounds.max()
    far, value = (x.values[rows] for x in found)
    return scaling.first_passage(far, value, [level])[0]


def _optimum(what: str, proxy: float) -> Callable[[Record], np.ndarray]:
    """[members]: of the exact optimum in the last round; NaN beyond what its samples reach."""

    def read(record: Record) -> np.ndarray:
        scores, values = (
            record.metrics["measure", f"tilt/{n}"].values[-1] for n in ("scores", what)
        )
        pairs = zip(scores, values, strict=True)
        return np.asarray([np.interp(proxy, x, y, right=np.nan) for x, y in pairs])

    return read
