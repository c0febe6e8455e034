"""`rlhf-jax data` from the outside."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlhf_jax import cli
from rlhf_jax.commands import data
from rlhf_jax.config import ConfigError

ROOT = Path(__file__).parents[2]
ROWS = [
    {"prompt": "q", "chosen": "a", "rejected": "b"},
    {"prompt": "q", "chosen": "c", "rejected": "b"},
]


@pytest.fixture
def script():
    return lambda arguments: cli.main(data.work, arguments)


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in ROWS).encode()))
    return path


def test_help_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys; from rlhf_jax.__main__ import main\n"
        "try: main(['data', '--help'])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "print([m for m in ('numpy', 'tensorflow_datasets', 'grain') if m in sys.modules])"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert time.perf_counter() - start < 10  # about 0.4 s by itself; the tests share the machine
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(word in done.stdout for word in ("import", "export", "stats", "formats"))


def test_import_then_export_gives_the_file_back(script, pairs, tmp_path):
    rows, back = tmp_path / "rows.jsonl.gz", tmp_path / "back.jsonl"
    assert script(["import", str(pairs), "--out", str(rows)]) == 0
    export = ["export", str(rows), "--to", "trl_preference", "--out", str(back)]
    assert script(export) == 0
    assert [json.loads(line) for line in back.read_text().splitlines()] == ROWS


def test_import_writes_data_sets_into_a_folder(script, pairs, tmp_path, capsys):
    assert script(["import", str(pairs), "--out", str(tmp_path / "sets")]) == 0
    (folder,) = capsys.readouterr().out.split()
    assert (Path(folder) / "features.json").exists()


def test_an_error_is_one_line_on_stderr_and_exit_code_2(script, tmp_path, capsys):
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps(ROWS[0]) + "\n{\n")
    assert script(["stats", str(bad)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: bad.jsonl:2: not JSON")
    assert err.count("\n") == 1
    wrongs = (["--format", "nonsense"], ["--field", "x"], ["--on-error", "stop"], ["--fromat", "x"])
    for wrong in wrongs:
        assert script(["stats", str(bad), *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert script(["stats", str(tmp_path / "absent")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_what_is_missing_is_named(script, capsys):
    assert script(["export"]) == 2
    said = capsys.readouterr().err
    assert said == "error: Missing from rlhf-jax data export: PATH, --out PATH, --to STR\n"


@pytest.mark.parametrize("rest", [[], ["--format", "rows"]], ids=str)
def test_a_command_that_is_none_is_answered_with_those_that_are_near(script, capsys, rest):
    assert script(["stast", "x", *rest]) == 2
    assert capsys.readouterr().err == "error: stast: no such command (did you mean stats?)\n"


def test_a_setting_before_its_command_is_named(script, capsys):
    assert script(["--format", "rows", "stats", "x"]) == 2
    assert "misplaced options: --format" in capsys.readouterr().err


def test_debug_shows_the_traceback(script, tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        script(["stats", str(tmp_path / "absent"), "--debug"])


def test_a_file_that_cannot_be_written_is_one_clear_error(script, pairs, tmp_path, capsys):
    assert script(["import", str(pairs), "--out", str(pairs / "rows.jsonl")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


def test_skipped_records_and_refused_answers_are_listed(script, tmp_path, capsys):
    bad, out = tmp_path / "bad.jsonl", tmp_path / "out.jsonl"
    tie = {"type": "comparison", "prompt": "q", "a": "x", "b": "y", "label": 0.5}
    bad.write_text("\n".join([json.dumps(tie), "{", json.dumps(tie | {"label": 1})]))
    export = ["export", str(bad), "--to", "trl_preference", "--out", str(out)]
    assert script([*export, "--on-error", "skip"]) == 0
    err = capsys.readouterr().err
    assert "skipped bad.jsonl:2: not JSON" in err
    assert "refused answer 1: a tie" in err
    assert len(out.read_text().splitlines()) == 1
    assert script(export) == 2


def test_stats_prints_valid_json_when_asked(script, pairs, capsys):
    assert script(["stats", str(pairs), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert facts["comparison"]["answers"] == 2


def test_formats_are_listed(script, capsys):
    assert script(["formats"]) == 0
    assert "label_studio" in capsys.readouterr().out


def started(shell: str, *arguments: str, **options) -> subprocess.Popen[str]:
    words = [sys.executable, str(ROOT / "scripts" / "data.py"), *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    words = ["bash", "-c", shell.replace("RUN", 'exec "$0" "$@"'), *words]
    return subprocess.Popen(words, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, **pipes)


@pytest.mark.parametrize(
    ("shell", "code", "said"),
    [
        ("RUN | head -0; exit ${PIPESTATUS[0]}", 0, ""),
        ("RUN >&-", 0, ""),
        ("RUN 2>&-", 0, ""),
        ("RUN >/dev/full", 1, "error: standard output: No space left on device\n"),
    ],
)
def test_nobody_need_read_the_result_but_a_full_disk_is_an_error(shell, code, said):
    process = started(shell.replace("RUN", "(RUN)"), "formats")
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, said)


def test_records_can_be_written_to_a_pipe_and_nothing_else_is(pairs):
    export = ["export", str(pairs), "--to", "trl_preference", "--out", "/dev/stdout"]
    out, _ = started("RUN | cat", *export).communicate(timeout=60)
    assert [json.loads(line) for line in out.splitlines()] == ROWS


def test_ctrl_c_stops_at_once_and_leaves_no_half_of_a_file(tmp_path):
    os.mkfifo(tmp_path / "rows.jsonl")
    out = tmp_path / "out.jsonl"
    export = ["export", str(tmp_path / "rows.jsonl"), "--format", "rows", "--to", "hh_rlhf"]
    process = started("RUN", *export, "--out", str(out))
    with (tmp_path / "rows.jsonl").open("w"):  # waits until the script opens it
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "stopped\n")
    assert process.returncode == 130
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]
