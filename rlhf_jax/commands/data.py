"""Feedback in and out of files: import, export, stats, formats.

    rlhf-jax data stats hh_rlhf_harmless.jsonl.gz
    rlhf-jax data import pairs.json --format label_studio --field a=left --out rows.jsonl
    rlhf-jax data import pairs.jsonl.gz --arguments args.json.gz --out datasets/ukp
    rlhf-jax data export rows.jsonl --to trl_preference --on-error skip --out trl.jsonl

Files are JSON lines or one JSON list, gzip, bzip2, xz or not. Records that cannot be read, and
answers that a format cannot express, are listed on stderr with their place and reason; they end
the command (exit code 2) unless `--on-error skip`. What is odd about the others is counted there.
`--debug` shows the traceback of an error.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from rlhf_jax import cli
from rlhf_jax.config import ConfigError

if TYPE_CHECKING:
    from rlhf_jax.data.formats import Options
    from rlhf_jax.data.rows import Row

PROG = "rlhf-jax data"


@dataclass(frozen=True)
class Input:
    """What every command reads."""

    file: tyro.conf.Positional[Path]
    """JSON lines or one JSON list, gzip, bzip2, xz or not."""
    format: str = "auto"
    """Name of its format, see `formats`; auto lets the first hundred records vote."""
    arguments: Path | None = None
    """UKPConvArg1 only: the file with the arguments' texts."""
    field: tuple[str, ...] = ()
    """TRL, Label Studio, Argilla: ours=theirs, for fields that the project calls differently."""
    on_error: Literal["fail", "skip"] = "fail"
    """What a record that cannot be read or expressed does: end the command, or be left out."""


@dataclass(frozen=True)
class Import(Input):
    """Any format → our rows, as JSON lines or as TFDS data sets (array_record)."""

    out: Path = dataclasses.field(kw_only=True)
    """A .jsonl or .jsonl.gz file of rows; any other name is a folder of TFDS data sets."""


@dataclass(frozen=True)
class Export(Input):
    """Any format → another format; counts what it cannot carry."""

    out: Path = dataclasses.field(kw_only=True)
    """The file to write; gzip if it ends in .gz."""
    to: str = dataclasses.field(kw_only=True)
    """Name of the format to write, see `formats`."""


@dataclass(frozen=True)
class Stats(Input):
    """Counts, people, time, ties, cycles and agreement."""

    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Formats:
    """What each format can hold."""


Command = (
    Annotated[Import, tyro.conf.subcommand("import")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Stats, tyro.conf.subcommand("stats")]
    | Annotated[Formats, tyro.conf.subcommand("formats")]
)


def say(line: str) -> None:
    print(line, file=sys.stderr)


def name(written: Path) -> None:
    """On stdout, unless the file went there itself."""
    if written.is_file():
        print(written)


def options_of(command: Input) -> Options:
    from rlhf_jax.data.convert import load_arguments
    from rlhf_jax.data.formats import Options

    for pair in command.field:
        if "=" not in pair:
            raise ConfigError(f"--field {pair}: expected ours=theirs")
    fields = dict(pair.split("=", 1) for pair in command.field)
    return Options(fields, load_arguments(command.arguments) if command.arguments else {})


def load(command: Input, options: Options) -> Iterator[Row]:
    """The answers of a file, one after the other; at the end it says on stderr what was read."""
    from rlhf_jax.data.convert import Account, format_named, recognise, stream_rows

    if command.format == "auto":
        chosen = recognise(command.file, options)
    else:
        chosen = format_named(command.format)
    account = Account()
    yield from stream_rows(command.file, chosen, options, command.on_error, account)
    for malformed in account.malformed:
        say(f"skipped {malformed}")
    unanswered = f", {account.unanswered} without an answer" if account.unanswered else ""
    say(
        f"{command.file.name}: {chosen.name}, {account.records} records, "
        f"{account.answers} answers, {len(account.malformed)} malformed{unanswered}"
    )
    for what, (count, line) in account.remarks.items():
        say(f"{count} answer{'s' * (count > 1)}, first in line {line}: {what}")


def run_import(command: Import) -> None:
    from rlhf_jax.data.files import write_records
    from rlhf_jax.data.formats import FORMATS

    options = options_of(command)
    rows = load(command, options)
    if command.out.name.endswith((".jsonl", ".jsonl.gz")):
        write_records(command.out, (FORMATS["rows"].write([r], options) for r in rows))
        name(command.out)
        return
    from rlhf_jax.data.builders import build

    for path in build({"train": rows}, command.out).values():
        print(path)


def run_export(command: Export) -> None:
    from rlhf_jax.data.convert import Outcome, format_named, stream_records
    from rlhf_jax.data.files import write_records
    from rlhf_jax.data.formats import Options, ukpconvarg1

    options, to = options_of(command), format_named(command.to)
    rows, outcome = load(command, options), Outcome()
    texts: dict[str, str] = {}
    if to is ukpconvarg1.FORMAT:
        rows, options = ukpconvarg1.gathered(rows, texts), Options(options.fields, texts)
    refuse = lambda r: say(f"refused answer {r.row}: {r.reason}")
    records = stream_records(rows, to, options, command.on_error, outcome, refuse)
    write_records(command.out, records, as_list=to.as_list)
    for field, count in outcome.lost.most_common():
        say(f"lost: '{field}' of {count} answers has no place in {to.name}")
    say(f"{to.name}: {outcome.records} records, {outcome.refused} answers refused")
    name(command.out)
    if to is ukpconvarg1.FORMAT:
        second = command.out.with_name("arguments_of_" + command.out.name)
        write_records(second, [texts])
        name(second)


def run_stats(command: Stats) -> None:
    from rlhf_jax.data.stats import summary

    result = summary(load(command, options_of(command)))
    if command.json:
        print(json.dumps(result, ensure_ascii=False))
        return
    for name, facts in result.items():
        print(name)
        for line in lines(facts):
            print(f"  {line}")


def lines(facts: dict[str, Any]) -> Iterator[str]:
    """One line a fact; a share shows its count, a distribution its quantiles, no value a dash."""
    for key, value in facts.items():
        if isinstance(value, dict) and "share" in value:
            part = "–" if value["share"] is None else f"{value['share']:.4f}"
            shown = f"{part}  ({value['count']} of {value['of']})"
        elif isinstance(value, dict):
            shown = ", ".join(f"{k} {v:.6g}" for k, v in value.items())
        elif value is None:
            shown = "–"
        else:
            shown = f"{value:.4f}" if isinstance(value, float) else str(value)
        yield f"{key:<26} {shown}"


def run_formats() -> None:
    from rlhf_jax.data.formats import ALL
    from rlhf_jax.data.rows import TYPES, kind

    for f in ALL:
        held = "all types" if f.types == TYPES else ", ".join(kind(t) for t in f.types)
        print(f"{f.name:<24} {held}\n{'':<24} {f.about}")


def work(arguments: list[str]) -> None:
    command = cli.understood(Command, arguments, description=__doc__, prog=PROG)
    if isinstance(command, Import):
        run_import(command)
    elif isinstance(command, Export):
        run_export(command)
    elif isinstance(command, Stats):
        run_stats(command)
    else:
        run_formats()
