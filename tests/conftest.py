"""What all tests share: the dtypes they run in, the shared data they may use, and a fixed search for examples."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import hypothesis
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
DTYPES = {"float32": torch.float32, "float64": torch.float64}

# Examples come from the test's own name, so that a red run can be repeated; no deadline, because CI machines stall.
hypothesis.settings.register_profile(
    "vpt", deadline=None, derandomize=True, database=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("vpt")


def declare_torchvision_operators() -> torch.library.Library | None:
    """Let timm and transformers be imported beside a torch that torchvision was not compiled for.

    Both import torchvision, whose Python part stops when its compiled part (a CUDA build by default) cannot be
    loaded, only because two operators have no schema. Nothing here calls them; declaring the schemas is enough.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None:
        return None
    try:
        for library in Path(spec.origin).parent.glob("_C*.so"):
            torch.ops.load_library(library)
        return None
    except OSError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return library


# The models of the tests are small: threads that wait for each other take longer than one that does not, much longer
# where the machine has other work.
torch.set_num_threads(1)
TORCHVISION = declare_torchvision_operators()  # kept alive: the schemas go with it


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The fixture ``dtype``: float32 and float64, or the one that VPT_ANALYSIS_TEST_DTYPE names."""
    if "dtype" in metafunc.fixturenames:
        name = os.environ.get("VPT_ANALYSIS_TEST_DTYPE", "")
        if name and name not in DTYPES:
            raise pytest.UsageError(f"VPT_ANALYSIS_TEST_DTYPE is {name!r}; expected one of {', '.join(DTYPES)}")
        names = [name] if name else list(DTYPES)
        if not any("dtype" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")):
            metafunc.parametrize("dtype", [DTYPES[n] for n in names], ids=names)


@pytest.fixture(autouse=True)
def fixed_state() -> None:
    """Every test starts from the same global seed and must leave the default dtype alone."""
    torch.manual_seed(0)
    yield
    assert torch.get_default_dtype() == torch.float32, "a test changed torch's default dtype"


def shared(variable: str, folder: str) -> Path | None:
    """The folder that an environment variable names, or its place beside the checkout; None where there is none."""
    path = Path(os.environ.get(variable) or ROOT.parent / "shared" / folder)
    return path if path.is_dir() else None


@pytest.fixture(scope="session")
def data_dir() -> Path:
    path = shared("VPT_ANALYSIS_DATA", "data")
    if path is None:
        pytest.skip("no shared data: set VPT_ANALYSIS_DATA to the folder of packed files")
    return path


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marked tests are opt-in, each with the reason on its skip."""
    opt_in = {"network": "VPT_ANALYSIS_TEST_NETWORK", "slow": "VPT_ANALYSIS_TEST_SLOW"}
    for item in items:
        for mark, variable in opt_in.items():
            if item.get_closest_marker(mark) and not os.environ.get(variable):
                item.add_marker(pytest.mark.skip(reason=f"opt-in: set {variable}=1"))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no accelerator here"))


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory) -> str:
    """A weight file of three layers for 16-pixel images."""
    from tests.reference import saved_backbone

    return saved_backbone(tmp_path_factory.mktemp("weights"), image_size=16, depth=3)
