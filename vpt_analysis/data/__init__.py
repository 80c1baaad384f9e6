"""Real images: from scikit-learn, folders, tars, packed and IDX files, or a user's own; with digests and fair subsets.

``load("digits")`` works everywhere. Each source gives an ``ImageSet``.
"""

from .bundled import digits, photographs
from .folders import folder, pictures
from .idx_files import idx
from .image_set import ImageSet, normalise
from .named import load, names
from .packs import packed
from .tars import tar

__all__ = [
    "ImageSet",
    "digits",
    "folder",
    "idx",
    "load",
    "names",
    "normalise",
    "packed",
    "photographs",
    "pictures",
    "tar",
]
