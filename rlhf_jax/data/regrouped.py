"""Things of one kind brought together, however many there are and whatever lies between them."""

from __future__ import annotations

import itertools
import pickle
import tempfile
from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import IO, Any, TypeVar

import numpy as np

from rlhf_jax.config import ConfigError

T = TypeVar("T")


def regrouped(items: Iterable[T], key: Callable[[T], Hashable]) -> Iterator[list[T]]:
    """Lists of the items with one key, in the order in which keys first appear.

    The last item may belong to the first, so all are seen before the first list is given. They
    wait in a temporary file without a name; of each some 16 bytes stay in memory, and of each
    key the key. Raises `ConfigError` where that file has no space.
    """
    numbers: dict[Hashable, int] = {}
    number, place = array("q"), array("q")
    try:
        with tempfile.TemporaryFile() as f:
            for item in items:
                number.append(numbers.setdefault(key(item), len(numbers)))
                place.append(f.tell())
                pickle.dump(item, f, pickle.HIGHEST_PROTOCOL)
            numbers.clear()
            order = np.argsort(np.array(number), kind="stable").tolist()
            for _, members in itertools.groupby(order, number.__getitem__):
                yield [_read(f, place[i]) for i in members]
    except OSError as e:
        where = tempfile.gettempdir()
        raise ConfigError(f"{where}: {e.strerror or e} (TMPDIR names another folder)") from None


def _read(f: IO[bytes], place: int) -> Any:
    f.seek(place)
    return pickle.load(f)
