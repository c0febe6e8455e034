"""File formats of feedback: one file each, or one per small family."""

from __future__ import annotations

from rlhf_jax.data.formats import (
    alpaca_eval,
    argilla,
    bigbench_mistake,
    finegrained_rlhf,
    gsm8k,
    hh_rlhf,
    ilf_code,
    label_studio,
    native,
    prm800k,
    summarize,
    trl,
    ukpconvarg1,
)
from rlhf_jax.data.formats.base import Format, Options

ALL: tuple[Format, ...] = (
    native.FORMAT,
    trl.PREFERENCE,
    hh_rlhf.FORMAT,
    trl.IMPLICIT,
    trl.UNPAIRED,
    trl.STEPWISE,
    summarize.FORMAT,
    summarize.AXES,
    prm800k.FORMAT,
    alpaca_eval.FORMAT,
    argilla.FORMAT,
    ukpconvarg1.FORMAT,
    label_studio.FORMAT,
    label_studio.MIN,
    bigbench_mistake.FORMAT,
    finegrained_rlhf.FORMAT,
    ilf_code.FORMAT,
    gsm8k.SOLUTIONS,
    gsm8k.PROBLEMS,
)
FORMATS: dict[str, Format] = {f.name: f for f in ALL}

__all__ = ["ALL", "FORMATS", "Format", "Options"]
