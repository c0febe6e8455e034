"""`rlhf-jax train CONFIG [--field.path value …]`: the pipeline that a configuration describes."""

from __future__ import annotations

from rlhf_jax import cli

PROG = "rlhf-jax train"


def work(arguments: list[str]) -> None:
    config = cli.parse(arguments, PROG)

    from rlhf_jax import loop, report, signals
    from rlhf_jax.commands.report import tell

    try:
        directory = loop.run(config, cli.command(arguments, PROG))
    except loop.Diverged as problem:
        print(f"report: {report.write_report(problem.directory)}")
        raise
    signals.check(f"with {directory} finished; the same command writes the report")
    tell(directory)
