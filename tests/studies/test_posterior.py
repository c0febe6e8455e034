"""The Bayesian view: what a step is said to cost, and the analysis of known curves."""

from __future__ import annotations

import dataclasses
import functools
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax import grid, worlds
from rlhf_jax.kernels import bestofn, dpo, grpo, ppo, reinforce
from rlhf_jax.kernels.experience import Given, Task
from rlhf_jax.models import heads
from rlhf_jax.ops.bestofn import kl_bound
from rlhf_jax.studies import command
from rlhf_jax.studies.posterior import NEAR, analyse, passes
from rlhf_jax.studies.results import Results
from rlhf_jax.types import Episode, Kernel, Prompts
from rlhf_jax.verdict import judge

assert grid  # makes the configuration's sections pytrees
PATH = Path(__file__).parents[2] / "configs" / "studies" / "bayesian_view.py"
STUDY = command.read(PATH)

# --- compute


def test_all_learners_have_spent_at_every_point_what_the_axis_says() -> None:
    assert STUDY.axis is not None
    for i, at in enumerate(STUDY.positions):
        steps = dict(zip(STUDY.axis.paths, STUDY.axis.values(i), strict=True))
        for arm, config in STUDY.arms.items():
            section = "bestofn" if arm == "imitation" else arm
            assert passes(config) * steps[f"{section}.iterations"] == at


def test_nobody_sees_a_comparison_twice() -> None:
    config, axis = STUDY.arms["dpo"], STUDY.axis
    assert axis is not None
    most = axis.values(len(axis.points) - 1)[axis.paths.index("dpo.iterations")]
    assert config.collect.budget == 2 * config.dpo.batch * most


def flops(function: Any, *shapes: Any) -> float:
    options = {"xla_backend_optimization_level": 0}
    compiled = jax.jit(function, compiler_options=options).lower(*shapes).compile()
    return float(compiled.cost_analysis()["flops"])


@functools.cache
def operations_of_a_pass(arm: str) -> float:
    """XLA's own count of one step, divided by the passes that are said to be in it."""
    config = STUDY.arms[arm]
    # A loop's body is counted once: one update, and one token that is drawn.
    config = dataclasses.replace(
        config, ppo=dataclasses.replace(config.ppo, epochs=1, minibatches=1)
    )
    world = worlds.build(config.world)
    policy, critic = (make(config.model, world.language) for make in (heads.policy, heads.scalar))
    gold = lambda given, x: jax.vmap(world.values, (None, 0, 0))(None, x.tokens, x.mask)[:, 0]
    task = Task(policy, world.language, world.prompt, gold, lambda *_: {})
    kernels: dict[str, tuple[Kernel, Any, int]] = {
        "ppo": (ppo.kernel(task, critic, 1), config.ppo, config.ppo.batch),
        "reinforce": (reinforce.kernel(task, 1), config.reinforce, config.reinforce.batch),
        "grpo": (grpo.kernel(task, 1), config.grpo, config.grpo.batch),
        "dpo": (dpo.kernel(policy, 1), config.dpo, 0),
        "imitation": (
            bestofn.imitator(task, 1),
            config.bestofn,
            config.bestofn.batch * config.bestofn.n,
        ),
    }
    kernel, hparams, drawn = kernels[arm]
    key = jax.eval_shape(lambda: jax.random.key(0))
    theta = jax.eval_shape(policy.init, key)
    more = [jax.eval_shape(critic.init, key)] if arm == "ppo" else []
    state = jax.eval_shape(lambda key, *p: kernel.init(key, hparams, *p), key, theta, *more)
    if arm == "dpo":
        step, given, said = pairs(policy, kernel, world, config.dpo.batch)
        return flops(step, state, theta, given) / (passes(config) * said)
    counted = flops(kernel.step, state, Given(theta, None, None))
    return (counted + not_counted(policy, theta, drawn, world.language.length)) / passes(config)


def pairs(policy: Any, kernel: Kernel, world: Any, batch: int) -> tuple[Any, Any, float]:
    """DPO's step on comparisons that were drawn before, and the share of its passes in that."""
    response = jax.ShapeDtypeStruct((batch, world.language.length), jnp.int32)
    mask = jax.ShapeDtypeStruct(response.shape, bool)
    one = lambda kind: jax.ShapeDtypeStruct((batch, 1), kind)
    x = Episode(Prompts(one(jnp.int32), one(bool)), response, mask)
    number = jax.ShapeDtypeStruct((batch,), jnp.float32)
    answers = dpo.Comparison(x, x, number, number)
    step = lambda state, theta, rows: kernel.step(state, dpo.pair(policy, theta, rows))
    return step, answers, 4 / 5


def not_counted(policy: Any, theta: Any, drawn: int, length: int) -> float:
    """Operations of the tokens but one that are drawn."""
    asked = Prompts(
        jax.ShapeDtypeStruct((drawn, 1), jnp.int32), jax.ShapeDtypeStruct((drawn, 1), bool)
    )
    _, cache = jax.eval_shape(partial(policy.prefill, length=length), theta, asked)
    token = jax.ShapeDtypeStruct((drawn,), jnp.int32)
    return (length - 1) * flops(policy.decode, theta, token, token, cache)


@pytest.mark.parametrize("arm", ["ppo", "grpo", "dpo", "imitation"])
def test_a_pass_is_as_many_operations_whoever_learns_by_them(arm: str) -> None:
    assert operations_of_a_pass(arm) == pytest.approx(operations_of_a_pass("reinforce"), rel=0.25)


def test_another_epoch_costs_three_passes_of_each_network() -> None:
    config = STUDY.arms["ppo"]
    longer = dataclasses.replace(config.ppo, epochs=config.ppo.epochs + 1)
    more = passes(dataclasses.replace(config, ppo=longer)) - passes(config)
    assert more == 6 * config.ppo.batch


# --- the analysis

SEEDS, NS = 16, 2 ** np.arange(9)
REST = {"ppo": 0.01, "reinforce": 0.004, "dpo": 0.02, "grpo": 0.3, "imitation": 0.28}


def made(rest: dict[str, float] = REST, without: tuple[str, ...] = ()) -> Results:
    """KL falls from 2 as 1/compute to where each learner rests; best-of-n is nearest at 16."""
    rng = np.random.default_rng(0)
    at = np.asarray(STUDY.positions)[:, None]
    arms = tuple(a for a in STUDY.arms if a not in without)
    values: dict[str, dict[str, Any]] = {m.name: {} for m in STUDY.metrics}
    spread = lambda *shape: np.exp(0.05 * rng.normal(size=shape))
    shape = (len(at), SEEDS, len(NS))
    far = np.abs(np.log2(NS) - 4)
    for arm in arms:
        values["KL to posterior"][arm] = (2 * at[0] / at + rest[arm]) * spread(len(at), SEEDS)
        values["gold"][arm] = values["KL"][arm] = 1.5 * spread(len(at), SEEDS)
        values["bestofn_posterior"][arm] = (0.28 + 0.1 * far**2) * spread(*shape)
        near = 0.01 if arm == "imitation" else 0.5
        values["bestofn_policy"][arm] = (near + 0.2 * far) * spread(*shape)
        values["bestofn_kl"][arm] = values["bestofn_gold"][arm] = np.broadcast_to(
            kl_bound(NS), shape
        )
    return Results(STUDY, arms, values, {}, {}, {}, "", "")


def outcomes(results: Results) -> dict[tuple[str, str, str], str]:
    """(metric, arm, direction) → outcome."""
    measured = results.measured() | dict(analyse(results).measured)
    verdicts = judge(STUDY.expectations, measured)
    name = lambda e: (e.metric, e.arm, e.direction)
    return {name(v.expectation): v.outcome for v in verdicts}


def test_learners_that_come_to_the_posterior_are_found_to_and_others_not() -> None:
    found = outcomes(made())
    assert len(found) == len(STUDY.expectations)
    assert set(found.values()) == {"supported"}
    changed = outcomes(made({**REST, "ppo": 0.2, "grpo": 0.01, "imitation": 0.6}))
    assert changed["KL to posterior", "ppo", "lower"] == "not supported"
    assert changed["KL to posterior", "grpo", "higher"] == "not supported"
    assert changed["KL at the end", "imitation", "same"] == "not supported"
    assert changed["KL to posterior", "reinforce", "lower"] == "supported"


def test_best_of_n_is_taken_at_the_n_that_is_nearest() -> None:
    results = made()
    measured = analyse(results).measured
    np.testing.assert_array_equal(measured["best-of-n to posterior"].at, NS)
    nearest = results.of("bestofn_posterior", "ppo")[0, :, 4]
    np.testing.assert_array_equal(measured["KL at the end"].arms["best-of-n"], nearest[None])
    copied = results.of("bestofn_policy", "imitation")[..., 4]
    np.testing.assert_array_equal(measured["KL from best-of-n"].arms["imitation"], copied)


def test_the_compute_to_the_posterior_is_where_the_curve_crosses() -> None:
    # Without a spread, KL = 2 x₀/x is NEAR at x = 2 x₀/NEAR, and a line in logarithms.
    results = made()
    at = np.asarray(STUDY.positions)
    line = np.broadcast_to((2 * at[0] / at)[:, None], (len(at), SEEDS))
    values = {**results.values, "KL to posterior": dict.fromkeys(results.arms, line)}
    found = analyse(results._replace(values=values)).measured["compute to the posterior"]
    np.testing.assert_allclose(found.arms["ppo"], 2 * at[0] / NEAR, rtol=1e-6)
    never = analyse(made()).measured["compute to the posterior"].arms["grpo"]
    assert np.isnan(never).all()


@pytest.mark.parametrize("without", [(), ("reinforce", "grpo", "imitation")])
def test_the_page_shows_learners_and_best_of_n_itself(without: tuple[str, ...]) -> None:
    said = analyse(made(without=without))
    assert [p.name for p in said.panels] == ["kl-compute", "bestofn-n"]
    learners, sizes = said.tables
    assert [row[0] for row in learners.rows] == [a for a in STUDY.arms if a not in without]
    assert [row[0] for row in sizes.rows] == [str(n) for n in NS]
    assert all(len(row) == len(t.head) for t in said.tables for row in t.rows)
    assert all("n = 16 seeds" in p.note for p in said.panels)
    if not without:
        assert learners.rows[2][-3] == "0 of 16 seeds"
