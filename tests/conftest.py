"""What every test shares: no network, no progress bars, few threads, and the folder of real benchmark files."""

import functools
import gc
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.toy_runs import Toys

# Set before anything imports transformers, datasets or torch: all of them read the environment at import.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TQDM_DISABLE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
_FONTS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "matplotlib"
os.environ.setdefault("MPLCONFIGDIR", str(_FONTS))  # its list of fonts is made once, not by every process of the tests
_CACHE = tempfile.TemporaryDirectory(prefix="lethe-tests-")  # the user's own cache stays as it is
os.environ["XDG_CACHE_HOME"] = _CACHE.name
THREADS = int(os.environ.get("LETHE_TEST_THREADS", "1"))
os.environ["OMP_NUM_THREADS"] = str(THREADS)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what it puts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests interrupt themselves, and what they start

settings.register_profile("lethe", deadline=None, derandomize="CI" in os.environ)  # a busy machine is no failure
settings.load_profile("lethe")

ROOT = Path(__file__).resolve().parent.parent
LONGEST = (
    "test_run_all.py",
    "test_tiny_reference.py",
    "test_quality.py",
    "test_run_all_killed.py",
    "test_run_all_targets.py",
    "test_readme.py",
    "test_run_all_tuned.py",
    "test_contract.py",
    "test_build.py",
    "test_harness.py",
    "test_workers.py",
    "test_run_all_bad_input.py",
    "test_paper.py",
    "test_scorer.py",
    "test_generate.py",
    "test_gate.py",
    "test_run_all_choices.py",
)
"""Files that take longest. They go first, so that no process is left with one while the others have nothing to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(autouse=True)
def few_threads() -> Iterator[None]:
    """Small models are fastest on few threads; a test that never imports torch does not pay for importing it."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(THREADS)
    yield


_frozen = 0


@pytest.fixture(autouse=True)
def frozen_modules() -> None:
    """Modules live as long as the process: no collection of garbage, of which whole runs ask for many, walks them."""
    global _frozen
    if len(sys.modules) > _frozen:
        gc.collect()
        gc.freeze()
        _frozen = len(sys.modules)


@pytest.fixture
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are empty files, for whole runs that are about something else: drawing takes longer than such a run.

    A test that looks at them is marked `drawn`.
    """
    from tests.toy_runs import draw_nothing

    if request.node.get_closest_marker("drawn") is None:
        draw_nothing(monkeypatch)


@pytest.fixture
def short_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random models never stop by themselves."""
    from evaluators import EVALUATORS
    from evaluators.tofu import TofuEvaluator

    monkeypatch.setitem(EVALUATORS, "tofu", (functools.partial(TofuEvaluator, max_new_tokens=6),))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real benchmark files: $LETHE_TEST_DATA, or shared/data beside the checkout."""
    given = os.environ.get("LETHE_TEST_DATA")
    folder = Path(given) if given else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        where = f"LETHE_TEST_DATA={given}" if given else "LETHE_TEST_DATA is not set and ../shared/data"
        pytest.skip(f"no real benchmark files: {where} is not a folder")
    return folder


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> "Toys":
    """Data and random checkpoints for whole runs of the command."""
    from tests.toy_runs import Toys, save_model, write_data

    root = tmp_path_factory.mktemp("toys")
    return Toys(
        data=write_data(root / "data"),
        original=save_model(root / "original"),
        retrained=save_model(root / "retrained", seed=1),
    )
