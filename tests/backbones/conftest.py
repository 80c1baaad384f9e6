"""Small peers with every parameter randomised, so that a dropped or swapped one shows in the outputs."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.fixture(scope="session")
def randomise() -> Callable[..., nn.Module]:
    """Fill all parameters of a module from one seed, norms' weights around 1, and set evaluation mode."""

    def fill(module: nn.Module, dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, p in module.named_parameters():
                centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
                p.copy_(centre + 0.2 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
        return module.to(dtype).eval()

    return fill


@pytest.fixture(scope="session")
def images() -> Callable[..., Tensor]:
    def draw(size: int, dtype: torch.dtype, columns: int | None = None) -> Tensor:
        generator = torch.Generator().manual_seed(size)
        return torch.randn(2, 3, size, columns or size, generator=generator, dtype=torch.float64).to(dtype)

    return draw


@pytest.fixture(scope="session")
def agree() -> Callable[..., None]:
    """Assert agreement relative to the largest value, to the tolerance of the dtype."""

    def check(ours: Tensor, theirs: Tensor, tolerance: float | None = None) -> None:
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        error = float((ours - theirs).abs().max() / theirs.abs().max())
        assert error <= (TOLERANCE[ours.dtype] if tolerance is None else tolerance), f"relative error {error:.2e}"

    return check


@pytest.fixture(scope="session")
def quietly() -> Callable:
    """Call something whose warning is not the subject of the test."""

    def call(function: Callable, *args, **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return function(*args, **kwargs)

    return call


@pytest.fixture(scope="session")
def peer_positions() -> Callable:
    """Interpolate positions in float32, as timm and DINOv2 do even for float64 models; the rest stays in float64.

    With it a float64 comparison at another grid is exact to rounding, so that the 1e-7 it has without is known to be
    the peer's interpolation and nothing else.
    """

    def narrow(vit: nn.Module) -> nn.Module:
        vit, single = copy.deepcopy(vit), copy.deepcopy(vit).float()

        def position_for(grid: tuple[int, int]) -> Tensor:
            p, k = single.position_for(grid).to(vit.position.dtype), vit.config.prefix
            return torch.cat([vit.position[:, :k], p[:, k:]], dim=1)

        vit.position_for = position_for
        return vit

    return narrow
