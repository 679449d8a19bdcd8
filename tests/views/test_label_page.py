"""The pictures and the script of the label page, and its server's door."""

from __future__ import annotations

import asyncio
import io
import json
import re
import socket
import threading
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wsltool.errors import BadImageError, DatasetError, UsageError
from wsltool.views.label_queue import (
    ASSETS,
    BoardText,
    QueueClass,
    QueuePicture,
    board_script,
    expected_gain,
    picture_names,
    read_asset,
)
from wsltool.views.label_server import MAX_BODY_BYTES, label_app, serve_desk
from wsltool.views.label_strips import (
    PLACE_PX,
    SampleHeat,
    heat_range,
    heat_strips,
    photo_strip,
    shown_size,
)
from wsltool.views.overlay import heat_palette

EVIL = "</script><script>alert(1)</script>\u2028'\"&\ud800\x00"
LEFT, RIGHT = (PLACE_PX // 4, 3 * PLACE_PX // 4)


def pixels(strip: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(strip)) as picture:
        return np.asarray(picture.convert("RGBA")).astype(int)


def sample(heat_QHW, extent=(0, 0, 40, 40), size=(40, 40)) -> SampleHeat:
    return SampleHeat(np.array(heat_QHW, np.float64), extent, size)


# ---------------------------------------------------------------- photos


def test_photos_lie_in_the_corners_of_their_places():
    red = np.full((20, 40, 3), (200, 10, 10), np.uint8)
    grey = np.full((80, 20), 90, np.uint8)
    strip = pixels(photo_strip([lambda: red, lambda: grey], [(40, 20), (20, 80)]))
    assert strip.shape == (PLACE_PX, 2 * PLACE_PX, 4)
    assert shown_size((40, 20)) == (PLACE_PX, PLACE_PX // 2)
    assert np.abs(strip[20:80, 20:180, :3] - (200, 10, 10)).max() < 12
    assert np.abs(strip[20:190, PLACE_PX + 10 : PLACE_PX + 40, :3] - 90).max() < 12
    assert np.abs(strip[PLACE_PX // 2 + 20 :, 20:180, :3] - (128, 132, 140)).max() < 12


def test_a_picture_that_cannot_be_read_is_crossed_out():
    strip = pixels(photo_strip([lambda: None], [(30, 30)]))
    middle, edge = strip[PLACE_PX // 2, PLACE_PX // 2], strip[PLACE_PX // 2, 10]
    assert middle[0] < edge[0] - 20
    assert pixels(photo_strip([], [])).shape == (PLACE_PX, PLACE_PX, 4)


def test_one_picture_is_held_at_a_time():
    alive = []

    def load():
        assert not alive, "an earlier picture is still loaded"
        return np.zeros((4, 4, 3), np.uint8)

    photo_strip([load] * 3, [(4, 4)] * 3)


def test_a_picture_of_floats_is_refused():
    with pytest.raises(BadImageError, match=r"^picture has shape \(2, 2, 3\) and type float64; "):
        photo_strip([lambda: np.zeros((2, 2, 3))], [(2, 2)])


# ---------------------------------------------------------------- heat


def test_all_heat_of_a_class_has_one_scale():
    cool, hot = sample([[[0.0, 0.25]], [[0.25, 0.25]]]), sample([[[1.0, 1.0]], [[0.0, 0.0]]])
    assert heat_range([cool, None, hot]) == (0.0, 1.0)
    first, second = (pixels(strip) for strip in heat_strips([cool, hot], 2))
    palette = heat_palette()
    place = (PLACE_PX // 2, PLACE_PX + PLACE_PX // 2)
    np.testing.assert_array_equal(first[place], palette[255])
    assert second[place][3] == 0
    quarter = palette[round(255 * round(0.25 * 63) / 63)]
    np.testing.assert_allclose(first[PLACE_PX // 2, PLACE_PX - 20], quarter, atol=2)
    np.testing.assert_allclose(second[PLACE_PX // 2, PLACE_PX // 2], quarter, atol=2)


def test_cells_that_are_not_stored_are_clear():
    nan = np.nan
    (strip,) = heat_strips([sample([[[0.0, 1.0, nan, nan]]])], 1)
    alpha = pixels(strip)[PLACE_PX // 2, :, 3]
    assert alpha[3 * PLACE_PX // 8] > 100  # the centre of the hot cell
    assert alpha[PLACE_PX // 2 - 4] > 0  # its border, and what lies just beyond it
    assert alpha[PLACE_PX // 2 + 4] == 0
    assert alpha[5 * PLACE_PX // 8] == 0
    assert alpha[7 * PLACE_PX // 8] == 0


def test_heat_lies_where_the_extent_says():
    whole = sample([[[1.0]]], extent=(20, 0, 40, 40))
    cold = sample([[[0.0]]])
    alpha = pixels(heat_strips([whole, cold], 1)[0])[PLACE_PX // 2, :, 3]
    assert alpha[LEFT] == 0
    assert alpha[RIGHT] > 100


def test_the_outline_is_around_the_winner():
    left, right = [[0.9, 0.1]], [[0.1, 0.9]]
    first, second = (pixels(strip) for strip in heat_strips([sample([left, right])], 2))
    white = [
        tuple(np.flatnonzero((one[PLACE_PX // 2] == 255).all(axis=1))) for one in (first, second)
    ]
    half = PLACE_PX // 2
    assert white[0] == (0, half - 1)
    assert white[1] == (half, PLACE_PX - 1)


def test_colour_is_fainter_where_another_cluster_wins():
    one = sample([[[1.0, 0.8]], [[0.0, 0.9]]])
    first, second = (pixels(strip)[PLACE_PX // 2] for strip in heat_strips([one], 2))
    palette = heat_palette()
    won, lost = (palette[round(255 * round(heat * 63) / 63)] for heat in (0.9, 0.8))
    np.testing.assert_allclose(second[PLACE_PX - 20], won, atol=2)
    np.testing.assert_allclose(first[PLACE_PX - 20], lost * [1, 1, 1, 0.4], atol=2)


def test_equal_heat_shows_no_colour_and_one_cluster_no_outline():
    strip = pixels(heat_strips([sample([[[0.5, 0.5]]])], 1)[0])
    assert (strip[:, :, 3] == 0).all()


def test_nothing_known_is_clear():
    strips = heat_strips([sample(np.full((2, 3, 3), np.nan)), None], 2)
    assert all((pixels(strip)[:, :, 3] == 0).all() for strip in strips)
    assert heat_range([None]) == (0.0, 1.0)
    assert len(heat_strips([], 2)) == 2


def test_an_extent_of_less_than_a_pixel_of_the_small_picture_is_clear():
    """A centre crop of 4 of 2000 columns, in a picture 208 pixels wide."""
    narrow = sample([[[0.0, 1.0]]], extent=(998, 0, 1002, 4), size=(2000, 4))
    assert (pixels(heat_strips([narrow], 1)[0])[:, :, 3] == 0).all()
    outside = sample([[[0.0, 1.0]]], extent=(2001, 0, 2005, 4), size=(2000, 4))
    with pytest.raises(BadImageError, match=r"^extent 2001 0 2005 4 holds the centre of no pixel"):
        heat_strips([outside], 1)


def test_unusable_heat_is_refused():
    with pytest.raises(BadImageError, match=r"^heat has 1 clusters; expected 2\.$"):
        heat_strips([sample([[[0.0]]])], 2)
    with pytest.raises(BadImageError, match=r"^heat has shape \(2,\); expected clusters, rows"):
        heat_range([SampleHeat(np.zeros(2), (0, 0, 1, 1), (1, 1))])
    with pytest.raises(BadImageError, match=r"^map_extent is 5 0 5 4; expected finite"):
        heat_strips([sample([[[1.0]]], extent=(5, 0, 5, 4), size=(PLACE_PX, PLACE_PX))], 1)


# ---------------------------------------------------------------- the queue


@given(st.integers(0, 3000))
def test_gain_falls_and_sums_to_one(num):
    gain_K = expected_gain(num)
    assert len(gain_K) == num
    assert (np.diff(gain_K) <= 1e-12).all()
    assert (gain_K > 0).all()
    assert num == 0 or abs(gain_K.sum() - 1) < 1e-9


def test_gain_is_the_papers_at_its_two_points():
    gained_K = np.cumsum(expected_gain(1000))
    assert gained_K[149] == pytest.approx(0.5)
    assert gained_K[499] == pytest.approx(0.85)


def test_no_text_ends_the_script():
    text = BoardText(EVIL, "server", EVIL, "sha256:0", {EVIL: [EVIL]}, EVIL)
    classes = [QueueClass(3, EVIL, None, (5, 2), (QueuePicture(EVIL, (208, 100)),))]
    answers = {0: {"words": ("object", "unsure"), "seconds": 1.5, "answered": EVIL}}
    script = board_script(text, classes, answers)
    assert script.isascii()
    assert "<" not in script
    assert ">" not in script
    board = json.loads(re.fullmatch(r"const BOARD = (.*);\n", script)[1])
    assert board["title"] == EVIL
    assert board["classes"][0]["name"] == EVIL
    assert board["classes"][0]["files"] == picture_names(0, 2)
    assert board["classes"][0]["pictures"] == [[EVIL, 208, 100]]
    assert board["answers"]["0"]["words"] == ["object", "unsure"]


# ---------------------------------------------------------------- the files of the page


def test_the_page_needs_nothing_from_outside():
    links = []

    class Page(HTMLParser):
        def handle_starttag(self, tag, attrs):
            links.extend(value for name, value in attrs if name in ("src", "href"))
            assert not [name for name, _ in attrs if name.startswith("on") or name == "style"]

    Page().feed(read_asset("index.html").decode())
    assert set(links) - {"data:,"} == set(ASSETS) - {"index.html"} | {"board.js"}
    for name in ASSETS:
        assert not re.search(r"https?://|//[a-z]+\.|@import|innerHTML", read_asset(name).decode())


# ---------------------------------------------------------------- the server


class Desk:
    def __init__(self):
        self.given, self.error = [], None

    def script(self):
        if self.error:
            raise self.error
        return "const BOARD = {};\n"

    def picture(self, name):
        return b"jpeg" if name == "00000-photos.jpg" else None

    def answer(self, given):
        if self.error:
            raise self.error
        self.given.append(given)
        return {"words": ["object"]}


@pytest.fixture
def served():
    """A desk behind a server that runs; yields the desk, the port and the token."""
    desk, heard, opened = Desk(), [], threading.Event()

    def hear(url):
        heard.append(url)
        opened.set()

    thread = threading.Thread(target=serve_desk, args=(desk,), kwargs={"port": 0, "opened": hear})
    thread.start()
    assert opened.wait(20)
    port, token = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/([\w-]{43})/", heard[0]).groups()
    yield desk, int(port), token
    if thread.is_alive():
        ask(int(port), f"/{token}/finish", method="POST", origin=f"http://127.0.0.1:{port}")
    thread.join(20)
    assert not thread.is_alive()


def ask(port, path, *, method="GET", host=None, origin=None, body=b"", headers=()):
    """Send one request as it stands; return status, headers and body."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host or f'127.0.0.1:{port}'}"]
    lines += [f"Origin: {origin}"] if origin else []
    if not any(header.startswith(("Content-Length", "Transfer-")) for header in headers):
        lines.append(f"Content-Length: {len(body)}")
    request = "\r\n".join([*lines, *headers, "Connection: close", "", ""]).encode() + body
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        line.sendall(request)
        reply = b""
        while piece := line.recv(65536):
            reply += piece
    head, _, content = reply.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    return int(first.split()[1]), dict(one.lower().split(": ", 1) for one in rest), content


def test_the_page_and_its_headers(served):
    _, port, token = served
    for name, kind in ASSETS.items():
        path = "" if name == "index.html" else name
        status, headers, content = ask(port, f"/{token}/{path}")
        assert (status, content) == (200, read_asset(name))
        assert headers["content-type"].startswith(kind)
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src")
        assert headers["referrer-policy"] == "no-referrer"
        assert not [key for key in headers if key.startswith("access-control") or key == "server"]
    assert ask(port, f"/{token}/board.js")[2] == b"const BOARD = {};\n"
    assert ask(port, f"/{token}/pictures/00000-photos.jpg")[2] == b"jpeg"
    assert ask(port, f"/{token}/", host=f"localhost:{port}")[0] == 200


NO_ROUTES = [
    "../../etc/passwd",
    "%2e%2e/%2e%2e/etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "pictures/../../../etc/passwd",
    "pictures/..%2f..%2f..%2fetc%2fpasswd",
    "pictures/%2fetc%2fpasswd",
    "pictures/",
    "pictures",
    "label_page/page.js",
    "label_queue.py",
    "answer",
    "nothing",
]


def test_nothing_but_its_own_routes(served):
    _, port, token = served
    for path in NO_ROUTES:
        status, _, content = ask(port, f"/{token}/{path}")
        assert status in (404, 405), path
        assert b"root:" not in content
        assert len(content) < 40
        status, _, content = ask(port, f"/{path}")
        assert (status, content) == (403, b""), path


def test_strangers_get_nothing(served):
    desk, port, token = served
    body = b'{"place":0}'
    ours = f"http://127.0.0.1:{port}"
    strangers = [
        {"path": "/"},
        {"path": "/board.js"},
        {"path": f"/{token[:-1]}/"},
        {"path": f"/{token}x/"},
        {"path": f"/{token.swapcase()}/"},
        {"path": f"/{token}/", "host": "evil.example"},
        {"path": f"/{token}/", "host": f"evil.example:{port}"},
        {"path": f"/{token}/", "host": "127.0.0.1"},
        {"path": f"/{token}/", "host": f"127.0.0.1:{port + 1}"},
        {"path": f"/{token}/", "headers": [f"Host: 127.0.0.1:{port}"]},
        {"path": f"/{token}/board.js", "origin": "http://evil.example"},
        {"path": f"/{token}/board.js", "origin": "null"},
        {"path": f"/{token}/answer", "method": "POST", "body": body},
        {"path": f"/{token}/answer", "method": "POST", "body": body, "origin": "null"},
        {"path": f"/{token}/answer", "method": "POST", "body": body, "origin": ours + "0"},
        {"path": f"/{token}/answer", "method": "POST", "body": body,
         "origin": f"http://localhost:{port}"},
        {"path": f"/{token}/finish", "method": "POST"},
        {"path": f"/{token}/finish", "method": "OPTIONS", "origin": "http://evil.example"},
    ]  # fmt: skip
    for one in strangers:
        status, headers, content = ask(port, **one)
        assert status in (400, 403), one
        assert b"BOARD" not in content
        assert token.encode() not in content
        assert not [key for key in headers if key.startswith("access-control")]
    assert desk.given == []
    assert ask(port, f"/{token}/answer", method="POST", body=body, origin=ours)[0] == 200
    assert desk.given == [{"place": 0}]


def test_answers_that_cannot_be_kept_are_told(served):
    desk, port, token = served
    where = {"path": f"/{token}/answer", "method": "POST", "origin": f"http://127.0.0.1:{port}"}
    assert ask(port, **where, body=b"{")[0] == 400
    assert ask(port, **where, body=b"[" * 4000)[0] == 400
    desk.error = DatasetError("a.json: is damaged.\nmore")
    status, _, content = ask(port, **where, body=b"{}")
    assert (status, json.loads(content)) == (400, {"error": "a.json: is damaged."})
    desk.error = OSError(28, "No space left on device", "a.json")
    status, _, content = ask(port, **where, body=b"{}")
    assert (status, json.loads(content)) == (500, {"error": "a.json: No space left on device"})
    assert desk.given == []


def test_a_page_that_cannot_be_made_says_why(served):
    desk, port, token = served
    desk.error = DatasetError("a.json: </main> is damaged.\nmore")
    status, _, content = ask(port, f"/{token}/board.js")
    assert status == 200
    assert content == (
        b"document.querySelector('main').prepend(\"a.json: </main> is damaged.\");\n"
    )


def test_a_browser_leaves_the_plain_port_out():
    """Of 80 alone; and then nobody names it."""

    def status(port, host, origin):
        async def asked():
            told = []
            scope = {
                "type": "http",
                "method": "GET",
                "path": "/token/page.js",
                "query_string": b"",
                "headers": [(b"host", host.encode()), (b"origin", origin.encode())],
            }

            async def send(message):
                told.append(message)

            await label_app(Desk(), "token", port, lambda: None)(scope, receive, send)
            return told[0]["status"]

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        return asyncio.run(asked())

    assert status(80, "127.0.0.1", "http://127.0.0.1") == 200
    assert status(80, "localhost", "http://localhost") == 200
    assert status(80, "evil.example", "http://evil.example") == 403
    assert status(81, "127.0.0.1", "http://127.0.0.1") == 403
    assert status(81, "127.0.0.1:81", "http://127.0.0.1:81") == 200


def test_large_bodies_are_refused(served):
    desk, port, token = served
    where = {"path": f"/{token}/answer", "method": "POST", "origin": f"http://127.0.0.1:{port}"}
    assert ask(port, **where, body=b"1" * (MAX_BODY_BYTES + 1))[0] == 413
    assert ask(port, **where, headers=["Content-Length: 99999999999"])[0] == 413
    chunk = b"1000\r\n" + b"1" * 4096 + b"\r\n"
    chunked = ["Transfer-Encoding: chunked"]
    assert ask(port, **where, headers=chunked, body=2 * chunk + b"0\r\n\r\n")[0] == 413
    assert desk.given == []
    assert ask(port, **where, body=b"1" * MAX_BODY_BYTES)[0] in (200, 400)


def test_it_listens_on_this_machine_alone(served):
    _, port, _ = served
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in others - {"127.0.0.1", "127.0.1.1"}:
        with pytest.raises(OSError, match=r"refused|timed out|unreachable"):
            socket.create_connection((address, port), timeout=2)


def test_a_taken_port_is_named(served):
    _, port, _ = served
    with pytest.raises(UsageError, match=rf"^--port {port}: Address already in use; expected a "):
        serve_desk(Desk(), port=port, opened=lambda url: None)
