"""`rlhf-jax COMMAND …`: the commands, the names of what is shipped, and help in short."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from rlhf_jax import __main__ as door
from rlhf_jax import cli
from rlhf_jax.config import Config, ConfigError, leaves
from rlhf_jax.studies import command

ROOT = Path(__file__).parents[1]
STUDIES = ROOT / "configs" / "studies"
LEARNERS = get_args(get_type_hints(Config)["learner"])
TYPED = re.compile(r"\.venv/bin/rlhf-jax ([a-z]+) ([^`#\n]*)")
WRITTEN = [
    (path.name, *found)
    for folder, files in ((".", "*.md"), ("docs", "*.md"), ("configs", "**/*.py"))
    for path in sorted((ROOT / folder).glob(files))
    for found in TYPED.findall(path.read_text(encoding="utf-8"))
]


def told(arguments: list[str], capsys) -> tuple[str, str]:
    """What help says on stdout, and nothing on stderr."""
    with pytest.raises(SystemExit) as stop:
        cli.parse(arguments, "rlhf-jax train")
    assert not stop.value.code
    return capsys.readouterr()


# --- the commands


def test_help_lists_every_command_in_under_half_a_second_and_imports_nothing_heavy():
    code = (
        "import sys; from rlhf_jax.__main__ import main\n"
        "try: main(['--help'])\n"
        "finally: print({'jax', 'numpy', 'tyro', 'rich'} & set(sys.modules), file=sys.stderr)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, done.stderr) == (0, "set()\n")
    for name, said in door.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(said)}$", done.stdout, re.MULTILINE)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_every_file_of_a_command_is_one_and_hears_signals_before_it_is_imported(monkeypatch):
    files = {p.stem for p in (ROOT / "rlhf_jax" / "commands").glob("[!_]*.py")} - {"timing"}
    assert files == set(door.COMMANDS)
    seen: list[tuple[str, list[str]]] = []
    for end in ("process", "answer"):
        monkeypatch.setattr(cli, end, lambda _, words, end=end: seen.append((end, words)))
    monkeypatch.setattr(importlib, "import_module", pytest.fail)
    for name in door.COMMANDS:
        door.main(["--debug", name, name, "--x"])
    monkeypatch.undo()
    ends = [end for end, _ in seen]
    assert dict(zip(door.COMMANDS, ends, strict=True)) == {
        "train": "process", "study": "process", "report": "answer", "data": "answer",
        "bench": "answer",
    }  # fmt: skip
    assert [words for _, words in seen] == [["--debug", n, "--x"] for n in door.COMMANDS]
    for name in door.COMMANDS:
        assert callable(importlib.import_module(f"rlhf_jax.commands.{name}").work)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "trian: no such command (did you mean train?)"),
        (["xyzzy"], "xyzzy: no such command (there are train, study, report, data, bench)"),
        ([], "usage: rlhf-jax COMMAND ...; rlhf-jax --help lists the commands"),
        (["--seeds", "3"], "usage: rlhf-jax COMMAND ...; rlhf-jax --help lists the commands"),
    ],
)
def test_no_command_is_one_line_and_exit_code_two(words, said, capsys):
    with pytest.raises(SystemExit) as stop:
        door.main(words)
    assert stop.value.code == 2
    assert capsys.readouterr() == ("", f"error: {said}\n")


# --- names


def test_what_is_shipped_is_found_by_its_name():
    for name in ("quickstart", "hacking"):
        by_name = cli.parse([name], "rlhf-jax train")
        assert by_name == cli.parse([str(ROOT / "configs" / f"{name}.py")], "rlhf-jax train")
    for said in ("reward_hacking", "reward-hacking"):
        (study,) = command.parse([said], STUDIES).studies
        assert study.name == "reward_hacking"


def test_a_path_is_a_path_even_where_a_name_is_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "from rlhf_jax.config import Config\nconfig = Config(name='mine')"
    for file in ("quickstart", "quickstart.py"):
        Path(file).write_text(text)
        assert cli.parse([file], "rlhf-jax train").name == "mine"


@pytest.mark.parametrize(
    ("parse", "said", "message"),
    [
        (cli.configuration, "quikstart", "shipped configuration (did you mean quickstart?)"),
        (
            cli.configuration,
            "xyzzy",
            "shipped configuration (there are hacking, quickstart, texts)",
        ),
        (cli.configuration, "quikstart.py", "quikstart.py: no such configuration file"),
        (cli.configuration, "", "no such configuration file"),
        (lambda x: command.parse([x], STUDIES), "inatention", "(did you mean inattention?)"),
    ],
)
def test_a_name_that_is_none_is_answered_with_those_that_are_near(parse, said, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse(said)


def test_an_installed_package_has_all_files_and_finds_what_is_shipped(tmp_path):
    """The packages of pyproject.toml, laid out as a wheel lays them."""
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    beside = setup["package-dir"]
    for package in setup["packages"]:
        top = next((p for p in beside if package == p or package.startswith(f"{p}.")), "")
        inside = package.removeprefix(top).strip(".").replace(".", "/")
        source = ROOT / beside.get(top, "") / inside
        target = tmp_path / package.replace(".", "/")
        target.mkdir(parents=True, exist_ok=True)
        files = [*source.glob("*.py")]
        files += [f for data in setup["package-data"].get(package, ()) for f in source.glob(data)]
        for file in files:
            shutil.copy(file, target)
    named = lambda top: {
        p.relative_to(top)
        for p in top.rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }  # fmt: skip
    wanted = {Path("configs") / p for p in named(ROOT / "configs")} | named(ROOT / "rlhf_jax")
    assert named(tmp_path / "rlhf_jax") == wanted
    words = [sys.executable, "-m", "rlhf_jax", "train", "quickstart", "--help"]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: rlhf-jax train quickstart ")


# --- the short help


@pytest.mark.parametrize("learner", LEARNERS)
def test_the_settings_that_people_start_with_are_fields_of_a_configuration(learner):
    found = cli.starting(dataclasses.replace(Config(), learner=learner))
    assert set(found) <= set(leaves(Config()))
    assert len(found) >= 10
    # Each line of STARTS but the learner's own is there for every learner.
    assert set(found.values()) >= {
        said for path, said in cli.STARTS.items() if not path.startswith("LEARNER.")
    }


def test_every_setting_that_people_start_with_belongs_to_a_learner_that_there_is():
    configs = [dataclasses.replace(Config(), learner=learner) for learner in LEARNERS]
    said = {line for config in configs for line in cli.starting(config).values()}
    assert said == set(cli.STARTS.values())


def test_help_shows_them_with_their_values_and_where_the_rest_is(capsys):
    given = ["quickstart", "--human.rationality", "0.5", "2", "--learner", "grpo", "--help"]
    out, err = told(given, capsys)
    assert err == ""
    config = cli.parse(given[:-1], "rlhf-jax train")
    rows = {line.split()[0]: line for line in out.splitlines() if line.startswith("  --")}
    for path, said in cli.starting(config).items():
        row = rows.pop(f"--{path.replace('_', '-')}")
        value = leaves(config)[path]
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        assert re.fullmatch(rf"  --\S+ +{re.escape(shown)} +{re.escape(said)}", row)
    assert rows == {}
    for learner in LEARNERS:
        assert learner in out
    assert "--grpo.kl-weight" in out
    assert "rlhf-jax train quickstart --help-all" in out
    assert max(map(len, out.splitlines())) <= 90


def test_the_sweep_that_help_shows_is_one(capsys):
    out, _ = told(["--help"], capsys)
    (words,) = re.findall(r"allows it: (.*)$", out, re.MULTILINE)
    assert "quickstart" in out
    path, *values = words.split()
    config = cli.parse(["quickstart", path, *values], "rlhf-jax train")
    assert leaves(config)[path.strip("-").replace("-", "_")] == tuple(map(float, values))


def test_help_all_shows_every_setting(capsys):
    out, err = told(["quickstart", "--help-all"], capsys)
    assert err == ""
    assert "(default: quickstart)" in out
    for path in leaves(Config()):
        assert f"--{path.replace('_', '-')}" in out


# --- what is written down


def test_every_command_is_written_down_and_no_other():
    assert {name for _, name, _ in WRITTEN} == set(door.COMMANDS)


@pytest.mark.parametrize(
    ("where", "name", "rest"),
    [w for w in WRITTEN if w[1] in ("train", "study")],
    ids=lambda x: x.strip(),
)
def test_a_command_that_is_written_down_can_be_typed(where, name, rest):
    words = shlex.split(rest)
    if name == "train":
        assert isinstance(cli.parse(words, "rlhf-jax train"), Config)
    else:
        assert command.parse(words, STUDIES).studies
