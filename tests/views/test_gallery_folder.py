"""The gallery as a folder: it appears whole or not at all, and replaces only its own kind."""

from __future__ import annotations

import numpy as np
import pytest

from wsltool.errors import BadImageError, StoreExistsError
from wsltool.views.gallery import Case, write_gallery


def make_case(image_id: str = "a", heat_HW: np.ndarray | None = None) -> Case:
    heat = np.eye(20) if heat_HW is None else heat_HW
    picture = np.zeros((20, 20), np.uint8)
    return Case(image_id=image_id, class_name="cat", picture_HWC=picture, heat_HW=heat)


def test_an_error_midway_leaves_nothing(tmp_path):
    def stream():
        yield make_case("good")
        yield make_case("bad", heat_HW=np.zeros((3, 3)))

    with pytest.raises(BadImageError, match=r"heat has shape \(3, 3\)"):
        write_gallery(tmp_path / "g", stream(), title="T")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_the_old_gallery(tmp_path):
    page = write_gallery(tmp_path / "g", [], title="old")

    def stream():
        yield make_case()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        write_gallery(tmp_path / "g", stream(), title="new", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["g"]
    assert "old" in page.read_text(encoding="utf-8")


def test_another_gallery_is_replaced_only_on_request(tmp_path):
    write_gallery(tmp_path / "g", [make_case("old")], title="old")
    with pytest.raises(StoreExistsError, match=r"g: a gallery is already there; .*--overwrite"):
        write_gallery(tmp_path / "g", [], title="new")
    page = write_gallery(tmp_path / "g", [make_case("new")], title="new", overwrite=True)
    assert {path.name for path in (page.parent / "pictures").iterdir()} == {
        "00000-new.jpg",
        "00000-new-map.png",
        "00000-new-overlay.jpg",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["g"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_somebody_else_is_left_alone(tmp_path, overwrite):
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "thesis.tex").write_text("years", encoding="utf-8")
    with pytest.raises(StoreExistsError, match=r"g: exists, and is no gallery \(no wsltool-v"):
        write_gallery(tmp_path / "g", [], title="T", overwrite=overwrite)
    assert (tmp_path / "g" / "thesis.tex").read_text(encoding="utf-8") == "years"


def test_a_file_and_a_link_are_left_alone(tmp_path):
    write_gallery(tmp_path / "real", [], title="T")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for name in ("link", "dangling", "file"):
        with pytest.raises(StoreExistsError, match=f"{name}: exists, and is no gallery"):
            write_gallery(tmp_path / name, [], title="T", overwrite=True)


def test_one_that_appears_meanwhile_is_not_replaced(tmp_path):
    def stream():
        (tmp_path / "g").mkdir()
        yield make_case()

    with pytest.raises(StoreExistsError, match="g: exists, and is no gallery"):
        write_gallery(tmp_path / "g", stream(), title="T")
    assert list((tmp_path / "g").iterdir()) == []


def test_parents_are_made(tmp_path):
    assert write_gallery(tmp_path / "a" / "b" / "g", [], title="T").is_file()
