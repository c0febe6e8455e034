"""Runs the pipeline that a configuration describes: CONFIG [--field.path value …]."""

from __future__ import annotations

from rlhf_jax import cli

PROG = "scripts/train.py"


def train(arguments: list[str]) -> None:
    config = cli.parse(arguments, PROG)

    from rich.console import Console

    from rlhf_jax import loop, report, signals

    try:
        directory = loop.run(config, cli.command(arguments, PROG))
    except loop.Diverged as problem:
        print(f"report: {report.write_report(problem.directory)}")
        raise
    signals.check(f"with {directory} finished; the same command writes the report")
    page = report.write_report(directory)
    Console().print(report.summary_table(directory))
    print(f"report: {page}")
    for line in report.warnings(directory):
        print(f"warning: {line}")


if __name__ == "__main__":
    cli.process(train)
