from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from rlhf_jax import config as cfg
from rlhf_jax import laptop
from rlhf_jax.report.records import Record, Series
from rlhf_jax.studies import treatment

BASE = laptop.config()
RATING = laptop.config(collect=laptop.collect(feedback="rating"))


def record(config=BASE, **metrics):
    """A run of two members; a metric is [rounds, looks, members] of one stage."""
    series = {}
    for name, values in metrics.items():
        x = np.asarray(values, float)
        rounds = np.repeat(np.arange(len(x)), x.shape[1])
        flat = x.reshape(-1, x.shape[-1])
        stage, metric = name.split("__")
        series[stage, metric.replace("_of_", "/")] = Series(rounds, np.arange(len(flat)), flat)
    leaves = cfg.leaves(config)
    return Record(leaves, {"members": [{}, {}]}, (), series, (), (), {})


def quantity(name):
    return next(q for q in treatment.QUANTITIES if q.name == name)


def test_steps_of_a_fit_are_those_that_each_member_made_in_all_rounds():
    made = [[[32, 32], [64, 64], [96, 64]], [[32, 32], [64, 64], [64, 64]]]
    found = quantity("steps of the reward's fit").read(record(reward__reward_of_steps_made=made))
    np.testing.assert_array_equal(found, [96 + 64, 64 + 64])


def test_steps_of_the_policy_and_its_samples_follow_from_the_settings():
    ppo = laptop.config(ppo=laptop.ppo(10))
    run = record(dataclasses.replace(ppo, rounds=3))
    assert quantity("steps of the policy's fit").read(run).tolist() == [3 * 10 * 2 * 2] * 2
    assert quantity("samples the policy learns from").read(run).tolist() == [3 * 10 * 128] * 2
    best = laptop.config(bestofn=cfg.BestOfN(iterations=5, n=4, batch=16), learner="imitation")
    assert quantity("steps of the policy's fit").read(record(best)).tolist() == [5, 5]
    assert quantity("samples the policy learns from").read(record(best)).tolist() == [320, 320]


def test_a_fit_that_used_all_its_steps_and_was_not_idle_was_ended_by_the_cap():
    config = laptop.config(reward=laptop.reward(steps=320, look=32, patience=2))
    run = record(
        config,
        reward__reward_of_steps_made=[[[320, 320]]],
        reward__reward_of_idle=[[[1, 2]]],
    )
    assert quantity("fits that the cap ended").read(run).tolist() == [1.0, 0.0]


def test_what_a_run_has_not_is_no_difference():
    assert np.isnan(quantity("KL spent").read(record())).all()
    assert not treatment.differs(np.full((1, 2), np.nan), np.ones((1, 2)))


@pytest.mark.parametrize(
    ("mine", "apart"), [(1.05, False), (0.95, False), (1.2, True), (0.0, True)]
)
def test_arms_differ_where_their_means_are_a_tenth_apart(mine, apart):
    assert treatment.differs(np.full((2, 3), mine), np.ones((2, 3))) is apart


def test_an_arm_is_set_beside_what_it_names_and_what_it_does_not():
    treated = {q.name: {"a": np.ones((1, 2)), "b": np.ones((1, 2))} for q in treatment.QUANTITIES}
    treated["steps of the reward's fit"]["b"] = np.full((1, 2), 192.0)
    rows = treatment.rows(treated, {"a": BASE, "b": RATING}, "a")
    assert rows[0][:2] == ["a", "–"]
    assert rows[1][1] == "collect.feedback = rating"
    assert rows[1].count("1.00") == 5
    assert "192 ≠" in rows[1]
    (said,) = treatment.sentences(treated, "a")
    assert said == "steps of the reward's fit (optimiser steps): a 1.00, but b 192."
