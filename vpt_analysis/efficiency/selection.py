"""Which learning rate each arm is given, and whether the grid was wide enough.

- **own**: the rate with the best accuracy on the validation part of the training subset;
- **from_others**: where every class has one image, and so no part can be carved: the rate that is best on the *other*
  tasks of the comparison. What counts is the mean over them of the accuracy at a rate less the best accuracy at any;
- **on_test**: the rate that is best on the test images. Nothing here reports it as a result: it is what C22 measures.

Of equally good rates the smallest is taken. A best rate at an end of the grid says that the grid should go on.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def own(rates: np.ndarray, validation: np.ndarray) -> float:
    """
    >>> own(np.array([0.01, 0.1, 1.0]), np.array([0.2, 0.5, 0.5]))
    0.1
    """
    return float(np.asarray(rates)[int(np.argmax(validation))])


on_test = own  # the same rule on other images


def from_others(task: str, rates: np.ndarray, validation: Mapping[str, np.ndarray]) -> float:
    """The rate for ``task`` from the accuracies (R,) of the other tasks. Raises ``ValueError`` without any.

    >>> from_others("a", np.array([0.1, 1.0]), {"a": np.array([0.0, 1.0]), "b": np.array([0.5, 0.4])})
    0.1
    """
    others = [np.asarray(v) - np.max(v) for name, v in validation.items() if name != task]
    if not others:
        raise alone(task)
    return own(rates, np.mean(others, axis=0))


def alone(task: str) -> ValueError:
    return ValueError(
        f"{task}: every class has one training image, so no validation part can be carved, and there is no other task "
        f"to choose the learning rate on. Add a task, take two images a class, or give a single rate"
    )


def at_edge(rates: np.ndarray, rate: float) -> bool:
    """Whether a chosen rate is an end of a grid of at least two.

    >>> at_edge(np.array([0.1, 1.0, 10.0]), 1.0), at_edge(np.array([0.1, 1.0, 10.0]), 10.0), at_edge([0.1], 0.1)
    (False, True, False)
    """
    return len(rates) > 1 and rate in (min(rates), max(rates))
