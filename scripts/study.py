"""Runs studies: STUDY.py … [--all] [--quick] [--shuffled] [--fresh] …

    python scripts/study.py configs/studies/inattention.py --quick

What is finished is kept, so the same command goes on where a study was stopped, and costs
nothing once all is done. Ends in runs/studies/<name>/study.html and runs/studies/index.html.

  --all              every study in configs/studies
  --quick            the short form that each study defines; kept apart under <name>-quick
  --shuffled         the negative control: answers are dealt anew over the items that were asked
                     about, so that they say nothing; kept apart under <name>-shuffled
  --fresh            the confirmation: the same on seeds from 1,000 on, which nobody has seen, for
                     claims that were stated after their data; kept apart under <name>-fresh
  --seeds N          this many seeds instead of the study's own
  --only ARM         makes the runs of this arm alone; verdicts that need others wait
  --single           also runs one seed by itself, to state what the population saves
  --directory DIR    where runs and pages go (runs/studies)
"""

from __future__ import annotations

from pathlib import Path

from rlhf_jax import cli
from rlhf_jax.studies import command

PROG = "scripts/study.py"
STUDIES = Path(__file__).parents[1] / "configs" / "studies"


def work(arguments: list[str]) -> None:
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return
    asked = command.parse(arguments, STUDIES)

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


if __name__ == "__main__":
    cli.process(work)
