"""Answers about one thing come together, on a disk that need not be large enough."""

from __future__ import annotations

import resource
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_jax.config import ConfigError
from rlhf_jax.data.regrouped import regrouped


@given(st.lists(st.tuples(st.integers(0, 3), st.text())))
def test_lists_come_by_the_first_of_their_key_and_keep_their_order(items):
    keys = list(dict.fromkeys(k for k, _ in items))
    assert list(regrouped(items, lambda item: item[0])) == [
        [item for item in items if item[0] == k] for k in keys
    ]


def test_what_waits_is_not_in_memory():
    count, long = 5_000, "x" * 2_000
    items = ((i % (count // 2), f"{i}{long}") for i in range(count))
    tracemalloc.start()
    groups = regrouped(items, lambda item: item[0])
    assert all(len(g) == 2 for g in groups)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < count * 200  # bytes; an item alone has 2,000


def test_a_disk_without_space_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(ConfigError, match=r"File too large \(TMPDIR names another folder\)"):
            next(regrouped(("x" * 1_000 for _ in range(1_000)), len))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
