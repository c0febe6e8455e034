from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny  # noqa: F401  makes sections of the configuration pytrees
from scipy.integrate import quad
from scipy.stats import norm

from rlhf_jax.config import Adam
from rlhf_jax.feedback.comparison import Comparison, bradley_terry
from rlhf_jax.kernels import latent_user
from rlhf_jax.kernels.latent_user import Encoded, Latent, Settings
from rlhf_jax.ops import queries


def test_divergence_from_the_prior_by_hand_and_by_integral():
    assert float(latent_user.divergence(Latent(jnp.zeros(3), jnp.zeros(3)))) == 0
    q = Latent(jnp.asarray([1.0]), jnp.log(jnp.asarray([0.5])))
    # ½ (1 + ¼ − 1) + ln 2 = 0.125 + 0.693147.
    assert float(latent_user.divergence(q)) == pytest.approx(0.125 + np.log(2))
    f = lambda z: norm.pdf(z, 1, 0.5) * (norm.logpdf(z, 1, 0.5) - norm.logpdf(z))
    assert float(latent_user.divergence(q)) == pytest.approx(quad(f, -4, 6)[0], abs=1e-6)


def test_pooled_answers_are_the_product_of_their_gaussians():
    # Λ = 1 + 1·2 + 2·½ = 4, mean (1·2·3 + 2·½·(−2))/4 = 1; the third has weight 0.
    got = latent_user.pool(
        jnp.asarray([[3.0], [-2.0], [jnp.nan]]),
        jnp.log(jnp.asarray([[2.0], [0.5], [9.0]])),
        jnp.asarray([1.0, 2.0, 0.0]),
    )
    np.testing.assert_allclose(got.mean, [1.0], rtol=1e-6)
    np.testing.assert_allclose(jnp.exp(got.log_deviation), [0.5], rtol=1e-6)
    none = latent_user.pool(jnp.ones((2, 3)), jnp.ones((2, 3)), jnp.zeros(2))
    np.testing.assert_array_equal(none.mean, 0)
    np.testing.assert_array_equal(none.log_deviation, 0)


def test_at_the_exact_posterior_the_bound_is_the_evidence():
    """y_n = z δ_n + N(0, 1): p(z | y) ∝ N(z; 0, 1) Π N(z; y_n/δ_n, 1/δ_n²), y ~ N(0, I + δδᵀ)."""
    delta, y = np.asarray([1.0, -2.0, 0.5]), np.asarray([0.7, -1.1, 0.9])
    gauss = lambda a, b, label: 0.5 * (label - (a - b)) ** 2 + 0.5 * np.log(2 * np.pi)
    rewards = lambda z: (z[0] * jnp.asarray(delta), jnp.zeros(3))
    q = latent_user.pool(
        jnp.asarray(y / delta)[:, None], jnp.log(jnp.asarray(delta**2))[:, None], jnp.ones(3)
    )
    # Two draws at ±1 give the mean of a quadratic under N(0, 1) exactly.
    noise = jnp.asarray([[1.0], [-1.0]])
    bound = lambda q: latent_user.negative_bound(
        rewards, q, jnp.asarray(y), jnp.ones(3), noise, nll=gauss
    )[0]
    covariance = np.eye(3) + np.outer(delta, delta)
    exact = 0.5 * (
        y @ np.linalg.solve(covariance, y)
        + np.linalg.slogdet(covariance)[1]
        + 3 * np.log(2 * np.pi)
    )
    assert float(bound(q)) == pytest.approx(exact, rel=1e-5)
    assert float(bound(Latent(q.mean + 0.3, q.log_deviation))) > exact + 0.05
    slope = jax.grad(bound)(q)
    np.testing.assert_allclose(slope.mean, 0, atol=1e-5)
    np.testing.assert_allclose(slope.log_deviation, 0, atol=1e-5)


def test_under_bradley_terry_it_is_a_bound():
    delta, label = np.asarray([1.0, 2.0, -1.0]), np.asarray([1.0, 1.0, 1.0])
    likelihood = lambda z: np.prod(1 / (1 + np.exp(-z * delta)))
    exact = -np.log(quad(lambda z: norm.pdf(z) * likelihood(z), -8, 8)[0])
    noise = jax.random.normal(jax.random.key(0), (4000, 1))
    rewards = lambda z: (z[0] * jnp.asarray(delta), jnp.zeros(3))
    for mean, deviation in ((0.0, 1.0), (0.7, 0.8), (2.0, 0.3)):
        q = Latent(jnp.asarray([mean]), jnp.log(jnp.asarray([deviation])))
        got, _ = latent_user.negative_bound(rewards, q, jnp.asarray(label), jnp.ones(3), noise)
        assert float(got) > exact - 0.02


def test_standing_is_the_share_of_others_that_would_lose():
    got = latent_user.standing(jnp.asarray([0.0, 2.0]), jnp.asarray([0.0, 2.0]))
    high = 1 / (1 + np.exp(-2))
    np.testing.assert_allclose(got, [(0.5 + 1 - high) / 2, (high + 0.5) / 2], rtol=1e-6)


# --- people who want opposite things of x in ℝ², the second coordinate is liked by all


def model() -> Encoded:
    """r(x, z) = (u + V z) · x; an answer for a says m = W (x_a − x_b), for b the opposite."""

    def init(key):
        u, v, w = jax.random.split(key, 3)
        return {
            "u": 0.1 * jax.random.normal(u, (2,)),
            "v": jax.random.normal(v, (2, 1)),
            "w": 0.3 * jax.random.normal(w, (1, 2)),
            "sure": jnp.zeros(1),
        }

    def encode(params, x):
        sign = (2 * x.label - 1)[:, None]
        mean = sign * jnp.matmul(x.a - x.b, params["w"].T)
        return latent_user.pool(mean, jnp.broadcast_to(params["sure"], mean.shape), x.weight)

    def rewards(params, x, z):
        head = params["u"] + jnp.matmul(params["v"], z)
        return jnp.matmul(x.a, head), jnp.matmul(x.b, head)

    return Encoded(init, encode, rewards)


def crowd(seed: int, people: int, each: int) -> tuple[Comparison, np.ndarray]:
    """Half of the people have r = 4 x₀ + x₁, the others −4 x₀ + x₁. Answers [people, each]."""
    rng = np.random.default_rng(seed)
    group = np.where(np.arange(people) % 2 == 0, 1.0, -1.0)
    a, b = rng.normal(size=(2, people, each, 2)).astype(np.float32)
    d = ((a - b) * np.stack([4 * group, np.ones(people)], 1)[:, None]).sum(2)
    label = (rng.random((people, each)) < 1 / (1 + np.exp(-d))).astype(np.float32)
    ones = jnp.ones((people, each))
    return Comparison(jnp.asarray(a), jnp.asarray(b), jnp.asarray(label), ones), group


@pytest.fixture(scope="module")
def fitted():
    answers, _ = crowd(0, 64, 10)
    fit = latent_user.kernel(model(), 400)
    settings = Settings(Adam(learning_rate=0.03, warmup=0, clip=10.0))
    state = fit.init(jax.random.key(1), settings)
    run = jax.jit(lambda s: jax.lax.scan(lambda s, _: fit.step(s, answers), s, length=400))
    return run(state)


def test_the_bound_rises_far_above_what_one_reward_for_all_could_reach(fitted):
    _, metrics = fitted
    # One reward for both groups knows x₁ only: next to ln 2 an answer.
    answers, _ = crowd(0, 64, 10)
    d = (answers.a - answers.b).reshape(-1, 2)
    y = answers.label.ravel()
    best = min(
        float(jnp.mean(bradley_terry(d @ jnp.asarray([p, s]), jnp.zeros(640), y)))
        for p in np.linspace(-1, 1, 9)
        for s in np.linspace(0, 1.5, 7)
    )
    assert float(jnp.mean(metrics["loss/bound"][-50:])) < best - 0.1


def test_a_new_person_is_understood_from_eight_answers(fitted):
    state, _ = fitted
    who = model()
    known, group = crowd(5, 40, 8)
    asked, _ = crowd(6, 40, 50)
    q = jax.vmap(who.encode, (None, 0))(state.params, known)
    a, b = jax.vmap(who.rewards, (None, 0, 0))(state.params, asked, q.mean)
    right = np.asarray((a > b) == (asked.label > 0.5)).mean()
    truth = (asked.a - asked.b)[..., 0] * 4 * group[:, None] + (asked.a - asked.b)[..., 1]
    ceiling = np.asarray((truth > 0) == (asked.label > 0.5)).mean()
    nobody = jnp.zeros_like(q.mean)
    a, b = jax.vmap(who.rewards, (None, 0, 0))(state.params, asked, nobody)
    blind = np.asarray((a > b) == (asked.label > 0.5)).mean()
    assert right > ceiling - 0.06
    assert blind < 0.7
    # z tells the groups apart, up to its sign.
    side = np.asarray(q.mean[:, 0]) * group
    assert max((side > 0).mean(), (side < 0).mean()) > 0.95


def test_every_step_draws_its_own_latents():
    answers, _ = crowd(8, 3, 4)
    fit = latent_user.kernel(model(), 10, draws=1)
    state = fit.init(jax.random.key(3), Settings(Adam(learning_rate=0.0, warmup=0)))
    step = jax.jit(fit.step)
    one, first = step(state, answers)
    _, second = step(one, answers)
    _, again = step(state, answers)
    assert first["loss/bound"] == again["loss/bound"] != second["loss/bound"]
    assert float(first["latent/kl"]) == pytest.approx(float(second["latent/kl"]))


def test_more_answers_leave_less_doubt_and_less_to_learn_from_a_question(fitted):
    state, _ = fitted
    who = model()
    known, _ = crowd(7, 1, 8)
    known = jax.tree.map(lambda x: x[0], known)
    noise = jax.random.normal(jax.random.key(2), (200, 1))

    def after(n):
        weight = (jnp.arange(8) < n).astype(jnp.float32)
        q = who.encode(state.params, known._replace(weight=weight))
        reward = lambda z: who.rewards(state.params, known, z)
        belief = queries.comparison(*jax.vmap(reward)(latent_user.draw(q, noise)))
        return float(q.log_deviation[0]), float(jnp.mean(queries.information(belief)))

    doubt, gain = zip(*(after(n) for n in (0, 2, 8)), strict=True)
    assert (np.diff(doubt) < 0).all()
    assert gain[0] == max(gain)
    assert gain[2] < 0.5 * gain[0]
