"""A study that has grown: parts that its committed results hold already are kept, and only the others are computed."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np

from .sources import versions
from .study import Computed, collect, committed, name

AGREE = 0.02  # by how much a part that is computed again may differ, absolute or of its value


class Extended(Computed):
    """The full tier, of which a part is kept where the committed results have one of the same name and dict.

    The code may have changed since, which a part does not know. So one of the kept parts, drawn at random, is computed
    again; where it does not agree nothing is kept. The record says how many parts are whose. Raises ``ValueError``
    where files or versions are others than those of the committed results, or the drawn part disagrees.
    """

    def __init__(self, module: ModuleType, cache: Path, folder: Path | None = None, seed: int | None = None):
        super().__init__(module, "full", cache)
        self.earlier, self.record = committed(name(module), folder)
        self.seed = seed
        self._check()
        parts = every_part(module, self.record["config"], self.earlier)
        self.known = {part["name"]: _plain(part) for part in parts}

    def _check(self) -> None:
        """Nothing computed from other files or by other libraries is kept."""
        theirs, mine = self.record["inputs"], self.inputs
        for file in theirs.keys() & mine.keys():
            if theirs[file] != mine[file]:
                raise ValueError(f"{file} is not the file that the committed results were made with; {ANEW}")
        made = self.record["collected_with"]["versions"]
        for library, version in versions().items():
            if made.get(library, version) != version:
                raise ValueError(
                    f"the committed results were made with {library} {made[library]}, here is {version}; {ANEW}"
                )

    def arrays(self, jobs: int) -> dict[str, np.ndarray]:
        found, kept = self._round(self.parts, jobs)
        if hasattr(self.module, "later"):
            more, again = self._round(self.module.later(self.config, found), jobs)
            found, kept = found | more, kept + again
        if kept:
            self.provenance = self.provenance | {"kept": self._agree(kept)}
        return found

    def _round(self, parts: list[dict], jobs: int) -> tuple[dict[str, np.ndarray], list[dict]]:
        """Arrays of all parts, and the parts that were kept."""
        kept = [part for part in parts if self.known.get(part["name"]) == _plain(part)]
        names = {part["name"] for part in kept}
        new = [part for part in parts if part["name"] not in names]
        found = {k: array for k, array in self.earlier.items() if k.rpartition("/")[0] in names}
        return found | collect(self.module, new, self.cache, jobs, self.inputs), kept

    def _agree(self, kept: list[dict]) -> dict:
        """Compute one part again; what the record keeps of it."""
        part = random.Random(self.seed).choice(kept)
        again, differs = self.module.compute(part), 0.0
        for what, value in again.items():
            stored = self.earlier.get(f"{part['name']}/{what}")
            if stored is None or np.shape(stored) != np.shape(value):
                raise ValueError(f"{part['name']}/{what} is not what the committed results hold; {ANEW}")
            apart = np.abs(np.asarray(value, float) - stored) / np.maximum(1, np.abs(stored))
            differs = max(differs, float(apart.max(initial=0.0)))
        if not differs <= AGREE:
            raise ValueError(f"{part['name']} computed again differs by {differs:.2g} from what is committed; {ANEW}")
        return {
            "parts": len(kept), "collected_with": self.record["collected_with"], "computed_again": part["name"],
            "differs_by": differs,
        }  # fmt: skip


ANEW = "compute the study anew, without --extend"


def every_part(module: ModuleType, config: dict, arrays: Mapping[str, np.ndarray]) -> list[dict]:
    """The parts of a study, of both rounds where it has two."""
    return module.parts(config) + (module.later(config, arrays) if hasattr(module, "later") else [])


def _plain(part: dict) -> dict:
    """As it would be read from a file."""
    return json.loads(json.dumps(part))
