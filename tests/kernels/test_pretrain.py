"""Maximum likelihood, and the optimiser that all learners share."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import LANGUAGE, PAD, SHAPE, A, B, C, episodes, finish, prompts

from rlhf_jax.config import Adam, Pretrain
from rlhf_jax.kernels import learner, pretrain
from rlhf_jax.models import heads
from rlhf_jax.transforms import minibatches
from rlhf_jax.types import Episode

POLICY = heads.policy(SHAPE, LANGUAGE)
SETTINGS = Pretrain(batch=8, adam=Adam(learning_rate=3e-2, warmup=0))


@pytest.fixture(scope="module")
def kernel():
    fit = pretrain.kernel(POLICY, 200)
    return fit._replace(init=jax.jit(fit.init), step=jax.jit(fit.step))


@pytest.fixture(scope="module")
def begun(kernel):
    return kernel.init(jax.random.key(0), SETTINGS)


def test_a_policy_that_knows_nothing_pays_the_log_of_the_number_of_actions(kernel, begun):
    blank = begun._replace(params=jax.tree.map(jnp.zeros_like, begun.params))
    _, metrics = kernel.step(blank, episodes(0, 8))
    assert metrics["loss/nll"] == pytest.approx(np.log(4), abs=1e-6)  # $, a, b, c


def test_the_loss_is_the_mean_over_tokens_and_not_over_responses(kernel, begun):
    x = episodes(1, 8)
    log_p = jax.nn.log_softmax(jax.jit(POLICY.logits)(begun.params, x))
    per_token = [
        -float(log_p[i, t, x.tokens[i, t]]) for i, t in np.argwhere(np.asarray(x.mask)).tolist()
    ]
    assert kernel.step(begun, x)[1]["loss/nll"] == pytest.approx(np.mean(per_token), abs=1e-5)


def test_what_stands_behind_the_end_teaches_nothing(kernel, begun):
    x = episodes(2, 8)
    assert not x.mask.all()
    junk = x._replace(tokens=jnp.where(x.mask, x.tokens, C))
    one, two = (kernel.step(begun, y)[0].params for y in (x, junk))
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_a_step_advances_the_counter_and_leaves_the_key(kernel, begun):
    state, _ = kernel.step(begun, episodes(3, 8))
    assert int(state.step) == 1
    assert jnp.array_equal(jax.random.key_data(state.key), jax.random.key_data(begun.key))


def test_the_trained_policy_models_the_frequencies_of_its_data(begun):
    # Three responses in four are "ab$", one is "b$": the entropy H(3/4) is the least loss.
    first, other = [A, B, 2, PAD, PAD], [B, 2, PAD, PAD, PAD]
    x = Episode(prompts(16), *finish(jnp.asarray([first] * 12 + [other] * 4, jnp.int32)))
    fit = minibatches(pretrain.kernel(POLICY, 200), 16, learner.position, 200)
    state, metrics = jax.jit(fit.step)(begun, (x, jnp.asarray(16)))
    least = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    tokens_per_response = (12 * 3 + 4 * 2) / 16
    assert metrics["loss/nll"][-1] == pytest.approx(least / tokens_per_response, abs=0.01)
    p = jax.nn.softmax(jax.jit(POLICY.logits)(state.params, x))
    np.testing.assert_allclose(p[0, 0, [A, B]], [0.75, 0.25], atol=0.05)


# --- the optimiser


def rates(settings: Adam, steps: int, n: int) -> np.ndarray:
    """Under a constant gradient Adam moves by exactly the learning rate: m̂ / √v̂ = 1."""
    tx = learner.optimiser(settings, steps, settings.learning_rate)
    x, moments, moved = jnp.zeros(()), tx.init(jnp.zeros(())), []
    update = jax.jit(tx.update)
    for _ in range(n):
        delta, moments = update(jnp.ones(()), moments, x)
        moved.append(-float(delta))
    return np.asarray(moved)


def test_the_rate_rises_linearly_and_falls_linearly_to_its_final_share():
    # rate 1, warm-up 4, final 0.2 at step 10: rise (1/4, 2/4, 3/4, 1, …) times
    # 1 − 0.8 k/10, which stays at 0.2 from step 10 on.
    got = rates(Adam(learning_rate=1.0, warmup=4, final=0.2, clip=10.0), 10, 13)
    rise = np.minimum(np.arange(1, 14) / 4, 1)
    fall = 1 - 0.8 * np.minimum(np.arange(13), 10) / 10
    np.testing.assert_allclose(got, rise * fall, rtol=1e-4)
    assert got[-1] == pytest.approx(0.2, rel=1e-4)


def test_without_warmup_and_decay_the_rate_is_constant():
    np.testing.assert_allclose(
        rates(Adam(learning_rate=0.3, warmup=0, final=1.0), 5, 8), 0.3, rtol=1e-4
    )


def test_a_gradient_longer_than_the_clip_is_shortened_over_all_parameters_together():
    # g = (3, 4) has norm 5, clip 1 makes it (0.6, 0.8). With ε = 1 the first step is
    # −lr g / (|g| + 1).
    settings = Adam(learning_rate=1.0, warmup=0, final=1.0, clip=1.0, eps=1.0)
    tx = learner.optimiser(settings, 10, jnp.asarray(1.0))
    x = {"a": jnp.zeros(()), "b": jnp.zeros(())}
    delta, _ = jax.jit(tx.update)({"a": jnp.asarray(3.0), "b": jnp.asarray(4.0)}, tx.init(x), x)
    assert delta["a"] == pytest.approx(-0.6 / 1.6, abs=1e-5)
    assert delta["b"] == pytest.approx(-0.8 / 1.8, abs=1e-5)


def test_weight_decay_is_decoupled_from_the_gradient():
    # AdamW: with a zero gradient, θ ← θ − lr · wd · θ.
    settings = Adam(learning_rate=0.5, warmup=0, final=1.0, weight_decay=0.1)
    tx = learner.optimiser(settings, 10, jnp.asarray(0.5))
    x = jnp.asarray([2.0, -4.0])
    delta, _ = jax.jit(tx.update)(jnp.zeros(2), tx.init(x), x)
    np.testing.assert_allclose(delta, -0.5 * 0.1 * x, rtol=1e-6)


def test_learning_rates_of_a_population_are_traced_and_not_mixed_up():
    def first_step(rate):
        tx = learner.optimiser(Adam(warmup=0, final=1.0), 10, rate)
        x = jnp.zeros(())
        return optax.apply_updates(x, tx.update(jnp.ones(()), tx.init(x), x)[0])

    got = jax.jit(jax.vmap(first_step))(jnp.asarray([0.1, 0.2, 0.0]))
    np.testing.assert_allclose(got, [-0.1, -0.2, 0.0], rtol=1e-4)
