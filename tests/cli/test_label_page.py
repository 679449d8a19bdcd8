"""The label page as a person meets it: the real command, and Chromium."""

from __future__ import annotations

import contextlib
import http.client
import re
import shutil
import signal
import subprocess
import sys

import pytest

from tests.stages.label_scene import pictured
from wsltool.stores.labels import read_labels

from .processes import environment

QUEUE = ["car", "dog", "cat"]  # by the second eigenvalue; car has three clusters, the others two
READY = "#panels:not(.loading)"


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on the path; install it to drive the label page")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    pictured(folder)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "here")


@contextlib.contextmanager
def serving(folder, *options):
    """Run the command; yield its process and the address that it prints."""
    command = [sys.executable, "-m", "wsltool", "label", "parts.zarr", "--no-browser", *options]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+/[\w-]{43}/", line):
                break
        assert found, "".join(lines)
        yield process, found[0]
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def opened(browser, address, *, errors=(), **options):
    """Open the page; whatever it reports as an error fails the test."""
    context = browser.new_context(**options)
    page = context.new_page()
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.set_default_timeout(10_000)
    page.goto(address)
    yield page
    context.close()
    assert [one for one in wrong if not any(known in one for known in errors)] == []


def at(page, name):
    """Wait until the class `name` is shown with its pictures."""
    page.wait_for_function("name => document.getElementById('name').textContent === name", arg=name)
    page.wait_for_selector(READY)


def answers(folder):
    return [
        (one.class_name, one.words) for one in read_labels(folder / "parts.labels.json").classes
    ]


def test_a_person_labels_with_the_keyboard_alone(browser, folder):
    with serving(folder) as (process, address), opened(browser, address) as page:
        at(page, "car")
        assert page.evaluate("document.querySelectorAll('.panel').length") == 3
        facts = page.locator("header .facts").inner_text()
        assert "expected gain" not in facts, "the paper's curve says little of three classes"
        assert "classes left\n3" in facts
        assert re.search(r"\d %\n? of patterns", page.locator(".bar .share").nth(0).inner_text())
        page.keyboard.press("2")
        page.keyboard.press("Shift+3")
        page.keyboard.press("Enter")
        at(page, "dog")
        assert answers(folder) == [("car", ("object", "distractor", "unsure"))]
        page.keyboard.press("1")
        page.keyboard.press("z")
        page.keyboard.press("2")
        page.keyboard.press("Enter")
        at(page, "cat")
        assert answers(folder)[1] == ("dog", ("object", "distractor"))
        page.keyboard.press("Backspace")
        at(page, "dog")
        assert [name for name, _ in answers(folder)] == ["car"]
        page.reload()
        at(page, "dog")
        assert page.text_content("#answered") == "1 of 3"
        page.keyboard.press("ArrowLeft")
        at(page, "car")
        assert [
            panel.get_attribute("data-word") for panel in page.query_selector_all(".panel")
        ] == ["object", "distractor", "unsure"]
        page.keyboard.press("ArrowRight")
        at(page, "dog")
        page.keyboard.press("Enter")
        at(page, "cat")
        page.wait_for_timeout(150)  # seconds are kept to a tenth
        page.keyboard.press("u")
        page.keyboard.press("Enter")
        page.wait_for_selector("#summary[open]")
        assert "3 of 3" in page.text_content("#summary-facts")
        page.keyboard.press("Enter")
        page.wait_for_timeout(500)
        assert page.text_content("#summary-title") == "All classes are answered"
        assert process.poll() is None, "one Enter too many must not end it"
        page.locator("#end").focus()
        page.keyboard.press("Enter")
        assert process.wait(20) == 0
        page.wait_for_function(
            "document.getElementById('summary-title').textContent === 'Finished'"
        )
        assert process.stdout.read() == "parts.labels.json\n"
    assert answers(folder) == [
        ("car", ("object", "distractor", "unsure")),
        ("dog", ("object", "object")),
        ("cat", ("unsure", "unsure")),
    ]
    for one in read_labels(folder / "parts.labels.json").classes:
        assert 0 < one.seconds < 60
        assert one.answered.endswith("+00:00")


def test_a_quiet_command_still_tells_the_address(folder):
    with serving(folder, "-q") as (process, address):
        assert process.poll() is None
        assert address.startswith("http://127.0.0.1:")


def test_the_enlarged_view_takes_marks_and_f_ends_it(browser, folder):
    with serving(folder) as (process, address), opened(browser, address) as page:
        at(page, "car")
        page.locator(".tile").nth(0).click()
        page.wait_for_selector("#zoom[open] canvas")
        page.keyboard.press("2")
        page.keyboard.press("Shift+3")
        page.wait_for_function(
            "() => [...document.querySelectorAll('#zoom figcaption')].map(one => one.textContent)"
            ".join() === '1 · ● object,2 · ✕ distractor,3 · ? unsure'"
        )
        page.keyboard.press("Escape")
        page.keyboard.press("Enter")
        at(page, "dog")
        assert page.text_content("#status") == "car is kept: object, distractor, unsure."
        page.keyboard.press("f")
        page.wait_for_selector("#summary[open]")
        before = page.text_content("#clock")
        page.wait_for_timeout(2300)
        assert page.text_content("#clock") == before, "the clock goes on behind the summary"
        page.keyboard.press("f")
        assert process.wait(20) == 0
    assert answers(folder) == [("car", ("object", "distractor", "unsure"))]


def test_a_killed_server_loses_no_answer(browser, folder):
    gone = ("ERR_CONNECTION_REFUSED",)
    with (
        serving(folder) as (process, address),
        opened(browser, address, errors=gone, viewport={"width": 390, "height": 844}) as page,
    ):
        at(page, "car")
        page.locator(".panel").nth(1).locator("button[data-word=distractor]").click()
        page.click("#confirm")
        at(page, "dog")
        process.kill()
        process.wait(20)
        assert answers(folder) == [("car", ("object", "distractor", "object"))]
        page.locator(".panel").nth(0).locator(".key").click()
        page.click("#confirm")
        page.wait_for_selector("#alert:not([hidden])")
        assert "Not saved: wsltool does not answer." in page.text_content("#alert")
        assert page.text_content("#name") == "dog"
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    with serving(folder) as (process, address), opened(browser, address) as page:
        at(page, "dog")
        assert page.text_content("#answered") == "1 of 3"


def test_a_disk_that_refuses_is_told(browser, folder):
    failed = ("400 (Bad Request)",)
    with serving(folder) as (_, address), opened(browser, address, errors=failed) as page:
        at(page, "car")
        (folder / "parts.labels.json").write_text("{")
        page.keyboard.press("Enter")
        page.wait_for_selector("#alert:not([hidden])")
        assert "Not saved: parts.labels.json: is no JSON" in page.text_content("#alert")
        assert page.text_content("#name") == "car"


def test_signals_end_it(folder):
    with serving(folder) as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert "0 of 3 classes labelled by person" in process.stderr.read()
    with serving(folder) as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143


def test_strangers_get_nothing_from_the_command(folder):
    with serving(folder) as (_, address):
        port, token = re.search(r":(\d+)/(.+)/$", address).groups()
        for path, headers in [
            ("/", {}),
            ("/board.js", {}),
            ("/../../etc/passwd", {}),
            (f"/{token}/../../../../etc/passwd", {}),
            (f"/{token}/%2e%2e/%2e%2e/%2e%2e/etc/passwd", {}),
            (f"/{token}/pictures/..%2f..%2ftruth.zarr%2fzarr.json", {}),
            (f"/{token}/board.js", {"Host": "evil.example"}),
            (f"/{token}/board.js", {"Origin": "http://evil.example"}),
        ]:
            line = http.client.HTTPConnection("127.0.0.1", int(port), timeout=20)
            line.request("GET", path, headers=headers)
            reply = line.getresponse()
            assert reply.status in (403, 404), (path, headers)
            assert len(reply.read()) < 40
            line.close()


def test_the_page_as_files_needs_no_server(browser, folder, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "wsltool", "label", "parts.zarr", "--export", "page"],
        cwd=folder, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "page\n"), done.stderr
    with opened(browser, (folder / "page" / "index.html").as_uri()) as page:
        at(page, "car")
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        at(page, "dog")
        page.reload()
        at(page, "dog")
        page.keyboard.press("f")
        with page.expect_download() as download:
            page.click("#download")
        download.value.save_as(folder / "mine.json")
    (one,) = read_labels(folder / "mine.json").classes
    assert (one.class_name, one.words) == ("car", ("distractor", "object", "object"))
    done = subprocess.run(
        [sys.executable, "-m", "wsltool", "label", "parts.zarr", "--answers", "mine.json"],
        cwd=folder, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert answers(folder) == [("car", ("distractor", "object", "object"))]
