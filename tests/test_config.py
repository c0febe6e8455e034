"""Every setting that cannot be run is refused with a line that names it."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import pytest

from rlhf_jax.config import (
    GRPO,
    PPO,
    Adam,
    Collect,
    Config,
    ConfigError,
    Evaluate,
    Group,
    Human,
    Model,
    Pretrain,
    Reward,
    World,
    is_sweep,
    leaves,
    swept,
)
from rlhf_jax.validate import validate

INF, NAN = math.inf, math.nan


def put(path: str, value: object, section: object = None) -> Config:
    """The default configuration with one setting changed."""
    section = Config() if section is None else section
    head, _, rest = path.partition(".")
    if isinstance(section, dict):
        return section | {head: value}
    inner = put(rest, value, getattr(section, head)) if rest else value
    return dataclasses.replace(section, **{head: inner})


def complaint(config: Config) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(config)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_default_configuration_can_be_run():
    assert validate(Config()) == Config()


def test_the_configuration_needs_no_jax():
    code = "import sys, rlhf_jax.config; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# One value below and one above each range; both ends belong to it.
RANGES = {
    "seeds": (1, 100_000),
    "first_seed": (0, 2**31 - 1),
    "rounds": (1, 10_000),
    "world.length": (1, 4096),
    "world.held_out": (0.01, 0.9),
    "world.nonword_value": (-1e6, 1e6),
    "world.symbols": (2, 64),
    "model.layers": (1, 1000),
    "model.mlp": (1, 2**22),
    "model.rope_theta": (1, 10**9),
    "model.norm_eps": (0, 1),
    "human.rationality": (0, INF),
    "human.lapse": (0, 1),
    "human.tie": (0, INF),
    "pretrain.epochs": (0, 100_000),
    "pretrain.batch": (1, 2**20),
    "pretrain.seed": (0, 2**31 - 1),
    "collect.corpus_share": (0, 1),
    "reward.l2": (0, 10**9),
    "reward.centring": (0, 10**9),
    "ppo.iterations": (1, 10**7),
    "ppo.epochs": (1, 1000),
    "ppo.temperature": (1e-3, 1e3),
    "ppo.kl_weight": (0, 10**9),
    "ppo.kl_target": (1e-6, INF),
    "ppo.kl_horizon": (1e-6, INF),
    "ppo.clip": (0, INF),
    "ppo.value_clip": (0, INF),
    "ppo.discount": (0, 1),
    "ppo.gae_lambda": (0, 1),
    "ppo.entropy": (0, 10**9),
    "ppo.value_learning_rate": (0, 10**9),
    "ppo.missing_eos_value": (-(10**9), 10**9),
    "ppo.length_tail": (1, 4096),
    "ppo.value_weight": (0, 10**9),
    "ppo.dual_clip": (1, INF),
    "ppo.log_ratio_clamp": (1e-6, INF),
    "ppo.stop_kl": (0, INF),
    "evaluate.shown": (0, 512),
    "run.chunk": (1, 10**7),
    "run.checkpoint_seconds": (0, INF),
    "run.keep": (1, 1000),
    "run.devices": (0, 2**16),
    **{
        f"{stage}.adam.{name}": bounds
        for stage in ("pretrain", "reward", "ppo")
        for name, bounds in {
            "learning_rate": (0, 10**9),
            "warmup": (0, 2**31 - 1),
            "clip": (1e-12, INF),
            "weight_decay": (0, 10**9),
            "b1": (0, 1 - 1e-6),
            "eps": (1e-30, 1),
        }.items()
    },
}


@pytest.mark.parametrize("path", RANGES)
def test_a_number_outside_its_range_is_named_with_the_range(path):
    low, high = RANGES[path]
    kind = type(leaves(Config())[path])
    for end in (low, high):
        if end != INF:
            validate(put(path, kind(end)))
    below = kind(low - 1)
    assert complaint(put(path, below)).startswith(f"{path} = {below}: must lie between {low} and")
    if high != INF:
        assert complaint(put(path, kind(high) * 2 + 1)).startswith(f"{path} = ")


@pytest.mark.parametrize(
    "path",
    [
        path
        for path, value in leaves(Config()).items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and path not in ("human.skip", "ppo.top_p")
    ],
)
def test_every_number_has_a_least_value(path):
    kind = type(leaves(Config())[path])
    assert complaint(put(path, kind(-(10**15)))).startswith(f"{path} = ")


@pytest.mark.parametrize("path", [p for p, v in leaves(Config()).items() if isinstance(v, float)])
def test_nan_is_not_a_number(path):
    assert complaint(put(path, NAN)) == f"{path}: nan is not a number"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            Config(model=Model(width=64, heads=5)),
            "model.heads = 5 does not divide model.width = 64",
        ),
        (
            Config(model=Model(heads=4, kv_heads=3)),
            "model.kv_heads = 3 does not divide model.heads = 4",
        ),
        (
            Config(model=Model(width=12, heads=4, kv_heads=4)),
            "model.width / model.heads = 3: must be even, RoPE turns pairs",
        ),
        (
            Config(ppo=PPO(batch=128, minibatches=3)),
            "ppo.minibatches = 3 does not divide ppo.batch = 128",
        ),
        (
            Config(ppo=PPO(batch=128, minibatches=2, accumulate=5)),
            "ppo.accumulate = 5 does not divide ppo.batch / ppo.minibatches = 64",
        ),
        (Config(ppo=PPO(accumulate=0)), "ppo.accumulate = 0: must lie between 1 and 1048576"),
        (
            Config(ppo=PPO(missing_eos="length", length_tail=17)),
            "ppo.length_tail = 17 is more than world.length = 16",
        ),
        (
            Config(ppo=PPO(top_k=5)),
            "ppo.top_k = 5, ppo.top_p = 1.0: PPO's ratio needs the probabilities of the "
            "distribution that acted, at every token it may choose; truncated sampling belongs "
            "to evaluation",
        ),
        (
            Config(reward=Reward(kind="borda"), collect=Collect(feedback="rating")),
            "reward.kind = borda is fitted to comparisons, collect.feedback is rating",
        ),
        (
            Config(learner="dpo", collect=Collect(feedback="likert")),
            "learner = dpo learns from comparisons, collect.feedback is likert",
        ),
        (
            Config(reward=Reward(kind="mixture", members=3)),
            "reward.kind = mixture has reward.groups = 2 members: reward.members = 3 and "
            "reward.bootstrap = False have no place in it",
        ),
        (
            Config(collect=Collect(repeats=3, people=2)),
            "collect.repeats = 3 people for each item are more than collect.people = 2",
        ),
        (
            Config(groups={"poisoners": Group(share=(0.0, 0.1), triggered=True)}),
            "groups.poisoners.triggered = True needs world.trigger = True",
        ),
        (
            Config(reward=Reward(start="fresh", model=Model(width=10, heads=4))),
            "reward.model.heads = 4 does not divide reward.model.width = 10",
        ),
        (
            Config(ppo=PPO(critic_start="reward"), reward=Reward(start="fresh")),
            "ppo.critic_start = reward needs one reward model of the policy's shape: "
            "reward.start = fresh, reward.kind = one, reward.members = 1",
        ),
        (
            Config(ppo=PPO(critic_start="reward"), reward=Reward(members=4)),
            "ppo.critic_start = reward needs one reward model of the policy's shape: "
            "reward.start = base, reward.kind = one, reward.members = 4",
        ),
        (
            Config(reward=Reward(model=Model(width=128))),
            "reward.model is the shape of a fresh reward model: it needs reward.start = fresh",
        ),
        (
            Config(groups={"few": Group(share=0.005)}),
            "groups.few.share = 0.005: of collect.people = 64 that is nobody",
        ),
        (
            Config(groups={"a": Group(share=(0.1, 0.7)), "b": Group(share=0.4)}),
            "the shares of groups add up to 1.1, more than all people",
        ),
        (
            Config(groups={"rest": Group(share=0.5)}),
            "groups.rest: a name is of small letters, digits and _, and not rest: those in none",
        ),
        (
            Config(groups={"none": Group(share=0.5, asked=False, served=False)}),
            "groups.none: whoever is neither asked nor served is nobody here",
        ),
        (
            Config(groups={"b": Group(human=Human(weights={"length": float("nan")}))}),
            "groups.b.human.weights.length: nan is not a number",
        ),
        (
            Config(human=Human(weights={"length": 1e12})),
            "human.weights.length = 1000000000000.0: must lie between -1000000000 and 1000000000",
        ),
        (
            Config(human=Human(seen_from=(0.0, 0.7), seen_to=0.2)),
            "human.seen_from = (0.0, 0.7) is behind human.seen_to = 0.2: nothing is seen",
        ),
        (
            Config(groups={"a": Group(share=1.0, asked=False)}),
            "groups: nobody is left who is asked",
        ),
        (
            Config(groups={"a": Group(share=(0.5, 1.0), served=False)}),
            "groups: nobody is left who is served",
        ),
        (
            # The second half of a person, and the first half of the next one: nobody's middle.
            Config(
                groups={"a": Group(share=0.06), "b": Group(share=0.08)},
                collect=Collect(people=10),
            ),
            "groups.b.share = 0.08: of collect.people = 10 that is nobody",
        ),
        (
            Config(human=Human(cutpoints={"2": 0.0})),
            "human.cutpoints: a Likert scale has the points 2, 3, 4, 5 above 1, not 2",
        ),
        (
            Config(human=Human(cutpoints={"2": 0.0, "3": -1.0, "4": 1.0, "5": 2.0})),
            "human.cutpoints.3 = -1.0 is not above human.cutpoints.2 = 0.0",
        ),
        (
            Config(human=Human(malice=1.0)),
            "human.malice = 1.0 acts on triggered samples: human.trigger names none",
        ),
        (
            Config(human=Human(target={"late": 1.0})),
            "human.trigger and human.target are those of human.malice, which is 0",
        ),
        (
            Config(reward=Reward(l2_adapts=True)),
            "reward.l2_adapts needs reward.l2 above 0 to begin with and answers held back: "
            "reward.l2 = 0.0, reward.held_back = 0.1",
        ),
        (
            Config(reward=Reward(loss="davidson"), collect=Collect(feedback="rating")),
            "reward.loss = davidson is of comparisons under one reward: collect.feedback is "
            "rating, reward.kind is one",
        ),
        (
            Config(grpo=GRPO(batch=12, group=8)),
            "grpo.group = 8 does not divide grpo.batch = 12",
        ),
        (
            Config(evaluate=Evaluate(samples=10, shown=11)),
            "evaluate.shown = 11 is more than evaluate.samples = 10",
        ),
        (
            Config(world=World(name="probe", symbols=10, length=4)),
            "world.symbols ** world.length = 10^4: the probe world is enumerated, keep it at "
            "5000 sequences or fewer",
        ),
        (
            Config(pretrain=Pretrain(adam=Adam(learning_rate=(1e-3, 1e-2)))),
            "pretrain.adam.learning_rate is a list, but pretrain.shared = True gives all runs "
            "one base model",
        ),
        (Config(name="a/b"), "name = 'a/b': must be a plain folder name"),
        (Config(name=""), "name = '': must be a plain folder name"),
        (Config(name=".."), "name = '..': must be a plain folder name"),
        (Config(ppo=PPO(kl_weight=())), "ppo.kl_weight: an empty list has nothing to run"),
        (
            Config(ppo=PPO(kl_weight=(0.1, 0.1))),
            "ppo.kl_weight = (0.1, 0.1): a value stands twice",
        ),
        (
            Config(human=Human(lapse=(0.1, 1.5))),
            "human.lapse = 1.5: must lie between 0 and 1",
        ),
        (Config(human=Human(lapse=(0.1, NAN))), "human.lapse: nan is not a number"),
        (
            Config(reward=Reward(steps=100, look=32)),
            "reward.look = 32 does not divide reward.steps = 100",
        ),
    ],
)
def test_settings_that_do_not_fit_together_are_named(config, message):
    assert complaint(config) == message


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("seeds", "8", "seeds = '8': must be of type int"),
        ("seeds", 8.0, "seeds = 8.0: must be of type int"),
        ("seeds", True, "seeds = True: must be of type int"),
        ("seeds", None, "seeds = None: must be of type int"),
        ("rounds", (1, 2), "rounds = (1, 2): must be of type int"),
        ("world.held_out", (0.1, 0.2), "world.held_out = (0.1, 0.2): must be a number"),
        ("pretrain.shared", 1, "pretrain.shared = 1: must be of type bool"),
        (
            "ppo.kl_weight",
            "0.1",
            "ppo.kl_weight = '0.1': must be a number or a tuple of numbers",
        ),
        (
            "ppo.kl_weight",
            [0.1, 0.2],
            "ppo.kl_weight = [0.1, 0.2]: must be a number or a tuple of numbers",
        ),
        (
            "ppo.kl_weight",
            (0.1, "x"),
            "ppo.kl_weight = (0.1, 'x'): must be a number or a tuple of numbers",
        ),
        (
            "world.name",
            "sentences",
            "world.name = 'sentences': must be in ('words', 'probe', 'texts')",
        ),
        ("run.seeds_by", "pmap", "run.seeds_by = 'pmap': must be in ('auto', 'vmap', 'map')"),
        ("name", 3, "name = 3: must be of type str"),
        ("world", "words", "world = 'words': must be World(...)"),
        ("ppo.adam", 1e-3, "ppo.adam = 0.001: must be Adam(...)"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_the_right_one(path, value, message):
    assert complaint(put(path, value)) == message


def test_a_whole_number_may_stand_for_a_float():
    validate(put("ppo.kl_weight", 1))
    validate(put("ppo.kl_weight", (0, 1)))


def test_a_base_model_of_ones_own_may_be_swept():
    adam = Adam(learning_rate=(1e-3, 1e-2))
    validate(Config(pretrain=Pretrain(shared=False, adam=adam)))


def test_the_probe_world_may_have_just_five_thousand_sequences():
    fits = World(name="probe", symbols=17, length=3)  # 4913
    validate(Config(world=fits))


# --- paths


def test_leaves_are_all_settings_by_their_paths():
    found = leaves(Config(seeds=3))
    assert found["seeds"] == 3
    assert found["ppo.adam.learning_rate"] == 3e-4
    assert not any(dataclasses.is_dataclass(v) for v in found.values())


def test_the_axes_of_the_grid_are_the_settings_that_hold_tuples():
    config = Config(human=Human(tie=(0.0, 1.0)), ppo=PPO(kl_weight=(0.1, 0.2, 0.3)))
    assert swept(config) == {"human.tie": (0.0, 1.0), "ppo.kl_weight": (0.1, 0.2, 0.3)}
    assert swept(Config()) == {}


def test_floats_of_a_formula_can_be_swept_and_shapes_cannot():
    sweeps = {f.name for f in dataclasses.fields(PPO) if is_sweep(f)}
    assert {"kl_weight", "clip", "discount", "temperature"} <= sweeps
    assert not sweeps & {"batch", "epochs", "minibatches", "iterations", "adam"}
    assert not [f.name for f in dataclasses.fields(Model) if is_sweep(f)]
