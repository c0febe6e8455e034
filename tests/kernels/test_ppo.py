"""PPO's choices, one by one, on the kernel itself; the formulas are tested in tests/ops."""

from __future__ import annotations

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import EOS, LANGUAGE, PAD, SHAPE, A, episodes, prompts, sharp

from rlhf_jax.config import PPO, Config, ConfigError
from rlhf_jax.kernels import credit, learner, ppo
from rlhf_jax.kernels.experience import Given, Scored, Task, gather, objective, shuffled
from rlhf_jax.kernels.reward import Judge
from rlhf_jax.models import heads, shared
from rlhf_jax.types import Episode
from rlhf_jax.validate import validate

POLICY, SCALAR = heads.policy(SHAPE, LANGUAGE), heads.scalar(SHAPE, LANGUAGE)
JOINT = shared.joint(SHAPE, LANGUAGE)
T = LANGUAGE.length
STEPS = 10
HP = PPO(batch=32, epochs=1, minibatches=1)
adam = partial(dataclasses.replace, HP.adam)


def prompt(where, key):
    one = prompts(1)
    return one.tokens[0], one.mask[0]


def count_a(given, x):
    """How many tokens are `a`, and 0.73: no integer."""
    return jnp.sum((x.tokens == A) & x.mask, axis=1) + 0.73


TASK = Task(POLICY, LANGUAGE, prompt, count_a, lambda *_: {})


# Compiling is what these tests cost: half of it goes without optimisation, most of the rest by
# keeping what was compiled.
quick = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@cache
def compiled(joint=None):
    kernel = ppo.kernel(TASK, SCALAR, STEPS, joint)
    return kernel.init, quick(kernel.step)


@pytest.fixture(scope="module")
def theta():
    return sharp(jax.jit(POLICY.init)(jax.random.key(0)), 2.0)


@pytest.fixture(scope="module")
def phi():
    return sharp(jax.jit(SCALAR.init)(jax.random.key(1)))


@pytest.fixture(scope="module")
def given(theta):
    reference = jax.tree.map(lambda x: 0.9 * x, theta)
    return Given(reference, Judge(theta, jnp.zeros(()), jnp.ones(())), None)


def begin(theta, phi, hp=HP, seed=2, joint=None):
    """A compiled step and the state it starts from."""
    init, step = compiled(joint)
    return step, init(jax.random.key(seed), hp, theta, phi)


def play(theta, phi, given, n=1, **settings):
    step, state = begin(theta, phi, dataclasses.replace(HP, **settings))
    metrics = []
    for _ in range(n):
        state, said = step(state, given)
        metrics.append(said)
    return state, metrics


def close(a, b, **tolerance):
    jax.tree.map(partial(np.testing.assert_allclose, **tolerance), a, b)


# --- 1: rewards


def test_scores_are_float32_whatever_the_judge_computes_in(theta, given):
    task = TASK._replace(score=lambda given, x: jnp.full(x.tokens.shape[0], 0.73, jnp.bfloat16))
    x = quick(lambda p, g: gather(task, g, p, jax.random.key(0), 4, jnp.asarray(1.0)))(theta, given)
    assert x.scores.dtype == jnp.float32
    np.testing.assert_allclose(x.scores, 0.73, rtol=4e-3)
    advantages, returns, _ = credit.credit(HP, LANGUAGE, x, jnp.zeros((4, T + 1)), jnp.asarray(0.0))
    assert advantages.dtype == returns.dtype == jnp.float32
    # V = 0 and no KL: the return is the score, discounted by λ over the tokens before it.
    np.testing.assert_allclose(returns[:, 0], 0.73 * 0.95 ** (lengths(x.episode) - 1), rtol=4e-3)


def lengths(x: Episode):
    return np.asarray(x.mask).sum(1)


def judged(seed=0, n=8) -> Scored:
    """Random episodes, distributions and scores."""
    keys = jax.random.split(jax.random.key(seed), 3)
    x = episodes(seed, n)
    p, q = (jax.nn.log_softmax(jax.random.normal(k, (n, T, 6))) for k in keys[:2])
    logps = jnp.take_along_axis(p, x.tokens[..., None], axis=-1)[..., 0]
    logps = jnp.where(x.mask, logps, 0.0)
    return Scored(x, logps, p, q, jax.random.normal(keys[2], (n,)))


def plain(**settings):
    neutral = {"discount": 1.0, "gae_lambda": 1.0, "whiten_advantages": False, "kl_weight": 0.3}
    return PPO(**{**neutral, **settings})


@pytest.mark.parametrize("kl", ["k1_in_reward", "exact"])
def test_both_places_of_the_score_return_the_same_without_discount(kl):
    x, values = judged(), jax.random.normal(jax.random.key(9), (8, T + 1))
    both = [
        credit.credit(plain(score_at=at, kl=kl), LANGUAGE, x, values, jnp.asarray(0.3))
        for at in ("end", "after_end")
    ]
    mask = np.asarray(x.episode.mask)
    assert not mask[:, -1].all()
    np.testing.assert_allclose(both[0][0], both[1][0], atol=1e-5)
    np.testing.assert_allclose(both[0][1], np.where(mask, both[1][1], 0.0), atol=1e-5)
    # Only after_end teaches the critic what the state after EOS is worth: the score.
    after = np.asarray(both[1][1])[np.asarray(credit.states(plain(score_at="after_end"), mask))]
    assert len(after) > mask.sum()


def test_the_return_of_the_first_state_is_score_minus_weighted_kl():
    x = judged()
    _, returns, _ = credit.credit(plain(), LANGUAGE, x, jnp.zeros((8, T + 1)), jnp.asarray(0.3))
    expected = x.scores - 0.3 * jnp.sum(x.log_ratio, axis=1)
    np.testing.assert_allclose(returns[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_a_kl_in_the_loss_leaves_the_rewards_alone():
    x = judged()
    for kl in ("k2_in_loss", "k3_in_loss", "exact_in_loss"):
        hp = plain(kl=kl)
        _, returns, _ = credit.credit(hp, LANGUAGE, x, jnp.zeros((8, T + 1)), jnp.asarray(0.3))
        np.testing.assert_allclose(returns[:, 0], x.scores, rtol=1e-5, atol=1e-6)


# --- 2: the end


def test_text_behind_the_end_does_not_reach_the_reward_model(phi):
    x = episodes(3, 16)
    assert not np.asarray(x.mask).all()
    other = x._replace(tokens=jnp.where(x.mask, x.tokens, A))
    reward = jax.jit(lambda e: heads.reward(SCALAR, phi, e))
    np.testing.assert_allclose(reward(x), reward(other), atol=1e-6)


@pytest.mark.parametrize(
    ("how", "unfinished", "finished"),
    [("keep", 1.0, 1.0), ("subtract", -1.5, 1.0), ("replace", 2.5, 1.0)],
)
def test_a_response_without_eos_is_treated_as_said(how, unfinished, finished):
    tokens = jnp.asarray([[A, A, A, A, A], [A, A, A, A, EOS], [A, EOS, PAD, PAD, PAD]])
    mask = jnp.asarray([[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], bool)
    x = judged(n=3)._replace(episode=Episode(prompts(3), tokens, mask), scores=jnp.ones(3))
    hp = PPO(missing_eos=how, missing_eos_value=2.5)
    got = credit.settle(hp, LANGUAGE, x).scores
    np.testing.assert_allclose(got, [unfinished, finished, finished], rtol=1e-6)


def test_the_length_penalty_reads_its_tail():
    x = judged(n=2)
    mask = jnp.asarray([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]], bool)
    x = x._replace(episode=x.episode._replace(mask=mask), scores=jnp.ones(2))
    hp = PPO(missing_eos="length", missing_eos_value=2.0, length_tail=2)
    np.testing.assert_allclose(credit.settle(hp, LANGUAGE, x).scores, [-1.0, 0.0], atol=1e-6)


def test_what_a_missing_end_costs_reaches_the_learner(theta, phi, given):
    _, (kept,) = play(theta, phi, given)
    _, (paid,) = play(theta, phi, given, missing_eos="subtract", missing_eos_value=10.0)
    unfinished = (kept["objective/scores"] - paid["objective/scores"]) / 10.0
    assert 0.0 < float(unfinished) < 1.0
    assert round(float(unfinished) * 32, 3) == round(float(unfinished) * 32)


def test_padding_that_is_the_end_is_refused(theta, phi):
    task = TASK._replace(language=LANGUAGE._replace(pad=EOS))
    with pytest.raises(ConfigError, match="pad = eos = 2"):
        ppo.kernel(task, SCALAR, STEPS).init(jax.random.key(0), HP, theta, phi)


@pytest.mark.parametrize("settings", [{"missing_eos": "subtract"}, {"time_limit": "bootstraps"}])
def test_choices_about_the_end_are_refused_where_there_is_none(theta, phi, settings):
    task = TASK._replace(language=LANGUAGE._replace(eos=None))
    with pytest.raises(ConfigError, match=r"ppo\.\w+ = \w+: .* no EOS"):
        ppo.kernel(task, SCALAR, STEPS).init(jax.random.key(0), PPO(**settings), theta, phi)


def test_responses_that_time_cut_off_are_counted_where_a_language_has_an_end():
    x = judged()
    tokens, mask = np.asarray(x.episode.tokens), np.asarray(x.episode.mask)
    cut = [EOS not in row[said] for row, said in zip(tokens, mask, strict=True)]
    assert 0 < sum(cut) < len(cut)
    got = objective(TASK, None, x, jnp.asarray(0.3))
    assert float(got["val/no_eos_share"]) == pytest.approx(np.mean(cut))
    endless = TASK._replace(language=LANGUAGE._replace(eos=None))
    assert "val/no_eos_share" not in objective(endless, None, x, jnp.asarray(0.3))


# --- 4: temperature and ratio


@pytest.mark.parametrize("temperature", [0.7, 1.0])
@pytest.mark.parametrize("joint", [None, JOINT])
def test_the_ratio_is_1_before_the_first_update(theta, phi, given, temperature, joint):
    hp = dataclasses.replace(HP, temperature=temperature)
    step, state = begin(theta, phi, hp, joint=joint)
    _, said = step(state, given)
    assert float(said["val/ratio"]) == pytest.approx(1.0, abs=1e-5)
    assert float(said["val/ratio_first"]) == pytest.approx(1.0, abs=1e-5)
    assert float(said["policy/approxkl_avg"]) < 1e-10
    assert float(said["policy/clipfrac_avg"]) == 0.0


@pytest.mark.parametrize("settings", [{"top_k": 5}, {"top_p": 0.9}])
def test_truncated_sampling_is_refused_in_training_with_the_reason(settings):
    with pytest.raises(ConfigError, match=r"ppo.top_[kp] = .*ratio needs the probabilities"):
        validate(Config(ppo=PPO(**settings)))


# --- 6 and 7: whitening, bootstrap


def test_advantages_are_whitened_over_tokens_or_left_alone():
    x, values = judged(), jax.random.normal(jax.random.key(9), (8, T + 1))
    mask = np.asarray(x.episode.mask)
    white, _, unit = credit.credit(
        plain(whiten_advantages=True), LANGUAGE, x, values, jnp.asarray(0.3)
    )
    raw, _, _ = credit.credit(plain(), LANGUAGE, x, values, jnp.asarray(0.3))
    white, raw = np.asarray(white), np.asarray(raw)
    assert (white[~mask] == 0).all()
    np.testing.assert_allclose(
        white[mask], (raw[mask] - raw[mask].mean()) / raw[mask].std(), rtol=1e-4, atol=1e-5
    )
    assert float(unit) == pytest.approx(raw[mask].std(), rel=1e-4)


def test_a_kl_in_the_loss_is_divided_by_what_its_advantages_are_divided_by():
    x, values = judged(), jax.random.normal(jax.random.key(9), (8, T + 1))
    settings = {"kl": "k2_in_loss", "whiten_rewards": True}
    told = lambda hp: credit.credit(hp, LANGUAGE, x, values, jnp.asarray(0.3))
    _, _, one = told(plain(kl="k2_in_loss"))
    raw, _, first = told(plain(**settings))
    both = plain(**settings, whiten_advantages=True)
    _, _, unit = told(both)
    assert float(one) == 1
    # Rewards are scores, paid once, and 0 elsewhere.
    mask = np.asarray(x.episode.mask)
    paid = np.zeros(mask.shape)
    paid[np.arange(8), mask.sum(1) - 1] = np.asarray(x.scores)
    assert float(first) == pytest.approx(paid[mask].std(), rel=1e-4)
    assert float(unit) == pytest.approx(float(first) * np.asarray(raw)[mask].std(), rel=1e-3)
    np.testing.assert_allclose(credit.anchor(both, x, unit).unit, np.full(8, unit))


def test_whitened_rewards_keep_their_mean_and_have_deviation_1():
    x = judged()
    hp = plain(whiten_rewards=True, gae_lambda=0.0, discount=0.0)  # Â_t = r_t with V = 0
    rewards, _, _ = credit.credit(hp, LANGUAGE, x, jnp.zeros((8, T + 1)), jnp.asarray(0.3))
    raw, _, _ = credit.credit(
        dataclasses.replace(hp, whiten_rewards=False),
        LANGUAGE,
        x,
        jnp.zeros((8, T + 1)),
        jnp.asarray(0.3),
    )
    mask = np.asarray(x.episode.mask)
    rewards, raw = np.asarray(rewards)[mask], np.asarray(raw)[mask]
    assert rewards.std() == pytest.approx(1.0, rel=1e-3)
    assert rewards.mean() == pytest.approx(raw.mean(), rel=1e-3, abs=1e-5)


def test_only_a_response_cut_by_the_limit_is_bootstrapped():
    tokens = jnp.asarray([[A, A, A, A, A], [A, A, A, A, EOS], [A, EOS, PAD, PAD, PAD]])
    mask = jnp.asarray([[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], bool)
    x = judged(n=3)._replace(
        episode=Episode(prompts(3), tokens, mask), logps=jnp.zeros((3, T)), scores=jnp.zeros(3)
    )
    values = jnp.full((3, T + 1), 4.0)
    beyond = {}
    for limit in ("ends", "bootstraps"):
        hp = plain(time_limit=limit, kl="k2_in_loss", gae_lambda=0.0, discount=0.5)
        _, returns, _ = credit.credit(hp, LANGUAGE, x, values, jnp.asarray(0.0))
        last = np.asarray(mask).sum(1) - 1
        beyond[limit] = np.asarray(returns)[np.arange(3), last]
    np.testing.assert_allclose(beyond["ends"], [0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(beyond["bootstraps"], [2, 0, 0], atol=1e-6)  # γ V(s_T)


def test_a_seed_alone_is_the_seed_in_a_population(theta, phi, given):
    kernel = ppo.kernel(TASK, SCALAR, STEPS)
    states = [kernel.init(jax.random.key(s), HP, theta, phi) for s in (0, 1, 2)]
    together = jax.tree.map(lambda *x: jnp.stack([jnp.asarray(i) for i in x]), *states)
    _, said = quick(jax.vmap(kernel.step, (0, None)))(together, given)
    for i, state in enumerate(states):
        _, alone = compiled()[1](state, given)
        for name in alone:
            np.testing.assert_allclose(said[name][i], alone[name], rtol=1e-4, atol=1e-5)


# --- 8: averages and accumulation


@pytest.mark.parametrize(("average", "joint"), [("tokens", None), ("sequences", JOINT)])
def test_one_batch_of_64_is_four_of_16(theta, phi, given, average, joint):
    settings = {"batch": 64, "average": average, "kl": "k3_in_loss", "entropy": 0.01}
    hp = dataclasses.replace(HP, **settings, adam=adam(eps=1e-2))
    step, state = begin(theta, phi, hp, joint=joint)
    one, said = step(state, given)
    step, state = begin(theta, phi, dataclasses.replace(hp, accumulate=4), joint=joint)
    four, said_by_four = step(state, given)
    assert float(said["val/length"]) % 1 != 0  # parts differ in length
    close(one.policy.params, four.policy.params, rtol=1e-4, atol=2e-6)
    close(said, said_by_four, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("average", "expected"), [("tokens", 16 / 4), ("sequences", 6.0), ("constant", 16 / 10)]
)
def test_losses_of_policy_and_critic_take_the_average_asked_for(average, expected):
    # Returns 0, V = 0 before; now V² /2 = 1, 2, 3 in one response and 10 in the other.
    mask = jnp.zeros((2, T), bool).at[0, :3].set(True).at[1, 0].set(True)
    zero = jnp.zeros((2, T))
    x = Episode(prompts(2), jnp.where(mask, A, PAD), mask)
    hp = PPO(average=average, value_clip=1e9)
    part = ppo.whole(hp, ppo.Experience(x, zero, zero, zero, zero, None))
    halves = zero.at[0, :3].set(jnp.asarray([1.0, 2.0, 3.0])).at[1, 0].set(10.0)
    value, _ = ppo.value_loss(hp, jnp.sqrt(2 * halves), part)
    assert float(value) == pytest.approx(expected, rel=1e-5)


def test_accumulation_that_divides_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"ppo.accumulate = 3 does not divide"):
        validate(Config(ppo=PPO(accumulate=3)))


# --- 9: the critic


def test_the_joint_pass_is_the_two_passes(phi):
    x = episodes(5, 8)
    logits, values = jax.jit(JOINT)(phi, x)
    np.testing.assert_allclose(logits, POLICY.logits(phi, x), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(values, SCALAR.values(phi, x), rtol=1e-4, atol=1e-4)


def test_a_critic_starts_from_zero_or_normal(theta):
    wide = dataclasses.replace(SHAPE, width=256)
    scalar = heads.scalar(wide, LANGUAGE)
    given = scalar.init(jax.random.key(0))
    kernel = ppo.kernel(TASK, scalar, STEPS)
    start = lambda how: (
        kernel.init(
            jax.random.key(1), dataclasses.replace(HP, critic_start=how), theta, given
        ).critic.params
    )
    assert (np.asarray(start("zero")["head"]["w"]) == 0).all()
    head = np.asarray(start("normal")["head"]["w"])
    assert head.std() == pytest.approx(257**-0.5, rel=0.15)  # 3 standard errors at 256
    assert (head != np.asarray(given["head"]["w"])).all()
    close(start("normal")["trunk"], given["trunk"])


@pytest.mark.parametrize("joint", [None, JOINT])
def test_a_critic_may_start_as_the_reward_model_on_its_scale(theta, phi, joint):
    _, state = begin(theta, phi, dataclasses.replace(HP, critic_start="reward"), joint=joint)
    model = sharp(SCALAR.init(jax.random.key(7)))
    state = ppo.adopt(state, Judge(model, jnp.asarray(3.0), jnp.asarray(2.0)))
    x = episodes(5, 8)
    if joint is None:
        np.testing.assert_allclose(
            SCALAR.values(state.critic.params, x), SCALAR.values(model, x) / 2.0, rtol=1e-4
        )
    else:
        np.testing.assert_allclose(
            state.policy.params["head"]["w"], model["head"]["w"] / 2.0, rtol=1e-6
        )
        close(state.policy.params["trunk"], theta["trunk"])


def test_on_a_shared_trunk_the_value_weight_moves_the_policy(theta, phi, given):
    policies = []
    for weight in (0.0, 1.0):
        hp = dataclasses.replace(HP, value_weight=weight, adam=adam(eps=1e-2))
        step, state = begin(theta, phi, hp, joint=JOINT)
        state, _ = step(state, given)
        assert state.critic is None
        policies.append(state.policy.params)
    # A value weight of 0 leaves the zero head where it is.
    assert (np.asarray(policies[0]["head"]["w"]) == 0).all()
    assert (np.asarray(policies[1]["head"]["w"]) != 0).all()


# --- 10: Adam, decay, stopping


def test_epsilon_stands_after_or_before_bias_correction():
    # t = 1, g = 0.01, ε = 0.1: m̂ = g, v̂ = g², v = 0.001 g²
    # after:  g/(g + ε) = 0.01/0.11;  before: g/(g + ε/√0.001) = 0.01/(0.01 + 3.1622777)
    g = {"w": jnp.asarray([0.01])}
    for adam, expected in (
        (optax.scale_by_adam, 0.01 / 0.11),
        (learner.tensorflow_adam, 0.01 / (0.01 + 3.1622777)),
    ):
        tx = adam(0.9, 0.999, 0.1)
        update, _ = tx.update(g, tx.init(g))
        assert float(update["w"][0]) == pytest.approx(expected, rel=1e-4)


def test_the_tensorflow_form_is_adam_with_an_epsilon_that_fades():
    ours, theirs = learner.tensorflow_adam(0.9, 0.99, 1e-3), optax.scale_by_adam(0.9, 0.99, 0.0)
    g = {"w": jnp.asarray([1.0, -2.0])}
    a, b = ours.init(g), theirs.init(g)
    for t in range(1, 6):
        up, a = ours.update(g, a)
        unit, b = theirs.update(g, b)
        # m̂ / (√v̂ + ε/√(1 − b2ᵗ)) with √v̂ = |g|
        share = np.abs(g["w"]) / (np.abs(g["w"]) + 1e-3 / np.sqrt(1 - 0.99**t))
        np.testing.assert_allclose(up["w"], unit["w"] * share, rtol=1e-4)


def test_the_choice_of_epsilon_reaches_the_updates(theta, phi, given):
    moved = {}
    for where in ("corrected", "tensorflow"):
        state, _ = play(theta, phi, given, adam_epsilon=where)
        gap = jax.tree.map(lambda a, b: jnp.sum(jnp.abs(a - b)), state.policy.params, theta)
        moved[where] = sum(map(float, jax.tree.leaves(gap)))
    # A first step of lr · g/(g + ε) or lr · g/(g + 31.6 ε): smaller for every g.
    assert 0 < moved["tensorflow"] < 0.999 * moved["corrected"]


def test_the_rate_falls_linearly_over_all_planned_updates(theta, phi, given):
    hp = dataclasses.replace(HP, adam=adam(learning_rate=1e-2, warmup=0, final=0.0))
    step, state = begin(theta, phi, hp)
    rates = []
    for _ in range(STEPS + 1):
        before = state.policy.params
        state, _ = step(state, given)
        moved = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), before, state.policy.params)
        rates.append(float(max(jax.tree.leaves(moved))))
    assert rates[-1] == 0.0
    assert rates[0] > 3 * rates[-2] > 0.0


def counter(kls):
    """An update that adds 1 to θ and finds the policy `kls[k]` nats away in its k-th call."""
    one = learner.Learner(jnp.zeros(()), jnp.zeros(()), None, jnp.zeros((), jnp.int32), None)

    def update(state, data):
        new = state.policy
        kl = jnp.asarray(kls)[new.step]
        new = new._replace(params=new.params + 1, step=new.step + 1)
        return state._replace(policy=new), {
            "policy/approxkl_avg": kl,
            "other": kl * 10,
            "val/ratio": kl + 1,
        }

    return update, ppo.State(one, None, jnp.zeros(()))


@pytest.mark.parametrize(
    ("limit", "updates", "mean"),
    [
        (float("inf"), 4, (0.0 + 0.2 + 0.6 + 0.1) / 4),
        (0.5, 2, (0.0 + 0.2 + 0.6) / 3),  # the third is measured and not made, nor the fourth
        (0.1, 1, (0.0 + 0.2) / 2),
    ],
)
def test_an_iteration_stops_at_the_first_minibatch_that_is_too_far(limit, updates, mean):
    update, state = counter([0.0, 0.2, 0.6, 0.1])
    rows = jnp.zeros((4, 1), jnp.int32)
    data = ppo.Experience(*(jnp.zeros((2, 1)),) * 5, None)
    state, said = ppo.epochs(PPO(stop_kl=limit), update, state, data, rows)
    assert float(state.policy.params) == updates
    assert int(state.policy.step) == 4  # skipped updates count: the keys keep their order
    np.testing.assert_allclose(said["policy/approxkl_avg"], mean, rtol=1e-6)
    np.testing.assert_allclose(said["other"], 10 * mean, rtol=1e-6)
    assert float(said["val/ratio_first"]) == 1.0  # that of the first alone


def test_clip_dual_clip_and_clamp_reach_the_loss():
    x = judged(n=4)
    mask = np.asarray(x.episode.mask)
    old = x.logps - jnp.where(x.episode.mask, 1.0, 0.0)  # every ratio is e
    data = ppo.Experience(x.episode, old, old, jnp.full((4, T), -1.0), old, None)

    def loss(**settings):
        hp = PPO(**settings)
        return ppo.policy_loss(hp, jnp.asarray(0.0), x.distribution, ppo.whole(hp, data))

    plain_, metrics = loss()
    assert float(plain_) == pytest.approx(np.e, rel=1e-5)  # Â < 0: min keeps ρ Â
    assert float(metrics["val/ratio"]) == pytest.approx(np.e, rel=1e-5)
    assert float(metrics["policy/clipfrac_avg"]) == pytest.approx(1.0, rel=1e-5)
    assert float(metrics["policy/approxkl_avg"]) == pytest.approx(0.5, rel=1e-5)  # ρ²/2
    assert float(loss(dual_clip=2.0)[0]) == pytest.approx(2.0, rel=1e-5)
    assert float(loss(log_ratio_clamp=0.5)[0]) == pytest.approx(np.exp(0.5), rel=1e-5)
    entropy = -np.sum(np.exp(x.distribution) * np.asarray(x.distribution), axis=-1)[mask].mean()
    assert float(loss(entropy=0.1)[0]) == pytest.approx(np.e - 0.1 * entropy, rel=1e-4)


# --- 11: keys


def test_two_updates_draw_different_permutations():
    one, two = (shuffled(jax.random.key(s), 12, 3, 2) for s in (0, 1))
    assert one.shape == (6, 6)
    epochs = np.asarray(one).reshape(3, 12)
    for row in epochs:
        assert sorted(row.tolist()) == list(range(12))
    assert (epochs[0] != epochs[1]).any()
    assert (np.asarray(one) != np.asarray(two)).any()


def test_iterations_and_seeds_differ_and_a_seed_replays_bitwise(theta, phi, given):
    frozen = {"adam": adam(learning_rate=0.0), "value_learning_rate": 0.0}
    _, said = play(theta, phi, given, n=3, **frozen)
    kls = [float(m["objective/kl"]) for m in said]
    assert len(set(kls)) == 3  # the policy stands still: only the keys differ
    hp = dataclasses.replace(HP, **frozen)
    step, state = begin(theta, phi, hp, seed=3)
    assert float(step(state, given)[1]["objective/kl"]) not in kls
    a, _ = play(theta, phi, given, n=2)
    b, _ = play(theta, phi, given, n=2)
    jax.tree.map(np.testing.assert_array_equal, a.policy.params, b.policy.params)
    jax.tree.map(np.testing.assert_array_equal, a.critic.params, b.critic.params)
