"""A run's directory: who may use it, which configuration it belongs to, where it came from."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rlhf_jax import config as cfg
from rlhf_jax.config import Config, ConfigError

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "vaderSentiment",
    "tokenizers",
)


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


def seal(content: Mapping[str, Any]) -> str:
    """SHA-256 of what JSON reads back, but for what `run.*` says of how a run is executed."""
    said = {k: v for k, v in json.loads(json.dumps(content)).items() if not k.startswith("run.")}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


FILES = ("config.json", "metadata.json", "metrics.jsonl", "samples.jsonl", "lock")
FOLDERS = ("checkpoints", "events")
"""What a run's directory may hold, each of one kind only; a report stands beside them."""


@contextmanager
def opened(config: Config) -> Iterator[Path]:
    """The directory of this run, made if need be, checked as a whole and held by this process.

    Raises:
      ConfigError: it cannot be written, is in use, holds a run with other settings, or
        a file in it is not what a run writes there. Nothing in it was changed.
    """
    directory = place(config)
    with ExitStack() as held:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            _check_kinds(directory)
            held.enter_context(locked(directory))
            _check_whole(directory)
            refuse_other(config)
            if not (directory / "config.json").exists():
                write_settings(directory, config)
        except OSError as problem:
            where, why = problem.filename or directory, problem.strerror or problem
            raise ConfigError(f"run.directory: cannot write {where}: {why}") from None
        yield directory


def write_settings(directory: Path, config: Config) -> None:
    """Writes config.json: what is resolved, and how the run is executed from now on."""
    _replace(directory / "config.json", settings(config))


def place(config: Config) -> Path:
    return Path(config.run.directory) / config.name


def _check_kinds(directory: Path) -> None:
    events = directory / "events"
    files = (*(directory / name for name in FILES), *sorted(events.glob("*/*/events.out.*")))
    lines = sorted((*events.glob("[!.]*"), *events.glob("*/[!.]*")))
    folders = (*(directory / name for name in FOLDERS), *lines)
    for paths, right, kind in ((files, Path.is_file, "file"), (folders, Path.is_dir, "folder")):
        for path in paths:
            if (path.exists() or path.is_symlink()) and not right(path):
                raise ConfigError(f"{path} is no {kind}, as a run has there; move it away")


def _check_whole(directory: Path) -> None:
    """Raises `ConfigError` where what is there cannot be what a run left."""
    config, log = directory / "config.json", directory / "metrics.jsonl"
    begun = [n for n in (*FILES, *FOLDERS) if n != "lock" and (directory / n).exists()]
    if begun and not config.exists():
        raise ConfigError(
            f"{config} does not exist, though {begun[0]} does: nothing says whose it is; put it "
            "back, or choose another --name"
        )
    read_metadata(directory)
    measured = log.exists() and log.stat().st_size > 0
    if measured and not (directory / "checkpoints").exists():
        raise ConfigError(
            f"{directory / 'checkpoints'} does not exist, though {log.name} holds what was "
            "measured; put it back, or choose another --name to begin anew"
        )


def refuse_other(config: Config) -> None:
    """Raises `ConfigError` where the directory holds a run with other settings, and names them.

    What `run.*` says changes no numbers and may differ; a setting that did not exist when the
    run was made had the value that is now its default.
    """
    directory, mine = place(config), settings(config)
    if not (directory / "config.json").exists():
        return
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


def refuse_passed(directory: Path, before: Mapping[str, Any], own: Mapping[str, str]) -> None:
    """Raises `ConfigError` where other things were passed in to the run that is there."""
    theirs = before.get("own", {})
    if before and theirs != own:
        names = lambda passed: ", ".join(passed) or "nothing"
        raise ConfigError(
            f"{directory} holds a run to which other things were passed in from Python: "
            f"{names(theirs)} there, {names(own)} here; choose another name or remove the directory"
        )


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds the directory for this process. Raises `ConfigError` if another one holds it."""
    with (directory / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"{directory} is in use by another process") from None
        yield


def _replace(path: Path, content: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never half of one."""
    scratch = path.with_suffix(".tmp")
    with scratch.open("w") as file:
        file.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)


def _git_revision() -> str:
    """Commit of the checkout this package runs from, + if it has changes; else 'unknown'."""
    here = Path(__file__).parent
    git = lambda *words: subprocess.run(
        ["git", "-C", str(here), *words],
        capture_output=True,
        text=True,
        timeout=10,
        start_new_session=True,  # a terminal sends Ctrl-C to all of a session's foreground
    )
    try:
        head, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "-uno")
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    if head.returncode:
        return "unknown"
    return head.stdout.strip() + ("+" if changes.stdout.strip() else "")


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def begin(command: str, devices: Sequence[str]) -> dict[str, Any]:
    """What is known of a start when it begins: one entry of `starts` in metadata.json."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        versions[package] = importlib.metadata.version(package)
    return {
        "started": now(),
        "ended": None,
        "command": command,
        "versions": versions,
        "git_revision": _git_revision(),
        "devices": list(devices),
        "seconds": 0.0,
        "steps": 0,
        "saved": 0,
    }


def read_metadata(directory: Path) -> dict[str, Any]:
    """What metadata.json says, `starts` included; nothing where there is none.

    Raises: `ConfigError` if it is there and is not what a run writes.
    """
    path = directory / "metadata.json"
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError("it holds no object")
        if found.pop("sha256", None) not in (None, seal(found)):
            raise ValueError("it is not what the run wrote")
        if "starts" not in found:  # older versions told of the last start only
            known = ("started", "command", "versions", "git_revision", "devices", "seconds")
            one = {k: found[k] for k in known if k in found}
            found["starts"] = [{**one, "ended": found.get("finished")}]
        if not all(isinstance(s, dict) for s in found["starts"]):
            raise ValueError("its starts are no starts")
    except (OSError, ValueError, TypeError) as problem:
        raise ConfigError(
            f"{path} cannot be read: {problem}; put it back, or move it away: the run can go on, "
            "what it said of earlier starts is lost"
        ) from None
    return found


def refuse_lost(directory: Path, before: Mapping[str, Any]) -> None:
    """Raises `ConfigError` where what was saved, as metadata.json had it, is there no more."""
    log = directory / "metrics.jsonl"
    known = any(start.get("saved", 0) for start in before.get("starts", ()))
    measured = log.exists() and log.stat().st_size > 0
    if known or before.get("finished") or (measured and not before):
        raise ConfigError(
            f"{directory / 'checkpoints'} holds no checkpoint, though the run had saved some; put "
            "them back, or choose another --name to begin anew; nothing was changed"
        )
    if measured:
        print(f"{directory}: nothing was saved before it ended; it begins anew", file=sys.stderr)


def refuse_other_data(directory: Path, before: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Raises `ConfigError` where the file that a world is made of is not the one it was."""
    theirs, mine = before.get("data", {}).get("sha256"), data.get("sha256")
    if theirs and mine and theirs != mine:
        raise ConfigError(
            f"{directory} holds a run on another {data.get('source', 'file of data')}: its SHA-256 "
            f"was {theirs[:12]}…, now it is {mine[:12]}…; put the file back, or choose another "
            "--name"
        )


def describe(
    directory: Path,
    config: Config,
    before: Mapping[str, Any],
    start: Mapping[str, Any],
    *,
    data: dict[str, Any],
    own: Mapping[str, str],
    members: list[dict[str, Any]],
    base: str,
    seconds: float,
    logs: Mapping[str, Any],
    finished: bool,
    diverged: bool,
) -> None:
    """Writes metadata.json: where a run's numbers come from.

    `before`: what it said when this `start` began. `diverged`: have all members? `logs`: what
    `metrics.Files.flush` said of them at the end. With these, a digest of the settings and one of
    the file itself, a reader can tell whether they still are what was written. Every start stays
    listed; how the run as a whole came about is told of the last start that made a step of it,
    and of its first beginning.
    """
    told = {k: v for k, v in before.items() if v} if start["steps"] == 0 else {}
    whole: dict[str, Any] = {
        "name": config.name,
        "started": before.get("started", start["started"]),
        "finished": told.get("finished", now()) if finished else None,
        "diverged": diverged,
        "seconds": round(seconds, 1),
        **{k: told.get(k, start[k]) for k in ("command", "versions", "git_revision", "devices")},
        "members": members,
        "data": data,
        "own": dict(own),
        "base": base,
        "settings_sha256": seal(settings(config)),
        "logs": logs or told.get("logs", {}),
        "starts": [*before.get("starts", ()), dict(start)],
    }
    _replace(directory / "metadata.json", {**whole, "sha256": seal(whole)})
