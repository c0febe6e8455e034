"""Runs the pipeline that a configuration describes: CONFIG [--field.path value …]."""

from __future__ import annotations

import sys

from rlhf_jax import cli

PROG = "scripts/train.py"


def train(arguments: list[str]) -> None:
    config = cli.parse(arguments, PROG)

    from rich.console import Console

    from rlhf_jax import loop, report

    directory = loop.run(config, cli.command(arguments, PROG))
    page = report.write_report(directory)
    Console().print(report.summary_table(directory))
    print(f"report: {page}")


if __name__ == "__main__":
    sys.exit(cli.main(train, sys.argv[1:]))
