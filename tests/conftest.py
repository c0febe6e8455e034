"""Eight virtual CPU devices, warnings are errors, silent broadcasting of ranks raises."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import pytest

# Tests are small and many: LLVM's optimisations cost a third of their time and gain nothing.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests go first, so that no worker is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def data_folder() -> Path:
    """The folder of real human feedback; a test that needs it is skipped where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("RLHF_JAX_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} does not exist (set RLHF_JAX_DATA)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _compile_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Equal programs of one test session compile once, whichever worker asks."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    jax.config.update("jax_compilation_cache_dir", str(shared / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
