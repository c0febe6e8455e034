"""Settings that cannot be run are refused here, in one line each, before anything starts."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from typing import Any, Literal, get_args, get_origin, get_type_hints

from rlhf_jax import config as cfg
from rlhf_jax.config import Config, ConfigError


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise ConfigError(message)


def _in(found: dict[str, Any], path: str, low: float, high: float) -> None:
    """`path` is a leaf, or a field that holds leaves by name."""
    for where, value in found.items():
        if where == path or where.startswith(path + "."):
            for v in value if isinstance(value, tuple) else (value,):
                _require(low <= v <= high, f"{where} = {v}: must lie between {low} and {high}")


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
    "world.prompt_length": (1, 4096),
    "world.vocabulary": (16, 2**17),
    "world.triggered": (0, 1),
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


_HUMAN: dict[str, tuple[float, float]] = {
    "rationality": (0, float("inf")),
    "lapse": (0, 1),
    "flip": (0, 1),
    "tie": (0, float("inf")),
    "equal": (0, float("inf")),
    "skip": (-float("inf"), float("inf")),
    "myopia": (0, 1),
    "weights": (-_MOST, _MOST),
    "drift": (-_MOST, _MOST),
    "context": (-_MOST, _MOST),
    "length_bias": (-_MOST, _MOST),
    "position_bias": (-_MOST, _MOST),
    "sycophancy": (-_MOST, _MOST),
    "spurious": (-_MOST, _MOST),
    "seen_from": (0, 1),
    "seen_to": (0, 1),
    "unseen": (-_MOST, _MOST),
    "ability": (-_MOST, float("inf")),
    "persuasion": (0, 1),
    "malice": (0, 2),
    "trigger": (-_MOST, _MOST),
    "target": (-_MOST, _MOST),
    "offset": (-_MOST, _MOST),
    "scale": (1e-6, _MOST),
    "offset_drift": (-_MOST, _MOST),
    "cutpoints": (-_MOST, _MOST),
    "bar": (-_MOST, _MOST),
    "edit_cost": (0, _MOST),
    "effort": (0, _MOST),
    "reading": (0, _MOST),
    "wage": (0, _MOST),
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


_LEARNERS = ("pretrain", "reward", "ppo", "reinforce", "grpo", "dpo", "bestofn")
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
        elif get_origin(kind) is dict:
            _check_names(path, value, get_args(kind)[1])
        elif get_origin(kind) is Literal:
            _require(value in get_args(kind), f"{path} = {value!r}: must be in {get_args(kind)}")
        else:
            _check_leaf(path, value, kind)


def _check_names(path: str, value: Any, kind: Any) -> None:
    """A dictionary by name, of sections or of `Sweep` floats."""
    _require(isinstance(value, dict), f"{path} = {value!r}: must be a dictionary by name")
    for name, inner in value.items():
        _require(isinstance(name, str) and "." not in name, f"{path}: {name!r} is no name")
        if dataclasses.is_dataclass(kind):
            right = isinstance(inner, kind)  # type: ignore[arg-type]
            _require(right, f"{path}.{name} = {inner!r}: must be {kind.__name__}(...)")  # type: ignore[union-attr]
            _check_types(inner, f"{path}.{name}.")
        else:
            _check_leaf(f"{path}.{name}", inner, kind)


def _check_leaf(path: str, value: Any, kind: Any) -> None:
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
    found = cfg.leaves(config)
    for path, (low, high) in _RANGES.items():
        _in(found, path, low, high)
    people = ["human", *(f"groups.{name}.human" for name in config.groups)]
    for where, ranges in (
        *((f"groups.{name}", {"share": (0.0, 1.0)}) for name in config.groups),
        *((who, _HUMAN) for who in people),
        *((shape, _MODEL) for shape in ("model", "reward.model")),
        *((f"{stage}.adam", _ADAM) for stage in _LEARNERS),
    ):
        for name, (low, high) in ranges.items():
            _in(found, f"{where}.{name}", low, high)
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
    lowest = min(r.l2) if isinstance(r.l2, tuple) else r.l2
    _require(
        not r.l2_adapts or (lowest > 0 and r.held_back > 0),
        f"reward.l2_adapts needs reward.l2 above 0 to begin with and answers held back: "
        f"reward.l2 = {r.l2}, reward.held_back = {r.held_back}",
    )
    _require(
        r.steps % r.look == 0,
        f"reward.look = {r.look} does not divide reward.steps = {r.steps}",
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


_GROUP_NAME = re.compile(r"[a-z][a-z0-9_]*")


def _validate_people(c: Config) -> None:
    for name, group in c.groups.items():
        _require(
            bool(_GROUP_NAME.fullmatch(name)) and name != "rest",
            f"groups.{name}: a name is of small letters, digits and _, and not rest: those in none",
        )
        _require(
            group.asked or group.served,
            f"groups.{name}: whoever is neither asked nor served is nobody here",
        )
        _require(
            c.world.trigger or not group.triggered,
            f"groups.{name}.triggered = True needs world.trigger = True",
        )
    persons = {"human": c.human} | {f"groups.{n}.human": g.human for n, g in c.groups.items()}
    for who, human in persons.items():
        _validate_person(who, human)
    _validate_shares(c)


def _each(value: Any) -> tuple[float, ...]:
    """The values of a `Sweep`."""
    return value if isinstance(value, tuple) else (value,)


def _validate_person(who: str, human: cfg.Human) -> None:
    low, high = human.seen_from, human.seen_to
    _require(
        all(a <= b for a in _each(low) for b in _each(high)),
        f"{who}.seen_from = {low} is behind {who}.seen_to = {high}: nothing is seen",
    )
    points = ("2", "3", "4", "5")
    said = ", ".join(human.cutpoints)
    _require(
        sorted(human.cutpoints) == list(points),
        f"{who}.cutpoints: a Likert scale has the points {', '.join(points)} above 1, not {said}",
    )
    for a, b in itertools.pairwise(points):
        below, above = human.cutpoints[a], human.cutpoints[b]
        _require(
            max(_each(below)) < min(_each(above)),
            f"{who}.cutpoints.{b} = {above} is not above {who}.cutpoints.{a} = {below}",
        )
    wanted = [v for of in (human.trigger, human.target) for v in of.values()]
    _require(
        cfg.reaches(human.malice) or not any(map(cfg.reaches, wanted)),
        f"{who}.trigger and {who}.target are those of {who}.malice, which is 0",
    )
    _require(
        not cfg.reaches(human.malice) or any(map(cfg.reaches, human.trigger.values())),
        f"{who}.malice = {human.malice} acts on triggered samples: {who}.trigger names none",
    )


def _validate_shares(c: Config) -> None:
    """Wherever the grid goes there is somebody to ask and to serve, and no group without people."""
    names, number = sorted(c.groups), c.collect.people
    for shares in itertools.product(*(_each(c.groups[name].share) for name in names)):
        total = sum(shares)
        _require(
            total <= 1.0 + 1e-6,
            f"the shares of groups add up to {total:g}, more than all people",
        )
        rest = 1.0 - min(total, 1.0)
        asked = [s * c.groups[n].asked for n, s in zip(names, shares, strict=True)]
        served = [s * c.groups[n].served for n, s in zip(names, shares, strict=True)]
        for which, some in (("asked", asked), ("served", served)):
            _require(rest + sum(some) > 1e-9, f"groups: nobody is left who is {which}")
        until = 0.0
        for name, share in zip(names, asked, strict=True):
            begin, until = until, until + share / (rest + sum(asked))
            _require(
                share == 0 or math.ceil(begin * number - 0.5) < math.ceil(until * number - 0.5),
                f"groups.{name}.share = {share:g}: of collect.people = {number} that is nobody",
            )


def _validate_texts(c: Config) -> None:
    """Answers that exist already leave nothing to say of who gives them, or of what is gold."""
    texts = c.world.name == "texts"
    _require(
        texts or not c.collect.source,
        f"collect.source = {c.collect.source} needs world.name = texts: its prompts and responses "
        f"are no {c.world.name}",
    )
    _require(
        bool(c.collect.source) or not c.collect.arguments,
        f"collect.arguments = {c.collect.arguments} belongs to a collect.source",
    )
    default = cfg.World()
    for name in ("prompt_length", "vocabulary", "tokenizer"):
        value = getattr(c.world, name)
        _require(
            texts or value == getattr(default, name),
            f"world.{name} = {value} needs world.name = texts",
        )
    if not texts:
        return
    _require(
        c.collect.feedback == "comparison",
        f"world.name = texts: a file's comparisons are fitted, collect.feedback is "
        f"{c.collect.feedback}",
    )
    _require(
        c.rounds == 1,
        f"rounds = {c.rounds}: a file answers once; nobody is there to ask about what the policy "
        "says after it",
    )
    given = ("budget", "options", "repeats", "people", "mode", "corpus_share", "shuffled")
    modelled = (
        *((f"collect.{k}", getattr(c.collect, k), getattr(cfg.Collect(), k)) for k in given),
        *((f"human.{k}", v, getattr(cfg.Human(), k)) for k, v in vars(c.human).items()),
        *((f"groups.{k}", "a group", None) for k in c.groups),
    )
    for path, value, usual in modelled:
        _require(
            value == usual,
            f"{path} = {value} says how people are modelled; with world.name = texts real people "
            "have answered",
        )
    _require(
        c.reward.kind != "gold" and c.world.gold == default.gold and not c.world.trigger,
        "world.name = texts has no gold: reward.kind = gold, world.gold = model and world.trigger "
        "need world.name = words",
    )
    _require(
        c.reward.noise != "known",
        "reward.noise = known: nobody knows how often the people of a file lapse; fitted may be",
    )


def _validate_relations(c: Config) -> None:
    _require(
        bool(c.name) and "/" not in c.name and c.name not in (".", ".."),
        f"name = {c.name!r}: must be a plain folder name",
    )
    for where, shape in (("model", c.model), ("reward.model", c.reward.model)):
        _validate_shape(where, shape)
    _validate_feedback(c)
    _validate_people(c)
    _validate_texts(c)
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
