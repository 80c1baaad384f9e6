"""Methods of equal size: the length, rank or width at which each has nearest to a given number of parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from .. import baselines, prompts
from ..vit import VisionTransformer, parameter_count

SIZES = {"lora": "rank", "adapter": "width"}  # the option of a baseline that sets its size


@dataclass(frozen=True)
class Matched:
    """``methods`` by name, the ``size`` (length, rank or width; 0 where there is none) and ``parameters`` of each, and
    ``left_out``: the reason for every method that has no size near enough."""

    methods: dict[str, nn.Module]
    size: dict[str, int]
    parameters: dict[str, int]
    left_out: dict[str, str]


def matched_methods(
    vit: VisionTransformer,
    parameters: int,
    names: list[str] | None = None,
    within: float = 0.1,
    seed: int = 0,
    options: dict[str, dict] | None = None,
) -> Matched:
    """Every prompt mechanism and baseline (or those of ``names``) with nearest to ``parameters`` trained scalars.

    A method whose nearest count is off by more than the share ``within`` is left out with the reason, not forced.
    ``options`` are further ones by method. Raises ``ValueError`` on unknown names and counts below 1.
    """
    if not isinstance(parameters, int) or isinstance(parameters, bool) or parameters < 1:
        raise ValueError(f"number of parameters is {parameters!r}; expected an integer ≥ 1")
    found = Matched({}, {}, {}, {})
    for name in [*prompts.names(), *baselines.names()] if names is None else names:
        make = maker(vit, name, seed, (options or {}).get(name, {}))
        size = nearest(lambda size, make=make: parameter_count(make(size), trainable_only=True), parameters)
        method = make(size)
        count = parameter_count(method, trainable_only=True)
        if abs(count - parameters) > within * parameters:
            found.left_out[name] = f"nearest count {count} (size {size}) is not within {within:.0%} of {parameters}"
        else:
            found.methods[name], found.size[name], found.parameters[name] = method, size, count
    return found


def maker(vit: VisionTransformer, name: str, seed: int, options: dict) -> Callable[[int], nn.Module]:
    """The method of a size."""
    if name in baselines.names():
        option = SIZES.get(name)
        most = vit.config.width if name == "lora" else None

        def make(size: int) -> nn.Module:
            sized = {} if option is None else {option: min(size, most or size)}
            return baselines.create(name, vit, seed=seed, **sized, **options)

        return make
    return lambda size: prompts.create(name, vit.config, size, seed=seed, **options).to(vit.patch.weight)


def nearest(count: Callable[[int], int], target: int) -> int:
    """The size ≥ 1 whose count, which does not fall with the size, is nearest to ``target``; the smaller of equals.

    >>> nearest(lambda size: 10 + 7 * size, 40)
    4
    """
    low, high = 1, 2
    while count(high) < target and count(high) > count(low):
        low, high = high, 2 * high
    if count(high) == count(low):
        return low if low == 1 else next(s for s in range(1, low + 1) if count(s) == count(low))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < target else (low, middle)
    return min((low, high), key=lambda size: abs(count(size) - target))
