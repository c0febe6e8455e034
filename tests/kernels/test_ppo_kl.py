"""Every place and estimator of the KL penalty against the exact divergence and its gradient.

A policy given by a table of logits says three tokens of an alphabet of three: the 27 responses
are enumerated, so expectation and variance of what `kernels.ppo` computes are exact sums.
docs/ppo.md shows the numbers; the last test holds it to them.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax import grid
from rlhf_jax.config import PPO
from rlhf_jax.kernels import credit, ppo
from rlhf_jax.kernels.experience import Scored
from rlhf_jax.kernels.sampling import chosen
from rlhf_jax.ops import divergences
from rlhf_jax.types import Episode, Language, Prompts

assert grid  # makes PPO a pytree

V, T = 3, 3
LANGUAGE = Language(tuple("abc^·"), V + 1, V, None, np.arange(V + 2) < V, T)
TOKENS = jnp.asarray(list(itertools.product(range(V), repeat=T)), jnp.int32)
N = len(TOKENS)
MASK = jnp.ones((N, T), bool)
EPISODE = Episode(Prompts(jnp.full((N, 1), V, jnp.int32), jnp.ones((N, 1), bool)), TOKENS, MASK)
# The state before token t is one of 1 + 3 + 9 prefixes.
STATES = np.stack([np.zeros(N), 1 + TOKENS[:, 0], 4 + 3 * TOKENS[:, 0] + TOKENS[:, 1]], 1)
STATES = STATES.astype(int)
KINDS = ("k1_in_reward", "k2_in_loss", "k3_in_loss", "exact_in_loss", "exact")
DISTANCES = {"near": 0.2, "far": 1.0}


def tables(distance):
    """Logits [13, 3] of the policy and of its reference."""
    rng = np.random.default_rng(0)
    reference, step = (jnp.asarray(rng.normal(size=(13, V)), jnp.float32) for _ in "ab")
    return reference + distance * step, reference


def log_p(table):
    """[27, T, V]"""
    return jax.nn.log_softmax(table)[STATES]


def sequence_kl(table, reference):
    p, q = (jnp.sum(chosen(log_p(x), EPISODE), axis=1) for x in (table, reference))
    return jnp.sum(jnp.exp(p) * (p - q))


def losses(kind, table, old, reference):
    """[27]: what each response adds to PPO's loss if it alone is sampled, at β = 1."""
    hp = PPO(kl=kind, discount=1.0, gae_lambda=1.0, whiten_advantages=False)
    x = Scored(EPISODE, chosen(log_p(old), EPISODE), log_p(old), log_p(reference), jnp.zeros(N))
    advantages, returns, unit = credit.credit(
        hp, LANGUAGE, x, jnp.zeros((N, T + 1)), jnp.asarray(1.0)
    )
    zero = jnp.zeros((N, T))
    data = ppo.Experience(EPISODE, x.logps, zero, advantages, returns, credit.anchor(hp, x, unit))

    def alone(one):
        weight = jnp.broadcast_to(one[:, None], (N, T))
        part = ppo.Part(data, weight, weight, weight)
        return ppo.policy_loss(hp, jnp.asarray(1.0), log_p(table), part)[0]

    return jax.vmap(alone)(jnp.eye(N))


def k1_in_loss(table, old, reference):
    return jnp.sum(chosen(log_p(table) - log_p(reference), EPISODE), axis=1)


def gradients(kind, distance):
    """Gradient of each response's loss [27, 39], their probabilities, the exact gradient [39]."""
    table, reference = tables(distance)
    of = k1_in_loss if kind == "k1_in_loss" else lambda *a: losses(kind, *a)
    each = jax.jacrev(of)(table, table, reference).reshape(N, -1)
    p = jnp.exp(jnp.sum(chosen(log_p(table), EPISODE), axis=1))
    return tuple(
        np.asarray(x, np.float64)
        for x in (each, p, jax.grad(sequence_kl)(table, reference).reshape(-1))
    )


def gradient_error(kind, distance):
    """Bias and standard deviation of one response's gradient, in lengths of the exact one."""
    each, p, exact = gradients(kind, distance)
    mean = p @ each
    noise = np.sqrt(p @ np.square(each - mean).sum(1))
    return np.linalg.norm(mean - exact) / np.linalg.norm(exact), noise / np.linalg.norm(exact)


def value_error(kind, distance):
    """Bias and standard deviation of one response's estimate, in units of the exact KL."""
    table, reference = tables(distance)
    p, q = log_p(table), log_p(reference)
    rho = chosen(p - q, EPISODE)
    per_token = {
        "k1": rho,
        "k2": divergences.k2(rho),
        "k3": divergences.k3(rho),
        "exact": divergences.exact(p, q),
    }[kind.split("_")[0]]
    x = np.asarray(jnp.sum(per_token, axis=1), np.float64)
    weight = np.exp(np.asarray(jnp.sum(chosen(p, EPISODE), axis=1), np.float64))
    mean, kl = weight @ x, float(sequence_kl(table, reference))
    return mean / kl - 1, np.sqrt(weight @ np.square(x - mean)) / kl


@pytest.mark.parametrize("distance", DISTANCES.values())
@pytest.mark.parametrize("kind", ["k1_in_reward", "exact"])
def test_the_gradient_is_that_of_the_sequence_kl(kind, distance):
    bias, _ = gradient_error(kind, distance)
    assert bias < 1e-4


@pytest.mark.parametrize("distance", DISTANCES.values())
@pytest.mark.parametrize("kind", ["k2_in_loss", "k3_in_loss", "exact_in_loss"])
def test_in_the_loss_alone_a_token_does_not_see_the_kl_of_later_ones(kind, distance):
    bias, _ = gradient_error(kind, distance)
    assert bias > 0.02


def test_k2_and_exact_in_the_loss_have_one_mean_and_k2_more_noise():
    for distance in DISTANCES.values():
        k2, p, _ = gradients("k2_in_loss", distance)
        exact, _, _ = gradients("exact_in_loss", distance)
        np.testing.assert_allclose(p @ k2, p @ exact, atol=1e-5)
        assert (
            gradient_error("k2_in_loss", distance)[1] > gradient_error("exact_in_loss", distance)[1]
        )


def test_in_the_last_state_k2_is_the_gradient_of_the_kl_and_k3_of_the_forward_kl():
    table, reference = tables(1.0)
    state = slice(12 * 3, 13 * 3)  # the prefix (2, 2): nothing follows its token
    seen = float(jnp.exp(jnp.sum(log_p(table)[-1, [0, 1], [2, 2]])))
    forward = lambda x: divergences.exact(jax.nn.log_softmax(reference[12]), jax.nn.log_softmax(x))
    for kind, expected in (
        ("k2_in_loss", gradients("k2_in_loss", 1.0)[2][state]),
        ("k3_in_loss", seen * jax.grad(forward)(table[12])),
    ):
        each, p, _ = gradients(kind, 1.0)
        np.testing.assert_allclose((p @ each)[state], expected, atol=1e-5)


def test_k1_in_the_loss_has_no_gradient_in_expectation_which_is_why_it_is_no_option():
    each, p, exact = gradients("k1_in_loss", 1.0)
    assert np.abs(each).max() > 0.1
    np.testing.assert_allclose(p @ each, 0.0, atol=1e-6)
    assert np.linalg.norm(exact) > 0.1


@pytest.mark.parametrize("distance", DISTANCES.values())
def test_k1_k3_and_exact_estimate_the_sequence_kl_without_bias_and_k2_with(distance):
    for kind in ("k1_in_reward", "k3_in_loss", "exact"):
        assert abs(value_error(kind, distance)[0]) < 1e-4
    assert abs(value_error("k2_in_loss", distance)[0]) > 0.01


def rows():
    """The table of docs/ppo.md."""
    lines = []
    for kind in (*KINDS, "k1_in_loss"):
        values = [x for d in DISTANCES.values() for x in value_error(kind, d)]
        slopes = [x for d in DISTANCES.values() for x in gradient_error(kind, d)]
        cells = [f"{x:.2f}" for x in (*values, *slopes)]
        cells = [c.replace("-0.00", "0.00").replace("-", "−") for c in cells]
        lines.append(f"| `{kind}` | " + " | ".join(cells) + " |")
    return lines


def test_the_documentation_shows_these_numbers():
    page = (Path(__file__).parents[2] / "docs" / "ppo.md").read_text()
    for line in rows():
        assert line in page, f"docs/ppo.md should say\n{line}"
