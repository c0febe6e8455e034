"""Everything a run knows, saved and found again: Orbax, asynchronous, atomic, keep-last-n.

A digest of every array and of the position is saved beside them and compared at every restore:
what comes back is what was saved, or it is passed over and said.
"""

from __future__ import annotations

import gc
import hashlib
import itertools
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from rlhf_jax.config import ConfigError

T = TypeVar("T")


class Found(NamedTuple):
    """A checkpoint that is what was saved."""

    state: Any
    position: dict[str, Any]
    """what was saved beside the state: steps done, bytes and digest of each log"""


class _Damaged(Exception):
    """A checkpoint is not what was saved. The message says in what."""


def _named(tree: Any) -> list[tuple[str, Any]]:
    """(path, leaf) of a pytree, keys as their words: names that outlive a class."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path), x) for path, x in flat]


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _stored(x: Any) -> tuple[tuple[int, ...], Any]:
    """Shape and type that an array has on disk."""
    plain = jax.eval_shape(jax.random.key_data, x) if _is_key(x) else x
    return plain.shape, plain.dtype


def _host(x: jax.Array) -> np.ndarray:
    """A copy of its own on the host: the device's buffer may be donated to the next call."""
    return np.array(jax.random.key_data(x) if _is_key(x) else x)


def _digest(x: np.ndarray) -> str:
    """SHA-256 of type, shape and bytes."""
    said = hashlib.sha256(f"{x.dtype} {x.shape} ".encode())
    said.update(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data)
    return said.hexdigest()


def _signed(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Checkpoints:
    """The checkpoints of one run. Use as a context manager: leaving waits for the last save."""

    def __init__(self, directory: Path, keep: int | None) -> None:
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=True, create=True
        )
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        self._manager.close()

    def wait(self) -> None:
        """Until everything that was saved is on disk."""
        self._manager.wait_until_finished()

    def save(self, state: Any, position: Mapping[str, Any]) -> None:
        """Starts writing `state`; it may be donated as soon as this returns.

        `position["steps"]` numbers the checkpoint. Those before it are on disk by then.
        """
        arrays = {name: _host(x) for name, x in _named(state)}
        note = {
            "position": dict(position),
            "arrays": {name: _digest(x) for name, x in arrays.items()},
        }
        self._manager.save(
            int(position["steps"]),
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(arrays),
                position=ocp.args.JsonSave({**note, "digest": _signed(note)}),
            ),
        )

    def latest(
        self, like: T, check: Callable[[dict[str, Any]], object] = lambda _: None
    ) -> Found | None:
        """The newest sound checkpoint, on the shapes and devices of `like`; nothing is saved: none.

        `check` raises `ValueError` where a position does not fit what else there is. Those that
        are passed over are said and set aside: Orbax saves no step that is not beyond all it has.

        Raises:
          ConfigError: there are checkpoints and none is sound. Nothing was touched.
        """
        found, damaged = self._newest(check, {name: _stored(x) for name, x in _named(like)})
        for step in damaged:
            self._set_aside(step)
        if found is None:
            return None
        arrays, position = found
        leaves = []
        for name, x in _named(like):
            leaf = jax.device_put(arrays.pop(name), x.sharding)
            leaves.append(jax.random.wrap_key_data(leaf) if _is_key(x) else leaf)
        return Found(jax.tree.unflatten(jax.tree.structure(like), leaves), position)

    def part(self, field: str, like: T) -> T | None:
        """One field of the newest sound state, on the shapes of `like`, wherever it ran.

        Raises:
          ConfigError: there are checkpoints and none is sound.
        """
        prefix = f".{field}"
        wanted = {prefix + name: _stored(x) for name, x in _named(like)}
        found, _ = self._newest(lambda _: None, wanted)
        if found is None:
            return None
        leaves = [jnp.asarray(found[0][name]) for name in wanted]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def _newest(
        self,
        check: Callable[[dict[str, Any]], object],
        wanted: Mapping[str, tuple[tuple[int, ...], Any]],
    ) -> tuple[tuple[dict[str, np.ndarray], dict[str, Any]] | None, list[int]]:
        """Arrays and position of the newest sound checkpoint, and those passed over before it."""
        problems: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                with _quiet():
                    position, digests = self._position(step)
                    check(position)
                    arrays = self._arrays(step, digests)
                for name, kind in wanted.items():
                    if name not in arrays or _stored(arrays[name]) != kind:
                        raise _Damaged(f"{name} is not an array of this program")
            except Exception as problem:  # a damaged file can fail in any layer below
                problems[step] = _reason(problem)
                continue
            for other, reason in problems.items():
                said = f"checkpoint {other} cannot be used and is skipped: {reason}"
                warnings.warn(said, stacklevel=3)
            return (arrays, position), list(problems)
        if problems:
            each = "; ".join(f"{step}: {reason}" for step, reason in problems.items())
            raise ConfigError(
                f"{self._manager.directory}: no checkpoint can be used ({each}); put back what "
                "was there, or begin anew under another name; nothing was changed"
            )
        return None, []

    def _position(self, step: int) -> tuple[dict[str, Any], dict[str, str]]:
        """Position and digests of the arrays. Raises where they are not what was saved."""
        args = ocp.args.Composite(position=ocp.args.JsonRestore())
        note = dict(self._manager.restore(step, args=args).position)
        if "arrays" not in note and "call" in note:
            raise _Damaged("an older version saved it, which counted calls and kept no digests")
        if note.pop("digest", None) != _signed(note):
            raise _Damaged("its position is not what was saved")
        if note["position"]["steps"] != step:
            raise _Damaged(f"it is that of step {note['position']['steps']}")
        return note["position"], note["arrays"]

    def _arrays(self, step: int, digests: Mapping[str, str]) -> dict[str, np.ndarray]:
        """Every array on the host. Raises where one is not what was saved."""
        args = ocp.args.Composite(state=ocp.args.StandardRestore())
        found = {k: np.asarray(v) for k, v in self._manager.restore(step, args=args).state.items()}
        if found.keys() != digests.keys():
            raise _Damaged("it does not hold the arrays that were saved")
        for name, x in found.items():
            if _digest(x) != digests[name]:
                raise _Damaged(f"{name} is not what was saved")
        return found

    def _set_aside(self, step: int) -> None:
        damaged = Path(self._manager.directory) / str(step)
        names = (damaged.with_name(f"unreadable-{step}-{k}") for k in itertools.count(1))
        damaged.rename(next(name for name in names if not name.exists()))
        self._manager.reload()


def _reason(problem: Exception) -> str:
    first = (str(problem).strip().splitlines() or [""])[0][:200]
    known = isinstance(problem, _Damaged | ValueError) and first
    return first if known else f"{type(problem).__name__}: {first}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Of several reads at once the first that fails ends the restore; what becomes of the others
    is reported to no one, and says nothing that the first did not."""
    log, hook = logging.getLogger("asyncio"), sys.unraisablehook
    level = log.level
    log.setLevel(logging.CRITICAL)
    sys.unraisablehook = lambda _: None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        try:
            yield
        except Exception:
            gc.collect()
            raise
        finally:
            log.setLevel(level)
            sys.unraisablehook = hook
