"""Decoding: upright RGB whatever the file holds, centre crops, and errors that name the file."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from vpt_analysis.data.decoding import MAX_PIXELS, decode, decode_all


def save(image: Image.Image, form: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def quadrants() -> np.ndarray:
    """16×16 RGB: red, green / blue, white, clockwise from the upper left but for blue and white."""
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    pixels[:8, :8, 0], pixels[:8, 8:, 1], pixels[8:, :8, 2], pixels[8:, 8:] = 255, 255, 255, 255
    return pixels


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "GIF"])
def test_lossless_formats_keep_every_pixel(form):
    data = save(Image.fromarray(quadrants()), form, **({"lossless": True} if form == "WEBP" else {}))
    np.testing.assert_array_equal(decode(data, "x"), quadrants().transpose(2, 0, 1))


def test_jpeg_keeps_colours_and_places():
    data = save(Image.fromarray(quadrants()), "JPEG", quality=95, subsampling=0)
    assert np.abs(decode(data, "x").astype(int) - quadrants().transpose(2, 0, 1)).max() < 12


@pytest.mark.parametrize(
    "orientation, turned",
    [
        (1, lambda p: p),
        (2, lambda p: p[:, ::-1]),
        (3, lambda p: p[::-1, ::-1]),
        (4, lambda p: p[::-1]),
        (5, lambda p: p.transpose(1, 0, 2)),
        (6, lambda p: np.rot90(p, -1)),
        (7, lambda p: p.transpose(1, 0, 2)[::-1, ::-1]),
        (8, lambda p: np.rot90(p, 1)),
    ],
)
def test_exif_orientation_is_applied(orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(quadrants()[:, :12])
    expected = turned(np.asarray(image))
    np.testing.assert_array_equal(decode(save(image, exif=exif), "x"), expected.transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK"])
def test_modes_become_rgb(mode):
    image = Image.fromarray(np.full((4, 5, 3), 255, dtype=np.uint8)).convert(mode)
    out = decode(save(image, "TIFF" if mode == "CMYK" else "PNG"), "x")
    assert out.shape == (3, 4, 5) and out.dtype == np.uint8 and out.min() == 255


def test_transparency_is_laid_on_white():
    pixels = np.zeros((2, 2, 4), dtype=np.uint8)
    pixels[..., 0], pixels[0, :, 3] = 200, 255
    out = decode(save(Image.fromarray(pixels)), "x")
    assert out[:, 0, 0].tolist() == [200, 0, 0] and out[:, 1, 0].tolist() == [255, 255, 255]


def test_transparent_palette_is_laid_on_white():
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    out = decode(save(image, transparency=0), "x")
    assert out[:, 0, 0].tolist() == [255, 255, 255] and out[:, 0, 1].tolist() == [200, 100, 50]


def test_sixteen_bit_grey_is_scaled_not_clipped():
    image = Image.fromarray(np.array([[0, 128, 129, 257, 32896, 65535]], dtype=np.uint16))
    assert decode(save(image), "x")[0, 0].tolist() == [0, 0, 1, 1, 128, 255]


def test_pictures_of_phones_are_read():
    """Many write MPO: a JPEG with further pictures behind the first."""
    image = Image.fromarray(np.full((8, 8, 3), 90, dtype=np.uint8))
    assert (decode(save(image, "MPO", save_all=True, append_images=[image]), "x") == 90).all()


def test_the_first_frame_of_an_animation_counts():
    frames = [Image.fromarray(np.full((3, 3, 3), v, dtype=np.uint8)) for v in (10, 250)]
    assert decode(save(frames[0], "GIF", save_all=True, append_images=frames[1:]), "x").max() == 10


@pytest.mark.parametrize("size", [1, 7, 16, 40])
@pytest.mark.parametrize("shape", [(16, 16), (16, 48), (48, 16), (1, 5), (3, 1)])
def test_any_shape_becomes_a_square(size, shape):
    out = decode(save(Image.fromarray(np.full((*shape, 3), 77, dtype=np.uint8))), "x", size)
    assert out.shape == (3, size, size) and (out == 77).all()


def test_the_centre_is_what_remains():
    """Red | green | blue thirds of a wide image: only green is central."""
    pixels = np.zeros((10, 30, 3), dtype=np.uint8)
    for i in range(3):
        pixels[:, 10 * i : 10 * (i + 1), i] = 255
    for image in (pixels, pixels.transpose(1, 0, 2)):
        out = decode(save(Image.fromarray(np.ascontiguousarray(image))), "x", 5)
        inner = out[:, 1:-1, 1:-1]  # the filter reaches a little beyond the crop
        assert (inner[1] == 255).all() and inner[0].max() == inner[2].max() == 0
        assert out[1].min() > 200


def test_shrinking_is_antialiased():
    """A one-pixel checkerboard becomes grey; without a filter it would become black or white."""
    board = np.indices((64, 64)).sum(0) % 2 * 255
    out = decode(save(Image.fromarray(board.astype(np.uint8))), "x", 8)
    assert np.abs(out.astype(int) - 127).max() <= 6


def bomb(width: int = 50_000, height: int = 50_000) -> bytes:
    """A PNG of a few bytes that claims ``width`` × ``height`` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    )


GOOD = save(Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)), "JPEG")
PICTURE = Image.fromarray(quadrants())
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch owned) (w) file\n%%EOF\n"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "the file is empty"),
        (b"this is text", "not an image of a known format"),
        (GOOD[: len(GOOD) // 2], "truncated or damaged"),
        (GOOD[:3], "truncated or damaged"),
        (save(Image.fromarray(quadrants()))[:60], "truncated or damaged"),
        (save(Image.fromarray(quadrants()), "WEBP")[:40], "truncated or damaged"),
        (bomb(), f"expected at most {MAX_PIXELS:,} pixels"),
        (bomb(9_500, 9_500), f"expected at most {MAX_PIXELS:,} pixels"),
        (bomb(0, 5), "truncated or damaged"),
        (POSTSCRIPT, "not an image of a known format"),
        (save(PICTURE, "EPS"), "not an image of a known format"),
        (save(PICTURE, "PCX"), "not an image of a known format"),
        (save(Image.fromarray(np.zeros((2, 2), dtype=np.float32)), "TIFF"), "pixels are 32-bit"),
    ],
    ids=[
        "empty",
        "text",
        "half",
        "three bytes",
        "png",
        "webp",
        "bomb",
        "small bomb",
        "no width",
        "postscript",
        "eps",
        "pcx",
        "float",
    ],
)
def test_broken_images_are_named(data, message):
    with pytest.raises(ValueError, match=f"^folder/bad.png: .*{message}.*(emove|save)"):
        decode(data, "folder/bad.png", 8)


@pytest.mark.filterwarnings("error")
def test_a_bomb_is_refused_where_warnings_are_errors():
    with pytest.raises(ValueError, match="bad.png: .*pixels. Shrink or remove it"):
        decode(bomb(), "bad.png")


def readers(images: list[bytes]):
    return [lambda data=data: data for data in images]


def test_many_images_keep_their_order_and_the_first_error_wins(make):
    images = [make.encoded(i) for i in range(200)]
    names = [f"{i}.png" for i in range(200)]
    made = decode_all("many", names, readers(images), [i % 2 for i in range(200)], ("a", "b"), 4)
    assert made.images[:, 0, 0, 0].tolist() == list(range(200))
    images[70], images[190] = b"broken", b"broken"
    with pytest.raises(ValueError, match="^70.png: not an image"):
        decode_all("many", names, readers(images), [0] * 200, ("a",), 4)


def test_without_a_size_all_images_must_agree(make):
    images = [make.encoded(0), make.encoded(1, size=(6, 5))]
    with pytest.raises(ValueError, match=r"b.png: 6×5 pixels, but a.png has 6×4; .*Give size="):
        decode_all("two", ["a.png", "b.png"], readers(images), [0, 0], ("c",), None)


def test_digest_covers_everything_that_matters(make):
    images = [make.encoded(0), make.encoded(1)]
    arguments = ["two", ["a.png", "b.png"], readers(images), [0, 1], ("c", "d"), 4]
    digest = decode_all(*arguments).digest
    assert digest == decode_all(*arguments).digest
    changes = {1: ["a.png", "c.png"], 2: readers(images[::-1]), 3: [1, 0], 4: ("c", "e"), 5: 5}
    for i, value in changes.items():
        assert decode_all(*arguments[:i], value, *arguments[i + 1 :]).digest != digest, i


@pytest.mark.parametrize("size", [0, -3, 2.0, True, "32"])
def test_sizes_are_positive_integers(size, make):
    with pytest.raises(ValueError, match=f"made: size is {size!r}; expected a positive number of pixels"):
        decode_all("made", ["a"], readers([make.encoded()]), [0], ("c",), size)


def test_no_images_at_all():
    with pytest.raises(ValueError, match="made: no images"):
        decode_all("made", [], [], [], (), 4)
