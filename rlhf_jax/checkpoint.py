"""Everything a run knows, saved and found again: Orbax, asynchronous, atomic, keep-last-n."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

T = TypeVar("T")


class Found(NamedTuple):
    """A checkpoint that could be read."""

    state: Any
    position: dict[str, float]
    """what was saved beside the state: calls done, bytes of each log"""


def _arrays(tree: Any) -> dict[str, jax.Array]:
    """A pytree as {path: array}, keys as their words: names that outlive a class."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): _plain(x) for path, x in flat}


def _plain(x: jax.Array) -> jax.Array:
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


class Checkpoints:
    """The checkpoints of one run. Use as a context manager: leaving waits for the last save."""

    def __init__(self, directory: Path, keep: int | None) -> None:
        logging.getLogger("absl").setLevel(logging.ERROR)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=True, create=True
        )
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    def save(self, state: Any, position: dict[str, float]) -> None:
        """Starts writing `state`; it may be donated as soon as this returns."""
        # Copied: on a CPU Orbax may still be reading a buffer that the next call reuses.
        arrays = jax.tree.map(jnp.copy, _arrays(state))
        self._manager.save(
            int(position["call"]),
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(arrays), position=ocp.args.JsonSave(position)
            ),
        )

    def part(self, field: str, like: T) -> T | None:
        """One field of the newest readable state, on the shapes of `like`, wherever it ran."""
        prefix = f".{field}"
        args = ocp.args.Composite(state=ocp.args.StandardRestore())
        for _, found in self._readable(args):
            flat, tree = jax.tree_util.tree_flatten_with_path(like)
            names = [prefix + jax.tree_util.keystr(path) for path, _ in flat]
            return jax.tree.unflatten(
                tree, [jnp.asarray(np.asarray(found.state[n])) for n in names]
            )
        return None

    def _readable(self, args: Any, *, aside: bool = False) -> Iterator[tuple[int, Any]]:
        """Checkpoints, newest first. One that cannot be read is skipped with a warning.

        `aside` renames it too: Orbax saves no step that is not beyond all it has.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                yield step, self._manager.restore(step, args=args)
            except Exception as problem:  # a damaged file can fail in any layer below
                reason = (str(problem).strip().splitlines() or [""])[0][:200]
                warnings.warn(
                    f"checkpoint {step} cannot be read and is skipped: "
                    f"{type(problem).__name__}: {reason}",
                    stacklevel=3,
                )
                if aside:
                    self._set_aside(step)

    def _set_aside(self, step: int) -> None:
        damaged = Path(self._manager.directory) / str(step)
        kept = damaged.with_name(f"unreadable-{step}")
        shutil.rmtree(kept, ignore_errors=True)
        damaged.rename(kept)
        self._manager.reload()

    def latest(self, like: T) -> Found | None:
        """The newest readable checkpoint, on the shapes and devices of `like`."""
        flat, tree = jax.tree_util.tree_flatten_with_path(like)
        target = {
            name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
            for name, x in _arrays(like).items()
        }
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(target), position=ocp.args.JsonRestore()
        )
        for _, found in self._readable(args, aside=True):
            leaves = [
                jax.random.wrap_key_data(found.state[jax.tree_util.keystr(path)])
                if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
                else found.state[jax.tree_util.keystr(path)]
                for path, x in flat
            ]
            return Found(jax.tree.unflatten(tree, leaves), dict(found.position))
        return None
