"""Numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rlhf_jax.report.intervals import Estimate

NBSP = "\N{NO-BREAK SPACE}"
PM = f"{NBSP}±{NBSP}"
PER_CENT = f"{NBSP}%"


def number(value: float, *, share: bool = False, sign: bool = False) -> str:
    """`−0.62`, `+1.24`, `12.5 %`; a dash for what is not a number."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{100 * value:.1f}" if share else f"{value:.2f}"
    if float(text) == 0.0:
        text = text.lstrip("-")
    if sign and float(text) > 0.0:
        text = "+" + text
    return text.replace("-", "−") + (PER_CENT if share else "")


def interval(e: Estimate, *, share: bool = False, sign: bool = False) -> str:
    """`1.84 ± 0.12`, the mean alone where there is one seed, a dash where there is none.

    Spaces inside do not break.
    """
    mean = number(e.mean, share=share, sign=sign)
    if e.n < 2 or math.isnan(e.half):
        return mean
    half = number(e.half, share=share)
    return f"{mean.removesuffix(PER_CENT)}{PM}{half}"


def span(e: Estimate, *, share: bool = False) -> str:
    """`−0.10 to 0.32`, for a sentence."""
    low, high = number(e.low, share=share), number(e.high, share=share)
    return f"{low.removesuffix(PER_CENT)} to {high}"


def setting(value: Any) -> str:
    """A value of the configuration."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return str(value) if value != "" else "(empty)"
    if isinstance(value, list | tuple):
        return ", ".join(setting(v) for v in value)
    if isinstance(value, float):
        return number(value) if math.isinf(value) else f"{value:g}".replace("-", "−")
    return str(value)


def rated(config: Mapping[str, Any]) -> bool:
    """Did people rate the texts of this world, so that there are strings which nobody rated?"""
    return config.get("world.name", "words") == "words"


def valued(config: Mapping[str, Any]) -> bool:
    """Is there gold, or does nobody know what a response is worth?"""
    return config.get("world.name", "words") != "texts"


def corpus(config: Mapping[str, Any]) -> str:
    """What people are asked about beside the policy's samples."""
    return "rated training words" if rated(config) else "training texts"


def duration(seconds: float) -> str:
    """`3 min 52 s`."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def plural(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
