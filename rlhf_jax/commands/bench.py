"""How fast things are, in JSON lines.

    rlhf-jax bench ppo --size M --seeds 2
    rlhf-jax bench reward --size S
    rlhf-jax bench elicit

Models have random weights, prompts are random, responses of full length, all float32; policy,
value, reward and reference are four models. `--seeds N` is a population spread over the devices
as the pipeline does it. Numbers are medians; `load` is the machine's load before, so that a
noisy run shows; `cores` is how many were busy.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import tyro

from rlhf_jax import cli
from rlhf_jax.commands.timing import (
    age,
    matmul_rate,
    peak_gigabytes,
    processor_seconds,
    say,
    timed,
)

PROG = "rlhf-jax bench"


@dataclass(frozen=True)
class Settings:
    """What the benchmarks of models are told."""

    size: Literal["XS", "S", "M", "135M"] = "S"
    seeds: int = 1
    iterations: int = 5
    """Timed; the first after compiling is not."""
    devices: int = 0
    """0: one virtual device per core on a CPU, all there are elsewhere."""
    by: Literal["map", "vmap"] = "map"
    """How one device runs several seeds."""
    cache: str = ""
    """A folder of compiled programs to read and fill; empty: none."""


@dataclass(frozen=True)
class PPO(Settings):
    """One PPO iteration: rollout, scoring and all epochs."""

    critic: Literal["separate", "shared"] = "separate"
    minibatches: int = 1
    parts: bool = True
    """Also times rollout, scoring and one update as programs of their own (one seed)."""


@dataclass(frozen=True)
class Reward(Settings):
    """Fitting a reward model to comparisons, all of it trained."""

    pairs: int = 32
    """Comparisons in a step."""
    steps: int = 8
    """Steps of one call, as a fit makes them (`transforms.repeat`)."""


@dataclass(frozen=True)
class Elicit:
    """People answering comparisons, all in one call."""

    people: int = 64
    answers: int = 1_000_000
    """Of all of them together."""


def prepare(settings: Settings) -> list[Any]:
    """The devices to run on. To be called before the first computation."""
    import jax

    if os.environ.get("JAX_PLATFORMS", "cpu") == "cpu":
        cores = len(os.sched_getaffinity(0))
        jax.config.update("jax_num_cpu_devices", settings.devices or cores)
    if settings.cache:
        jax.config.update("jax_compilation_cache_dir", settings.cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    return jax.devices()[: settings.devices or None]


def measure(settings: Settings, kernel: Any, start: tuple, batch: Any) -> tuple[float, dict]:
    """Median seconds of a call, and what both benchmarks say of a run."""
    import jax

    from rlhf_jax.mesh import population_mesh
    from rlhf_jax.transforms import population, shard

    load, devices = os.getloadavg()[0], prepare(settings)
    mesh = population_mesh(settings.seeds, devices)
    many = shard(population(kernel, by=settings.by, batch_axes=None), mesh, batch_axes=None)
    state = many.init(*start)

    def step() -> Any:
        nonlocal state
        state, metrics = many.step(state, batch)
        return metrics

    begun = time.perf_counter()
    jax.block_until_ready(step())
    compiled, first = time.perf_counter() - begun, age()
    used = processor_seconds()
    times = timed(step, settings.iterations)
    used = processor_seconds() - used
    seconds = statistics.median(times)
    return seconds, {
        "seeds": settings.seeds,
        "devices": len(devices),
        "by": settings.by,
        "seconds": seconds,
        "seconds_per_seed": seconds / settings.seeds,
        "fastest": min(times),
        "cores": used / sum(times),
        "compile_seconds": compiled - seconds,
        "start_to_first": first,
        "matmul_gflop_per_second": matmul_rate(),
        "peak_gigabytes": peak_gigabytes(),
        "load": load,
        "platform": devices[0].platform,
    }


def stacked(make: Callable[[Any], Any], seeds: int, salt: int) -> Any:
    import jax

    return jax.vmap(make)(jax.random.split(jax.random.key(salt), seeds))


def settings_of(section: Any, seeds: int) -> Any:
    import jax
    import jax.numpy as jnp

    return jax.tree.map(lambda x: jnp.full((seeds,), x, jnp.float32), section)


def ppo_bench(args: PPO) -> None:
    prepare(args)
    import jax
    import jax.numpy as jnp

    from rlhf_jax import config, grid, work
    from rlhf_jax.kernels import ppo, reward
    from rlhf_jax.kernels.experience import Given, Task
    from rlhf_jax.models import heads, shared
    from rlhf_jax.worlds import blank

    assert grid  # makes the configuration's sections pytrees
    size = work.SIZES[args.size]
    language = blank.language(size.vocabulary, size.response)
    policy, scalar = heads.policy(size.model, language), heads.scalar(size.model, language)
    prompt = partial(blank.prompt, vocabulary=size.vocabulary, length=size.prompt)
    score = lambda given, x: reward.score(scalar, given.judge, x)
    task = Task(policy, language, prompt, score, lambda *_: {})
    joint = shared.joint(size.model, language) if args.critic == "shared" else None
    hp = config.PPO(batch=size.batch, epochs=size.epochs, minibatches=args.minibatches)
    kernel = ppo.kernel(task, scalar, 1000, joint)

    @jax.jit
    def begin() -> tuple[tuple, Given]:
        first = lambda params: jax.tree.map(lambda x: x[0], params)
        rest = lambda params: jax.tree.map(lambda x: x[1:], params)
        policies = stacked(policy.init, args.seeds + 1, 2)
        scalars = stacked(scalar.init, args.seeds + 1, 3)
        keys = jax.random.split(jax.random.key(5), args.seeds)
        judge = reward.Judge(first(scalars), jnp.zeros(()), jnp.ones(()))
        start = (keys, settings_of(hp, args.seeds), rest(policies), rest(scalars))
        return start, Given(first(policies), judge, None)

    start, given = begin()
    seconds, about = measure(args, kernel, start, given)
    speed = {"tokens_per_second": args.seeds * size.batch * size.response / seconds}
    if joint is None:  # with one trunk less there is less to do
        least = args.seeds * work.iteration(size) / 1e9
        speed |= {"gflop": least, "gflop_per_second": least / seconds}
    how = {"critic": args.critic, "minibatches": args.minibatches}
    say(bench="ppo", size=args.size, **how, **about, **speed)
    if args.parts and args.seeds == 1 and joint is None:
        split(args, size, task, scalar, given, hp)


def split(args: PPO, size: Any, task: Any, scalar: Any, given: Any, hp: Any) -> None:
    """Rollout, scoring and the update of one epoch, each a program of its own on one device."""
    import jax

    from rlhf_jax import work
    from rlhf_jax.kernels import ppo, reward
    from rlhf_jax.kernels.sampling import log_distribution, sample
    from rlhf_jax.types import Prompts

    params, critic = given.reference, scalar.init(jax.random.key(3))
    keys = jax.random.split(jax.random.key(0), size.batch)
    asked = Prompts(*jax.vmap(partial(task.prompt, None))(keys))
    roll = jax.jit(lambda key: sample(task.policy, task.language, params, asked, key))
    drawn = roll(jax.random.key(1))
    x, zero = drawn.episode, drawn.logps * 0.0
    data = ppo.Experience(x, drawn.logps, zero, zero + 1.0, zero, None)

    def score(x: Any) -> tuple:
        reference = log_distribution(task.policy, given.reference, x)
        return reference, scalar.values(critic, x), reward.score(scalar, given.judge, x)

    def loss(both: tuple, data: Any) -> Any:
        part = ppo.whole(hp, data)
        log_p = log_distribution(task.policy, both[0], data.episode)
        values = scalar.values(both[1], data.episode)[:, :-1]
        return (
            ppo.policy_loss(hp, hp.kl_weight, log_p, part)[0] + ppo.value_loss(hp, values, part)[0]
        )

    w = work.work(size)
    parts = {
        "rollout": (roll, (jax.random.key(1),), w.prefill + w.decode * (size.response - 1)),
        "scoring": (jax.jit(score), (x,), w.scoring),
        "epoch": (jax.jit(jax.grad(loss)), ((params, critic), data), w.update),
    }
    for name, (run, given_to, least) in parts.items():
        jax.block_until_ready(run(*given_to))
        seconds = statistics.median(timed(partial(run, *given_to), args.iterations))
        speed = least / seconds / 1e9
        say(bench="ppo", part=name, size=args.size, seconds=seconds, gflop_per_second=speed)


def reward_bench(args: Reward) -> None:
    prepare(args)
    import jax
    import jax.numpy as jnp

    from rlhf_jax import config, grid, work
    from rlhf_jax.feedback.comparison import Comparison, bradley_terry
    from rlhf_jax.kernels import reward
    from rlhf_jax.mesh import spread
    from rlhf_jax.models import heads
    from rlhf_jax.transforms import repeat
    from rlhf_jax.types import Episode, Kernel, Prompts
    from rlhf_jax.worlds import blank

    assert grid  # makes the configuration's sections pytrees
    size = work.SIZES[args.size]
    language = blank.language(size.vocabulary, size.response)
    scalar = heads.scalar(size.model, language)

    def side(key: Any) -> Episode:
        ask, answer = jax.random.split(key)
        draw = lambda k, n: jax.random.randint(k, (args.pairs, n), 0, size.vocabulary - 1)
        full = lambda n: jnp.ones((args.pairs, n), bool)
        prompts = Prompts(draw(ask, size.prompt), full(size.prompt))
        return Episode(prompts, draw(answer, size.response), full(size.response))

    a, b = side(jax.random.key(0)), side(jax.random.key(1))
    answers = Comparison(a, b, jnp.ones(args.pairs), jnp.ones(args.pairs))
    fit = reward.kernel(reward.compare(scalar, bradley_terry), reward.penalty, 1000)
    kernel = Kernel(
        fit.init, lambda state, batch: repeat(fit, args.steps).step(state, spread(batch))
    )
    hps = settings_of(config.Reward(), args.seeds)
    keys = jax.random.split(jax.random.key(2), args.seeds)
    start = (keys, hps, stacked(scalar.init, args.seeds, 3))
    seconds, about = measure(args, kernel, start, answers)
    rate = args.seeds * args.pairs * args.steps / seconds
    speed = {"pairs_per_second": rate, "gflop_per_second": rate * work.pair(size) / 1e9}
    say(bench="reward", size=args.size, pairs=args.pairs, steps=args.steps, **about, **speed)


def elicit_bench(args: Elicit) -> None:
    import jax

    from rlhf_jax.feedback import benchmark

    load, begun = os.getloadavg()[0], time.perf_counter()
    ask = benchmark.crowd(args.people, args.answers)
    jax.block_until_ready(ask())
    made = time.perf_counter() - begun
    seconds = statistics.median(timed(ask, 7))
    how = {"people": args.people, "answers": args.people * (args.answers // args.people)}
    speed = {"seconds": seconds, "answers_per_second": how["answers"] / seconds}
    platform = jax.devices()[0].platform
    say(
        bench="elicit", **how, **speed, compile_seconds=made - seconds, load=load, platform=platform
    )


Command = (
    Annotated[PPO, tyro.conf.subcommand("ppo")]
    | Annotated[Reward, tyro.conf.subcommand("reward")]
    | Annotated[Elicit, tyro.conf.subcommand("elicit")]
)


def work(arguments: list[str]) -> None:
    args = cli.understood(Command, arguments, description=__doc__, prog=PROG)
    if isinstance(args, Elicit):
        return elicit_bench(args)
    ppo_bench(args) if isinstance(args, PPO) else reward_bench(args)
