# Two commands: `make quickstart` runs the main job, `make test` the tests.
# PYTHON chooses the interpreter, VENV the environment that is made for it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# What the newest Python and JAX can break: how JAX, Flax, Optax and Orbax are called and what they
# do, the command line, and a run that is killed, gone on with and reported. Not mathematics.
NEWEST := tests/models tests/ops tests/test_transforms.py tests/test_grid.py tests/test_metrics.py \
  tests/test_checkpoint.py tests/test_cli.py tests/test_config.py tests/test_learning.py \
  $(addprefix tests/kernels/test_,collect.py evaluate.py ppo.py ppo_cost.py pretrain.py reward.py \
  sampling.py siblings.py::test_every_sibling_runs_as_a_population_equal_to_its_members) \
  tests/feedback/test_every_type.py tests/test_resume.py

.PHONY: quickstart test test-fast test-newest lint clean

quickstart: $(VENV)/.installed
	$(BIN)/rlhf-jax train quickstart

test: $(VENV)/.tested
	$(PYTEST)

test-fast: $(VENV)/.tested
	$(PYTEST) -m "not slow"

test-newest: $(VENV)/.tested
	$(PYTEST) -m "not slow or newest" $(NEWEST)

lint: $(VENV)/.tested
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rlhf_jax needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	touch $@

clean:
	rm -rf $(VENV) runs
