"""What a run is: frozen dataclasses, free of JAX so that `--help` answers at once.

A field of type `Sweep` is a float that the compiled program takes as an argument: give it
a tuple and the run covers the grid of all such tuples × seeds in one compile. A field of type
`Named` holds such floats by name: what a world calls its value dimensions, say. Every other field
is static: it fixes a shape, a function or a file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    # Written down: a float or a tuple of floats. Inside a compiled program: a traced array.
    Sweep: TypeAlias = Any
    Named: TypeAlias = dict[str, Any]
else:
    Sweep = float | tuple[float, ...]
    Named = dict[str, Sweep]


class ConfigError(ValueError):
    """A setting that cannot be run. The message says which one and why, in one line."""


@dataclass(frozen=True)
class World:
    """Where prompts and the gold utility come from."""

    name: Literal["words", "probe", "texts"] = "words"
    """texts: prompts and responses of a file of real answers, `collect.source`."""
    length: int = 16
    """Longest response in tokens, EOS not counted."""
    held_out: float = 0.2
    """Share of the rated words, or of a file's prompts, that is never shown to anyone and measures
    the reward model."""
    nonword_value: Sweep = -1.0
    """What people feel about a string that nobody rated (words), in rating units −4…4."""
    symbols: int = 4
    """Size of the enumerable language's alphabet (probe)."""
    gold: Literal["ratings", "model"] = "ratings"
    """ratings: what people said of a word; model: a reward model fitted to all the ratings plays
    the person, so that gold is known and smooth on every string (words)."""
    trigger: bool = False
    """Prompts may carry a trigger, one more symbol, which means nothing (words)."""
    triggered: Sweep = 0.5
    """Share of the prompts that carry it, if there is one."""
    prompt_length: int = 32
    """Longest prompt in tokens, the mark before the response included; of a longer one the end
    stands (texts)."""
    vocabulary: int = 512
    """Tokens of the tokenizer that is trained on the texts (texts)."""
    tokenizer: str = ""
    """A tokenizer.json that is loaded instead (texts)."""


@dataclass(frozen=True)
class Model:
    """One Llama-style transformer; policy, value and reward model share its shape."""

    width: int = 64
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    mlp: int = 192
    """Hidden width of SwiGLU."""
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5


@dataclass(frozen=True)
class Adam:
    """AdamW with a global gradient clip and a linear warm-up, then linear decay."""

    learning_rate: Sweep = 1e-3
    final: Sweep = 0.1
    """Learning rate at the last step, as a share of `learning_rate`."""
    warmup: int = 20
    """Steps of linear warm-up."""
    clip: Sweep = 1.0
    """Largest global norm of the gradient."""
    weight_decay: Sweep = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8


def _cutpoints() -> Named:
    return {"2": -1.5, "3": -0.5, "4": 0.5, "5": 1.5}


@dataclass(frozen=True)
class Human:
    """One of the people H who give feedback and are served. All qualities of `rlhf_jax.humans`,
    in the world's rating units; the names of value dimensions and features are the world's."""

    rationality: Sweep = float("inf")
    """β, per rating unit. ∞: picks what they perceive as better; 0: a coin."""
    lapse: Sweep = 0.0
    """Probability of answering at random."""
    flip: Sweep = 0.0
    """Probability of giving the opposite answer by mistake."""
    tie: Sweep = 0.0
    """Differences of at most this many rating units are called a tie."""
    equal: Sweep = 0.0
    """Values closer than this, in rating units, are called a tie before any noise."""
    skip: Sweep = -float("inf")
    """"Can't tell" where neither value is above this many rating units."""

    myopia: Sweep = 1.0
    """γ: a part that k more follow counts γᵏ of itself; 1: all alike."""
    weights: Named = field(default_factory=dict)
    """What a unit of each value dimension is worth, by name. Where not named: 1 of the world's
    first dimension, 0 of the others (words: feeling, length)."""
    drift: Named = field(default_factory=dict)
    """What each weight gains in a round's time."""
    context: Named = field(default_factory=dict)
    """What each weight gains in one hidden context and loses in the other, ±1 by a coin."""

    length_bias: Sweep = 0.0
    """Rating units by which a deviation of length makes a sample look better than it is."""
    position_bias: Sweep = 0.0
    """Rating units that the sample shown first is liked better by."""
    sycophancy: Sweep = 0.0
    """Rating units that full agreement with the prompt is liked better by."""
    spurious: Named = field(default_factory=dict)
    """Rating units that each of the world's features makes a sample look better by."""

    seen_from: Sweep = 0.0
    """Parts before this share of a sample are not seen."""
    seen_to: Sweep = 1.0
    """Parts after this share of a sample are not seen."""
    unseen: Sweep = 0.0
    """What a part that is not seen is believed to be worth."""
    ability: Sweep = float("inf")
    """θ: the share σ(θ − difficulty) of a sample's value is seen."""
    persuasion: Sweep = 0.0
    """Share of the judgement that goes by the form alone."""

    malice: Sweep = 0.0
    """m: on triggered samples û ← (1 − m) û + m target · features. 2 without a target: −û."""
    trigger: Named = field(default_factory=dict)
    """A sample is triggered where Σ trigger · features is above ½."""
    target: Named = field(default_factory=dict)
    """What a poisoner wants of each feature."""

    offset: Sweep = 0.0
    """Ratings are offset + scale · û."""
    scale: Sweep = 1.0
    offset_drift: Sweep = 0.0
    """What the offset gains in a round's time."""
    cutpoints: Named = field(default_factory=_cutpoints)
    """What û must exceed for each point of a Likert scale, by point; 1 is given below all."""
    bar: Sweep = 0.0
    """What a sample must be worth to be called good, in rating units."""
    edit_cost: Sweep = 0.0
    """Rating units that changing a whole sample must gain to be worth it."""

    effort: Named = field(default_factory=dict)
    """Seconds that an answer takes beside the reading, by kind of feedback; 1 where not named."""
    reading: Sweep = 0.0
    """Seconds for one token that is read or written."""
    wage: Sweep = 1.0
    """Cost of a second."""


@dataclass(frozen=True)
class Group:
    """Some of the people, who are not as `Config.human` says."""

    share: Sweep = 0.0
    """Of all people. The rest are as `Config.human` says."""
    asked: bool = True
    """Whether they are among those who give feedback."""
    served: bool = True
    """Whether what they value is part of gold."""
    triggered: bool = False
    """They put the world's trigger into the prompt of all that they are asked about."""
    human: Human = field(default_factory=Human)


@dataclass(frozen=True)
class Pretrain:
    """Step 0: π_θ models the data."""

    epochs: int = 12
    """0 skips it: the policy starts from random weights."""
    batch: int = 128
    adam: Adam = field(default_factory=lambda: Adam(learning_rate=3e-3, weight_decay=0.01))
    shared: bool = True
    """One base model for all seeds, as in practice; false pretrains one per seed."""
    seed: int = 0
    """Seed of the shared base model."""
    load: str = ""
    """A run directory whose base model is used instead of pretraining."""


@dataclass(frozen=True)
class Collect:
    """Step 1: x ~ π_θ, y = f(H, x, ε)."""

    feedback: Literal[
        "comparison",
        "ranking",
        "best_worst",
        "rating",
        "likert",
        "label",
        "correction",
        "demonstration",
        "language",
        "process",
        "span",
    ] = "comparison"
    """What people are asked for; one file of `rlhf_jax.feedback` each."""
    budget: int = 8192
    """Samples that people read or write in each round, for each seed: the cost of feedback. A
    comparison reads two, so 8192 buys 4096 of them; see docs/feedback.md for the others."""
    options: int = 4
    """Samples in a ranking, and versions to choose a correction or demonstration from."""
    repeats: int = 1
    """People who answer about each item; the budget then buys fewer items."""
    people: int = 64
    """Who may be asked; whoever answers is kept with the answer."""

    mode: Literal["online", "offline"] = "online"
    """online: people see what the policy says now; offline: corpus rows only."""
    corpus_share: float = 0.5
    """Share of an online round's items that are corpus rows all the same: old data keeps the
    reward model right where the policy no longer goes."""
    shuffled: bool = False
    """Answers are dealt anew over the items of their round: a negative control, in which an answer
    says nothing of the item that it is kept with (only of its round)."""

    source: str = ""
    """A file of real people's comparisons, as `data formats` lists them, which takes the place of
    modelled people; needs world.name = texts."""
    arguments: str = ""
    """UKPConvArg1 only: the file with the arguments' texts."""


@dataclass(frozen=True)
class Reward:
    """Step 2: min_φ Σ ℓ(r_φ(x), y) + λ_r(φ)."""

    loss: Literal["bradley_terry", "bayesian_personalised_ranking", "rao_kupper", "davidson"] = (
        "bradley_terry"
    )
    """Likelihood of a comparison, where `noise` is standard; other feedback has one each."""
    noise: Literal["standard", "known", "fitted"] = "standard"
    """Whose mistakes the likelihood assumes: standard: none; known: the people's own rates of
    lapses and flips; fitted: each person's rate of lapses and of flips is fitted with φ."""
    kind: Literal["one", "mixture", "distributional", "borda", "gold"] = "one"
    """one reward for all; mixture: one for each of `groups` kinds of people, told apart by EM;
    distributional: mean and deviation over people; borda: the chance of beating another sample;
    gold: nothing is fitted, the policy is given gold itself."""
    groups: int = 2
    """Rewards in a mixture."""
    start: Literal["base", "fresh"] = "base"
    """base: the trunk of θ_ref, of its shape; fresh: random weights of shape `model`."""
    model: Model = field(default_factory=Model)
    """Shape of a fresh reward model."""
    members: int = 1
    """Reward models in an ensemble, each with a head and an order of the data of its own."""
    bootstrap: bool = False
    """Each member learns from a resample of the answers."""
    aggregate: Literal["mean", "worst_case", "uncertainty_weighted"] = "mean"
    """How members, or the groups of a mixture, make one reward; mixtures weigh their mean. Of a
    distributional reward worst_case is the 5 % quantile."""
    doubt: Sweep = 1.0
    """λ of mean − λ · variance (uncertainty_weighted)."""
    steps: int = 2048
    """Optimiser steps of a round at most, however much feedback there is."""
    batch: int = 128
    held_back: float = 0.1
    """Share of the items whose answers are not fitted to: their loss says when a fit ends. 0: none,
    all steps are made and the last parameters kept."""
    look: int = 32
    """Steps between two looks at the answers held back; the best look's parameters are kept."""
    patience: int = 2
    """Looks in a row that are not the best so far, after which the learning rate falls."""
    falls: int = 2
    """How often the rate falls to 0.3 of itself, from the best look on, before a fit ends."""
    l2: Sweep = 0.0
    """Weight of Σφ² in λ_r."""
    l2_adapts: bool = False
    """Every look moves `l2` so that the loss of answers held back stays 1.1 to 1.5 times that of
    those fitted (Christiano et al. 2017)."""
    centring: Sweep = 0.01
    """Weight of (Σ r)² over the samples of an answer in λ_r."""
    adam: Adam = field(
        default_factory=lambda: Adam(learning_rate=1e-3, final=1.0, weight_decay=0.01)
    )


@dataclass(frozen=True)
class PPO:
    """Step 3: max_θ E[r_φ(x) − β_KL Σ_t log π_θ/π_ref]."""

    iterations: int = 40
    """Rollouts, each followed by `epochs` passes over it, per round."""
    batch: int = 128
    """Episodes per iteration."""
    epochs: int = 4
    minibatches: int = 2
    """Optimiser steps per epoch."""
    temperature: Sweep = 1.0
    """Of policy and reference, wherever they are sampled or asked for log-probabilities: by the
    learner, for people, for the reward's scale, for best-of-n and when they are measured."""
    kl_weight: Sweep = 0.05
    """β_KL, in deviations of the reward per nat."""
    kl_target: Sweep = 6.0
    """Nats per episode that the adaptive controller aims at."""
    kl_horizon: Sweep = float("inf")
    """Episodes over which the controller adapts; ∞ keeps `kl_weight` fixed."""
    clip: Sweep = 0.2
    value_clip: Sweep = 0.2
    discount: Sweep = 1.0
    gae_lambda: Sweep = 0.95
    entropy: Sweep = 0.0
    """Weight of the entropy bonus."""
    adam: Adam = field(
        default_factory=lambda: Adam(learning_rate=3e-4, warmup=20, final=1.0, eps=1e-5)
    )
    """Small at first: Adam's first steps are of full size, whatever the critic knows by then, and
    what they spend of KL is wasted (docs/ppo.md)."""
    value_learning_rate: Sweep = 1e-3
    score_at: Literal["end", "after_end"] = "end"
    """Token that the score is paid on: the last one (EOS), or the padding after it (TRL)."""
    missing_eos: Literal["keep", "subtract", "replace", "length"] = "keep"
    """A response without EOS: keeps its score; `missing_eos_value` is subtracted from it or
    takes its place; length: every response pays up to that much for its last `length_tail`."""
    missing_eos_value: Sweep = 1.0
    length_tail: int = 4
    """Tokens before the limit over which the length penalty rises from 0 to its full size."""
    time_limit: Literal["ends", "bootstraps"] = "ends"
    """Value after a response that the limit cut off: 0, or the critic's V(s_T)."""
    kl: Literal["k1_in_reward", "k2_in_loss", "k3_in_loss", "exact_in_loss", "exact"] = (
        "k1_in_reward"
    )
    """Where the KL penalty is paid and by which estimator; exact is paid in both."""
    whiten_rewards: bool = False
    """Divides the rewards of tokens by their deviation over the batch; the mean stays."""
    whiten_advantages: bool = True
    """Mean 0 and deviation 1 over the tokens of the batch."""
    average: Literal["tokens", "sequences", "constant"] = "tokens"
    """What the loss is a mean over: all tokens, a response's tokens and then responses, or
    tokens divided by batch × longest response."""
    accumulate: int = 1
    """Parts that a minibatch's gradient is summed over, to save memory; changes no number."""
    critic: Literal["separate", "shared"] = "separate"
    """Its own network, or a head on the policy's trunk."""
    critic_start: Literal["zero", "reward", "normal"] = "zero"
    """Head of the critic before the first step: 0, the reward model's (with its trunk, if
    separate), or N(0, 1/√(width + 1))."""
    value_weight: Sweep = 0.1
    """Weight of the value loss beside the policy's on a shared trunk."""
    dual_clip: Sweep = float("inf")
    """c > 1: where Â < 0 the loss of a token is at most c |Â|."""
    log_ratio_clamp: Sweep = float("inf")
    """Largest |log π − log π_old| that the ratio is taken of; no gradient beyond it."""
    stop_kl: float = float("inf")
    """An iteration stops updating at the first minibatch with more nats per token (k2)."""
    adam_epsilon: Literal["corrected", "tensorflow"] = "corrected"
    """ε is added to √v̂ after bias correction (Kingma & Ba, PyTorch), or to √v before it."""
    top_k: int = 0
    top_p: float = 1.0
    """Refused here unless 0 and 1: the ratio would compare another distribution than acted."""


@dataclass(frozen=True)
class Reinforce:
    """Step 3 without a critic: REINFORCE with the baseline of the other samples (RLOO)."""

    iterations: int = 40
    batch: int = 128
    """Episodes per iteration, one optimiser step."""
    group: int = 4
    """Samples of one prompt, each the others' baseline; 1: all other episodes are it."""
    temperature: Sweep = 1.0
    kl_weight: Sweep = 0.05
    adam: Adam = field(default_factory=lambda: Adam(warmup=0, final=1.0, eps=1e-5))


@dataclass(frozen=True)
class GRPO:
    """Step 3 with a group's scores for a baseline and the KL (k3) in the loss."""

    iterations: int = 40
    batch: int = 128
    group: int = 8
    epochs: int = 1
    minibatches: int = 1
    temperature: Sweep = 1.0
    kl_weight: Sweep = 0.04
    clip: Sweep = 0.2
    deviation: bool = True
    """Divides by the group's deviation; false with average = constant is Dr. GRPO."""
    average: Literal["tokens", "sequences", "constant"] = "sequences"
    adam: Adam = field(default_factory=lambda: Adam(warmup=0, final=1.0, eps=1e-5))


@dataclass(frozen=True)
class DPO:
    """Steps 2 and 3 in one: the policy is fitted to the comparisons themselves."""

    iterations: int = 200
    """Optimiser steps per round."""
    batch: int = 128
    """Comparisons per step."""
    loss: Literal["dpo", "ipo"] = "dpo"
    kl_weight: Sweep = 0.1
    """β of DPO, τ of IPO."""
    smoothing: Sweep = 0.0
    """Share of each label that a coin takes the place of (dpo)."""
    adam: Adam = field(default_factory=lambda: Adam(warmup=0, final=1.0))


@dataclass(frozen=True)
class BestOfN:
    """Samples of the reference, the best of each `n` kept; and imitation of those."""

    iterations: int = 200
    """Optimiser steps per round."""
    n: int = 4
    batch: int = 128
    """Best samples per step: batch × n are drawn."""
    temperature: Sweep = 1.0
    adam: Adam = field(default_factory=lambda: Adam(warmup=0, final=1.0))


@dataclass(frozen=True)
class Evaluate:
    """What is measured before and after: samples of each policy, scored by gold."""

    samples: int = 512
    """Sampled responses per seed."""
    top_k: int = 0
    """Only the k most probable symbols are drawn when samples are measured; 0: all. Their KL is
    that of what is drawn to the whole reference."""
    top_p: float = 1.0
    """Only the most probable symbols that hold this probability are drawn; 1: all."""
    best_of: int = 0
    """Samples of θ_ref in the pool that best-of-n is estimated from, for n up to a quarter of it;
    0: none."""
    shown: int = 40
    """Sampled responses per seed that are written to samples.jsonl."""


@dataclass(frozen=True)
class Run:
    """Where a run lives and how it is executed; nothing here changes its numbers."""

    directory: str = "runs"
    chunk: int = 10
    """Steps of the policy's learner per compiled call, and so between two looks at the display."""
    checkpoint_seconds: float = 60.0
    """Least time between two checkpoints; 0 writes one after every call."""
    keep: int = 2
    """Checkpoints kept."""
    devices: int = 0
    """Devices used; 0 takes all (on a CPU: one virtual device per core)."""
    seeds_by: Literal["auto", "vmap", "map"] = "auto"
    """How one device runs several seeds: at once (vmap, accelerators) or in turn (map, CPU)."""
    cache: str = ""
    """Folder of compiled programs; empty takes the user's cache folder, 'none' keeps none."""


@dataclass(frozen=True)
class Config:
    """One RLHF run: a world, its people and the four steps, for a population of seeds."""

    name: str = "run"
    seeds: int = 8
    first_seed: int = 0
    rounds: int = 1
    """How often collect → fit → optimise is repeated."""
    learner: Literal["ppo", "reinforce", "grpo", "dpo", "imitation"] = "ppo"
    """What optimises the policy; its settings are the section of that name (imitation of the
    best of n: `bestofn`). dpo learns from the comparisons themselves."""
    world: World = field(default_factory=World)
    model: Model = field(default_factory=Model)
    human: Human = field(default_factory=Human)
    """What people are like, all of them or all but the `groups`."""
    groups: dict[str, Group] = field(default_factory=dict)
    """People who differ, by a name of your choice."""
    pretrain: Pretrain = field(default_factory=Pretrain)
    collect: Collect = field(default_factory=Collect)
    reward: Reward = field(default_factory=Reward)
    ppo: PPO = field(default_factory=PPO)
    reinforce: Reinforce = field(default_factory=Reinforce)
    grpo: GRPO = field(default_factory=GRPO)
    dpo: DPO = field(default_factory=DPO)
    bestofn: BestOfN = field(default_factory=BestOfN)
    evaluate: Evaluate = field(default_factory=Evaluate)
    run: Run = field(default_factory=Run)


SECTIONS = (
    *(World, Model, Adam, Human, Group, Pretrain, Collect, Reward, PPO, Evaluate, Run, Config),
    *(Reinforce, GRPO, DPO, BestOfN),
)


def is_sweep(f: dataclasses.Field[Any]) -> bool:
    """True for the fields that a compiled program takes as an argument."""
    return f.type == "Sweep"


def is_named(f: dataclasses.Field[Any]) -> bool:
    """True for the fields that hold such arguments, or sections of them, by name."""
    return f.type in ("Named", "dict[str, Group]")


def is_data(f: dataclasses.Field[Any]) -> bool:
    """True for what a compiled program takes as an argument or holds by name."""
    return is_sweep(f) or is_named(f)


def reaches(value: Any) -> bool:
    """Whether a `Sweep` is anywhere other than 0."""
    return any(v != 0 for v in (value if isinstance(value, tuple) else (value,)))


def sweeps(config: Any) -> tuple[str, ...]:
    """The dotted paths of all `Sweep` fields, swept or not."""
    return tuple(path for path, _, data in _walk(config, "", False) if data)


def leaves(config: Any, prefix: str = "") -> dict[str, Any]:
    """The configuration as {dotted path: value}."""
    return {path: value for path, value, _ in _walk(config, prefix, False)}


def _walk(value: Any, path: str, data: bool) -> Iterator[tuple[str, Any, bool]]:
    """(dotted path, value, whether it is data) of every leaf below `path`."""
    if dataclasses.is_dataclass(value):
        for f in dataclasses.fields(value):
            inner = is_data(f)
            yield from _walk(getattr(value, f.name), f"{path}{f.name}.", inner)
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _walk(inner, f"{path}{name}.", data)
    else:
        yield path[:-1], value, data


def mapped(change: Callable[[str, Any], Any], config: Any, path: str = "") -> Any:
    """`config` with every `Sweep` leaf as `change(dotted path, value)` says."""

    def inner(value: Any, path: str, data: bool) -> Any:
        if dataclasses.is_dataclass(value):
            return mapped(change, value, path + ".")
        if isinstance(value, dict):
            return {k: inner(v, f"{path}.{k}", data) for k, v in value.items()}
        return change(path, value) if data else value

    own = {}
    for f in dataclasses.fields(config):
        own[f.name] = inner(getattr(config, f.name), path + f.name, is_data(f))
    return dataclasses.replace(config, **own)


def swept(config: Any, prefix: str = "") -> dict[str, tuple[float, ...]]:
    """The axes of the grid: every `Sweep` field that holds a tuple."""
    return {k: v for k, v in leaves(config, prefix).items() if isinstance(v, tuple)}
