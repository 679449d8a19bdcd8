from __future__ import annotations

import io
import struct
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from wsltool.datasets.pictures import MAX_NUM_PIXELS, decode, read_size
from wsltool.errors import BadImageError


def noise(width, height, channels=3):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def smooth(width=64, height=48):
    """Slow ramps, so that JPEG keeps them within a few levels."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 3, y * 4, 128 + x - y], -1).astype(np.uint8)


def exif_with(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    return exif.tobytes()


def png_header(width, height, bits=8, color=2):
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    body = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", body)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("PPM", {}), ("TIFF", {}), ("WEBP", {"lossless": True})],
)
def test_lossless_formats_come_back_exactly(encode, kind, options):
    rgb = noise(7, 5)
    picture = decode(encode(Image.fromarray(rgb), kind, **options))
    np.testing.assert_array_equal(picture, rgb)
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous
    assert picture.flags.writeable


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_what_pillow_decodes(encode, progressive):
    data = encode(Image.fromarray(noise(33, 17)), "JPEG", progressive=progressive)
    np.testing.assert_array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "PPM", "BMP"])
def test_grey_is_spread_to_three_channels(encode, kind):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
    picture = decode(
        encode(Image.fromarray(grey), kind, **({"quality": 100} if kind == "JPEG" else {}))
    )
    assert picture.shape == (8, 8, 3)
    np.testing.assert_allclose(picture[..., 0], grey, atol=2 if kind == "JPEG" else 0)
    np.testing.assert_array_equal(picture[..., 0], picture[..., 2])


def test_one_bit(encode):
    bits = np.array([[0, 255], [255, 0]], np.uint8)
    picture = decode(encode(Image.fromarray(bits).convert("1")))
    np.testing.assert_array_equal(picture[..., 1], bits)


def test_16_bit_grey_keeps_the_high_byte(encode):
    grey = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        picture = decode(encode(Image.fromarray(grey), kind))
        assert picture[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_16_bit_pgm():
    data = b"P5 5 1 65535\n" + struct.pack(">5H", 0, 255, 256, 32768, 65535)
    assert decode(data)[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_16_bit_colour_keeps_the_high_byte():
    body = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    pixel = b"\x00" + struct.pack(">3H", 65535, 32768, 255)
    for kind, content in ((b"IHDR", body), (b"IDAT", zlib.compress(pixel)), (b"IEND", b"")):
        data += struct.pack(">I", len(content)) + kind + content
        data += struct.pack(">I", zlib.crc32(kind + content))
    assert decode(data)[0, 0].tolist() == [255, 128, 0]


def test_palette_with_and_without_transparency(encode):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 200, 0, 0, 0, 0, 200])
    assert decode(encode(image)).tolist() == [[[10, 20, 30], [200, 0, 0], [0, 0, 200]]]
    # Index 1 is fully transparent: white shows.
    assert decode(encode(image, transparency=1))[0, 1].tolist() == [255, 255, 255]
    # An alpha for each index, which Pillow warns about when turned to RGB directly.
    assert decode(encode(image, transparency=bytes([255, 0, 0])))[0].tolist() == [
        [10, 20, 30],
        [255, 255, 255],
        [255, 255, 255],
    ]


def test_alpha_is_laid_over_white(encode):
    rgba = np.array([[[0, 0, 0, 0], [100, 50, 0, 255], [0, 0, 0, 51]]], np.uint8)
    # 51/255 is a fifth: black over white gives 204.
    expected = [[[255, 255, 255], [100, 50, 0], [204, 204, 204]]]
    assert decode(encode(Image.fromarray(rgba))).tolist() == expected
    grey_alpha = np.array([[[0, 0], [77, 255], [0, 51]]], np.uint8)
    picture = decode(encode(Image.fromarray(grey_alpha, "LA")))
    assert picture[0, :, 0].tolist() == [255, 77, 204]


def cmyk_pixels():
    """Four flat 16x16 fields of CMYK with their RGB, (255 - C)(255 - K)/255."""
    inks = np.array([[0, 0, 0, 0], [255, 0, 0, 0], [0, 100, 200, 0], [0, 0, 0, 155]], np.uint8)
    expected = np.array([[255, 255, 255], [0, 255, 255], [255, 155, 55], [100, 100, 100]])
    return np.repeat(np.repeat(inks[None], 16, 0), 16, 1), np.repeat(expected, 16, 0)


def test_cmyk_jpeg_with_adobes_inverted_values(encode):
    cmyk, expected = cmyk_pixels()
    data = encode(Image.fromarray(cmyk, "CMYK"), "JPEG", quality=98, subsampling=0)
    assert b"Adobe" in data
    np.testing.assert_allclose(decode(data)[8], expected, atol=4)


def test_ycck_jpeg(encode):
    # The file stores (Y, Cb, Cr) of the ink amounts C, M, Y, and 255 - K; Pillow inverts what
    # it writes, so it is handed the complement, and Adobe's transform flag is set to 2, YCCK.
    cmyk, expected = cmyk_pixels()
    ycc = np.asarray(Image.fromarray(cmyk[..., :3].copy()).convert("YCbCr"))
    stored = np.concatenate([ycc, 255 - cmyk[..., 3:]], -1)
    data = bytearray(
        encode(Image.fromarray(255 - stored, "CMYK"), "JPEG", quality=98, subsampling=0)
    )
    flag = data.index(b"Adobe") + 11
    assert data[flag] == 0
    data[flag] = 2
    np.testing.assert_allclose(decode(bytes(data))[8], expected, atol=4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_is_ignored_unless_asked_for(tmp_path, encode, orientation, kind):
    stored = smooth()
    data = encode(Image.fromarray(stored), kind, exif=exif_with(orientation))
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored),
    }[orientation]
    path = tmp_path / "x"
    path.write_bytes(data)
    for choice, expected in (("ignored", stored), ("applied", upright)):
        picture = decode(data, choice)
        assert np.abs(picture.astype(int) - expected).mean() < 2
        assert picture.flags.c_contiguous
        assert read_size(path, choice) == picture.shape[1::-1]


def test_tiff_orientation_is_applied_once(tmp_path, encode):
    stored = noise(4, 2)
    data = encode(Image.fromarray(stored), "TIFF", tiffinfo={274: 6})
    path = tmp_path / "x.tif"
    path.write_bytes(data)
    for choice in ("ignored", "applied"):
        np.testing.assert_array_equal(decode(data, choice), np.rot90(stored, -1))
        assert read_size(path, choice) == (2, 4)


def test_broken_exif_neither_warns_nor_turns(encode):
    exif = exif_with(6)
    image = Image.fromarray(smooth())
    for broken in (exif[:20], exif[:10] + b"\xff" * 12, b"Exif\x00\x00nonsense"):
        data = encode(image, "JPEG", exif=broken)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert decode(data, "applied").shape[:2] in ((48, 64), (64, 48))
            assert decode(data).shape == (48, 64, 3)
        assert not caught


def test_animation_gives_its_first_frame(encode):
    frames = [Image.new("RGB", (6, 4), color) for color in ((255, 0, 0), (0, 255, 0))]
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert (decode(data) == (255, 0, 0)).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "PPM"])
def test_truncated(encode, kind):
    data = encode(Image.fromarray(noise(200, 150)), kind)
    cut = len(data) * 2 // 3
    with pytest.raises(BadImageError, match=rf"^{kind} is truncated at byte {cut}\.$"):
        decode(data[:cut])


def test_truncated_progressive_jpeg(encode):
    data = encode(Image.fromarray(noise(400, 300)), "JPEG", progressive=True)
    with pytest.raises(BadImageError, match=r"^JPEG is truncated at byte 20480\.$"):
        decode(data[:20480])


def test_header_cut_off(tmp_path, encode):
    path = tmp_path / "a.jpg"
    path.write_bytes(encode(Image.fromarray(noise(9, 9)), "JPEG")[:60])
    with pytest.raises(BadImageError, match=r"^a\.jpg: JPEG header is broken or cut off: "):
        read_size(path)
    with pytest.raises(BadImageError, match=r"^JPEG header is broken or cut off: "):
        decode(path.read_bytes())


def test_broken_checksum(encode):
    data = bytearray(encode(Image.fromarray(noise(40, 40))))
    place = data.index(b"IDAT") + 100
    data[place] ^= 255
    with pytest.raises(BadImageError, match=r"^PNG cannot be decoded: broken data stream"):
        decode(bytes(data))


def test_no_picture(tmp_path):
    text = tmp_path / "a.jpg"
    text.write_text("hello world, this is text")
    message = r"no picture, it starts with b'hello world, thi'; expected JPEG, PNG, GIF, BMP, WebP"
    with pytest.raises(BadImageError, match=f"^a.jpg: {message}"):
        read_size(text)
    with pytest.raises(BadImageError, match=f"^{message}"):
        decode(text.read_bytes())


def test_empty_missing_and_folder(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(BadImageError, match=r"^empty\.jpg: the file is empty \(0 bytes\)\.$"):
        read_size(tmp_path / "empty.jpg")
    with pytest.raises(BadImageError, match=r"^the file is empty \(0 bytes\)\.$"):
        decode(b"")
    with pytest.raises(
        BadImageError, match=r"^no\.jpg: cannot be opened, No such file or directory\.$"
    ):
        read_size(tmp_path / "no.jpg")
    with pytest.raises(
        BadImageError, match=rf"^{tmp_path.name}: cannot be opened, Is a directory\.$"
    ):
        read_size(tmp_path)


@pytest.mark.parametrize("size", [(100_000, 100_000), (2**14, 2**13 + 1)])
def test_bomb_is_refused_from_the_header(tmp_path, size):
    data = png_header(*size)
    path = tmp_path / "bomb.png"
    path.write_bytes(data)
    message = rf"PNG has {size[0]}x{size[1]} pixels; the limit is {MAX_NUM_PIXELS}\.$"
    with pytest.raises(BadImageError, match=f"^{message}"):
        decode(data)
    with pytest.raises(BadImageError, match=f"^bomb.png: {message}"):
        read_size(path)


def test_large_pictures_under_the_limit_do_not_warn(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(png_header(2**14, 2**13))  # above Pillow's own warning
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert read_size(path) == (2**14, 2**13)
    assert not caught


def test_text_bomb_inside_a_png():
    head = png_header(4, 4)
    body = b"key\x00\x00" + zlib.compress(b"a" * 2**27)
    chunk = (
        struct.pack(">I", len(body))
        + b"zTXt"
        + body
        + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    )
    with pytest.raises(
        BadImageError, match=r"^PNG header is broken or cut off: Decompressed data too large"
    ):
        decode(head[:33] + chunk + head[33:])


@pytest.mark.parametrize("array", [np.zeros((2, 2), np.float32), np.zeros((2, 2), np.int32)])
def test_values_without_a_range_are_refused(encode, array):
    with pytest.raises(
        BadImageError, match=r"^TIFF holds values of kind [FI], which have no agreed range; convert"
    ):
        decode(encode(Image.fromarray(array), "TIFF"))


@given(
    st.binary(max_size=200),
    st.sampled_from(
        [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF", b"II*\x00", b"P6 "]
    ),
)
def test_random_bytes_raise_one_kind_of_error(tail, magic):
    with pytest.raises(
        BadImageError, match=r"(starts with|broken or cut off|empty|pixels|decoded|truncated).*\.$"
    ):
        decode(magic + tail)


@settings(max_examples=60)
@given(
    st.integers(0, 2**31),
    st.integers(0, 255),
    st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"]),
)
def test_a_flipped_byte_gives_a_picture_or_that_error(place, value, kind):
    buffer = io.BytesIO()
    Image.fromarray(noise(12, 9)).save(buffer, kind)
    data = bytearray(buffer.getvalue())
    data[place % len(data)] = value
    with suppress(BadImageError):
        picture = decode(bytes(data), "applied")
        assert picture.ndim == 3
        assert picture.dtype == np.uint8


def test_many_threads_and_no_global_state(encode):
    data = [encode(Image.fromarray(noise(60 + i, 40)), "JPEG") for i in range(8)]
    alone = [decode(one) for one in data]
    limit = Image.MAX_IMAGE_PIXELS
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(decode, data * 10))
    for place, picture in enumerate(together):
        np.testing.assert_array_equal(picture, alone[place % 8])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert limit == Image.MAX_IMAGE_PIXELS


def test_decode_takes_no_longer_than_pillow(encode):
    data = encode(Image.fromarray(noise(500, 375)), "JPEG", quality=90)

    def seconds(work):
        times = []
        for _ in range(15):
            start = time.process_time()
            work()
            times.append(time.process_time() - start)
        return min(times)

    bare = seconds(lambda: np.array(Image.open(io.BytesIO(data))))
    assert seconds(lambda: decode(data)) < 1.5 * bare  # 1.0 when nothing else runs


@pytest.mark.real
def test_real_pictures_equal_pillows(data_dir):
    for path in sorted((data_dir / "VOCdevkit/VOC2007/JPEGImages").glob("*.jpg"))[::50]:
        with Image.open(path) as image:
            assert read_size(path) == image.size
            np.testing.assert_array_equal(
                decode(path.read_bytes()), np.asarray(image.convert("RGB"))
            )
