"""`rlhf-jax study STUDY …`: makes a study's runs and writes its page."""

from __future__ import annotations

from rlhf_jax import cli
from rlhf_jax.studies import command

PROG = "rlhf-jax study"


def work(arguments: list[str]) -> None:
    asked = command.parse(arguments, cli.shipped("studies"), PROG)

    from rich.console import Console

    from rlhf_jax import signals
    from rlhf_jax.studies import answers, page, plan, runs, tables

    typed = cli.command(arguments, PROG)
    runner = runs.Runner(asked.root, typed)
    for study in asked.studies:
        chunks = [c for c in plan.chunks(study, asked.root) if asked.only in ("", c.arm)]
        if asked.single:
            chunks.insert(0, plan.alone(study, asked.root))
        runner.run(chunks, asked.root / study.name)
        signals.check("with all runs finished; the same command writes the answer")
        said = answers.answer(study, asked.root)
        written = answers.write(said, asked.root, typed)
        Console().print(tables.terminal(said.results))
        for line in tables.verdict_lines(said.judged):
            print(f"{tables.MARKS[line.outcome]} {line.outcome}: {line.said}")
        if said.judged.positive is not None:
            print(page.positive(said.judged, study))
        print(f"page: {written}; all studies: {asked.root / 'index.html'}")
