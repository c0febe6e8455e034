"""A process that is asked to stop does so in one line, and needs nobody to read what it says.

The processes here do nothing heavy: what a whole run makes of it is in `test_resume`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WAITS = """
def work(_):
    print("begun", flush=True)
    for _ in range(3000):
        time.sleep(0.01)
        signals.check("with 3 of 9 done")
"""


def start(body: str, folder: Path, shell: str = "", **options) -> subprocess.Popen[str]:
    """A script that ends in `cli.process(work)`, as those of the project do."""
    path = folder / "script.py"
    head = "import os, signal, sys, threading, time, warnings\nfrom rlhf_jax import cli, signals\n"
    path.write_text(f"{head}{textwrap.dedent(body)}\ncli.process(work)\n")
    words: list[str] = [sys.executable, str(path)]
    if shell:
        words = ["bash", "-c", shell.replace("RUN", '"$0" "$1"'), *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(words, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, **pipes)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


# --- signals


@pytest.mark.parametrize(
    ("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)], ids=str
)
def test_a_signal_stops_at_a_safe_point_in_one_line(tmp_path, name, code):
    process = start(WAITS, tmp_path)
    assert process.stdout.readline() == "begun\n"
    process.send_signal(getattr(signal, name))
    assert ended(process) == (code, "", f"stopped by {name} with 3 of 9 done\n")


def test_a_signal_within_an_import_that_swallows_everything_is_not_lost(tmp_path):
    (tmp_path / "swallows.py").write_text(
        "import time\n"
        "print('importing', flush=True)\n"
        "from rlhf_jax import signals\n"
        "try:\n    while not signals.asked(): time.sleep(0.01)\n"
        "except BaseException:\n    print('swallowed')\n"
        "print('imported')\n"
    )
    body = """
    def work(_):
        import swallows
        signals.check("with nothing begun")
        print("went on")
    """
    process = start(body, tmp_path)
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "imported\n", "stopped by SIGINT with nothing begun\n")


def test_a_second_ctrl_c_stops_at_once_whatever_is_under_way(tmp_path):
    # As a compilation does, this keeps the main thread out of Python for a minute.
    busy = """
    def work(_):
        import hashlib
        print("begun", flush=True)
        hashlib.pbkdf2_hmac("sha512", b"a", b"b", 200_000_000)
    """
    process = start(busy, tmp_path)
    assert process.stdout.readline() == "begun\n"
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    while process.poll() is None:  # two that come before the first is noted are one
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    assert ended(process) == (130, "", "stopped at once; the last checkpoint is kept\n")
    assert time.monotonic() - begun < 20


def test_sigterm_sent_twice_as_a_shell_and_its_cluster_do_still_saves(tmp_path):
    process = start(WAITS, tmp_path)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 143


def test_a_signal_too_late_to_stop_anything_says_that_all_is_done(tmp_path):
    body = """
    def work(_):
        print("begun", flush=True)
        while not signals.asked():
            time.sleep(0.01)
        print("done")
    """
    process = start(body, tmp_path)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    want = "asked to stop when all was done: nothing is missing\n"
    assert ended(process) == (143, "done\n", want)


def test_what_nohup_and_the_background_ignore_stays_ignored(tmp_path):
    body = """
    def work(_):
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(0.1)
        signals.check("")
    """
    assert ended(start(body, tmp_path, "trap '' HUP; RUN")) == (0, "", "")


@pytest.mark.parametrize(("given", "want"), [({}, "3"), ({"TF_CPP_MIN_LOG_LEVEL": "0"}, "0")])
def test_xla_does_not_talk_of_slow_compilation_unless_it_is_asked_to(
    tmp_path, monkeypatch, given, want
):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    body = """
    def work(_):
        assert "jax" not in sys.modules  # it reads this once, when it is imported
        print(os.environ["TF_CPP_MIN_LOG_LEVEL"])
    """
    assert ended(start(body, tmp_path)) == (0, f"{want}\n", "")


def test_nobody_elses_handlers_are_touched():
    # A notebook, a test or a thread that calls `loop.run` keeps its own.
    code = (
        "import signal; before = [signal.getsignal(s) for s in (2, 15, 1)]\n"
        "from rlhf_jax import cli, signals; assert cli.main(lambda _: None, []) == 0\n"
        "assert [signal.getsignal(s) for s in (2, 15, 1)] == before and not signals.asked()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# --- streams

TALKS = """
def work(_):
    for i in range(2000):
        print("out" * 50)
        print("err" * 50, file=sys.stderr, flush=True)
        warnings.warn(f"trouble {i}")
    open("done", "w").close()
"""


@pytest.mark.parametrize(
    "shell",
    [
        "RUN 2>&-",
        "RUN >&-",
        "RUN <&- >&- 2>&-",
        "RUN 2>/dev/full",
        "RUN >/dev/full",
        "RUN >/dev/full 2>&1",
        "RUN 2>&1 | head -1; exit ${PIPESTATUS[0]}",
        "RUN | head -1; exit ${PIPESTATUS[0]}",
    ],
)
def test_work_goes_on_without_anyone_to_read_it(tmp_path, shell):
    code, _, err = ended(start(TALKS, tmp_path, shell, cwd=tmp_path))
    assert code == 0
    assert "Error" not in err
    assert "Exception" not in err
    assert (tmp_path / "done").exists()


def test_a_file_never_takes_the_number_of_a_closed_stream(tmp_path):
    body = """
    def work(_):
        with open("log", "w") as log:
            log.write("row")
            for number in (1, 2):
                os.write(number, b"noise of C++")
    """
    assert ended(start(body, tmp_path, "RUN <&- >&- 2>&-", cwd=tmp_path))[0] == 0
    assert (tmp_path / "log").read_text() == "row"


def test_what_a_librarys_thread_complains_of_is_not_shown_and_its_warnings_are_one_line(tmp_path):
    body = """
    import logging
    def fail(): raise RuntimeError("Event loop is closed")
    class Ends:
        def __del__(self): fail()
    def work(_):
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        Ends()
        try: fail()
        except RuntimeError: logging.getLogger("absl").exception("saving failed")
        logging.getLogger("jax").warning("no GPU\\nis found")
        logging.getLogger("jax").info("chatter")
        raise ValueError("saving") from OSError(28, "No space left on device")
    """
    code, out, err = ended(start(body, tmp_path))
    assert (code, out) == (1, "")
    assert err.splitlines() == [
        "warning: no GPU is found",
        "error: no space is left on the disk; what was saved is kept, and once there is space the "
        "same command goes on",
    ]
