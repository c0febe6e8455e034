"""`rlhf-jax report FOLDER …`."""

from __future__ import annotations

import json

import pytest

from rlhf_jax import cli
from rlhf_jax.commands.report import work
from rlhf_jax.studies import index


def test_the_page_of_a_run_is_written_again_and_it_says_where(make_run, capsys):
    run = make_run()
    assert cli.main(work, [str(run)]) == 0
    page = (run / "report.html").read_bytes()
    (run / "report.html").write_text("old")
    assert cli.main(work, [str(run), str(run)]) == 0
    assert (run / "report.html").read_bytes() == page
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count(f"report: {run / 'report.html'}\n") == 3
    assert "Gold" in out


def test_of_a_folder_of_studies_the_index_is_written_again(tmp_path, capsys):
    said = {"name": "made", "atlas": "A1", "title": "Made", "question": "?", "size": "8 seeds"}
    said |= {"headline": "nothing", "verdicts": [], "panel": None}
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / index.SUMMARY).write_text(json.dumps(said))
    assert cli.main(work, [str(tmp_path)]) == 0
    assert capsys.readouterr() == (f"index: {tmp_path / 'index.html'}\n", "")
    assert "made/study.html" in (tmp_path / "index.html").read_text()
    assert cli.main(work, [str(tmp_path / "made")]) == 2
    assert "is written by rlhf-jax study" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "config.json").unlink(), "neither a run (config.json) nor"),
        (lambda run: (run / "metadata.json").write_text("{"), "metadata.json: not JSON"),
        (lambda run: (run / "report.html").mkdir(), "report.html: Is a directory"),
        (lambda run: run.rename(run.parent / "away"), "no such folder"),
    ],
    ids=("no-run", "no-json", "no-page", "no-folder"),
)
def test_a_folder_that_cannot_be_used_is_one_line_and_exit_2(make_run, capsys, spoil, message):
    run = make_run(seeds=2, rounds=1)
    spoil(run)
    assert cli.main(work, [str(run)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"error: {run}")
    assert message in err


def test_no_folder_is_the_usage(capsys):
    assert cli.main(work, []) == 2
    assert capsys.readouterr().err.startswith("error: usage: rlhf-jax report FOLDER ...")
