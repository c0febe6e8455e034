import itertools
from fractions import Fraction
from math import comb, log

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.config import ConfigError
from rlhf_jax.ops.bestofn import best_of_n, kl_bound, kl_counted, log_law


def enumerate_best(proxy, value, n):
    """The mean over all C(N, n) subsets; samples that tie for the best share it equally."""
    total = Fraction(0)
    for subset in itertools.combinations(range(len(proxy)), n):
        top = max(proxy[i] for i in subset)
        winners = [value[i] for i in subset if proxy[i] == top]
        total += sum(map(Fraction, winners)) / len(winners)
    return float(total / comb(len(proxy), n))


@pytest.mark.parametrize(
    "proxy",
    [
        [3, 1, 4, 0, 5, 9, 2, 6],
        [1, 1, 2, 2, 2, 0, 3, 3],
        [1, 1, 1, 1, 1, 1, 1, 1],
        [0, 5, 5, 5, 5, 5, 5, 5],
        [-float("inf"), -float("inf"), 0, 1, 1, 2, float("inf"), float("inf")],
    ],
)
def test_equals_the_mean_over_all_subsets_with_ties_shared(proxy):
    value = [5, -2, 7, 1, -4, 3, 8, -6]
    expected = [enumerate_best(proxy, value, n) for n in range(1, 9)]
    got = best_of_n(jnp.array(proxy, jnp.float32), jnp.array(value, jnp.float32), range(1, 9))
    np.testing.assert_allclose(got, expected, atol=2e-6)


def test_the_order_of_the_samples_does_not_matter():
    key = jax.random.key(0)
    proxy = jax.random.randint(key, (40,), 0, 6).astype(jnp.float32)
    value = jax.random.normal(key, (40,))
    order = jax.random.permutation(jax.random.key(1), 40)
    ns = (1, 3, 17, 40)
    a, b = best_of_n(proxy, value, ns), best_of_n(proxy[order], value[order], ns)
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_n_equal_to_one_is_the_mean_and_n_equal_to_all_is_the_maximum():
    proxy = jax.random.normal(jax.random.key(2), (1000,))
    mean, top = best_of_n(proxy, proxy, (1, 1000))
    np.testing.assert_allclose(mean, proxy.mean(), atol=1e-6)
    np.testing.assert_allclose(top, proxy.max(), rtol=1e-6)


def test_a_hundred_thousand_samples_agree_with_exact_arithmetic():
    # value = rank b, so that Σ_b b C(b−1, n−1)/C(N, n) = n Σ_b C(b, n)/C(N, n)
    #   = n C(N+1, n+1)/C(N, n) = n (N+1)/(n+1), by the hockey-stick identity.
    big = 100_000
    rank = jnp.arange(1, big + 1, dtype=jnp.float32)
    ns = (1, 2, 10, 100, 1_000, 10_000, 99_999, 100_000)
    got = jax.jit(lambda p: best_of_n(p, p, ns))(rank)
    np.testing.assert_allclose(got, [n * (big + 1) / (n + 1) for n in ns], rtol=2e-5)


def test_unbiased_at_any_number_of_samples():
    # proxy = value uniform: E[max of n] = n/(n+1). 4,000 sets of 8 samples; n = 5.
    x = jax.random.uniform(jax.random.key(3), (4000, 8))
    each = jax.vmap(lambda p: best_of_n(p, p, (5,)))(x)[:, 0]
    error = each.mean() - 5 / 6
    standard_error = each.std() / np.sqrt(4000)
    assert abs(error) < 3 * standard_error


def test_it_vmaps_over_prompts():
    x = jax.random.normal(jax.random.key(4), (3, 20))
    together = jax.vmap(lambda p: best_of_n(p, -p, (2, 9)))(x)
    alone = jnp.stack([best_of_n(p, -p, (2, 9)) for p in x])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_a_score_that_is_not_a_number_is_never_the_best():
    proxy = jnp.array([1.0, jnp.nan, 0.0])
    assert np.isnan(best_of_n(proxy, jnp.ones(3), (1, 2))).all()
    assert np.isnan(kl_counted(proxy, (1, 2))).all()


@pytest.mark.parametrize("n", [0, 4])
def test_more_than_the_samples_is_refused(n):
    with pytest.raises(ConfigError, match=f"best of n = {n}: 3 samples"):
        best_of_n(jnp.zeros(3), jnp.zeros(3), (1, n))


def enumerate_kl(outcomes, n):
    """KL of best-of-n from uniform over `outcomes` (scores), by all draws with replacement."""
    best = dict.fromkeys(set(outcomes), 0.0)
    for draw in itertools.product(outcomes, repeat=n):
        best[max(draw)] += len(outcomes) ** -n
    return sum(q * log(q / (outcomes.count(x) / len(outcomes))) for x, q in best.items())


@pytest.mark.parametrize("outcomes", [[0, 1, 2, 3, 4], [0, 0, 0, 1, 1], [2, 2, 2, 2, 2]])
def test_counted_kl_equals_enumeration_and_stays_below_the_bound(outcomes):
    ns = (1, 2, 3, 5)
    got = kl_counted(jnp.array(outcomes, jnp.float32), ns)
    np.testing.assert_allclose(got, [enumerate_kl(outcomes, n) for n in ns], atol=2e-6)
    assert (np.asarray(got) <= kl_bound(ns) + 1e-6).all()


def test_counted_kl_tends_to_log_of_the_winners_share_where_the_bound_grows_for_ever():
    # One sample in four has the best score: best-of-n can do no more than pick it, KL → log 4.
    proxy = jnp.array([0.0, 0.0, 0.0, 1.0] * 250)
    np.testing.assert_allclose(kl_counted(proxy, (1000,)), [log(4)], rtol=1e-5)
    assert kl_bound((1000,))[0] > 5.9


def test_the_bound_is_tight_for_a_continuous_proxy():
    proxy = jax.random.normal(jax.random.key(5), (100_000,))
    ns = (1, 2, 10, 100)
    np.testing.assert_allclose(kl_counted(proxy, ns), kl_bound(ns), atol=1e-3)


# --- the law of best-of-n where every response is known

SCORES = [3.0, 1.0, 3.0, 0.0, 1.0, 3.0, 7.0]
SHARES = np.asarray([0.05, 0.2, 0.1, 0.3, 0.15, 0.02, 0.18])


def enumerate_law(n):
    """By all draws with replacement; the best is kept, ties fall as the reference would."""
    out = np.zeros(len(SCORES))
    for draw in itertools.product(range(len(SCORES)), repeat=n):
        top = max(SCORES[i] for i in draw)
        tied = np.asarray(SCORES) == top
        out += np.prod(SHARES[list(draw)]) * np.where(tied, SHARES, 0) / SHARES[tied].sum()
    return out


def test_the_law_is_that_of_all_draws_with_ties_broken_as_the_reference_would():
    got = log_law(jnp.log(jnp.asarray(SHARES)), jnp.asarray(SCORES), (1, 2, 3))
    for n in (1, 2, 3):
        np.testing.assert_allclose(np.exp(got[n - 1]), enumerate_law(n), rtol=1e-5)


def exact_law(scores, shares, n):
    """In fractions: P_n(x) = p(x) (F^n − F⁻^n)/(F − F⁻)."""
    shares = [Fraction(float(p)) for p in shares]
    upto = {s: sum(p for p, t in zip(shares, scores, strict=True) if t <= s) for s in set(scores)}
    less = {s: sum(p for p, t in zip(shares, scores, strict=True) if t < s) for s in set(scores)}
    gain = lambda s: (upto[s] ** n - less[s] ** n) / (upto[s] - less[s]) / upto[max(scores)] ** n
    return [
        log(p.numerator * gain(s).numerator) - log(p.denominator * gain(s).denominator)
        for p, s in zip(shares, scores, strict=True)
    ]


@pytest.mark.parametrize("n", [1, 2, 7, 64, 1000])
def test_the_law_keeps_its_digits_where_probabilities_are_near_zero_and_one(n):
    # The best response is worth 1e-6, the worst 0.9, so that F runs from 0.9 to 1 − 1e-6; and
    # the other way round, so that it runs from 1e-6 to 0.1.
    shares = np.asarray([0.9, 0.05, 0.04, 0.009999, 1e-6], np.float32)
    scores = [0.0, 1.0, 1.0, 2.0, 3.0]
    for p in (shares, shares[::-1]):
        got = log_law(jnp.log(jnp.asarray(p)), jnp.asarray(scores), (n,))[0]
        np.testing.assert_allclose(got, exact_law(scores, p, n), rtol=3e-6, atol=2e-6 * n**0.5)


def test_the_law_of_one_sample_is_the_reference_and_every_law_adds_up_to_one():
    log_reference = jax.nn.log_softmax(2 * jax.random.normal(jax.random.key(6), (1000,)))
    proxy = jax.random.randint(jax.random.key(7), (1000,), 0, 300).astype(jnp.float32)
    laws = log_law(log_reference, proxy, (1, 2, 50, 100_000))
    np.testing.assert_allclose(laws[0], log_reference, atol=1e-6)
    np.testing.assert_allclose(jnp.sum(jnp.exp(laws), axis=1), 1.0, atol=2e-5)


def test_the_kl_of_the_law_is_the_counted_one_and_near_the_bound_where_nothing_ties():
    proxy = jax.random.normal(jax.random.key(8), (20_000,))
    uniform, ns = jnp.full(proxy.shape, -jnp.log(20_000.0)), (1, 2, 10, 100)
    laws = log_law(uniform, proxy, ns)
    spent = jnp.sum(jnp.exp(laws) * (laws - uniform[None]), axis=1)
    np.testing.assert_allclose(spent, kl_counted(proxy, ns), atol=1e-5)
    np.testing.assert_allclose(spent, kl_bound(ns), atol=3e-3)


def test_a_law_of_no_samples_is_refused_and_a_score_that_is_no_number_shows():
    with pytest.raises(ConfigError, match="best of n = 0: n must be 1 or more"):
        log_law(jnp.zeros(1), jnp.zeros(1), (0,))
    assert np.isnan(log_law(jnp.log(jnp.ones(2) / 2), jnp.asarray([1.0, jnp.nan]), (3,))).all()
