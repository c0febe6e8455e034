from __future__ import annotations

import numpy as np

from rlhf_jax.report.records import Record, Series
from rlhf_jax.studies import metrics


def record(scores, kl, gold, tilt):
    """Curves [steps, members] of two rounds, the first of which does not count; tilt: name →
    [members, points]."""
    both = lambda x: np.concatenate([np.full_like(np.asarray(x, float), 9.0), x])
    rounds = np.repeat([0, 1], len(scores))
    steps = np.arange(2 * len(scores))
    series = {
        ("policy", f"objective/{name}"): Series(rounds, steps, both(x))
        for name, x in (("scores", scores), ("kl_exact", kl), ("gold", gold))
    }
    one = np.zeros(1, int)
    for name, x in tilt.items():
        series["measure", f"tilt/{name}"] = Series(one, one, np.asarray(x, float)[None])
    return Record({}, {}, (), series, (), (), {})


RUN = record(
    scores=[[0.0, 0.0], [1.0, 0.5], [2.0, 1.0]],
    kl=[[0.0, 0.0], [2.0, 1.0], [4.0, 2.0]],
    gold=[[-1.0, -1.0], [0.0, 0.0], [3.0, 1.0]],
    tilt={
        "scores": [[0.0, 1.0, 2.0], [0.0, 0.5, 1.0]],
        "kl": [[0.0, 0.5, 2.0], [0.0, 0.1, 0.5]],
        "gold": [[-1.0, 0.5, 1.5], [-1.0, 0.0, 0.2]],
    },
)


def test_gold_is_read_where_the_last_round_first_reaches_the_proxy_or_the_kl():
    np.testing.assert_array_equal(metrics.gold_at_proxy(1.5).derive(RUN), [1.5, np.nan])
    np.testing.assert_array_equal(metrics.gold_at_kl(1.0).derive(RUN), [-0.5, 0.0])


def test_kl_wasted_is_what_was_spent_beyond_the_exact_optimum_of_the_same_proxy():
    # At a proxy of 1.5: 3 nats spent of which 1.25 are needed; at 1: 2 and 0.5, 2 and 0.5.
    np.testing.assert_allclose(metrics.kl_wasted(1.5).derive(RUN), [1.75, np.nan])
    np.testing.assert_allclose(metrics.kl_wasted(1.0).derive(RUN), [1.5, 1.5])


def test_the_optimum_has_no_gold_beyond_what_its_samples_reach():
    np.testing.assert_allclose(metrics.gold_of_optimum(1.5).derive(RUN), [1.0, np.nan])
