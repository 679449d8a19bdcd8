"""The gallery as a page: links, escaping, layers, sections, bytes."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsltool.errors import UsageError
from wsltool.views.gallery import MARKER_NAME, Bar, Case, ClassRow, write_gallery
from wsltool.views.gallery_page import escape
from wsltool.views.overlay import draw_overlay, heat_palette

VOID = {"meta", "link", "img", "br", "input", "hr", "rect", "path"}
EVIL = "\"><script>alert(1)</script><img src=x onerror=alert(2)>&amp;'`${}"


class Page(HTMLParser):
    """Collects links, texts and attributes, and checks that tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def links(self) -> list[str]:
        return [
            value or ""
            for _, attributes in self.tags
            for name, value in attributes.items()
            if name in ("src", "href", "srcset")
        ]

    def with_class(self, css: str) -> list[dict[str, str | None]]:
        return [a for _, a in self.tags if css in (a.get("class") or "").split()]


def make_case(image_id: str = "a", iou: float | None = 0.5, **changes) -> Case:
    rng = np.random.default_rng(len(image_id))
    height_px, width_px = 30, 40
    fields = {
        "image_id": image_id,
        "class_name": "cat",
        "picture_HWC": rng.integers(0, 256, (height_px, width_px, 3), dtype=np.uint8),
        "heat_HW": np.add.outer(np.arange(height_px), np.arange(width_px)).astype(float),
        "predicted_box_B4": np.array([[5.0, 6.0, 25.0, 26.0]]),
        "true_box_B4": np.array([[4.0, 4.0, 30.0, 28.0]]),
        "iou": iou,
        "class_score": 1.25,
        "contour_level": 40.0,
    }
    return Case(**(fields | changes))


def read(page: Path) -> Page:
    return Page(page.read_text(encoding="utf-8"))


def test_every_link_is_relative_and_exists_and_every_file_is_linked(tmp_path):
    cases = [make_case(f"i{n}", n / 10, class_name=f"class {n % 3}") for n in range(10)]
    cases.append(make_case("no map", 0.4, heat_HW=None))
    page = write_gallery(tmp_path / "g", cases, title="T", num_samples=11)
    assert page == tmp_path / "g" / "index.html"
    links = [link for link in read(page).links() if not link.startswith(("#", "data:,"))]
    assert len(links) > 30
    for link in links:
        assert re.fullmatch(r"pictures/[A-Za-z0-9._-]+", link)
        assert (page.parent / link).is_file()
    written = {f"pictures/{file.name}" for file in (page.parent / "pictures").iterdir()}
    assert written == set(links)
    assert len(written) == 10 * 3 + 2
    assert not re.search(r"https?:|//[a-z]|url\(|@import", page.read_text(encoding="utf-8"))


def test_anchors_of_the_page_exist(tmp_path):
    page = read(write_gallery(tmp_path / "g", [make_case()], title="T", provenance=[("a", "b")]))
    targets = {a["id"] for _, a in page.tags if "id" in a}
    wanted = {link[1:] for link in page.links() if link.startswith("#") and link != "#"}
    assert wanted == {"worst", "best", "classes", "made"}
    assert wanted <= targets
    assert len(targets) == len([1 for _, a in page.tags if "id" in a])


def test_untrusted_text_stays_text(tmp_path):
    case = make_case(EVIL, class_name=EVIL, note=EVIL)
    page = read(
        write_gallery(
            tmp_path / "g",
            [case],
            title=EVIL,
            bars=[Bar(EVIL, 0.5), Bar(EVIL, 0.25, baseline=True)],
            facts=[(EVIL, EVIL)],
            classes=[ClassRow(EVIL, 1, 0.5, 1.0), ClassRow("0" + EVIL, 0)],
            provenance=[(EVIL, EVIL)],
        )
    )
    assert [tag for tag, _ in page.tags if tag == "script"] == ["script"]
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    assert page.texts.count(EVIL) >= 12
    assert all(a["alt"] == "" or a["alt"].startswith(EVIL) for t, a in page.tags if t == "img")
    assert page.with_class("id")[0]["title"] == EVIL


def test_characters_that_no_page_can_hold():
    assert escape("a\x00b\ud800c\td") == "a�b�c�d"
    assert escape("Žluťoučký 猫 <") == "Žluťoučký 猫 &lt;"


def test_file_names_are_safe_and_do_not_collide(tmp_path):
    names = [
        "../../etc/passwd",
        "a/b",
        "a-b",
        "A-B",
        "",
        "猫",
        "x" * 500,
        "con",
        "a\x00b",
        "\ud800",
    ]
    page = write_gallery(tmp_path / "g", [make_case(name) for name in names], title="T")
    files = sorted(file.name for file in (page.parent / "pictures").iterdir())
    assert len({name.lower() for name in files}) == 3 * len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,90}", name) for name in files)
    assert "00000-etc-passwd.jpg" in files
    assert "00004.jpg" in files
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g"]


def test_layers_hold_the_picture_the_map_and_the_boxes(tmp_path):
    case = make_case("a", 0.5)
    page = write_gallery(tmp_path / "g", [case], title="T")
    folder = page.parent / "pictures"
    with Image.open(folder / "00000-a.jpg") as picture:
        assert picture.size == (40, 30)
        assert np.abs(np.asarray(picture).astype(int) - case.picture_HWC).mean() < 12
    with Image.open(folder / "00000-a-map.png") as layer:
        pixels = np.asarray(layer.convert("RGBA"))
    np.testing.assert_array_equal(pixels[-1, -1], heat_palette()[255])
    assert pixels[0, 0, 3] == 0
    with Image.open(folder / "00000-a-overlay.jpg") as flat:
        assert flat.size == (720, 540)
        drawn = draw_overlay(
            case.picture_HWC,
            case.heat_HW,
            case.predicted_box_B4,
            case.true_box_B4,
            contour_level=40.0,
            longest_px=720,
        )
        assert np.abs(np.asarray(flat).astype(int) - drawn).mean() < 3
    svg = re.search(r'<svg viewBox="0 0 40 30".*?</svg>', page.read_text(encoding="utf-8"))
    assert svg is not None
    tree = ElementTree.fromstring(svg[0])
    kinds = [group.get("class") for group in tree]
    assert kinds == ["contour", "predicted", "true"]
    edges = [tree[1][1].get(name) for name in ("x", "y", "width", "height")]
    assert edges == ["5.00", "6.00", "20.00", "20.00"]


def test_pictures_and_maps_are_shrunk_never_grown(tmp_path):
    big = make_case(
        "big",
        picture_HWC=np.zeros((900, 1200), np.uint8),
        heat_HW=np.random.default_rng(0).random((900, 1200)),
    )
    folder = write_gallery(tmp_path / "g", [big], title="T", longest_px=300).parent / "pictures"
    for name in ("00000-big.jpg", "00000-big-map.png", "00000-big-overlay.jpg"):
        with Image.open(folder / name) as picture:
            assert picture.size == (300, 225)


def test_sections_choose_by_iou_and_mark_hits(tmp_path):
    cases = [
        make_case("miss", 0.2),
        make_case("hit", 0.5),
        make_case("none", None, predicted_box_B4=None),
        make_case("untrue", None, true_box_B4=None),
        make_case("absent", None, present=False, true_box_B4=None),
        make_case("unknown", float("nan")),
    ]
    page = write_gallery(tmp_path / "g", cases, title="T", num_extreme=6)
    text = page.read_text(encoding="utf-8")
    worst = text[text.index('id="worst"') : text.index('id="best"')]
    best = text[text.index('id="best"') : text.index('id="classes"')]
    chips = re.findall(r'class="id" title="(\w+)".*?', worst)
    assert chips == ["none", "untrue", "absent", "unknown", "miss", "hit"]
    assert re.findall(r'class="chip">([^<]+)<', worst) == [
        "no box", "no true box", "not in picture", "no IoU", "✗ 0.20", "✓ 0.50",
    ]  # fmt: skip
    assert re.findall(r'class="id" title="(\w+)"', best) == ["hit", "miss"]
    assert re.findall(r'class="card (\w+)"', best) == ["hit", "miss"]


def test_classes_worst_first_those_without_images_only_named(tmp_path):
    rows = [
        ClassRow("good", 3, 0.9, 1.0),
        ClassRow("empty one", 0),
        ClassRow("bad", 1, 0.1, 0.0),
        ClassRow("unmeasured", 2, float("nan"), None),
        ClassRow("empty two", 0, None, None),
    ]
    page = write_gallery(
        tmp_path / "g", [make_case(class_name="good"), make_case(class_name="zebra")],
        title="T", classes=rows,
    )  # fmt: skip
    text = page.read_text(encoding="utf-8")
    assert re.findall("<h3>([^<]+)", text) == ["bad", "good", "unmeasured", "zebra"]
    assert re.findall(r'class="count">([^<]*)', text) == ["1 image", "3 images", "2 images", ""]
    assert "Classes without images: empty one, empty two." in text


def test_score_stands_beside_its_baselines(tmp_path):
    bars = [
        Bar("top-1", 0.613),
        Bar("whole image", 0.376, baseline=True),
        Bar("centred box", 0.48, baseline=True),
        Bar("random", None, baseline=True),
    ]
    page = read(write_gallery(tmp_path / "g", [], title="T", bars=bars))
    widths = [a["width"] for t, a in page.tags if t == "rect"]
    assert widths == ["61.30", "37.60", "48.00", "0.00"]
    words = " ".join(page.texts)
    assert "13.3 points above the best baseline (centred box)" in words
    for number in ("61.3 %", "37.6 %", "48.0 %", "–"):
        assert number in page.texts


def test_a_score_below_its_baseline_says_so(tmp_path):
    bars = [Bar("top-1", 0.3), Bar("whole image", 0.376, baseline=True)]
    page = read(write_gallery(tmp_path / "g", [], title="T", bars=bars))
    assert "7.6 points below the best baseline (whole image)" in page.texts


def test_no_cases_at_all(tmp_path):
    page = write_gallery(tmp_path / "g", iter([]), title="Nothing")
    assert read(page).texts.count("No cases.") == 2
    assert list((page.parent / "pictures").iterdir()) == []
    marker = json.loads((page.parent / MARKER_NAME).read_text(encoding="utf-8"))
    assert marker == {"format": 1, "kind": "gallery", "num_cases": 0, "identity": ""}


def test_cases_are_drawn_one_at_a_time(tmp_path):
    events = []

    def load(number: int) -> np.ndarray:
        events.append(f"load {number}")
        return np.zeros((20, 20), np.uint8)

    def stream():
        for number in range(3):
            events.append(f"give {number}")
            yield make_case(heat_HW=None, picture_HWC=lambda number=number: load(number))

    write_gallery(tmp_path / "g", stream(), title="T")
    assert events == [f"{what} {number}" for number in range(3) for what in ("give", "load")]


def test_same_input_same_bytes(tmp_path):
    def write(name: str) -> dict[str, bytes]:
        cases = [make_case(f"i{n}", n / 5, class_name=f"c{n % 2}") for n in range(5)]
        write_gallery(tmp_path / name, cases, title="T", bars=[Bar("s", 0.5)])
        files = (file for file in (tmp_path / name).rglob("*") if file.is_file())
        return {str(file.relative_to(tmp_path / name)): file.read_bytes() for file in files}

    first = write("one")
    assert len(first) == 5 * 3 + 2
    assert write("two") == first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hit_iou_frac": 0.0}, r"hit_iou_frac must be in \(0, 1\], got 0\.0"),
        ({"hit_iou_frac": float("nan")}, r"hit_iou_frac must be in \(0, 1\], got nan"),
        ({"num_extreme": -1}, r"numbers of cases must be at least 0, got \(-1, 4\)"),
        ({"longest_px": 3}, "longest_px must be at least 16, got 3"),
    ],
)
def test_options_out_of_range(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        write_gallery(tmp_path / "g", [make_case()], title="T", **changes)
    assert list(tmp_path.iterdir()) == []


def test_shares_out_of_range(tmp_path):
    with pytest.raises(UsageError, match=r'the value of "s" is 61\.3; expected a share'):
        Bar("s", 61.3)
    with pytest.raises(UsageError, match=r'the mean IoU of class "c" is -0\.1; expected'):
        ClassRow("c", 1, -0.1)
    with pytest.raises(UsageError, match=r'the share of hits of class "c" is 2; expected'):
        ClassRow("c", 1, 0.5, 2)
    with pytest.raises(UsageError, match=r'case "a": IoU is 1\.5; expected \[0, 1\], or None'):
        write_gallery(tmp_path / "g", [make_case("a", 1.5)], title="T")


@pytest.mark.real
def test_real_pictures(tmp_path, data_dir):
    files = sorted((data_dir / "VOCdevkit" / "VOC2007" / "JPEGImages").glob("*.jpg"))[:6]

    def stream():
        for number, file in enumerate(files):
            with Image.open(file) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            row, column = np.indices(pixels.shape[:2])
            heat = np.exp(-((row - 150) ** 2 + (column - 200) ** 2) / 5000.0)
            heat[:, -20:] = -np.inf
            yield make_case(file.stem, number / 6, picture_HWC=pixels, heat_HW=heat)

    page = write_gallery(tmp_path / "g", stream(), title="VOC")
    assert len(list((page.parent / "pictures").iterdir())) == 18
    assert sum(file.stat().st_size for file in (page.parent / "pictures").iterdir()) < 3_000_000
