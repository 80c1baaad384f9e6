"""Grids of pure functions of a small config: every run kept by content, resumed, on all cores or on a cluster.

``engine`` runs them, ``store`` keeps the results, ``configs`` says what a config is, ``pool`` and ``clusters`` where
runs are computed: by joblib's backend, on dask, on Slurm.
"""

from .configs import plain
from .engine import Sweep, cached, keys, run
from .runs import Failure
from .store import Store, StoreError

__all__ = ["Failure", "Store", "StoreError", "Sweep", "cached", "keys", "plain", "run"]
