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
    "model.width": (2, 2**20),
    "model.layers": (1, 1000),
    "model.heads": (1, 2**20),
    "model.kv_heads": (1, 2**20),
    "model.mlp": (1, 2**22),
    "model.rope_theta": (1, _MOST),
    "model.norm_eps": (0, 1),
    "human.rationality": (0, float("inf")),
    "human.lapse": (0, 1),
    "human.tie": (0, float("inf")),
    "human.flip": (0, 1),
    "human.equal": (0, float("inf")),
    "human.skip": (-float("inf"), float("inf")),
    "human.position_bias": (-_MOST, _MOST),
    "pretrain.epochs": (0, 100_000),
    "pretrain.batch": (1, 2**20),
    "pretrain.seed": (0, 2**31 - 1),
    "collect.comparisons": (1, 2**26),
    "collect.corpus_share": (0, 1),
    "reward.epochs": (1, 100_000),
    "reward.batch": (1, 2**20),
    "reward.l2": (0, _MOST),
    "reward.centring": (0, _MOST),
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
    "evaluate.samples": (2, 2**20),
    "evaluate.shown": (0, 2**20),
    "run.chunk": (1, 10**7),
    "run.checkpoint_seconds": (0, float("inf")),
    "run.keep": (1, 1000),
    "run.devices": (0, 2**16),
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
    for stage in ("pretrain", "reward", "ppo"):
        for name, (low, high) in _ADAM.items():
            _in(config, f"{stage}.adam.{name}", low, high)
    _validate_relations(config)
    return config


def _validate_relations(c: Config) -> None:
    m = c.model
    _require(
        bool(c.name) and "/" not in c.name and c.name not in (".", ".."),
        f"name = {c.name!r}: must be a plain folder name",
    )
    _require(
        m.width % m.heads == 0,
        f"model.heads = {m.heads} does not divide model.width = {m.width}",
    )
    _require(
        m.heads % m.kv_heads == 0,
        f"model.kv_heads = {m.kv_heads} does not divide model.heads = {m.heads}",
    )
    _require(
        m.width // m.heads % 2 == 0,
        f"model.width / model.heads = {m.width // m.heads}: must be even, RoPE turns pairs",
    )
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
    _require(
        c.reward.batch <= c.collect.comparisons,
        f"reward.batch = {c.reward.batch} is more than collect.comparisons = "
        f"{c.collect.comparisons}",
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
