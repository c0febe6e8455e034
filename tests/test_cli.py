"""What a person who mistypes something reads: one line, and an exit code."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_jax import cli, rundir
from rlhf_jax.config import Config, ConfigError

ROOT = Path(__file__).parents[1]
TINY = """
from rlhf_jax.config import Collect, Config, Evaluate, Model, PPO, Pretrain, Reward, World

config = Config(
    name="tiny",
    seeds=2,
    world=World(name="probe", symbols=2, length=3, held_out=0.4),
    model=Model(width=16, layers=1, heads=2, kv_heads=1, mlp=16),
    pretrain=Pretrain(epochs=1, batch=4),
    collect=Collect(budget=16),
    reward=Reward(steps=4, look=4, batch=8, held_back=0.0),
    ppo=PPO(iterations=1, batch=4),
    evaluate=Evaluate(samples=8, shown=2),
)
"""


@pytest.fixture
def config_file(tmp_path) -> str:
    path = tmp_path / "tiny.py"
    path.write_text(TINY)
    return str(path)


@pytest.fixture
def run(capsys):
    """(arguments) → (exit code, the one line on stderr); no work is done beyond the check."""

    def start(*arguments: str, work=lambda args: cli.parse(args, "train.py")) -> tuple[int, str]:
        code = cli.main(work, list(arguments))
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == bool(code), said.err
        assert "Traceback" not in said.err
        return code, said.err.rstrip("\n")

    return start


def script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rlhf_jax", "train", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
    )


# --- what is understood


def test_overrides_are_typed_and_leave_the_rest(config_file):
    got = cli.parse(
        [config_file, "--ppo.kl-weight", "0.25", "--world.symbols=3", "--human.lapse", "1"],
        "train.py",
    )
    assert got.ppo.kl_weight == 0.25
    assert got.world.symbols == 3
    assert got.human.lapse == 1.0
    assert (got.name, got.seeds, got.model.width) == ("tiny", 2, 16)


def test_several_values_make_a_sweep(config_file):
    got = cli.parse([config_file, "--ppo.kl-weight", "0.1", "0.2", "--seeds", "3"], "train.py")
    assert got.ppo.kl_weight == (0.1, 0.2)
    assert got.seeds == 3


@pytest.mark.parametrize("spelling", ["--ppo.kl-weight", "--ppo.kl_weight"])
def test_dashes_and_underscores_are_one(config_file, spelling):
    assert cli.parse([config_file, spelling, "0.5"], "train.py").ppo.kl_weight == 0.5


def test_infinity_can_be_said(config_file):
    got = cli.parse([config_file, "--human.rationality", "inf"], "train.py")
    assert got.human.rationality == float("inf")


def test_a_switch_is_set_by_its_value(config_file):
    assert not cli.parse([config_file, "--pretrain.shared", "False"], "train.py").pretrain.shared


def test_parsing_leaves_the_width_of_the_terminal_as_it_was(config_file, monkeypatch):
    monkeypatch.setenv("COLUMNS", "77")
    cli.parse([config_file], "train.py")
    assert os.environ["COLUMNS"] == "77"
    monkeypatch.delenv("COLUMNS")
    with pytest.raises(ConfigError):
        cli.parse([config_file, "--nonsense", "1"], "train.py")
    assert "COLUMNS" not in os.environ


def test_the_shipped_configurations_can_be_run():
    found = sorted((ROOT / "configs").glob("*.py"))
    assert found
    for path in found:
        assert isinstance(cli.parse([str(path)], "train.py"), Config)


def test_work_that_succeeds_says_nothing(run):
    assert run("x", work=lambda args: None) == (0, "")


# --- mistakes: exit code 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ppo.kl-weigth", "1"], "(did you mean --ppo.kl-weight?)"),
        (["--ppo.klweight", "1"], "(did you mean --ppo.kl-weight?)"),
        (["--world.nam", "probe"], "(did you mean --world.name?)"),
        (["--xyzzy", "1"], "Unrecognized options: --xyzzy"),
        (["stray"], "Unrecognized options: stray"),
        (["--seeds", "many"], "--seeds: invalid literal for int() with base 10: 'many'"),
        (["--seeds", "1.5"], "--seeds: invalid literal for int() with base 10: '1.5'"),
        (["--seeds", "1", "2"], "2"),
        (["--seeds"], "--seeds"),
        (["--ppo.kl-weight", "much"], "--ppo.kl-weight"),
        (["--world.name", "sentences"], "('words', 'probe', 'texts')"),
        (["--pretrain.shared", "maybe"], "--pretrain.shared"),
        (["--model.heads", "3"], "model.heads = 3 does not divide model.width = 16"),
        (["--seeds", "0"], "seeds = 0: must lie between 1 and 100000"),
        (["--ppo.kl-weight"], "ppo.kl_weight: an empty list has nothing to run"),
        (["--ppo.kl-weight", "nan"], "ppo.kl_weight: nan is not a number"),
        (["--ppo.kl-weight", "0.1", "nan"], "ppo.kl_weight: nan is not a number"),
        (["--ppo.discount", "1.5"], "ppo.discount = 1.5: must lie between 0 and 1"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_mistake_on_the_command_line_is_one_line(
    run, config_file, arguments, message, encoding, monkeypatch
):
    # The parser draws boxes where output is UTF-8 and lines of dashes elsewhere.
    monkeypatch.setattr(type(sys.stdout), "encoding", encoding, raising=False)
    code, said = run(config_file, *arguments)
    assert code == 2
    assert said.startswith("error: ")
    assert message in said


def test_without_arguments_the_usage_is_said(run):
    usage = "error: usage: train.py CONFIG [--field.path value ...]; see train.py --help"
    assert run() == (2, usage)
    assert run("--seeds", "3") == (2, usage)


def test_a_configuration_that_is_not_there_is_named(run, tmp_path):
    for path in (tmp_path / "none.py", tmp_path):
        code, said = run(str(path))
        assert (code, said) == (2, f"error: {path}: no such configuration file")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "must define `config = Config(...)`"),
        ("config = {'seeds': 3}", "must define `config = Config(...)`"),
        ("config = 1/0", "ZeroDivisionError: division by zero"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("config = (", "SyntaxError: '(' was never closed"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
        (
            "from rlhf_jax.config import Config\nconfig = Config(sedes=3)",
            "unexpected keyword argument 'sedes'",
        ),
        (
            "from rlhf_jax.config import Config\nconfig = Config(seeds='3')",
            "seeds = '3': must be of type int",
        ),
    ],
    ids=lambda x: "",
)
def test_a_configuration_file_that_cannot_be_used_is_one_line(run, tmp_path, text, message):
    path = tmp_path / "broken.py"
    path.write_text(text)
    code, said = run(str(path))
    assert code == 2
    assert message in said


def test_a_configuration_file_that_is_no_text_is_one_line(run, tmp_path):
    path = tmp_path / "broken.py"
    path.write_bytes(b"\xff\xfe\x00config")
    code, said = run(str(path))
    assert code == 2
    assert str(path) in said


# --- what goes wrong later


def claimed(arguments: list[str]) -> None:
    with rundir.opened(cli.parse(arguments, "train.py")):
        pass


def test_a_file_where_the_directory_should_be_is_one_line(run, config_file, tmp_path):
    (tmp_path / "taken").write_text("")
    code, said = run(config_file, "--run.directory", str(tmp_path / "taken"), work=claimed)
    assert code == 2
    assert said.startswith(f"error: run.directory: cannot write {tmp_path / 'taken' / 'tiny'}: ")


def test_a_run_with_other_settings_is_refused_with_their_names(run, config_file, tmp_path):
    where = ["--run.directory", str(tmp_path / "runs")]
    assert run(config_file, *where, work=claimed)[0] == 0
    code, said = run(config_file, *where, "--seeds", "3", "--ppo.clip", "0.1", work=claimed)
    assert code == 2
    assert "ppo.clip (0.2 there, 0.1 here), seeds (2 there, 3 here)" in said


def fail(problem: BaseException):
    def work(_: list[str]) -> None:
        raise problem

    return work


def test_a_failure_is_one_line_with_its_kind_and_exit_code_one(run):
    code, said = run(work=fail(RuntimeError("it broke\nat length")))
    assert (code, said) == (1, "error: RuntimeError: it broke; --debug shows where")
    assert run(work=fail(RuntimeError()))[1] == "error: RuntimeError: ; --debug shows where"


def test_divergence_is_said_in_its_own_words(run):
    from rlhf_jax.loop import Diverged, Interrupted

    code, said = run(
        work=fail(Diverged("ppo, step 3: loss/policy is not finite for seed 2", Path("runs/x")))
    )
    assert code == 1
    assert said.startswith("error: ppo, step 3: loss/policy is not finite for seed 2")
    code, said = run(work=fail(Interrupted("stopped after 3 of 9 calls")))
    assert code == 130
    assert "stopped after 3 of 9 calls" in said


def test_an_interruption_is_said_and_exits_as_the_shell_expects(run):
    code, said = run(work=fail(KeyboardInterrupt()))
    assert code == 130
    assert "stopped" in said


def test_debug_shows_where_and_is_no_setting():
    with pytest.raises(ZeroDivisionError):
        cli.main(fail(ZeroDivisionError()), ["--debug"])
    seen: list[str] = []
    assert cli.main(seen.extend, ["a", "--debug", "b"]) == 0
    assert seen == ["a", "b"]


@pytest.mark.parametrize(
    ("started", "said"),
    [
        (".venv/bin/rlhf-jax", ".venv/bin/rlhf-jax"),
        ("/bin/rlhf-jax", "rlhf-jax"),
        ("/rlhf_jax/__main__.py", "rlhf-jax"),
        ("scripts/train.py", "rlhf-jax"),
    ],
)
def test_the_command_can_be_typed_again(monkeypatch, started, said):
    monkeypatch.setattr(sys, "argv", [started])
    typed = cli.command(["a b.py", "--name", "x'y"], "rlhf-jax train")
    assert typed == f"{said} train 'a b.py' --name 'x'\"'\"'y'"


# --- the command itself


def test_the_command_ends_a_mistake_in_one_line_and_exit_code_two(config_file):
    done = script(config_file, "--ppo.kl-weigth", "1")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: Unrecognized options: --ppo.kl-weigth")
    assert done.stderr.count("\n") == 1


def test_the_command_ends_an_unwritable_directory_in_one_line(config_file, tmp_path):
    (tmp_path / "taken").write_text("")
    where = str(tmp_path / "taken")
    done = script(config_file, "--run.directory", where, "--run.cache", "none")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: run.directory: cannot write {where}/tiny")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", [["CONFIG"], []], ids=("of a configuration", "of none"))
def test_help_answers_within_two_seconds_and_lists_the_settings(config_file, name):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = script(*[config_file for _ in name], "--help-all")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert done.stderr == ""
    for said in ("--ppo.kl-weight", "β_KL, in deviations of the reward per nat.", "--run.keep"):
        assert said in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], ["--help-all"], ["--seeds", "0"], ["--nonsense", "1"]]
)
def test_help_and_mistakes_answer_before_jax_is_imported(config_file, arguments):
    code = (
        "import sys; from rlhf_jax import cli\n"
        "try: cli.main(lambda a: cli.parse(a, 'train.py'), sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "sys.exit('jax' in sys.modules)"
    )
    words = [sys.executable, "-c", code, config_file, *arguments]
    assert subprocess.run(words, capture_output=True).returncode == 0
