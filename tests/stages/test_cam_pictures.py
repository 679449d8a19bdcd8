"""Pictures that are broken, strange, elsewhere or embedded, through ``cam``."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from wsltool.errors import BadImageError
from wsltool.stages.cam import cam
from wsltool.stages.ingest import ingest_folder
from wsltool.stages.verify import verify

from .colours import (
    CPU,
    ME,
    made,
)
from .making import Ears, arrays, assert_equal_arrays, put_picture

pytestmark = pytest.mark.usefixtures("one_thread")


class TestBadPictures:
    """Through ingest and cam."""

    @pytest.fixture
    def broken(self, folder, tmp_path):
        """A JPEG that ends early: its header is good, so ingest takes it."""
        path = put_picture(folder / "red/t.jpg", (64, 64))
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        source = ingest_folder(folder, classes=tmp_path / "classes.txt")
        return source, len(data) // 2

    def test_truncated_stops(self, broken):
        source, size = broken
        line = (
            f'set.images.zarr row 2 "red/t.jpg": JPEG is truncated at byte {size}. '
            "Pass --on-bad skip to leave it out."
        )
        with pytest.raises(BadImageError, match=f"^{re.escape(line)}$"):
            made(source)

    @pytest.mark.parametrize("workers", [0, 1])
    def test_truncated_is_left_out(self, images, broken, workers):
        source, size = broken
        ears = Ears()
        found = made(source, classes="all", on_bad="skip", report=ears, workers=workers)
        assert ears.num_skipped == 1
        place = f'set.images.zarr row 2 "red/t.jpg": JPEG is truncated at byte {size}.'
        assert ears.warnings == [f"{place} Left out."]
        assert found["image_status"].tolist() == [0, 0, 1, 0, 0, 0]
        assert found["image_note"].tolist()[2] == f"JPEG is truncated at byte {size}."
        assert found["map_class"][2].tolist() == [-1, -1, -1]
        assert found["map_score"][2].tolist() == [-np.inf] * 3
        assert found["class_score"][2].tolist() == [-np.inf] * 3
        assert not found["map"][2].any()
        assert not found["map_extent"][2].any()
        good = made(images, classes="all")
        for name in ("map", "map_class", "map_score", "class_score"):
            np.testing.assert_array_equal(np.delete(found[name], 2, axis=0), good[name])

    def test_skipped_when_ingested(self, folder, tmp_path, images):
        (folder / "red/t.png").write_bytes(b"no picture")
        source = ingest_folder(folder, classes=tmp_path / "classes.txt", on_bad="skip")
        ears = Ears()
        found = made(source, classes="all", report=ears)
        assert ears.warnings == []
        assert ears.num_skipped == 0
        assert found["image_status"].tolist() == [0, 0, 2, 0, 0, 0]
        good = made(images, classes="all")
        np.testing.assert_array_equal(np.delete(found["map"], 2, axis=0), good["map"])

    def test_nothing_but_skipped(self, tmp_path):
        (tmp_path / "none/red").mkdir(parents=True)
        (tmp_path / "none/red/a.png").write_bytes(b"")
        (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
        source = ingest_folder(tmp_path / "none", classes=tmp_path / "classes.txt", on_bad="skip")
        output = cam(source, model=f"{ME}:colours", **CPU)
        assert arrays(output)["map_class"].tolist() == [[-1, -1, -1]]
        assert verify(output)["problems"] == []

    def test_a_picture_that_changed(self, folder, images):
        put_picture(folder / "red/b.png", (30, 30))
        with pytest.raises(
            BadImageError,
            match=r'^s\.zarr row 1 "red/b\.png": picture red/b\.png has \d+ bytes, \d+ when it was '
            r"ingested\. Ingest the folder again\. Pass --on-bad skip to leave it out\.$",
        ):
            made(images)

    def test_a_network_that_gives_nan(self, images):
        """The last cell of a is black."""
        line = (
            's.zarr row 0 "red/a.png": the network\'s output is not finite (NaN or infinity). '
            "Pass --on-bad skip to leave it out."
        )
        with pytest.raises(BadImageError, match=f"^{re.escape(line)}$"):
            made(images, "nan_on_black", classes="all")
        found = made(images, "nan_on_black", classes="all", on_bad="skip")
        assert found["image_status"].tolist() == [1, 0, 0, 0, 0]
        assert np.isfinite(found["map"]).all()

    def test_strange_but_good_pictures(self, tmp_path):
        """Grey, grey with alpha, palette, CMYK, 16 bits, a rotation tag: all shown as stored."""
        root = tmp_path / "odd/red"
        root.mkdir(parents=True)
        grey = np.repeat(np.repeat([[0, 51], [102, 255]], 4, axis=0), 4, axis=1).astype(np.uint8)
        image = Image.fromarray(grey)
        image.save(root / "a.png")
        Image.merge("LA", (image, Image.new("L", (8, 8), 255))).save(root / "b.png")
        image.convert("P").save(root / "c.png")
        cmyk = Image.merge("CMYK", (*[Image.new("L", (8, 8))] * 3, image.point(lambda v: 255 - v)))
        cmyk.save(root / "d.tif")
        Image.fromarray(grey.astype(np.uint16) * 257).save(root / "e.png")
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(root / "f.png", exif=exif)
        (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
        source = ingest_folder(tmp_path / "odd", classes=tmp_path / "classes.txt")
        found = made(source, classes="present")
        for n in range(6):
            np.testing.assert_allclose(found["map"][n, 0], [[0, 0.2], [0.4, 1]], atol=1e-6)

    def test_another_folder(self, folder, images, tmp_path):
        expected = made(images, classes="all")
        folder.rename(tmp_path / "moved")
        found = made(
            images, classes="all", images=tmp_path / "moved", output=tmp_path / "again.zarr"
        )
        np.testing.assert_array_equal(found["map"], expected["map"])


def test_an_hdf5_images_store(folder, images, tmp_path):
    """Named after its input, with the same arrays."""
    source = ingest_folder(folder, classes=tmp_path / "classes.txt", output=tmp_path / "t.h5")
    output = cam(source, model=f"{ME}:colours", workers=1, device="cpu")
    assert output == tmp_path / "t.cam.h5"
    assert_equal_arrays(cam(images, model=f"{ME}:colours", **CPU), output)


def test_embedded_pictures(folder, images, tmp_path):
    expected = made(images, classes="all")
    for suffix in (".zarr", ".h5"):
        packed = ingest_folder(
            folder,
            classes=tmp_path / "classes.txt",
            embed=True,
            output=tmp_path / f"packed{suffix}",
        )
        folder.rename(tmp_path / "away")
        found = made(packed, classes="all", workers=1)
        np.testing.assert_array_equal(found["map"], expected["map"])
        (tmp_path / "away").rename(folder)
