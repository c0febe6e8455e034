"""The real files: every record comes back bit for bit, and the README's facts hold."""

from __future__ import annotations

import pytest

from rlhf_jax.data.convert import load_arguments, read_rows, recognise, write_rows
from rlhf_jax.data.files import read_records
from rlhf_jax.data.formats import FORMATS, Options
from rlhf_jax.data.stats import summary

FILES = {
    "hh_rlhf_harmless": ("hh_rlhf", 1800, 1800),
    "bigbench_mistake": ("bigbench_mistake", 1886, 1886),
    "finegrained_rlhf_dev": ("finegrained_rlhf", 400, 3200),
    "ilf_code": ("ilf_code", 195, 390),
    "gsm8k_model_solutions": ("gsm8k_solutions", 1319, 6595),
    "gsm8k_train": ("gsm8k", 7473, 7473),
}


@pytest.mark.parametrize("name", FILES)
def test_a_real_file_is_recognised_read_and_written_back_unchanged(data_folder, name):
    path = data_folder / f"{name}.jsonl.gz"
    form, records, answers = FILES[name]
    f = recognise(path, Options())
    assert f.name == form
    found = read_rows(path, f, Options())
    assert (found.records, len(found.rows)) == (records, answers)
    written = write_rows(found.rows, f, Options())
    assert written.records == [r.value for r in read_records(path)]
    assert not written.lost


def test_ukpconvarg1_comes_back_and_its_people_tie_agree_and_contradict_as_measured(data_folder):
    options = Options(arguments=load_arguments(data_folder / "ukpconvarg1_args.json.gz"))
    path, f = data_folder / "ukpconvarg1_pairs.jsonl.gz", FORMATS["ukpconvarg1"]
    rows = read_rows(path, f, options).rows
    items = [r.value for r in read_records(path)][:1500]
    count = sum(len(i["annotations"]) for i in items)
    assert write_rows(rows[:count], f, options).records == items
    assert len(rows) == 65594
    assert len({r.annotator for r in rows}) == 3790
    found = summary(rows)["comparison"]
    assert found["ties"]["share"] == pytest.approx(0.2344, abs=5e-5)
    assert found["with majority of others"]["share"] == pytest.approx(0.7725, abs=5e-5)
    assert found["majority triples"] == 98911
    assert found["cyclic"]["count"] == 4645  # 4.7 %
    assert found["Krippendorff's α (nominal)"] == pytest.approx(0.2439, abs=5e-5)
    assert found["identical answers"]["count"] == 70
