"""Whatever bytes a file holds, it loads or is refused by a ``ValueError`` that names it: never another error."""

from __future__ import annotations

import gzip
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vpt_analysis import data
from vpt_analysis.data.decoding import FORMATS

CLASSES = {"cat": 2, "dog": 1}


def image(form: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(out, form)
    return out.getvalue()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, make):
    """File name, good bytes and reader of every kind."""
    root = tmp_path_factory.mktemp("damage")
    arrays = make.pack([make.encoded(i) for i in range(4)], [0, 1, 1, 0])
    np.savez(root / "plain.npz", **arrays)
    np.savez_compressed(root / "small.npz", **arrays)
    idx = make.write_idx(root)
    zipped = root / "zipped-images-idx3.gz"
    zipped.write_bytes(gzip.compress(idx.read_bytes()))
    labels = idx.with_name("train-labels-idx1-ubyte")
    tar = make.write_tar(root / "pets.tar", make.splits(CLASSES, CLASSES))
    kinds = {form: (root / f"image.{form.lower()}", image(form), data.pictures) for form in FORMATS}
    kinds |= {p.name: (p, p.read_bytes(), data.packed) for p in (root / "plain.npz", root / "small.npz")}
    kinds |= {p.name: (p, p.read_bytes(), lambda p: data.idx(p, labels)) for p in (idx, zipped)}
    return kinds | {"pets.tar": (tar, tar.read_bytes(), data.tar)}


edits = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4)
KINDS = [*FORMATS, "plain.npz", "small.npz", "train-images-idx3-ubyte", "zipped-images-idx3.gz", "pets.tar"]


@pytest.mark.filterwarnings("ignore")  # decoders warn of odd metadata
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_load_or_are_named(whole, kind):
    path, good, read = whole[kind]

    @settings(max_examples=60)
    @given(edits=edits, head=st.sampled_from([100, 700, 10**6]), keep=st.floats(0, 1) | st.just(1.0))
    def check(edits, head, keep):
        damaged = bytearray(good)
        for place, value in edits:
            damaged[int(place * min(head, len(good)))] = value
        path.write_bytes(damaged[: round(keep * len(good))])
        try:
            assert len(read(path)) > 0
        except ValueError as error:
            assert path.name in str(error)

    check()
