"""What a study is: a question, arms × an axis × seeds, what is measured, what is expected.

Data only, and free of JAX: `configs/studies/<id>.py` defines one `study = Study(...)` and
`rlhf-jax study <id>` runs it. What runs it is in `rlhf_jax.studies`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rlhf_jax import config as cfg
from rlhf_jax.config import Config, ConfigError
from rlhf_jax.expectations import PRIMARY, Expectation

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+=-]*")
"""Names become folders."""
FRESH = 1000
"""The first seed of a study's confirmation: beyond those of every study."""


@dataclass(frozen=True)
class Axis:
    """The severity that a study turns up, step by step, in every arm.

    Where `path` is one `Sweep` field, all points are one population and one compile; otherwise
    (whole numbers, names, sections, several fields at once) every point is a run of its own.
    """

    path: str | tuple[str, ...]
    """Dotted path into the `Config`, or several that move together."""
    points: tuple[Any, ...]
    """Values of the field; of all the fields, a tuple each, where there are several paths."""
    label: str
    unit: str = ""
    scale: Literal["linear", "log"] = "linear"
    at: tuple[float, ...] = ()
    """Where the points lie; empty takes their own values (the first of several)."""
    names: tuple[str, ...] = ()
    """What the points are called; empty writes where they lie."""

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,) if isinstance(self.path, str) else self.path

    def values(self, point: int) -> tuple[Any, ...]:
        """One value for each path."""
        value = self.points[point]
        return (value,) if isinstance(self.path, str) else tuple(value)

    @property
    def positions(self) -> tuple[float, ...]:
        """[points]: numbers, for trends and figures."""
        if self.at:
            return self.at
        first = [self.values(i)[0] for i in range(len(self.points))]
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in first):
            return tuple(float(v) for v in first)
        return tuple(float(i) for i in range(len(first)))

    @property
    def titles(self) -> tuple[str, ...]:
        """[points]: words."""
        if self.names:
            return self.names
        first = [self.values(i)[0] for i in range(len(self.points))]
        if not self.at and all(isinstance(v, str | bool) for v in first):
            return tuple(str(v) for v in first)
        return tuple(f"{v:g}" for v in self.positions)


@dataclass(frozen=True)
class Metric:
    """A number (or an array) for each member of a run, and where the run wrote it."""

    name: str
    """What expectations call it."""
    label: str
    unit: str = ""
    """Where it is `share`, the metric lies in [0, 1], and its intervals are cut there."""
    stage: str = "evaluate"
    metric: str = "eval/gold_sampled"
    round: int | Literal["last", "all"] = "last"
    step: int | Literal["last", "all"] = "last"
    """Counted within the round; "all" gives [steps] for each member."""
    better: Literal["higher", "lower"] = "higher"
    derive: Callable[[Any], Any] | None = None
    """Takes the place of stage … step: one run's `report.records.Record` → [members, …]."""
    shown: bool = True
    """In the page's figures and tables; arrays never are, `Study.analyse` may show them."""

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which its values lie."""
        return (0.0, 1.0) if self.unit == "share" else (-math.inf, math.inf)


@dataclass(frozen=True)
class Quick:
    """The short form of a study: `--quick`."""

    seeds: int = 4
    points: tuple[int, ...] = ()
    """Indices of the axis's points that are kept; empty: all."""
    arms: tuple[str, ...] = ()
    """Kept arms; empty: all."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """{dotted path: value} set in every arm."""


@dataclass(frozen=True)
class Study:
    """A question about RLHF, answered with intervals over seeds."""

    name: str
    title: str
    question: str
    arms: Mapping[str, Config]
    metrics: tuple[Metric, ...]
    """The first is the study's figure in the atlas."""
    axis: Axis | None = None
    """None: the arms alone are compared."""
    seeds: int = 16
    first_seed: int = 0
    expectations: tuple[Expectation, ...] = ()
    """At most `PRIMARY` of them primary."""
    control: Expectation | None = None
    """The positive control, of a study that expects something: an effect that must be found if
    the machine works. Judged by the same rule, by itself."""
    compare_with: str = ""
    """Whose finding this is set beside, and what they found."""
    baseline: str = ""
    """Arm that the others are compared with; empty takes the first."""
    atlas: str = ""
    """Row of the atlas, `A3`."""
    quick: Quick = field(default_factory=Quick)
    analyse: Callable[[Any], Any] | None = None
    """`studies.results.Results` → `Analysis`: further figures, tables and measured metrics, of
    which expectations may speak."""
    own: Mapping[str, Any] = field(default_factory=dict)
    """Arm → `own.Own`: what is passed in in the place of what its configuration names."""
    population: int = 64
    """Members (points × seeds) of one run at most: more seeds are further runs. Bounds memory
    and what a kill can cost; never taken from the machine, so that directories stay valid."""

    def __post_init__(self) -> None:
        _require(bool(_NAME.fullmatch(self.name)), f"name = {self.name!r}: must be a folder name")
        _require(len(self.arms) > 0, f"{self.name}: a study needs an arm")
        _require(len(self.metrics) > 0, f"{self.name}: a study needs a metric")
        _require(self.seeds >= 1, f"{self.name}: seeds = {self.seeds}: must be at least 1")
        _require(
            self.population >= 1, f"{self.name}: population = {self.population}: at least 1 member"
        )
        for arm, config in self.arms.items():
            _require(bool(_NAME.fullmatch(arm)), f"{self.name}: arm {arm!r} must be a folder name")
            for path in cfg.swept(config):
                raise ConfigError(
                    f"{self.name}: {path} of arm {arm} is a list; only the axis may vary in an arm"
                )
        strangers = [arm for arm in self.own if arm not in self.arms]
        _require(not strangers, f"{self.name}: own speaks of {strangers}, which are no arms")
        names = [m.name for m in self.metrics]
        _require(len(set(names)) == len(names), f"{self.name}: two metrics have one name: {names}")
        for arm in (self.baseline, *self.quick.arms):
            _require(
                not arm or arm in self.arms,
                f"{self.name}: no arm {arm!r}: there are {', '.join(self.arms)}",
            )
        if self.axis is not None:
            _check_axis(self.name, self.axis)
        first = sum(e.primary for e in self.expectations)
        _require(
            first <= PRIMARY,
            f"{self.name}: {first} primary expectations: a study may have {PRIMARY}",
        )
        _require(
            self.control is not None or not self.expectations,
            f"{self.name}: a study that expects something needs a positive control",
        )

    @property
    def reference(self) -> str:
        """The arm that the others are compared with."""
        return self.baseline if self.baseline in self.arms else next(iter(self.arms))

    @property
    def positions(self) -> tuple[float, ...]:
        return self.axis.positions if self.axis else (0.0,)

    @property
    def points(self) -> int:
        return len(self.positions)

    @property
    def axis_name(self) -> str:
        """`share of careless answers (%)`"""
        if self.axis is None:
            return "the study"
        return f"{self.axis.label} ({self.axis.unit})" if self.axis.unit else self.axis.label


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise ConfigError(message)


def _check_axis(study: str, axis: Axis) -> None:
    n = len(axis.points)
    _require(n > 0, f"{study}: the axis has no points")
    for name in ("at", "names"):
        given = getattr(axis, name)
        _require(
            len(given) in (0, n), f"{study}: axis.{name} has {len(given)} entries for {n} points"
        )
    for i in range(n):
        _require(
            len(axis.values(i)) == len(axis.paths),
            f"{study}: point {axis.points[i]!r} of the axis has not one value for each of "
            f"{', '.join(axis.paths)}",
        )
    titles = axis.titles
    _require(len(set(titles)) == n, f"{study}: two points of the axis have one name: {titles}")
    if axis.scale == "log":
        _require(min(axis.positions) > 0, f"{study}: a logarithmic axis needs points above 0")


def field_at(config: Any, path: str) -> dataclasses.Field[Any]:
    """The field at a dotted path, or the one that holds what the path names. Raises `ConfigError`
    if there is none."""
    at, section, found = config, "", None
    for name in path.split("."):
        fields = {f.name: f for f in dataclasses.fields(at)} if dataclasses.is_dataclass(at) else {}
        named = isinstance(at, dict) and (
            name in at or (found is not None and found.type == "Named")
        )
        if name not in fields and not named:
            raise ConfigError(f"{path}: {section or 'the configuration'} has no field {name!r}")
        found = fields.get(name, found)
        at = at.get(name, 0.0) if isinstance(at, dict) else getattr(at, name)
        section = f"{section}.{name}".lstrip(".")
    assert found is not None
    return found


def replaced(config: Any, path: str, value: Any) -> Any:
    """`config` with the field at a dotted path set. Raises `ConfigError` if there is none."""
    field_at(config, path)
    return _replaced(config, path, value)


def _replaced(at: Any, path: str, value: Any) -> Any:
    head, _, rest = path.partition(".")
    if isinstance(at, dict):
        return at | {head: _replaced(at[head], rest, value) if rest else value}
    inner = _replaced(getattr(at, head), rest, value) if rest else value
    return dataclasses.replace(at, **{head: inner})


def quickened(study: Study) -> Study:
    """The study that `--quick` runs, under a name of its own."""
    quick, axis, arms = study.quick, study.axis, {}
    for arm, config in study.arms.items():
        for path, value in quick.settings.items():
            config = replaced(config, path, value)
        if not quick.arms or arm in quick.arms:
            arms[arm] = config
    if axis is not None and quick.points:
        wrong = [i for i in quick.points if not 0 <= i < len(axis.points)]
        _require(not wrong, f"{study.name}: quick.points has {wrong} of {len(axis.points)} points")
        keep = lambda values: tuple(values[i] for i in quick.points) if values else ()
        axis = dataclasses.replace(
            axis, points=keep(axis.points), at=keep(axis.at), names=keep(axis.names)
        )
    return dataclasses.replace(
        study,
        name=f"{study.name}-quick",
        title=f"{study.title}: short form",
        arms=arms,
        own={arm: own for arm, own in study.own.items() if arm in arms},
        axis=axis,
        seeds=quick.seeds,
    )


def fresh(study: Study) -> Study:
    """The study's confirmation, under a name of its own: the same on seeds that nobody has seen.

    There its claims are stated before their data, whenever they were made.
    """
    _require(
        study.first_seed + study.seeds <= FRESH,
        f"{study.name}: its own seeds reach {FRESH}, where fresh ones begin",
    )
    return dataclasses.replace(
        study,
        name=f"{study.name}-fresh",
        title=f"{study.title}: fresh seeds",
        first_seed=FRESH,
        expectations=tuple(dataclasses.replace(e, stated="before") for e in study.expectations),
    )


def shuffled(study: Study) -> Study:
    """The study's negative control, under a name of its own: answers are dealt anew over items.

    What is found all the same is no effect of what people say about a sample.
    """
    arms = {arm: replaced(config, "collect.shuffled", True) for arm, config in study.arms.items()}
    return dataclasses.replace(
        study,
        name=f"{study.name}-shuffled",
        title=f"{study.title}: shuffled answers",
        question=f"{study.question} Here answers are dealt anew over the items, so that no claim "
        "about what people say should be supported, nor a positive control found that is about it; "
        "claims about optimising any reward may be.",
        arms=arms,
    )
