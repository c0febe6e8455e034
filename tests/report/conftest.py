"""Synthetic run directories whose numbers are known."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf_jax import config as cfg

Rows = list[dict[str, Any]]
BINS = (np.arange(10) + 0.5) / 10


def _metrics(members: int, rounds: int, change: np.ndarray) -> Rows:
    """Gold moves by `change` [members] over the run in equal steps; KL is (2 · progress)²."""
    rows: Rows = []
    own = np.linspace(-0.1, 0.1, members)

    def add(stage: str, round_: int, step: int, **metrics: Any) -> None:
        named = {k.replace("__", "/"): np.asarray(v).tolist() for k, v in metrics.items()}
        rows.append({"stage": stage, "round": round_, "step": step, **named})

    def evaluate(round_: int) -> None:
        progress = round_ / rounds
        add(
            "evaluate", round_, 0,
            eval__gold_sampled=own + progress * change,
            eval__gold_greedy=own + progress * change + 0.5,
            eval__proxy_sampled=own * 0.1 + 3.0 * progress,
            eval__nonword_share=np.full(members, 0.7 - 0.68 * progress),
            eval__distinct_share=np.full(members, 0.9 - 0.2 * progress),
            eval__kl_exact=np.full(members, 4.0 * progress),
        )  # fmt: skip

    for step in range(30):
        add("pretrain", 0, step, loss__nll=[3.0 - step / 30])
    evaluate(0)
    for r in range(rounds):
        for step in range(8):
            loss = {"loss__reward": 0.7 - own, "loss__reward_held_back": 0.72 - own}
            add("reward", r, step, train__accuracy=0.6 + own, **loss)
        add(
            "measure", r, 0,
            reward__accuracy_heldout=0.82 + 0.1 * own,
            reward__ceiling_human=np.full(members, 0.82),
            reward__ceiling_mean=np.full(members, 0.89),
            reward__ece=np.full(members, 0.02),
            reward__calibration_predicted=np.tile(BINS, (members, 1)),
            reward__calibration_observed=np.tile(BINS, (members, 1)),
            reward__calibration_weight=np.full((members, 10), 0.1),
        )  # fmt: skip
        for step in range(10):
            progress = (r + step / 10) / rounds
            add(
                "policy", r, step,
                objective__kl_exact=np.full(members, (2.0 * progress) ** 2),
                objective__gold=own + progress * change,
                objective__scores=own * 0.1 + 3.0 * progress,
                objective__entropy=np.full(members, 17.0 - 3.0 * progress),
                objective__nonword_share=np.full(members, 0.7 - 0.68 * progress),
                policy__clipfrac_avg=np.full(members, 0.1),
            )  # fmt: skip
        evaluate(r + 1)
    return rows


def _samples(members: int, rounds: int) -> Rows:
    texts = {"before": ("zorb", "nice", "sad"), "after": ("love", "love", "blesst")}
    gold = {"nice": 1.5, "sad": -2.1, "love": 3.2}
    return [
        {
            "when": when, "round": rounds if when == "after" else 0, "decoding": decoding,
            "member": m, "text": text, "reward": 0.5, "gold": gold.get(text, -1.0),
            "rated": text in gold,
        }
        for m in range(members)
        for when in ("before", "after")
        for decoding, few in (("sampled", 3), ("greedy", 1))
        for text in texts[when][:few]
    ]  # fmt: skip


def write_rows(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """make_run(seeds, kl_weights, rounds, change) → a finished run directory."""

    def make(
        seeds: int = 8,
        kl_weights: tuple[float, ...] = (),
        rounds: int = 2,
        change: float = 2.0,
        name: str = "run",
    ) -> Path:
        ppo = cfg.PPO(kl_weight=kl_weights) if kl_weights else cfg.PPO()
        config = dataclasses.replace(
            cfg.Config(name=name, seeds=seeds, rounds=rounds),
            ppo=ppo,
            pretrain=cfg.Pretrain(shared=False),
        )
        points: list[dict[str, float]] = [{"ppo.kl_weight": w} for w in kl_weights] or [{}]
        members = [{"seed": s, "point": p} for p in points for s in range(seeds)]
        # Each grid point moves gold by one less than the one before it.
        changes = np.repeat(change - np.arange(len(points)), seeds)
        changes = changes + np.tile(np.linspace(-0.05, 0.05, seeds), len(points))
        directory = tmp_path / f"made-{len(list(tmp_path.iterdir()))}"
        directory.mkdir()
        (directory / "config.json").write_text(json.dumps(cfg.leaves(config)))
        metadata = {
            "name": name, "command": "rlhf-jax train x", "seconds": 221.4,
            "started": "2025-01-05T10:12:00Z", "finished": "2025-01-05T10:15:41Z",
            "versions": {"jax": "0.10.2"}, "git_revision": "c0cf0ea", "devices": ["cpu:cpu"],
            "members": members, "base": "pretrained for 12 epochs, one for each seed",
            "data": {"ratings": "a lexicon (MIT)", "ratings_per_word": 10, "gold": "mean rating"},
        }  # fmt: skip
        (directory / "metadata.json").write_text(json.dumps(metadata))
        write_rows(directory / "metrics.jsonl", _metrics(len(members), rounds, changes))
        write_rows(directory / "samples.jsonl", _samples(len(members), rounds))
        return directory

    return make


@pytest.fixture
def edit_rows() -> Callable[..., None]:
    """edit_rows(directory, function): every metrics row becomes function(row); None drops it."""

    def edit(directory: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
        path = directory / "metrics.jsonl"
        changed = (change(json.loads(line)) for line in path.read_text().splitlines())
        write_rows(path, [row for row in changed if row is not None])

    return edit
