"""Damaged files: every record is either read or reported with its line."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_jax.config import ConfigError
from rlhf_jax.data import files
from rlhf_jax.data.files import Malformed, Record, read_object, read_records, write_records

ROW = b'{"a": 1}\n'
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3),
    max_leaves=6,
)
RECORDS = st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=3), min_size=1, max_size=5)


def read(tmp_path, data: bytes, name: str = "f.jsonl") -> list:
    path = tmp_path / name
    path.write_bytes(data)
    return list(read_records(path))


def reasons(found: list) -> list[tuple[int, str]]:
    return [(m.line, m.reason) for m in found if isinstance(m, Malformed)]


@settings(derandomize=True, max_examples=40, deadline=None)
@given(RECORDS, st.booleans(), st.sampled_from(["f.jsonl", "f.jsonl.gz"]))
def test_what_is_written_is_read(tmp_path_factory, records, as_list, name):
    path = tmp_path_factory.mktemp("files") / name
    write_records(path, records, as_list=as_list)
    assert [r.value for r in read_records(path)] == records


@settings(derandomize=True, max_examples=40, deadline=None)
@given(RECORDS, st.integers(0, 200), st.booleans())
def test_a_file_cut_anywhere_is_reported_or_whole(tmp_path_factory, records, cut, as_list):
    path = tmp_path_factory.mktemp("files") / "f.json"
    write_records(path, records, as_list=as_list)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    found = list(read_records(path))
    kept = [r.value for r in found if isinstance(r, Record)]
    assert kept == records[: len(kept)]
    assert kept == records or reasons(found) or len(whole[:cut].splitlines()) < len(records)


def test_gzip_is_known_by_its_bytes_not_by_its_name(tmp_path):
    assert [r.value for r in read(tmp_path, gzip.compress(ROW))] == [{"a": 1}]
    assert [r.value for r in read(tmp_path, ROW, "f.jsonl.gz")] == [{"a": 1}]


def test_byte_order_mark_windows_line_ends_and_blank_lines_are_no_errors(tmp_path):
    data = b"\xef\xbb\xbf" + b'{"a": 1}\r\n\r\n{"a": "\xc3\xa9"}\r\n\n'
    assert read(tmp_path, data) == [Record(1, {"a": 1}), Record(3, {"a": "é"})]
    assert read(tmp_path, b"\xef\xbb\xbf\r\n[\r\n" + ROW + b"]") == [Record(3, {"a": 1})]


def test_unicode_line_separators_do_not_end_a_line(tmp_path):
    data = json.dumps({"a": "x\u2028y\x85z"}, ensure_ascii=False).encode()
    assert read(tmp_path, data) == [Record(1, {"a": "x\u2028y\x85z"})]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": 1', "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1} {"a": 2}', "more than one value"),
        (b"[1]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
    ],
)
def test_a_bad_line_is_reported_with_its_number_and_the_others_are_read(tmp_path, line, reason):
    found = read(tmp_path, ROW + line + b"\n" + ROW)
    assert [r.line for r in found if isinstance(r, Record)] == [1, 3]
    ((number, said),) = reasons(found)
    assert number == 2
    assert reason in said
    assert "\n" not in said


def test_elements_of_a_list_are_reported_by_line_and_syntax_errors_end_it(tmp_path):
    found = read(tmp_path, b'[\n{"a": 1},\n7,\n{"a": 2}\n]\n')
    assert [r.line for r in found] == [2, 3, 4]
    assert reasons(found) == [(3, "not a JSON object")]
    found = read(tmp_path, b'[\n{"a": 1},\n{"a": \n')
    assert reasons(found)[0][0] == 3
    assert "rest of the list was not read" in reasons(found)[0][1]
    assert "not closed" in reasons(read(tmp_path, b'[{"a": 1}'))[0][1]
    assert "after the end" in reasons(read(tmp_path, b'[{"a": 1}] x'))[0][1]
    assert "not JSON" in reasons(read(tmp_path, b'[{"a": 1},]'))[0][1]


@pytest.mark.parametrize(
    "element",
    [
        b'{"a": NaN}',
        b'{"a": [1, -Infinity]}',
        b'{"a": 1e999}',
        b'{"a": 1, "b": {"c": 1, "c": 2}}',
        b'{"a": "\\ud800"}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"NaN",
    ],
)
@pytest.mark.parametrize("form", [b'[\n{"a": 1},\n%b,\n{"a": 2}]', b'{"a": 1}\n%b\n{"a": 2}\n'])
def test_an_element_that_cannot_be_used_does_not_hide_the_rest(tmp_path, element, form):
    found = read(tmp_path, form % element)
    assert [r.value for r in found if isinstance(r, Record)] == [{"a": 1}, {"a": 2}]
    ((line, reason),) = reasons(found)
    assert line == (2 if form[:1] == b"{" else 3)
    assert "rest" not in reason


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 1 << 20])
def test_a_list_is_read_the_same_in_pieces_of_any_size(tmp_path, monkeypatch, chunk):
    values = [{"a": "x" * 200, "é": [1.5, -20, True]}, {"b": "\u2028\n\\"}, {}]
    monkeypatch.setattr(files, "CHUNK", chunk)
    for indent in (None, 1):
        data = b"\xef\xbb\xbf " + json.dumps(values, indent=indent, ensure_ascii=False).encode()
        found = read(tmp_path, data)
        assert [r.value for r in found] == values
        lines = [1, 1, 1] if indent is None else [2, 10, 13]
        assert [r.line for r in found] == lines
    found = read(tmp_path, b'[{"a": 1}, {"b": 12, "c":: 1}]')
    assert reasons(found) == [
        (1, "not JSON: Expecting value (column 26); the rest of the list was not read")
    ]
    found = read(tmp_path, b'[{"a": 1},\n {"b": "\xff"}]')
    assert (found[0], reasons(found)[0][0]) == (Record(1, {"a": 1}), 2)
    assert "not UTF-8" in reasons(found)[0][1]


def test_a_long_list_is_read_without_holding_it(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "CHUNK", 1000)
    path = tmp_path / "long.json"
    write_records(path, [{"a": i} for i in range(2000)], as_list=True)
    with open(path, "rb") as f:
        for i, r in enumerate(files._array(f, "long.json")):
            assert r.value == {"a": i}
            if i == 999:
                assert f.tell() < path.stat().st_size * 0.6
    assert i == 1999


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_packed_files_are_known_by_their_bytes_and_damage_is_reported(tmp_path, pack):
    assert read(tmp_path, pack(ROW)) == [Record(1, {"a": 1})]
    found = read(tmp_path, pack(ROW * 9)[:-5])
    assert "damaged or cut off" in reasons(found)[-1][1]
    found = read(tmp_path, pack(b"[" + ROW + b"]")[:-5])
    assert "damaged or cut off" in reasons(found)[-1][1]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("f.csv", b"prompt,chosen,rejected\nQ,a,b\n", "CSV is not read .columns prompt,chosen"),
        ("f.csv", b"instance_id,user_id,text,offensiveness\n1,0,x,1.0\n", "POPQUORN.*CSV is not"),
        ("f.tsv.gz", gzip.compress(b"a\tb\n1\t2\n", mtime=0), "CSV is not read"),
        ("f.parquet", b"PAR1\x15\x04", "Parquet is not read"),
        ("f.arrow", b"ARROW1\x00\x00", "Arrow is not read"),
        ("f.jsonl.zst", b"\x28\xb5\x2f\xfd\x20", "zstd data is not read"),
        ("f.zip", b"PK\x03\x04\x14\x00", "zip archive is not read"),
        ("f.jsonl", '{"a": 1}'.encode("utf-16"), "UTF-16 is not read"),
        ("f.json", b'{\n  "prompt": "Q"\n}\n', "an object over several lines is not read"),
    ],
)
def test_kinds_of_files_that_are_not_read_are_refused_by_name(tmp_path, name, data, reason):
    with pytest.raises(ConfigError, match=reason):
        read(tmp_path, data, name)


def test_nothing_is_written_where_a_record_cannot_be_made(tmp_path):
    path = tmp_path / "out.jsonl"
    write_records(path, [{"a": 1}])

    def records():
        yield {"a": 2}
        raise ConfigError("no more")

    with pytest.raises(ConfigError, match="no more"):
        write_records(path, records())
    assert path.read_bytes() == ROW
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_pipe_is_written_to_and_a_link_followed(tmp_path):
    pipe, link = tmp_path / "pipe", tmp_path / "link.jsonl"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        got = pool.submit(pipe.read_bytes)
        write_records(pipe, [{"a": 1}])
        assert got.result(timeout=10) == ROW
    assert pipe.is_fifo()
    link.symlink_to(tmp_path / "target.jsonl")
    write_records(link, [{"a": 1}])
    assert link.is_symlink()
    assert (tmp_path / "target.jsonl").read_bytes() == ROW


@pytest.mark.parametrize("data", [b"", b"\n\r\n", b"\xef\xbb\xbf", b"[]", b" [ ] "])
def test_a_file_without_records_is_reported(tmp_path, data):
    assert reasons(read(tmp_path, data)) == [(1, "the file has no records")]


def test_a_truncated_gzip_file_gives_what_is_there_and_says_so(tmp_path):
    lines = b"".join(json.dumps({"a": i * 7919 % 9973}).encode() + b"\n" for i in range(5000))
    whole = gzip.compress(lines)
    found = read(tmp_path, whole[: len(whole) // 2], "f.jsonl.gz")
    kept = [r for r in found if isinstance(r, Record)]
    assert 100 < len(kept) < 5000
    assert "cut off" in reasons(found)[-1][1]
    assert "cut off" in reasons(read(tmp_path, whole[:10], "f.jsonl.gz"))[0][1]


def test_a_file_that_cannot_be_opened_is_one_clear_error(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing.*No such file"):
        list(read_records(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="directory"):
        list(read_records(tmp_path))
    (tmp_path / "list").write_text("[1]")
    with pytest.raises(ConfigError, match="not a JSON object"):
        read_object(tmp_path / "list")


def test_gzip_output_has_the_same_bytes_every_time(tmp_path):
    for name in ("a.gz", "b.gz"):
        write_records(tmp_path / name, [{"a": 1}])
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
