"""What every test shares: no network, no progress bars, few threads, and the folder of real benchmark files."""

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


@pytest.fixture(autouse=True)
def few_threads() -> Iterator[None]:
    """Small models are fastest on few threads; a test that never imports torch does not pay for importing it."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(THREADS)
    yield


@pytest.fixture
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are empty files, for whole runs that are about something else: drawing takes longer than such a run.

    A test that looks at them is marked `drawn`.
    """
    from bench.figures import FORMATS, Picture

    if request.node.get_closest_marker("drawn") is None:
        monkeypatch.setattr(Picture, "rendered", lambda self: {f"{self.name}.{ending}": b"" for ending in FORMATS})


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
