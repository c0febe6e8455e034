from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from rlhf_jax.report import curves, drawing, summary_table, write_report
from rlhf_jax.report.records import read

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Tags, ids, references and text of a page; fails where tags do not nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.references, self.text = [], [], [], []
        self._open = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self._see(tag, attributes)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self._see(tag, attributes)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if not self._open or self._open[-1] != "style":
            self.text.append(data)

    def _see(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "xlink:href", "srcset", "data", "action"):
                self.references.append(value)
            self.references += [f"#{i}" for i in re.findall(r"url\(#([^)]*)\)", value or "")]
            assert not name.startswith("on")


def written(run):
    text = write_report(run).read_text(encoding="utf-8")
    return text, Page(text)


def test_the_page_needs_nothing_but_itself(make_run):
    text, page = written(make_run(kl_weights=(0.0, 0.1)))
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(page.tags)
    assert all(r.startswith("#") for r in page.references)
    assert "@import" not in text
    # What is left of URLs is names of namespaces.
    urls = set(re.findall(r"https?://[^\"'\s<)]*", text))
    assert urls <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_ids_are_unique_and_every_reference_is_to_one(make_run):
    _, page = written(make_run())
    assert len(page.ids) == len(set(page.ids))
    assert {r[1:] for r in page.references} <= set(page.ids)
    assert len(page.references) > 100


def test_the_same_run_gives_the_same_bytes(make_run):
    run = make_run()
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_it_writes_the_page_and_the_disclosure_and_nothing_else(make_run):
    run = make_run()
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    write_report(run)
    after = {p.name: p.read_bytes() for p in run.iterdir()}
    assert after.keys() - before.keys() == {"report.html", "disclosure.json"}
    assert {k: after[k] for k in before} == before


def test_what_a_run_says_cannot_become_markup(make_run):
    evil = '<script>alert("x")</script>&amp;'
    run = make_run(name=evil)
    path = run / "samples.jsonl"
    path.write_text(path.read_text().replace('"love"', json.dumps(evil)))
    metadata = json.loads((run / "metadata.json").read_text())
    metadata |= {"command": evil, "base": evil, "devices": [evil], "data": {evil: evil}}
    (run / "metadata.json").write_text(json.dumps(metadata))
    text, page = written(run)
    assert "script" not in page.tags
    assert "<script" not in text
    # Title, heading, samples, command, base, data, devices: seen as it was written.
    assert "".join(page.text).count(evil) >= 7


def test_the_sentence_and_the_table_state_the_numbers(make_run):
    _, page = written(make_run(change=2.0))
    text = "".join(page.text).replace("\N{NO-BREAK SPACE}", " ")
    assert "Over 8 seeds, gold went from 0.00 to 2.00 (change +2.00, 95 % interval" in text
    assert "at a KL of 4.00 nats" in text
    assert "Non-wordsshare of samples70.0 ± 0.0 %2.0 ± 0.0 %−68.0 ± 0.0 %" in text
    assert "Student t interval" in text
    assert "n = 8" in text


def test_equal_samples_are_one_row_with_their_count_and_non_words_are_marked(make_run):
    text, _ = written(make_run(seeds=4))
    after = text[text.index("<h4>after</h4>") :]
    assert "12 samples, 2 distinct" in after
    rows = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', after)
    assert rows[0] == ("love", "×8")
    assert rows[1] == ("<i>blesst</i> <small>non-word</small>", "×4")


def test_a_full_run_leaves_nothing_out(make_run):
    text, page = written(make_run())
    assert "Left out" not in text
    assert page.tags.count("svg") == 14


@pytest.mark.parametrize("stage", ["pretrain", "reward", "measure", "policy", "evaluate"])
def test_a_stage_that_never_ran_is_left_out_and_said(make_run, edit_rows, stage):
    run = make_run()
    edit_rows(run, lambda row: None if row["stage"] == stage else row)
    text, page = written(run)
    if stage == "evaluate":
        assert "it was stopped early" in text
        assert "Unfinished: evaluated after 0 of 2 rounds" in text
        assert page.tags.count("svg") == 14
    else:
        assert "Left out." in text
        assert page.tags.count("svg") < 14
    missing = json.loads((run / "disclosure.json").read_text(encoding="utf-8"))["missing"]
    assert bool(missing) == (stage != "evaluate")
    Console(width=80, quiet=True).print(summary_table(run))


@pytest.mark.parametrize(("rows", "weights"), [(0, ()), (31, ()), (45, (0.0, 0.1)), (60, ())])
def test_a_run_killed_anywhere_still_has_a_report(make_run, rows, weights):
    run = make_run(kl_weights=weights)
    path = run / "metrics.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:rows]) + '\n{"stage": "pp')
    (run / "samples.jsonl").unlink()
    metadata = json.loads((run / "metadata.json").read_text())
    (run / "metadata.json").write_text(json.dumps(metadata | {"finished": None}))
    text, _ = written(run)
    assert "not finished" in text
    assert "samples.jsonl does not exist" in text
    assert "half-written" in text


def test_a_seed_that_diverged_is_left_out_of_means_and_named(make_run, edit_rows):
    run = make_run()

    def diverge(row):
        for values in row.values():
            if row["stage"] in ("policy", "evaluate", "measure") and isinstance(values, list):
                values[3] = [float("nan")] * 10 if isinstance(values[3], list) else float("inf")
        return row

    edit_rows(run, diverge)
    text, _ = written(run)
    assert "Over 7 seeds, gold went from" in text
    assert "1 of 8 members diverged" in text
    assert "seed 3 (evaluate, round 1, step 1: " in text


def test_the_probe_world_has_no_rated_words_and_no_non_words(make_run):
    directory = make_run()
    config = json.loads((directory / "config.json").read_text())
    for name, speaks in (("words", True), ("probe", False)):
        (directory / "config.json").write_text(json.dumps(config | {"world.name": name}))
        text = re.sub(r"<[^>]+>", " ", write_report(directory).read_text())
        for said in ("rated training words", "strings that nobody rated", "Non-words"):
            assert (said in text) == speaks, (name, said)
        assert ("training texts" in text) != speaks
    assert "Simulated people, no real ones" in text
    assert "gold (utility, deviations)" in re.sub(r"\s+", " ", text)


def test_the_band_of_a_share_is_cut_where_no_share_can_lie(make_run, edit_rows):
    def spread(row):
        for name in ("train/accuracy", "objective/nonword_share"):
            if name in row:
                row[name] = [0.0] * 7 + [1.0]  # mean 1/8, t interval from −0.17 to 0.42
        return row

    directory = make_run()
    edit_rows(directory, spread)
    record = read(directory)
    for curve in (*curves.REWARD, *curves.policy(record)):
        if curve.metric in ("train/accuracy", "objective/nonword_share"):
            content = drawing.Line(np.arange(3.0), np.tile([0.0] * 7 + [1.0], (3, 1)), "#000000")
            figure = Figure()
            drawing.lines(figure, [content], "x", curve.unit, within=drawing.SHARE)
            (band,) = figure.axes[0].collections
            heights = band.get_paths()[0].vertices[:, 1]
            assert heights.min() == 0.0
            assert 0.4 < heights.max() < 0.45
    notes = {p.title: p.note for p in curves.curves(record, curves.policy(record)).panels}
    assert "The band of a share is cut at 0 and 1." in notes["Non-words"]
    assert "cut" not in notes["Gold"]


def test_the_closing_table_has_a_row_for_each_grid_point_within_80_columns(make_run):
    weights = (0.0, 0.01, 1.0)
    console = Console(width=80)
    with console.capture() as captured:
        console.print(summary_table(make_run(kl_weights=weights)))
    lines = [line.strip() for line in captured.get().splitlines()]
    for weight, change in zip(weights, ("+2.00", "+1.00", "0.00"), strict=True):
        (line,) = [row for row in lines if row.startswith(f"{weight:g} ")]
        assert f"{change}±0.03" in line
        assert "82.0%" in line
        assert line.endswith("2.0%")


def test_the_closing_table_of_one_setting_has_a_row_for_each_quantity(make_run):
    table = summary_table(make_run(change=2.0))
    cells = [[str(c) for c in column.cells] for column in table.columns]
    rows = [[c.replace("\N{NO-BREAK SPACE}", " ") for c in row] for row in zip(*cells, strict=True)]
    assert rows[0] == ["Gold, sampled", "0.00 ± 0.06", "2.00 ± 0.09", "+2.00 ± 0.03"]
    assert ["Another person, accuracy", "", "82.0 %", ""] in rows
