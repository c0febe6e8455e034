"""Stops a tiny run at random moments and in other rough ways, and counts what was lost: nothing.

    python tests/stops.py --kills 50 --stops 20 --disks 5

kill −9, SIGTERM and Ctrl-C at moments drawn from the whole length of a start (imports, compiling,
saving and the report among them), disks that fill, streams that are closed or full. Each start
but a killed one must say at most one line beside its progress, none a traceback; a signal must
end it within `PATIENCE`; what a signal saved must be there at the next start; and a run that
came to its end through all of it must have written the bytes of one that was left alone.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATIENCE = 120.0
"""Seconds that a loaded machine may take for imports or a compilation to end."""
CONFIG = """
import dataclasses
from rlhf_jax.config import *
config = Config(
    name="run", seeds=2, rounds=2,
    world=World(name="probe", length=3),
    model=Model(width=16, layers=1, heads=2, kv_heads=1, mlp=32),
    pretrain=Pretrain(epochs=5, batch=16),
    collect=Collect(budget=128), reward=Reward(steps=8, look=4, batch=16),
    ppo=PPO(iterations=12, batch=16, epochs=2, minibatches=2, kl_horizon=1000.0,
            adam=dataclasses.replace(PPO().adam, learning_rate=(0.0003, 0.001))),
    evaluate=Evaluate(samples=32, shown=2),
    run=Run(chunk=1, checkpoint_seconds=0.0),
)
"""
STREAMS = (
    "2>&-",
    ">&- 2>&- <&-",
    "2>/dev/full",
    ">/dev/full",
    "2>&1 | head -1; exit ${PIPESTATUS[0]}",
)
PROGRESS = re.compile(
    r"\s*\d+\.\d+s  |.*: (going on|finished already|nothing was saved before it ended)"
)


class Stops:
    """One folder of runs, compiled programs shared, with a run that was left alone."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder, self.random, self.counts = folder, random.Random(seed), Counter[str]()
        # Whoever is started in the background ignores Ctrl-C, and hands that on.
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        (folder / "config.py").write_text(CONFIG)
        self._runs = 0
        self.straight = self.new()
        self.finish(self.straight)
        begun = time.monotonic()
        self.finish(self.new())
        self.length = time.monotonic() - begun
        files = (p for p in self.straight.rglob("*") if p.is_file())
        self.kilobytes = sum(-(-p.stat().st_size // 4096) * 4 for p in files)
        """what a run leaves, in whole pages: no smaller disk can hold it"""

    def new(self) -> Path:
        self._runs += 1
        return self.folder / f"runs-{self._runs}"

    def start(self, where: Path, *changes: str, shell: str = "") -> subprocess.Popen[str]:
        words = [sys.executable, str(ROOT / "scripts" / "train.py"), str(self.folder / "config.py")]
        words += ["--run.directory", str(where), "--run.cache", str(self.folder / "cache")]
        words += changes
        if shell:
            words = ["bash", "-c", f'"$@" {shell}', "bash", *words]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

    def finish(self, where: Path, shell: str = "") -> str:
        """Lets a start come to its end, and compares what it wrote with the run left alone; what
        it said."""
        process = self.start(where, shell=shell)
        _, err = process.communicate(timeout=10 * PATIENCE)
        assert process.returncode == 0, err
        self.said(err, at_most=0)
        assert written(where) == written(self.straight), "other bytes"
        assert (where / "run" / "report.html").exists()
        return err

    def said(self, err: str, at_most: int) -> list[str]:
        assert "Traceback" not in err, err
        lines = [line for line in err.splitlines() if not PROGRESS.match(line)]
        assert len(lines) <= at_most, err
        return lines

    def stop(self, where: Path, number: signal.Signals) -> bool:
        """Starts or goes on, and sends a signal at a random moment. Did it come in time?"""
        before = rows(where)
        moment = self.random.uniform(0.0, self.length)
        process = self.start(where)
        time.sleep(moment)
        early = process.poll() is None and not listening(process.pid)
        process.send_signal(number)
        sent = time.monotonic()
        _, err = process.communicate(timeout=PATIENCE)
        self.counts[f"longest wait after {number.name}, s"] = max(
            self.counts[f"longest wait after {number.name}, s"], round(time.monotonic() - sent)
        )
        code, name = process.returncode, number.name
        if code == 0:
            self.counts[f"{name}: had ended"] += 1
        elif number is signal.SIGKILL:
            assert code == -number, err
            self.counts[name] += 1
            return True
        elif early:  # Python itself was starting, and had not read a line of the project
            self.counts[f"{name}: before the first line"] += 1
        else:
            assert code == 128 + number, (code, err)
            (line,) = self.said(err, at_most=1)
            self.counts[f"{name}: {' '.join(line.split()[:4])}"] += 1
        if not early:
            self.said(err, at_most=1)
        assert rows(where) >= before, "rows that a signal had saved are gone"
        return code != 0

    def many(self, numbers: Sequence[signal.Signals]) -> None:
        """Each of these, in time, in one run after the other; each is let end and compared."""
        where, left = self.new(), list(numbers)
        while left:
            in_time = self.stop(where, left[0])
            del left[:in_time]
            if not in_time or not left or (where / "run" / "report.html").exists():
                self.finish(where)
                self.counts["stopped runs that ended with equal bytes"] += 1
                where = self.new()

    def streams(self) -> None:
        for shell in STREAMS:
            self.finish(self.new(), shell)
            self.counts["streams closed or full: equal bytes"] += 1

    def disk(self) -> None:
        """A disk of its own that fills; with space made, the run ends as if it never had."""
        kilobytes = self.random.randrange(40, self.kilobytes * 9 // 10)
        where = self.new()
        where.mkdir()
        mount = lambda how: subprocess.run(
            ["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(where)], check=True
        )
        mount(f"size={kilobytes}k")
        try:
            process = self.start(where)
            _, err = process.communicate(timeout=10 * PATIENCE)
            assert process.returncode in (1, 2), err
            (line,) = self.said(err, at_most=1)
            assert "space" in line
            mount("remount,size=64m")
            self.finish(where)
        finally:
            subprocess.run(["umount", str(where)], check=True)
        self.counts["disks that filled: one line, then equal bytes"] += 1


def rows(where: Path) -> int:
    log = where / "run" / "metrics.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def written(where: Path) -> tuple[bytes, ...]:
    return tuple((where / "run" / f"{x}.jsonl").read_bytes() for x in ("metrics", "samples"))


def listening(process: int) -> bool:
    """Does it handle SIGTERM yet?"""
    status = Path(f"/proc/{process}/status").read_text()
    caught = int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--disks", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stops = Stops(Path(folder), asked.seed)
        print(f"one start takes {stops.length:.0f} s", flush=True)
        stops.streams()
        for number, trials in (
            (signal.SIGINT, asked.stops),
            (signal.SIGTERM, asked.stops),
            (signal.SIGKILL, asked.kills),
        ):
            stops.many([number] * trials)
            print(*(f"{k}: {v}" for k, v in sorted(stops.counts.items())), sep="\n", flush=True)
        for _ in range(asked.disks):
            stops.disk()
        print(*(f"{k}: {v}" for k, v in sorted(stops.counts.items())), sep="\n")


if __name__ == "__main__":
    main()
