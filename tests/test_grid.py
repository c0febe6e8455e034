"""The population: every point of the grid with every seed."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax import config as cfg
from rlhf_jax import grid
from rlhf_jax.config import PPO, Adam, Config, Group, Human, Model

SWEPT = Config(
    seeds=2,
    first_seed=5,
    human=Human(lapse=(0.0, 0.1)),
    ppo=PPO(kl_weight=(0.5, 0.1, 0.2), adam=Adam(learning_rate=3e-4)),
)


def test_the_population_runs_through_seeds_fastest_and_the_first_axis_slowest():
    got = [(m.point["human.lapse"], m.point["ppo.kl_weight"], m.seed) for m in grid.members(SWEPT)]
    assert got == [(lapse, kl, s) for lapse in (0.0, 0.1) for kl in (0.5, 0.1, 0.2) for s in (5, 6)]


def test_without_a_sweep_the_population_is_the_seeds():
    assert grid.members(Config(seeds=3)) == [grid.Member(s, {}) for s in range(3)]


def test_every_swept_setting_is_an_array_with_the_value_of_each_member():
    got = grid.expand(SWEPT)
    assert got.human.lapse.dtype == jnp.float32
    np.testing.assert_allclose(got.human.lapse, [0.0] * 6 + [0.1] * 6)
    np.testing.assert_allclose(got.ppo.kl_weight, [0.5, 0.5, 0.1, 0.1, 0.2, 0.2] * 2)
    np.testing.assert_allclose(got.ppo.adam.learning_rate, [3e-4] * 12)
    assert np.isinf(got.human.rationality).all()


def test_what_cannot_be_swept_stays_what_it_is():
    got = grid.expand(SWEPT)
    assert got.model is SWEPT.model or got.model == SWEPT.model
    assert (got.seeds, got.ppo.batch, got.world.name) == (2, 128, "words")
    assert isinstance(got.ppo.batch, int)


def test_a_seed_has_the_same_key_at_every_point_and_no_two_seeds_share_one():
    words = np.asarray(jax.random.key_data(grid.keys(SWEPT)))
    np.testing.assert_array_equal(words, np.tile(words[:2], (6, 1)))
    assert len({tuple(w) for w in words}) == 2


def test_a_seed_keeps_its_key_in_any_population():
    few, many = Config(seeds=1, first_seed=6), Config(seeds=100)
    key = lambda config, i: jax.random.key_data(grid.keys(config)[i]).tolist()
    assert key(few, 0) == key(many, 6) == key(SWEPT, 1)


def test_seeds_up_to_the_largest_have_different_keys():
    seeds = (0, 1, 2**31 - 1, 2**31 - 1 + 99_999)  # largest first_seed, most seeds
    words = {tuple(jax.random.key_data(grid.seed_key(s)).tolist()) for s in seeds}
    assert len(words) == len(seeds)


def test_a_member_names_its_seed_and_settings():
    assert str(grid.Member(3, {"ppo.kl_weight": 0.05})) == "seed 3, ppo.kl_weight = 0.05"
    assert str(grid.Member(3, {})) == "seed 3"


# --- floats are traced, the rest is static


def test_the_leaves_of_a_configuration_are_its_sweeps():
    assert len(jax.tree.leaves(Config())) == len(cfg.sweeps(Config())) > 20
    human = Human(weights={"length": 0.5})
    more = Config(human=human, groups={"few": Group(share=(0.1, 0.2), human=human)})
    assert {"human.weights.length", "groups.few.share"} < set(cfg.sweeps(more))
    assert "groups.few.asked" not in cfg.sweeps(more)
    expanded = grid.expand(dataclasses.replace(more, seeds=3))
    np.testing.assert_allclose(expanded.groups["few"].share, [0.1] * 3 + [0.2] * 3)
    np.testing.assert_array_equal(expanded.human.weights["length"], [0.5] * 6)


def test_a_configuration_survives_being_taken_apart():
    leaves, tree = jax.tree.flatten(Config(seeds=3))
    assert jax.tree.unflatten(tree, leaves) == Config(seeds=3)


def test_settings_that_differ_in_floats_share_one_program_and_others_do_not():
    traces = []

    @jax.jit
    def use(settings: PPO) -> jax.Array:
        traces.append(1)
        return settings.kl_weight * settings.adam.learning_rate * settings.batch

    np.testing.assert_allclose(use(PPO(kl_weight=0.5)), 0.5 * 3e-4 * 128, rtol=1e-6)
    use(PPO(kl_weight=0.25, adam=dataclasses.replace(PPO().adam, learning_rate=0.5)))
    use(PPO(kl_weight=float("inf")))
    assert len(traces) == 1
    use(PPO(batch=64))
    use(PPO(adam=Adam(warmup=3)))
    assert len(traces) == 3


def test_one_program_runs_the_whole_grid():
    traces = []

    def use(settings: Config) -> jax.Array:
        traces.append(1)
        return settings.ppo.kl_weight + settings.human.lapse

    got = jax.jit(jax.vmap(use))(grid.expand(SWEPT))
    np.testing.assert_allclose(got, [0.5, 0.5, 0.1, 0.1, 0.2, 0.2, 0.6, 0.6, 0.2, 0.2, 0.3, 0.3])
    assert len(traces) == 1


def test_a_shape_is_static():
    traces = []
    use = jax.jit(lambda settings: traces.append(settings.width) or jnp.zeros(settings.width))
    assert use(Model(width=3)).shape == (3,)
    assert use(Model(width=5)).shape == (5,)
    assert traces == [3, 5]
