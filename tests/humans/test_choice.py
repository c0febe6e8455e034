from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.humans import CANT_TELL, Human, Perceived, choose, compare, log_choice, prefer
from rlhf_jax.humans.choice import among, rank
from rlhf_jax.humans.human import teacher
from rlhf_jax.humans.perception import Sample, perceive

KEY = jax.random.key(0)
N = 20_000


def many(x: float):
    return jnp.full((N,), x, jnp.float32)


def near(share, p: float) -> bool:
    """Within 4.5 standard errors of a binomial proportion."""
    return abs(float(share) - p) < 4.5 * np.sqrt(p * (1 - p) / N) + 1e-9


def test_a_perfect_person_prefers_what_is_better_and_ties_what_is_equal():
    a, b = jnp.asarray([1.0, 0.0, 2.0]), jnp.asarray([0.0, 1.0, 2.0])
    np.testing.assert_array_equal(prefer(Human(), a, b, KEY), [1.0, 0.0, 0.5])


def test_a_bradley_terry_person_says_a_with_logistic_probability():
    # σ(2 · ln 3 / 2) = 3/4
    answer = prefer(Human(rationality=2.0), many(np.log(3) / 2), many(0.0), KEY)
    assert near(jnp.mean(answer), 0.75)


def test_whoever_lapses_answers_by_a_coin_and_never_ties():
    answer = prefer(Human(lapse=1.0, tie=10.0, skip=10.0), many(5.0), many(0.0), KEY)
    assert set(np.unique(answer)) == {0.0, 1.0}
    assert near(jnp.mean(answer), 0.5)


def test_flips_reverse_the_answer_and_leave_ties():
    human = Human(flip=0.25)
    assert near(jnp.mean(prefer(human, many(1.0), many(0.0), KEY)), 0.75)
    assert (prefer(human, many(1.0), many(1.0), KEY) == 0.5).all()


def test_the_first_gains_the_position_bias():
    human = Human(rationality=1.0, position_bias=float(np.log(4.0)))
    assert near(jnp.mean(prefer(human, many(0.0), many(0.0), KEY)), 0.8)


def test_options_outside_the_mask_are_never_chosen_at_any_rationality():
    base = among(jnp.broadcast_to(jnp.asarray([True, False, True]), (N, 3)))
    values = jnp.broadcast_to(jnp.asarray([0.0, 9.0, 0.0]), (N, 3))
    for beta in (0.0, 1.0, np.inf):
        chosen = choose(Human(rationality=beta, lapse=0.5), values, KEY, base)
        assert not (chosen == 1).any()
        assert near(jnp.mean(chosen == 0), 0.5)


def test_log_choice_is_the_softmax_by_hand():
    # β û = ln(4, 2, 2): ½, ¼, ¼; negated ¼ : ½ : ½ → 1/5, 2/5, 2/5; even 1/3
    values = jnp.log(jnp.asarray([4.0, 2.0, 2.0])) / 2
    p = jnp.exp(log_choice(Human(rationality=2.0, lapse=0.3, flip=0.1), values))
    expected = 0.3 / 3 + 0.7 * (
        0.9 * np.asarray([0.5, 0.25, 0.25]) + 0.1 * np.asarray([0.2, 0.4, 0.4])
    )
    np.testing.assert_allclose(p, expected, rtol=1e-6)


def test_options_with_a_base_measure_are_chosen_like_so_many_equal_ones():
    base = jnp.log(jnp.asarray([1.0, 3.0]))
    p = jnp.exp(log_choice(Human(rationality=0.0), jnp.asarray([1.0, -1.0]), base))
    np.testing.assert_allclose(p, [0.25, 0.75], rtol=1e-4)
    chosen = choose(Human(rationality=1.0), jnp.zeros((N, 2)), KEY, jnp.broadcast_to(base, (N, 2)))
    assert near(jnp.mean(chosen), 0.75)


def test_equal_values_are_ranked_evenly_by_a_perfect_person():
    order = rank(Human(), jnp.broadcast_to(jnp.asarray([1.0, 0.0, 0.0]), (N, 3)), KEY)
    assert (order[:, 0] == 0).all()
    assert near(jnp.mean(order[:, 1] == 1), 0.5)


def segment(rewards):
    x = jnp.asarray(rewards, jnp.float32)
    return Sample(jnp.cumsum(x)[:, None], jnp.ones(x.shape, bool))


def judged(human: Human, a, b, times: int = 1):
    a, b = perceive(human, segment(a)), perceive(human, segment(b))
    spread = lambda p: Perceived(*(jnp.full((times,), x) for x in p))
    return compare(human, spread(a), spread(b), KEY)


class TestTeachersOfBPref:
    """Lee et al. 2021: segments of two steps, mean return of a segment 10."""

    def test_oracle_takes_the_greater_return(self):
        assert judged(teacher(10.0), [1, 2], [2, 0])[0] == 1.0

    def test_skip_leaves_pairs_in_which_neither_reaches_its_share_of_the_mean_return(self):
        human = teacher(10.0, skip=0.5)
        assert judged(human, [2, 2], [1, 1])[0] == CANT_TELL
        assert judged(human, [2, 3], [1, 1])[0] == CANT_TELL  # 5 is not more than 5
        assert judged(human, [3, 3], [1, 1])[0] == 1.0

    def test_nobody_skips_where_returns_are_negative_on_average(self):
        # Their code asks `if threshold > 0` first; −5 is below −1 and would be skipped.
        assert judged(teacher(-10.0, skip=0.1), [-3, -2], [-4, -4])[0] == 1.0
        assert judged(teacher(0.0, skip=0.1), [-3, -2], [-4, -4])[0] == 1.0

    def test_equal_ties_returns_closer_than_its_share_of_the_mean_return(self):
        human = teacher(10.0, equal=0.1)
        assert judged(human, [1.0, 0.5], [1, 1])[0] == 0.5
        assert judged(human, [1, 0], [1, 1])[0] == 0.0  # 1 is not less than 1

    def test_myopic_weighs_the_last_step_most_and_thresholds_do_not(self):
        a, b = [5, 0], [0, 4]  # returns 5 and 4, at γ = ½ 2.5 and 4
        assert judged(teacher(10.0), a, b)[0] == 1.0
        assert judged(teacher(10.0, myopia=0.5), a, b)[0] == 0.0
        assert judged(teacher(10.0, myopia=0.5, equal=0.11), a, b)[0] == 0.5
        assert judged(teacher(10.0, myopia=0.5, skip=0.45), a, b)[0] == 0.0

    def test_stochastic_follows_bradley_terry(self):
        answers = judged(teacher(10.0, rationality=1.0), [1, np.log(3)], [1, 0], N)
        assert near(jnp.mean(answers), 0.75)

    def test_mistakes_flip_a_share_of_answers_but_never_an_equal_one(self):
        human = teacher(10.0, mistake=0.1, equal=0.1)
        assert near(jnp.mean(judged(human, [5, 0], [0, 0], N)), 0.9)
        assert (judged(human, [1.0, 0.5], [1, 1], N) == 0.5).all()


@pytest.mark.parametrize("beta", [0.0, 1e-3, 1e3, np.inf])
def test_answers_are_numbers_at_every_rationality(beta):
    human = Human(rationality=beta, tie=0.1)
    assert set(np.unique(prefer(human, many(0.3), many(-0.2), KEY))) <= {0.0, 0.5, 1.0}
