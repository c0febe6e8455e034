"""A run's directory: who may use it, which configuration it belongs to, where it came from."""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlhf_jax import config as cfg
from rlhf_jax.config import Config, ConfigError

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "vaderSentiment")


def settings(config: Config) -> dict[str, Any]:
    """Every setting by its dotted path, as JSON reads it back."""
    return json.loads(json.dumps(cfg.leaves(config)))


def read_settings(directory: Path) -> dict[str, Any]:
    """The settings of the run that lives there. Raises `ConfigError` if they cannot be read."""
    path = directory / "config.json"
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as problem:
        raise ConfigError(f"{path} cannot be read: {problem}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path} cannot be read: it holds no settings")
    return found


def claim(config: Config) -> Path:
    """The directory of this run, made if need be.

    Raises:
      ConfigError: it cannot be written, or holds a run with other settings. What `run.*`
        says changes no numbers and may differ; a setting that did not exist when the run was
        made had the value that is now its default.
    """
    directory = Path(config.run.directory) / config.name
    mine = settings(config)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "config.json"
        if path.exists():
            theirs = settings(Config()) | read_settings(directory)
            differing = [
                f"{k} ({theirs.get(k, 'absent')} there, {mine.get(k, 'absent')} here)"
                for k in sorted(mine.keys() | theirs.keys())
                if not k.startswith("run.") and mine.get(k) != theirs.get(k)
            ]
            if differing:
                raise ConfigError(
                    f"{directory} holds a run with other settings: {', '.join(differing)}; "
                    "choose another --name or remove the directory"
                )
        _replace(path, mine)
    except OSError as problem:
        raise ConfigError(f"run.directory: cannot write {directory}: {problem.strerror}") from None
    return directory


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds the directory for this process. Raises `ConfigError` if another one holds it."""
    with (directory / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"{directory} is in use by another process") from None
        yield


def _replace(path: Path, content: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never half of one."""
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    os.replace(scratch, path)


def _git_revision() -> str:
    """Commit of the checkout this package runs from, + if it has changes; else 'unknown'."""
    here = Path(__file__).parent
    git = lambda *words: subprocess.run(
        ["git", "-C", str(here), *words], capture_output=True, text=True, timeout=10
    )
    try:
        head, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "-uno")
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    if head.returncode:
        return "unknown"
    return head.stdout.strip() + ("+" if changes.stdout.strip() else "")


def describe(
    directory: Path,
    config: Config,
    *,
    command: str,
    devices: list[str],
    data: dict[str, Any],
    members: list[dict[str, Any]],
    base: str,
    seconds: float,
    finished: bool,
) -> None:
    """Writes metadata.json: where a run's numbers come from."""
    path = directory / "metadata.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        versions[package] = importlib.metadata.version(package)
    _replace(
        path,
        {
            "name": config.name,
            "command": command,
            "started": before.get("started", now),
            "finished": now if finished else None,
            "seconds": round(seconds, 1),
            "versions": versions,
            "git_revision": _git_revision(),
            "devices": devices,
            "members": members,
            "data": data,
            "base": base,
        },
    )
