"""What a person watches: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

_SHOWN = {
    "pretrain": (("loss/nll", "nll"),),
    "collect": (("collect/asked_share", "asked"), ("collect/tie_share", "ties")),
    "reward": (("loss/reward", "loss"), ("train/accuracy", "accuracy")),
    "measure": (
        ("reward/accuracy_heldout", "held-out accuracy"),
        ("reward/ceiling_human", "human"),
    ),
    "policy": (
        ("objective/gold", "gold"),
        ("objective/scores", "proxy"),
        ("objective/kl_exact", "KL"),
    ),
    "evaluate": (("eval/gold_sampled", "gold"), ("eval/nonword_share", "non-words")),
}
"""The few numbers that matter in each stage."""
_INSTEAD = {"evaluate": (("eval/proxy_sampled", "proxy"), ("eval/kl_exact", "KL"))}
"""The same where a world has none of these."""


def numbers(stage: str, row: Mapping[str, Any]) -> str:
    """`gold 0.52  KL 3.10`: means over the members that have not diverged."""
    for said in (_SHOWN, _INSTEAD):
        shown = []
        for name, label in said.get(stage, ()):
            values = np.asarray(row.get(name, ()), np.float64)
            values = values[np.isfinite(values)]
            if values.size:
                shown.append(f"{label} {np.mean(values):.3g}")
        if shown:
            return "  ".join(shown)
    return ""


class Progress:
    """Shows stage, step, rate and time left. A context manager."""

    def __init__(self, work: Sequence[tuple[str, int, int]], done: int) -> None:
        """`work`: (stage, round, steps) of every call; `done`: calls made by an earlier start."""
        self._work, self._begin, self._said = work, time.monotonic(), 0.0
        self._seconds: dict[str, list[float]] = {}
        self._live: Any = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            self._live = Bar(
                TextColumn("[bold]{task.description:<24}"),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]:<12} {task.fields[said]}"),
                console=Console(stderr=True),
            )
            self._task = self._live.add_task("starting", total=len(work), left="", said="")
            self._live.update(self._task, completed=done)

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def starts(self, call: int) -> None:
        """Call number `call` has been handed to the machine."""
        stage, round_, _ = self._work[call]
        if self._live:
            self._live.update(self._task, description=f"{stage}, round {round_ + 1}")

    def ends(self, call: int, seconds: float, row: Mapping[str, Any]) -> None:
        """It took `seconds`; `row` is its last row of metrics."""
        stage, round_, steps = self._work[call]
        self._seconds.setdefault(stage, []).append(seconds)
        rate = f"{steps / seconds:.1f} steps/s  " if steps else ""
        left, said = self._left(call), rate + numbers(stage, row)
        if self._live:
            self._live.update(self._task, completed=call + 1, left=left, said=said)
            return
        last = call + 1 == len(self._work) or self._work[call + 1][:2] != (stage, round_)
        if last or time.monotonic() - self._said > 5:
            self._said = time.monotonic()
            step = f" step {int(row['step']) + 1}" if "step" in row and steps else ""
            elapsed = time.monotonic() - self._begin
            print(
                f"{elapsed:6.1f}s  {stage}, round {round_ + 1}{step}: {said}  {left}".rstrip(),
                file=sys.stderr,
                flush=True,
            )

    def _left(self, call: int) -> str:
        """Time left, from the median call of each stage; nothing while a stage is unknown."""
        stages = [stage for stage, _, _ in self._work[call + 1 :]]
        if any(stage not in self._seconds for stage in stages):
            return ""
        seconds = sum(float(np.median(self._seconds[stage])) for stage in stages)
        return f"{seconds:.0f} s left" if seconds >= 1 else ""
