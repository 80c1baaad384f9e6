"""Images: from scikit-learn, folders, tars, packed and IDX files, or a user's own; with digests and fair subsets.

``shapes`` makes its own: shapes to count, to find, to tell the direction or the colour of, whose ``factors`` are known.
``load("digits")`` and ``load("shapes-count")`` work everywhere. Each source gives an ``ImageSet``.
"""

from .bundled import digits, photographs
from .folders import folder, pictures
from .idx_files import idx
from .image_set import ImageSet, normalise
from .named import load, names
from .packs import packed
from .shapes import factors, shapes
from .tars import tar

__all__ = [
    "ImageSet",
    "digits",
    "factors",
    "folder",
    "idx",
    "load",
    "names",
    "normalise",
    "packed",
    "photographs",
    "pictures",
    "shapes",
    "tar",
]
