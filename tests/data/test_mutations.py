"""Records with one thing changed: read, or refused in one line; never another exception."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_formats import EVERY, RECORDS, options

from rlhf_jax.data.formats import FORMATS
from rlhf_jax.data.rows import RowError

JUNK = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        10**400,
        1e300,
        "",
        "left",
        "a\nb",
        "\x00",
        [],
        [[]],
        [None],
        {},
        {"": None},
    ]
)


def places(value, path=()):
    """Every path into a JSON value."""
    children = enumerate(value) if isinstance(value, list) else ()
    children = value.items() if isinstance(value, dict) else children
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


def changed(record, path, how):
    out = copy.deepcopy(record)
    inner = out
    for key in path[:-1]:
        inner = inner[key]
    if how is DELETE:
        del inner[path[-1]]
    else:
        inner[path[-1]] = how
    return out


DELETE = object()
UNANSWERED = {"argilla", "label_studio", "summarize_axes"}
"""Formats whose records may have no answer"""


@pytest.mark.parametrize(("name", "i"), EVERY)
def test_a_changed_record_is_read_or_refused_in_one_line(name, i):
    f, paths = FORMATS[name], list(places(RECORDS[name][i]))

    @settings(derandomize=True, max_examples=60, deadline=None)
    @given(st.sampled_from(paths), st.just(DELETE) | JUNK)
    def check(path, how):
        record = changed(RECORDS[name][i], path, how)
        refused, rows = None, []
        try:
            rows = f.read(record, options(name))
        except RowError as e:
            refused = str(e)
        answered = rows or name in UNANSWERED
        assert answered if refused is None else "\n" not in refused
        for row in rows:
            json.loads(row.extra)
            (again,) = FORMATS["rows"].read(FORMATS["rows"].write([row], options("")), options(""))
            assert again == row

    check()
