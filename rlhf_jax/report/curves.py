"""Learning curves of every stage."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np

from rlhf_jax.report import drawing
from rlhf_jax.report.drawing import Content, Panel
from rlhf_jax.report.figures import banded, colours, legend
from rlhf_jax.report.intervals import thinned
from rlhf_jax.report.records import Record, Series
from rlhf_jax.report.wording import rated, valued

POINTS = 200
"""Longer curves are shown as means of blocks of steps: about this many points."""


class Curve(NamedTuple):
    """A metric worth watching."""

    stage: str
    metric: str
    title: str
    unit: str
    colour: str = drawing.PLAIN


PRETRAIN = (Curve("pretrain", "loss/nll", "Pretraining loss", "nats per token"),)
REWARD = (
    Curve("reward", "loss/reward", "Reward loss", "nats per answer"),
    Curve("reward", "loss/reward_held_back", "Loss of answers held back", "nats per answer"),
    Curve("reward", "train/accuracy", "Reward accuracy in training", "share of pairs"),
)


def policy(record: Record) -> tuple[Curve, ...]:
    """What the policy's learner is watched by."""
    nonwords = Curve("policy", "objective/nonword_share", "Non-words", "share of samples")
    gold = Curve("policy", "objective/gold", "Gold", record.gold_unit, drawing.GOLD)
    return (
        *([gold] if valued(record.config) else []),
        Curve("policy", "objective/scores", "Proxy", "deviations of π_ref", drawing.PROXY),
        Curve("policy", "objective/kl_exact", "KL from the reference", "nats per response"),
        Curve("policy", "objective/entropy", "Entropy", "nats per response"),
        Curve("policy", "policy/clipfrac_avg", "Clipped ratios", "share of tokens"),
        *([nonwords] if rated(record.config) else []),
    )


def _segments(series: Series, block: int) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Thinned within each round and cut between rounds: x [M], values [M, members], the cuts."""
    xs: list[np.ndarray] = []
    values: list[np.ndarray] = []
    cuts: list[float] = []
    for round_ in np.unique(series.rounds):
        rows = series.rounds == round_
        x = thinned(series.steps[rows].astype(float)[:, None], block)[:, 0]
        if xs:
            cuts.append(float(series.steps[rows][0]) - 0.5)
            xs.append(np.asarray(cuts[-1:]))
            values.append(np.full((1, series.values.shape[1]), np.nan))
        xs.append(x)
        values.append(thinned(series.values[rows], block))
    return np.concatenate(xs), np.concatenate(values), cuts


def _panel(record: Record, curve: Curve) -> Panel:
    series = record.metrics[curve.stage, curve.metric]
    block = math.ceil(len(series.steps) / POINTS)
    x, values, cuts = _segments(series, block)
    thin = series._replace(values=values)
    shared = series.values.shape[1] == 1 < sum(len(p.columns) for p in record.points)
    content = [
        drawing.Line(x, thin.of(point), colour)
        for point, colour in zip(record.points, colours(record, curve.colour), strict=True)
    ]
    if shared:
        content = [drawing.Line(x, values, curve.colour)]
    notes = ["One model, shared by all seeds: no interval."] if shared else []
    notes += [f"Means of {block} steps."] if block > 1 else []
    share = curve.unit.startswith("share")
    notes += ["The band of a share is cut at 0 and 1."] if share and banded(record) else []
    draw = partial(
        drawing.lines,
        content=content,
        xlabel="iteration" if curve.stage == "policy" else "step",
        ylabel=curve.unit,
        bands=banded(record),
        marks=cuts,
        within=drawing.SHARE if share else drawing.ANY,
    )
    name = f"curve-{curve.stage}-{curve.metric.replace('/', '-')}"
    return drawing.panel(name, curve.title, " ".join(notes), draw, () if shared else legend(record))


def curves(record: Record, wanted: tuple[Curve, ...]) -> Content:
    """One panel for each metric that the run has; a line for each that it has not."""
    panels: list[Panel] = []
    missing: list[str] = []
    for curve in wanted:
        if (curve.stage, curve.metric) in record.metrics:
            panels.append(_panel(record, curve))
        else:
            missing.append(f"{curve.title}: the run has no {curve.metric} of stage {curve.stage}.")
    return Content(panels, missing)
