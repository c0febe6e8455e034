"""Studies whose runs are files with known numbers: nothing is computed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_jax import config as cfg
from rlhf_jax import grid
from rlhf_jax.config import Config, Human, World
from rlhf_jax.expectations import Differs, Trend
from rlhf_jax.studies import plan
from rlhf_jax.study import Axis, Metric, Study

Values = Callable[[str, int, int], dict[str, Any]]
"""(arm, point, seed) → what the last evaluation measured"""


def make_study(**changes: Any) -> Study:
    """Two arms over four lapse rates, eight seeds, in runs of at most eight members."""
    settings: dict[str, Any] = {
        "name": "made",
        "atlas": "A3",
        "title": "Careless answers",
        "question": "What does carelessness cost?",
        "arms": {"plain": Config(), "checked": Config(human=Human(flip=0.1))},
        "axis": Axis("human.lapse", (0.0, 0.2, 0.4, 0.6), "careless answers", "share"),
        "seeds": 8,
        "population": 8,
        "metrics": (
            Metric("gold", "gold of samples", "rating"),
            Metric("curve", "gold", metric="bestofn/gold", round=0),
        ),
        "expectations": (
            Trend(
                "gold",
                "plain",
                "decreases",
                by=0.2,
                source="Coste et al.",
                stated="before",
                primary=True,
            ),
            Differs("gold", "checked", "plain", "higher", stated="after", primary=True),
        ),
        "control": Differs(
            "gold", "plain", "plain", "lower", 0.2, 0.6, 0.0, stated="before", source="it must"
        ),
        "compare_with": "Coste et al. found 25 % noise to matter.",
    }
    return Study(**(settings | changes))


def write_runs(study: Study, root: Path, values: Values) -> None:
    """Every run of the study as a finished run leaves it."""
    for chunk in plan.chunks(study, root):
        chunk.directory.mkdir(parents=True)
        members = grid.members(chunk.config)
        assert len(members) == chunk.members
        found = [values(chunk.arm, p, s) for p in chunk.points for s in chunk.seeds]
        columns = {k: [row[k] for row in found] for k in found[0]}
        rows = [{"stage": "evaluate", "round": r, "step": 0, **columns} for r in range(2)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (chunk.directory / "metrics.jsonl").write_text(text)
        (chunk.directory / "config.json").write_text(json.dumps(cfg.leaves(chunk.config)))
        (chunk.directory / "metadata.json").write_text(
            json.dumps(
                {
                    "finished": "2026-11-23T00:00:00Z",
                    "members": [m._asdict() for m in members],
                    "versions": {"jax": "0.10.2"},
                    "git_revision": "abc",
                    "devices": ["cpu:cpu"],
                }
            )
        )


def effect(arm: str, point: int, seed: int) -> dict[str, Any]:
    """Gold falls by 1 over the axis in `plain` and by half of it in `checked`."""
    noise = np.random.default_rng([seed, point, len(arm)]).normal() * 0.1
    gold = -(1.0 if arm == "plain" else 0.5) * point / 3 + noise + 0.3 * (seed % 3)
    return {"eval/gold_sampled": gold, "bestofn/gold": [gold, gold + 1, gold + 2]}


def probe(**changes: Any) -> Config:
    """A configuration that really runs, in about a second once compiled."""
    settings: dict[str, Any] = {
        "world": World(name="probe", length=2, symbols=3),
        "model": cfg.Model(width=8, layers=1, heads=2, kv_heads=1, mlp=16),
        "pretrain": cfg.Pretrain(epochs=2, batch=8),
        "collect": cfg.Collect(budget=32, corpus_share=1.0),
        "reward": cfg.Reward(steps=4, look=2, batch=8),
        "ppo": cfg.PPO(iterations=2, batch=8, epochs=1, minibatches=1),
        "evaluate": cfg.Evaluate(samples=16, shown=0),
        "run": cfg.Run(chunk=1, cache="none"),
    }
    return Config(**(settings | changes))
