"""TFDS data sets without TensorFlow, and batches that resume exactly."""

from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from test_round_trips import anything

from rlhf_jax.config import ConfigError
from rlhf_jax.data.builders import Source, build, decode, encode, source
from rlhf_jax.data.pipeline import batches
from rlhf_jax.data.rows import TYPES, Comparison, Process, Row, Step, kind, text


def comparisons(n: int) -> list[Comparison]:
    return [Comparison(a=text(str(i)), b=text("é"), label=i % 3 / 2, item=str(i)) for i in range(n)]


def examples_of(row_type):
    found: list[Row] = []

    @settings(derandomize=True, max_examples=25, deadline=None, database=None)
    @given(anything(row_type))
    def collect(row):
        found.append(row)

    collect()
    return found


def test_every_feedback_type_survives_array_record_in_order(tmp_path):
    rows = [r for t in TYPES for r in examples_of(t)]
    folders = build({"train": rows}, tmp_path)
    assert set(folders) == {kind(t) for t in TYPES}
    assert {p.suffix for p in folders["label"].iterdir()} == {
        ".json",
        ".array_record-00000-of-00001",
    }
    for t in TYPES:
        stored = source(tmp_path, t)
        assert [stored[i] for i in range(len(stored))] == [r for r in rows if type(r) is t]
    assert "tensorflow" not in sys.modules


def test_splits_and_slices_of_splits(tmp_path):
    rows = comparisons(10)
    build({"train": rows[:8], "test": rows[8:]}, tmp_path)
    assert [r.item for r in map(source(tmp_path, Comparison, "test").__getitem__, (0, 1))] == [
        "8",
        "9",
    ]
    assert len(source(tmp_path, Comparison, "train[:25%]")) == 2


def test_what_is_not_there_or_there_already_is_one_clear_error(tmp_path):
    with pytest.raises(ConfigError, match="no comparison data set"):
        source(tmp_path, Comparison)
    with pytest.raises(ConfigError, match="no rows"):
        build({"train": []}, tmp_path)
    build({"train": comparisons(1)}, tmp_path)
    with pytest.raises(ConfigError, match="there is a data set already"):
        build({"train": comparisons(1)}, tmp_path)
    with pytest.raises(ConfigError, match="validation"):
        source(tmp_path, Comparison, "validation")


def test_only_the_precision_of_floats_is_lost_and_times_keep_their_microseconds():
    row = Process(steps=(Step(0, "s", None),), end=1_674_362_067_052_924, seconds=0.1)
    example = encode(row)
    example["seconds"] = np.float32(example["seconds"])
    stored = {k: v for k, v in example.items() if k not in ("steps", "prompt")}
    stored = {k: v.encode() if isinstance(v, str) else v for k, v in stored.items()}
    stored |= {"prompt": {"role": [], "content": []}}
    (step,) = example["steps"]
    stored["steps"] = {k: [v.encode() if isinstance(v, str) else v] for k, v in step.items()}
    back = decode(Process, stored)
    assert back == dataclasses.replace(row, seconds=float(np.float32(0.1)))


def number(row: Row) -> dict[str, np.ndarray]:
    return {"item": np.int32(row.item)}


def items(iterator, n: int) -> list[list[int]]:
    return [next(iterator)["item"].tolist() for _ in range(n)]


def test_a_resumed_iterator_goes_on_as_if_it_had_not_stopped(tmp_path):
    build({"train": comparisons(20)}, tmp_path)
    stored = source(tmp_path, Comparison)
    straight = items(iter(batches(stored, number, batch=6, seed=3)), 12)
    for stop in (1, 5, 11):
        first = iter(batches(stored, number, batch=6, seed=3))
        assert items(first, stop) == straight[:stop]
        state = json.loads(json.dumps(first.get_state()))
        second = iter(batches(stored, number, batch=6, seed=3))
        second.set_state(state)
        assert items(second, 12 - stop) == straight[stop:]


def test_every_epoch_is_another_permutation_fixed_by_the_seed():
    rows = comparisons(24)
    drawn = items(iter(batches(rows, number, batch=8, seed=0, epochs=2)), 6)
    first, second = np.ravel(drawn[:3]).tolist(), np.ravel(drawn[3:]).tolist()
    assert sorted(first) == sorted(second) == list(range(24))
    assert first != second
    assert items(iter(batches(rows, number, batch=8, seed=0)), 6) == drawn
    assert items(iter(batches(rows, number, batch=8, seed=1)), 6) != drawn


def test_all_batches_have_one_shape_and_epochs_end():
    drawn = list(batches(comparisons(10), number, batch=4, seed=0, epochs=2))
    assert [b["item"].shape for b in drawn] == [(4,)] * 5
    with pytest.raises(ConfigError, match="batch = 11"):
        batches(comparisons(10), number, batch=11, seed=0, epochs=1)
    with pytest.raises(ConfigError, match="0 rows"):
        batches(Source([], Comparison), number, batch=1, seed=0)
