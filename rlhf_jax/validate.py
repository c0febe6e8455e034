"""Settings that cannot be run are refused here, in one line each, before anything starts."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args, get_origin, get_type_hints

from rlhf_jax import config as cfg
from rlhf_jax.config import Config, ConfigError


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise ConfigError(message)


def _in(config: Config, path: str, low: float, high: float) -> None:
    value = cfg.leaves(config)[path]
    for v in value if isinstance(value, tuple) else (value,):
        _require(low <= v <= high, f"{path} = {v}: must lie between {low} and {high}")


_MOST = 10**9
"""Bound of weights and rates: float32 arithmetic on more than this ends in nan."""
_RANGES: dict[str, tuple[float, float]] = {
    "seeds": (1, 100_000),
    "first_seed": (0, 2**31 - 1),
    "rounds": (1, 10_000),
    "world.length": (1, 4096),
    "world.held_out": (0.01, 0.9),
    "world.nonword_value": (-1e6, 1e6),
    "world.symbols": (2, 64),
    "world.triggered": (0, 1),
    "human.rationality": (0, float("inf")),
    "human.lapse": (0, 1),
    "human.tie": (0, float("inf")),
    "human.flip": (0, 1),
    "human.equal": (0, float("inf")),
    "human.skip": (-float("inf"), float("inf")),
    "human.position_bias": (-_MOST, _MOST),
    "human.length_bias": (-_MOST, _MOST),
    "human.bar": (-_MOST, _MOST),
    "human.edit_cost": (0, _MOST),
    "human.second": (-_MOST, _MOST),
    "human.minority": (0, 1),
    "human.poisoned": (0, 1),
    "pretrain.epochs": (0, 100_000),
    "pretrain.batch": (1, 2**20),
    "pretrain.seed": (0, 2**31 - 1),
    "collect.budget": (1, 2**26),
    "collect.options": (2, 64),
    "collect.repeats": (1, 1024),
    "collect.people": (1, 2**20),
    "collect.corpus_share": (0, 1),
    "reward.steps": (1, 10_000_000),
    "reward.batch": (1, 2**20),
    "reward.held_back": (0, 0.5),
    "reward.look": (1, 100_000),
    "reward.patience": (1, 100_000),
    "reward.falls": (0, 100),
    "reward.l2": (0, _MOST),
    "reward.centring": (0, _MOST),
    "reward.groups": (2, 64),
    "reward.members": (1, 1024),
    "reward.doubt": (0, _MOST),
    "ppo.iterations": (1, 10**7),
    "ppo.batch": (1, 2**20),
    "ppo.epochs": (1, 1000),
    "ppo.minibatches": (1, 2**20),
    "ppo.temperature": (1e-3, 1e3),
    "ppo.kl_weight": (0, _MOST),
    "ppo.kl_target": (1e-6, float("inf")),
    "ppo.kl_horizon": (1e-6, float("inf")),
    "ppo.clip": (0, float("inf")),
    "ppo.value_clip": (0, float("inf")),
    "ppo.discount": (0, 1),
    "ppo.gae_lambda": (0, 1),
    "ppo.entropy": (0, _MOST),
    "ppo.value_learning_rate": (0, _MOST),
    "ppo.missing_eos_value": (-_MOST, _MOST),
    "ppo.length_tail": (1, 4096),
    "ppo.accumulate": (1, 2**20),
    "ppo.value_weight": (0, _MOST),
    "ppo.dual_clip": (1, float("inf")),
    "ppo.log_ratio_clamp": (1e-6, float("inf")),
    "ppo.stop_kl": (0, float("inf")),
    "reinforce.iterations": (1, 10**7),
    "reinforce.batch": (2, 2**20),
    "reinforce.group": (1, 2**20),
    "reinforce.temperature": (1e-3, 1e3),
    "reinforce.kl_weight": (0, _MOST),
    "grpo.iterations": (1, 10**7),
    "grpo.batch": (2, 2**20),
    "grpo.group": (2, 2**20),
    "grpo.epochs": (1, 1000),
    "grpo.minibatches": (1, 2**20),
    "grpo.temperature": (1e-3, 1e3),
    "grpo.kl_weight": (0, _MOST),
    "grpo.clip": (0, float("inf")),
    "dpo.iterations": (1, 10**7),
    "dpo.batch": (1, 2**20),
    "dpo.kl_weight": (1e-6, _MOST),
    "dpo.smoothing": (0, 1),
    "bestofn.iterations": (1, 10**7),
    "bestofn.n": (1, 2**20),
    "bestofn.batch": (1, 2**20),
    "bestofn.temperature": (1e-3, 1e3),
    "evaluate.samples": (2, 2**20),
    "evaluate.top_k": (0, 2**20),
    "evaluate.top_p": (1e-6, 1),
    "evaluate.best_of": (0, 2**24),
    "evaluate.shown": (0, 2**20),
    "run.chunk": (1, 10**7),
    "run.checkpoint_seconds": (0, float("inf")),
    "run.keep": (1, 1000),
    "run.devices": (0, 2**16),
}


_MODEL: dict[str, tuple[float, float]] = {
    "width": (2, 2**20),
    "layers": (1, 1000),
    "heads": (1, 2**20),
    "kv_heads": (1, 2**20),
    "mlp": (1, 2**22),
    "rope_theta": (1, _MOST),
    "norm_eps": (0, 1),
}


_ADAM: dict[str, tuple[float, float]] = {
    "learning_rate": (0, _MOST),
    "final": (0, _MOST),
    "warmup": (0, 2**31 - 1),
    "clip": (1e-12, float("inf")),
    "weight_decay": (0, _MOST),
    "b1": (0, 1 - 1e-6),
    "b2": (0, 1 - 1e-6),
    "eps": (1e-30, 1),
}


def _check_types(section: Any, prefix: str = "") -> None:
    """Every field holds what its annotation says; only a `Sweep` may hold a tuple."""
    for name, kind in get_type_hints(type(section)).items():
        path, value = prefix + name, getattr(section, name)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            _require(isinstance(value, kind), f"{path} = {value!r}: must be {kind.__name__}(...)")
            _check_types(value, path + ".")
        elif get_origin(kind) is Literal:
            _require(value in get_args(kind), f"{path} = {value!r}: must be in {get_args(kind)}")
        else:
            sweep = kind == cfg.Sweep
            number = sweep or kind is float
            expected = (int, float) if number else kind
            for v in value if sweep and isinstance(value, tuple) else (value,):
                right = isinstance(v, expected) and (kind is bool or not isinstance(v, bool))
                say = "a number" if number else f"of type {kind.__name__}"
                say += " or a tuple of numbers" if sweep else ""
                _require(right, f"{path} = {value!r}: must be {say}")


def validate(config: Config) -> Config:
    """Returns `config`, or raises `ConfigError` for the first setting that cannot be run."""
    _check_types(config)
    for path, value in cfg.leaves(config).items():
        if isinstance(value, tuple):
            _require(len(value) > 0, f"{path}: an empty list has nothing to run")
            _require(len(set(value)) == len(value), f"{path} = {value}: a value stands twice")
        for v in value if isinstance(value, tuple) else (value,):
            _require(v == v, f"{path}: nan is not a number")
    for path, (low, high) in _RANGES.items():
        _in(config, path, low, high)
    for shape in ("model", "reward.model"):
        for name, (low, high) in _MODEL.items():
            _in(config, f"{shape}.{name}", low, high)
    for stage in ("pretrain", "reward", "ppo", "reinforce", "grpo", "dpo", "bestofn"):
        for name, (low, high) in _ADAM.items():
            _in(config, f"{stage}.adam.{name}", low, high)
    _validate_relations(config)
    return config


def _validate_shape(where: str, m: cfg.Model) -> None:
    _require(
        m.width % m.heads == 0,
        f"{where}.heads = {m.heads} does not divide {where}.width = {m.width}",
    )
    _require(
        m.heads % m.kv_heads == 0,
        f"{where}.kv_heads = {m.kv_heads} does not divide {where}.heads = {m.heads}",
    )
    _require(
        m.width // m.heads % 2 == 0,
        f"{where}.width / {where}.heads = {m.width // m.heads}: must be even, RoPE turns pairs",
    )


def _validate_feedback(c: Config) -> None:
    r, feedback = c.reward, c.collect.feedback
    compared = feedback == "comparison"
    _require(
        compared or r.kind in ("one", "mixture", "gold"),
        f"reward.kind = {r.kind} is fitted to comparisons, collect.feedback is {feedback}",
    )
    _require(
        compared or c.learner != "dpo",
        f"learner = dpo learns from comparisons, collect.feedback is {feedback}",
    )
    _require(
        r.noise == "standard" or r.kind in ("one", "mixture"),
        f"reward.noise = {r.noise} has no place in reward.kind = {r.kind}",
    )
    _require(
        r.noise == "standard" or r.loss == "bradley_terry" or not compared,
        f"reward.noise = {r.noise} is a likelihood of its own: reward.loss = {r.loss} is not used",
    )
    _require(
        r.loss == "bradley_terry" or (compared and r.kind in ("one", "mixture")),
        f"reward.loss = {r.loss} is of comparisons under one reward: collect.feedback is "
        f"{feedback}, reward.kind is {r.kind}",
    )
    _require(
        r.start == "fresh" or r.model == cfg.Model(),
        "reward.model is the shape of a fresh reward model: it needs reward.start = fresh",
    )
    _require(
        r.steps % r.look == 0,
        f"reward.look = {r.look} does not divide reward.steps = {r.steps}",
    )
    for name in ("minority", "poisoned"):
        share = getattr(c.human, name)
        for v in share if isinstance(share, tuple) else (share,):
            _require(
                v == 0 or v * c.collect.people >= 0.5,
                f"human.{name} = {v} of collect.people = {c.collect.people} is nobody",
            )
    _require(
        feedback not in ("process", "span")
        or not (cfg.reaches(c.human.second) or cfg.reaches(c.human.length_bias)),
        f"human.second and human.length_bias are of whole samples: collect.feedback = {feedback} "
        "speaks of their parts",
    )
    _require(
        r.kind != "mixture" or (r.members == 1 and not r.bootstrap),
        f"reward.kind = mixture has reward.groups = {r.groups} members: reward.members = "
        f"{r.members} and reward.bootstrap = {r.bootstrap} have no place in it",
    )
    _require(
        c.collect.repeats <= c.collect.people,
        f"collect.repeats = {c.collect.repeats} people for each item are more than "
        f"collect.people = {c.collect.people}",
    )
    _require(
        c.ppo.critic_start != "reward"
        or (r.start == "base" and r.kind in ("one", "borda") and r.members == 1),
        f"ppo.critic_start = reward needs one reward model of the policy's shape: reward.start = "
        f"{r.start}, reward.kind = {r.kind}, reward.members = {r.members}",
    )
    _require(
        c.world.trigger or not cfg.reaches(c.human.poisoned),
        f"human.poisoned = {c.human.poisoned} needs world.trigger = True",
    )


def _validate_relations(c: Config) -> None:
    _require(
        bool(c.name) and "/" not in c.name and c.name not in (".", ".."),
        f"name = {c.name!r}: must be a plain folder name",
    )
    for where, shape in (("model", c.model), ("reward.model", c.reward.model)):
        _validate_shape(where, shape)
    _validate_feedback(c)
    _require(
        c.ppo.batch % c.ppo.minibatches == 0,
        f"ppo.minibatches = {c.ppo.minibatches} does not divide ppo.batch = {c.ppo.batch}",
    )
    _require(
        c.ppo.batch // c.ppo.minibatches % c.ppo.accumulate == 0,
        f"ppo.accumulate = {c.ppo.accumulate} does not divide ppo.batch / ppo.minibatches = "
        f"{c.ppo.batch // c.ppo.minibatches}",
    )
    _require(
        c.ppo.top_k == 0 and c.ppo.top_p == 1.0,
        f"ppo.top_k = {c.ppo.top_k}, ppo.top_p = {c.ppo.top_p}: PPO's ratio needs the "
        "probabilities of the distribution that acted, at every token it may choose; truncated "
        "sampling belongs to evaluation",
    )
    _require(
        c.ppo.missing_eos != "length" or c.ppo.length_tail <= c.world.length,
        f"ppo.length_tail = {c.ppo.length_tail} is more than world.length = {c.world.length}",
    )
    for name in ("reinforce", "grpo"):
        section = getattr(c, name)
        _require(
            section.batch % section.group == 0,
            f"{name}.group = {section.group} does not divide {name}.batch = {section.batch}",
        )
    _require(
        c.grpo.batch % c.grpo.minibatches == 0,
        f"grpo.minibatches = {c.grpo.minibatches} does not divide grpo.batch = {c.grpo.batch}",
    )
    _require(
        c.evaluate.shown <= c.evaluate.samples,
        f"evaluate.shown = {c.evaluate.shown} is more than evaluate.samples = {c.evaluate.samples}",
    )
    if c.world.name == "probe":
        _require(
            c.world.symbols**c.world.length <= 5000,
            f"world.symbols ** world.length = {c.world.symbols}^{c.world.length}: the probe "
            "world is enumerated, keep it at 5000 sequences or fewer",
        )
    if c.pretrain.shared:
        for path in cfg.swept(c.pretrain, "pretrain."):
            raise ConfigError(
                f"{path} is a list, but pretrain.shared = True gives all runs one base model"
            )
