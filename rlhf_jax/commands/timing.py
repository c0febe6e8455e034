"""The clocks and counters that `rlhf-jax bench` reads."""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def timed(run: Callable[[], Any], n: int) -> list[float]:
    """Seconds of each of `n` calls."""
    import jax

    times = []
    for _ in range(n):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return times


def matmul_rate(n: int = 2048) -> float:
    """GFLOP/s of the best of several float32 products of n × n on one device."""
    import jax
    import jax.numpy as jnp

    a = jnp.ones((n, n))
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(a, a))
    return 2 * n**3 / min(timed(lambda: product(a, a), 7)) / 1e9


def age() -> float:
    """Seconds since this process was started, its imports included."""
    fields = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()
    born = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - born


def processor_seconds() -> float:
    """Of all threads of this process so far, the system's work for it included."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_gigabytes() -> float:
    """Of this process, so far; on an accelerator of the first device."""
    import jax

    stats = jax.devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def say(**row: Any) -> None:
    """One JSON line, numbers to four digits."""
    rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items()}
    print(json.dumps(rounded), flush=True)
