"""TFDS data sets of feedback that need no TensorFlow, to write or to read.

One builder, one configuration and one feature schema per feedback type; always array_record,
read as a data source. What serialised examples cannot hold decides the schema: there are no
float64 (times are int64 microseconds, other numbers float32) and no nested sequences.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from rlhf_jax.config import ConfigError
from rlhf_jax.data.rows import KINDS, Row, Span, Step, Turn, kind

UNKNOWN = -(2**63)
"""Stands for None where an int64 is stored; NaN does where a float is."""


class Codec(NamedTuple):
    """How one annotation of a row's field is stored."""

    feature: Callable[[], Any]
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def _sequence(cls: Any) -> Codec:
    """A tuple of named tuples, stored as parallel lists."""
    fields: dict[str, str] = {
        k: v if isinstance(v, str) else v.__forward_arg__ for k, v in cls.__annotations__.items()
    }

    def encode(values: Iterable[Any]) -> list[dict[str, Any]]:
        return [{k: CODECS[t].encode(getattr(v, k)) for k, t in fields.items()} for v in values]

    def decode(stored: dict[str, Any]) -> tuple[Any, ...]:
        columns = [[CODECS[t].decode(v) for v in stored[k]] for k, t in fields.items()]
        return tuple(cls(*values) for values in zip(*columns, strict=True))

    feature = lambda: tfds.features.Sequence({k: CODECS[t].feature() for k, t in fields.items()})
    return Codec(feature, encode, decode)


def _list(of: str) -> Codec:
    return Codec(
        lambda: tfds.features.Sequence(CODECS[of].feature()),
        lambda values: [CODECS[of].encode(v) for v in values],
        lambda stored: tuple(CODECS[of].decode(v) for v in stored),
    )


def _none(value: float | None) -> float:
    return float("nan") if value is None else value


CODECS: dict[str, Codec] = {
    "str": Codec(tfds.features.Text, str, lambda b: b.decode()),
    "bool": Codec(lambda: tfds.features.Scalar(np.bool_), bool, bool),
    "int": Codec(lambda: tfds.features.Scalar(np.int64), int, int),
    "int | None": Codec(
        lambda: tfds.features.Scalar(np.int64),
        lambda v: UNKNOWN if v is None else v,
        lambda v: None if v == UNKNOWN else int(v),
    ),
    "float": Codec(lambda: tfds.features.Scalar(np.float32), float, float),
    "float | None": Codec(
        lambda: tfds.features.Scalar(np.float32),
        _none,
        lambda v: None if np.isnan(v) else float(v),
    ),
    "tuple[str, ...]": _list("str"),
    "tuple[int, ...]": _list("int"),
    "Text": _sequence(Turn),
    "tuple[Step, ...]": _sequence(Step),
    "tuple[Span, ...]": _sequence(Span),
}


def schema(row_type: type[Row]) -> dict[str, Codec]:
    """{field: codec} of a feedback type."""
    return {f.name: CODECS[str(f.type)] for f in dataclasses.fields(row_type)}


def encode(row: Row) -> dict[str, Any]:
    """A row as an example of its type's schema."""
    return {name: c.encode(getattr(row, name)) for name, c in schema(type(row)).items()}


def decode(row_type: type[Row], example: dict[str, Any]) -> Row:
    """The row that an example is; its floats have float32 precision."""
    return row_type(**{name: c.decode(example[name]) for name, c in schema(row_type).items()})


class Feedback(tfds.core.GeneratorBasedBuilder):
    """Rows of one feedback type; the configuration's name is the type's."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos: ClassVar[dict[str, Any]] = {}  # nothing is downloaded, so there are no checksums
    BUILDER_CONFIGS: ClassVar[list[Any]] = [
        tfds.core.BuilderConfig(name=name, description=str(t.__doc__)) for name, t in KINDS.items()
    ]

    def __init__(self, *, splits: Mapping[str, Iterable[Row]] | None = None, **kwargs: Any) -> None:
        """`splits` is what `download_and_prepare` writes; an existing data set needs none."""
        self._splits = splits or {}
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        row_type = KINDS[self.builder_config.name]
        features = {name: codec.feature() for name, codec in schema(row_type).items()}
        return tfds.core.DatasetInfo(
            builder=self,
            description=str(row_type.__doc__),
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # examples keep the order of the rows
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {name: self._examples(rows) for name, rows in self._splits.items()}

    def _generate_examples(self, **kwargs: Any) -> Iterator[tuple[int, dict[str, Any]]]:
        raise NotImplementedError("examples are made by _split_generators")

    @staticmethod
    def _examples(rows: Iterable[Row]) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, row in enumerate(rows):
            yield i, encode(row)


class Spool:
    """Rows of one type on disk, in order, to be gone through again."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.count = file, 0

    def append(self, row: Row) -> None:
        pickle.dump(row, self._file, pickle.HIGHEST_PROTOCOL)
        self.count += 1

    def __iter__(self) -> Iterator[Row]:
        self._file.seek(0)
        for _ in range(self.count):
            yield pickle.load(self._file)


def build(splits: Mapping[str, Iterable[Row]], folder: Path) -> dict[str, Path]:
    """Writes one data set per feedback type found among the rows → {type: its folder}.

    Rows are gone through once and not kept in memory. Raises `ConfigError` where there is
    nothing to write or the folder already has one.
    """
    with contextlib.ExitStack() as stack:
        spools = _spooled(splits, stack)
        if not spools:
            raise ConfigError(f"{folder}: there are no rows to write")
        tfds.disable_progress_bar()
        return {name: _write(chosen, name, folder) for name, chosen in sorted(spools.items())}


def _spooled(
    splits: Mapping[str, Iterable[Row]], stack: contextlib.ExitStack
) -> dict[str, dict[str, Spool]]:
    """{type: {split: its rows}}; the files are gone when `stack` is closed."""
    spools: dict[str, dict[str, Spool]] = {}
    for split, rows in splits.items():
        for row in rows:
            if kind(row) not in spools:
                spools[kind(row)] = {
                    name: Spool(stack.enter_context(tempfile.TemporaryFile()))  # noqa: SIM115
                    for name in splits
                }
            spools[kind(row)][split].append(row)
    return spools


def _write(chosen: dict[str, Spool], name: str, folder: Path) -> Path:
    builder = Feedback(splits=chosen, config=name, data_dir=folder)
    if builder.data_path.exists():
        raise ConfigError(f"{builder.data_path}: there is a data set already")
    with contextlib.redirect_stdout(io.StringIO()):  # it announces a download
        builder.download_and_prepare()
    return Path(builder.data_path)


class Source(NamedTuple):
    """Random access to the rows of one split: what grain reads."""

    examples: Sequence[dict[str, Any]]
    row_type: type[Row]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: Any) -> Any:
        return decode(self.row_type, self.examples[index])


def source(folder: Path, row_type: type[Row], split: str = "train") -> Source:
    """One split of what `build` wrote under `folder`; slices such as 'train[:90%]' work."""
    name = kind(row_type)
    path = folder / "feedback" / name / str(Feedback.VERSION)
    if not path.exists():
        raise ConfigError(f"{path}: no {name} data set; write one with rlhf-jax data import")
    builder = tfds.builder_from_directory(path)
    try:
        return Source(builder.as_data_source(split=split), row_type)
    except (ValueError, KeyError) as e:
        have = ", ".join(builder.info.splits)
        raise ConfigError(f"split '{split}' of {path}: {e} (there are {have})") from None
