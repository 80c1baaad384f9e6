"""What a result was made with: versions, machine and commit, as a plain dict to store beside it."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

from . import __version__

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "matplotlib", "pillow", "safetensors")
ROOT = Path(__file__).resolve().parent.parent


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str | None]:
    """Version of Python and of each package, read from the installed metadata without importing anything.

    >>> versions(("no-such-package",))["no-such-package"] is None
    True
    """
    found: dict[str, str | None] = {"vpt-analysis": __version__, "python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def commit(root: Path = ROOT) -> dict[str, str | bool | None]:
    """Git commit that the package's sources are from, and whether tracked files differ from it; None outside git.

    A package installed into an environment that lies inside somebody else's repository is not part of it: the commit
    counts only where git tracks the package itself.
    """
    if _git(root, "ls-files", "--error-unmatch", "vpt_analysis/__init__.py") is None:
        return {"commit": None, "dirty": None}
    status = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"commit": _git(root, "rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def provenance() -> dict:
    """Versions, machine and commit. The same checkout on the same machine gives the same dict."""
    return {"versions": versions(), "platform": f"{platform.system()} {platform.machine()}", **commit()}


def _git(root: Path, *arguments: str) -> str | None:
    """Output of a git command, None where there is no git, no repository, or no answer."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
