"""Images: from scikit-learn, folders, tars, packed and IDX files, or a user's own; with digests and fair subsets.

``shapes`` makes its own: shapes to count, to find, to tell the direction or the colour of, whose ``factors`` are known.
``load("digits")`` and ``load("shapes-count")`` work everywhere. Each source gives an ``ImageSet``.
"torchvision:DTD" and "huggingface:ethz/food101" are names too, for data sets of those libraries.
"""

from .bundled import digits, photographs
from .folders import folder, pictures
from .huggingface_sets import huggingface_set
from .idx_files import idx
from .image_set import ImageSet, normalise
from .named import is_name, load, names
from .packs import packed
from .shapes import factors, shapes
from .tars import tar
from .torchvision_sets import torchvision_set

__all__ = [
    "ImageSet",
    "digits",
    "factors",
    "folder",
    "huggingface_set",
    "idx",
    "is_name",
    "load",
    "names",
    "normalise",
    "packed",
    "photographs",
    "pictures",
    "shapes",
    "tar",
    "torchvision_set",
]
