"""The pipe contract, with real processes: a name goes through, its end means done."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import wsltool
from wsltool.stores.wip import WorkInProgress

from .processes import Command, environment, shell

pytestmark = pytest.mark.slow

MODEL = "--model tests.cli.networks"
MISSING = "wsltool: INPUT is missing. Give a path, or pipe one from another stage.\n"
NOTHING = "wsltool: nothing came through the pipe: the stage before it failed\n"


def _said(folder: Path, script: str, **more: object) -> tuple[int, str, str]:
    done = shell(script, folder, **more)
    return done.returncode, done.stdout, done.stderr


# A name goes through


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("baseline in.h5", "in.baseline.h5"),
        ("boxes maps.h5", "maps.boxes.h5"),
        ("select in.h5 --class b", "in.select.h5"),
        ("convert maps.h5", "maps.zarr"),
        ("ingest folder PICTURES/in -o made.zarr", "made.zarr"),
        (f"cam in.h5 {MODEL}:small", "in.cam.h5"),
        ("view maps.h5", "maps.view/index.html"),
    ],
)
def test_stdout_is_the_name_and_nothing_else(
    folder: Path, pictures: Path, command: str, name: str
) -> None:
    script = f"wsltool {command}".replace("PICTURES", str(pictures))
    code, out, err = _said(folder, script)
    assert (code, out) == (0, f"{name}\n"), err
    assert (folder / name).exists()


def test_training_prints_the_name_of_the_model(folder: Path) -> None:
    train = "train-cls in.h5 --model small_gap --init none --epochs 1 --limit 12 --workers 0"
    command = Command(folder, *train.split(), "--input-size", "64")
    assert (command.wait(), command.stdout) == (0, "in.train-cls.safetensors\n"), command.stderr
    assert (folder / "in.train-cls.safetensors").is_file()


def test_stages_in_a_pipe_in_three_steps_and_in_a_substitution_agree(folder: Path) -> None:
    script = """
        wsltool baseline in.h5 --prior gaussian -q | tee seen | wsltool boxes -q -o piped.h5
        wsltool boxes -q "$(wsltool baseline in.h5 --prior gaussian -q)" -o substituted.h5
        wsltool boxes -q in.baseline.h5 -o stepped.h5
        cat seen
    """
    names = ["piped.h5", "substituted.h5", "stepped.h5"]
    expected = "".join(f"{name}\n" for name in [*names, "in.baseline.h5"])
    assert _said(folder, script) == (0, expected, "")
    digests = set()
    for name in names:
        with wsltool.open_store(folder / name) as store:
            digests.add(store.meta["digest"])
    assert len(digests) == 1


@pytest.mark.parametrize("name", ["two words.h5", "Übung.h5", "-dash.h5", "q'u\"o$te.h5"])
def test_odd_names_go_through(folder: Path, name: str) -> None:
    (folder / "maps.h5").rename(folder / name)
    done = subprocess.run(
        [sys.executable, "-m", "wsltool", "boxes", "-q"],
        input=f"{name}\n".encode(),
        cwd=folder,
        env=environment(),
        capture_output=True,
        check=False,
    )
    stem = name.removesuffix(".h5")
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"{stem}.boxes.h5\n", b"")


@pytest.mark.parametrize("line", ["maps.h5", "maps.h5\\n", "\\nmaps.h5\\n\\n", "maps.h5\\r\\n"])
@pytest.mark.parametrize("argument", ["", "-"])
def test_one_line_on_stdin_is_the_input(folder: Path, line: str, argument: str) -> None:
    script = f"printf '{line}' | wsltool boxes -q {argument}"
    assert _said(folder, script) == (0, "maps.boxes.h5\n", "")


def test_stdin_is_never_touched_when_input_is_given(folder: Path) -> None:
    script = "echo mine | (wsltool boxes -q maps.h5; cat)"
    assert _said(folder, script) == (0, "maps.boxes.h5\nmine\n", "")


# No name comes


@pytest.mark.parametrize("stdin", ["</dev/null", "<&-"])
def test_no_stdin_is_wrong_usage(folder: Path, stdin: str) -> None:
    assert _said(folder, f"wsltool boxes {stdin} | cat") == (2, "", MISSING)


def test_a_terminal_is_no_pipe(folder: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        assert _said(folder, "wsltool boxes", stdin=theirs, timeout_s=20) == (2, "", MISSING)
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("text", ["", "\\n", "  \\n\\n"])
def test_nothing_on_stdin_is_a_failure(folder: Path, text: str) -> None:
    assert _said(folder, f"printf '{text}' | wsltool boxes") == (1, "", NOTHING)


def test_an_empty_argument_is_a_failure_of_the_command_that_should_have_named_it(
    folder: Path,
) -> None:
    line = "wsltool: INPUT is empty: the command that should print its name failed\n"
    assert _said(folder, 'wsltool boxes "$(false)"') == (1, "", line)


@pytest.mark.parametrize("source", ["printf 'a.h5\\nb.h5\\n'", "yes maps.h5", "cat /dev/zero"])
def test_more_than_one_line_is_wrong_usage(folder: Path, source: str) -> None:
    code, out, err = _said(folder, f"{{ {source}; }} 2>/dev/null | wsltool boxes", timeout_s=20)
    line = (
        "wsltool: stdin holds 2 or more lines, expected one path. Pipe one stage into the next, "
        "or give INPUT as an argument.\n"
    )
    assert (code, out, err) == (2, "", line)


def test_a_stage_that_fails_before_its_claim_prints_nothing(folder: Path) -> None:
    code, out, err = _said(folder, "wsltool baseline in.h5 --grid 0 | wsltool boxes")
    assert (code, out) == (1, "")
    assert sorted(err.splitlines()) == [
        "wsltool: --grid must be in [1, 4096), got 0.",
        NOTHING.strip(),
    ]


# Streams that are closed, full or left


@pytest.mark.parametrize("command", ["baseline in.h5", "inspect in.h5", "inspect in.h5 --json"])
def test_a_reader_that_left_is_no_error(folder: Path, command: str) -> None:
    assert _said(folder, f"wsltool {command} -q | true; echo ${{PIPESTATUS[*]}}") == (
        0,
        "0 0\n",
        "",
    )
    if command.startswith("baseline"):
        assert (folder / "in.baseline.h5").exists()


@pytest.mark.parametrize(
    ("closed", "said"),
    [(">&-", ""), ("2>&-", "maps.boxes.h5\n"), (">&- 2>&-", ""), ("<&- >&- 2>&-", "")],
)
def test_closed_streams_are_no_error(folder: Path, closed: str, said: str) -> None:
    assert _said(folder, f"wsltool boxes maps.h5 -q {closed}") == (0, said, "")
    wsltool.open_store(folder / "maps.boxes.h5").close()


@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-"])
def test_an_error_never_goes_into_the_pipe(folder: Path, closed: str) -> None:
    assert _said(folder, f"wsltool boxes none.h5 {closed} | cat") == (1, "", "")


def test_a_name_that_cannot_be_delivered_is_an_error(folder: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    line = "wsltool: stdout: No space left on device.\n"
    assert _said(folder, "wsltool boxes maps.h5 -q >/dev/full") == (1, "", line)
    assert _said(folder, "wsltool inspect maps.h5 >/dev/full") == (1, "", line)


def test_a_network_that_prints_leaves_the_pipe_clean(folder: Path) -> None:
    script = f"wsltool cam in.h5 {MODEL}:loud --workers 1 | tee seen | wsltool boxes -q"
    code, out, err = _said(folder, script)
    assert (code, out) == (0, "in.cam.boxes.h5\n"), err
    assert (folder / "seen").read_text() == "in.cam.h5\n"
    for line in ("printed by the factory", "written by the factory", "printed in forward"):
        assert line in err
    for line in ("written to descriptor 1", "echoed by a child"):
        assert line in err


# A writer that dies


def test_a_writer_that_is_killed_fails_the_pipe_and_the_same_pipe_finishes(folder: Path) -> None:
    script = f"""
        wsltool cam in.h5 {MODEL}:dying --classes all --workers 0 | wsltool boxes \\
            | wsltool score --protocol gt-known --json
        echo ${{PIPESTATUS[*]}} >status
    """
    _, out, err = _said(folder, script)
    assert (out, (folder / "status").read_text()) == ("", "137 1 1\n")
    assert "in.cam.h5: not finished, 1 of 2 blocks missing (1). Run the same command again." in err
    assert NOTHING in err
    assert not list(folder.glob("in.cam.*h5"))
    (folder / "lives").touch()
    code, out, err = _said(folder, script)
    assert (code, (folder / "status").read_text()) == (0, "0 0 0\n"), err
    assert [result["protocol"] for result in json.loads(out)["results"]] == ["gt-known"]
    assert "cam: 44/44 images" in err


def test_an_old_output_is_never_taken_for_the_new_one(folder: Path) -> None:
    cam = "cam in.h5 -q --classes all --workers 0 -o new.h5"
    assert Command(folder, *cam.split(), *MODEL.split()[:1], "tests.cli.networks:small").wait() == 0
    wsltool.boxes(folder / "new.h5")
    script = f"wsltool {cam} {MODEL}:dying --overwrite | wsltool boxes -q --overwrite"
    code, out, err = _said(folder, script)
    assert (code, out) == (1, "")
    assert "new.h5: not finished, 1 of 2 blocks missing (1)." in err
    assert not (folder / "new.h5").exists()
    with wsltool.open_store(folder / "new.boxes.h5") as old:  # made of the old maps: untouched
        assert old.kind == "boxes"


def test_a_stage_with_workers_that_is_killed_fails_the_next_one_within_two_seconds(
    folder: Path,
) -> None:
    first, second = _cam_into_boxes(folder, "--workers", "2")
    _wait_for_workers(first.pid, 2)
    killed = time.monotonic()
    first.kill()
    out, err = second.communicate(timeout=30)
    assert time.monotonic() - killed < 2
    assert (second.returncode, out) == (1, b"")
    assert b"in.cam.h5: not finished, 2 of 2 blocks missing (0, 1)." in err
    first.communicate()


def _cam_into_boxes(folder: Path, *more: str) -> tuple[subprocess.Popen[bytes], ...]:
    """Start ``cam | boxes`` with a slow network; return both processes."""
    start = [sys.executable, "-m", "wsltool"]
    model = ["--model", "tests.cli.networks:slow", "--batch-size", "4"]
    shared: dict[str, Any] = {"cwd": folder, "env": environment(), "stderr": subprocess.PIPE}
    stdin, stdout = os.pipe()
    first = subprocess.Popen([*start, "cam", "in.h5", *model, *more], stdout=stdout, **shared)
    second = subprocess.Popen([*start, "boxes"], stdin=stdin, stdout=subprocess.PIPE, **shared)
    os.close(stdin)
    os.close(stdout)
    return first, second


def _wait_for_workers(parent: int, num: int) -> None:
    """Wait until a process has children; its first batches are then being made."""
    end = time.monotonic() + 30
    children = Path(f"/proc/{parent}/task/{parent}/children")
    if not children.exists():
        pytest.skip("no /proc that tells children here")
    while len(children.read_text().split()) < num:
        assert time.monotonic() < end, "no worker appears"
        time.sleep(0.01)
    time.sleep(0.2)


# Exit codes, and what is said where


def test_a_known_failure_is_one_line_and_1(folder: Path) -> None:
    code, out, err = _said(folder, "wsltool boxes none.h5")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("wsltool: none.h5: there is no such store.")


def test_wrong_usage_is_2(folder: Path) -> None:
    assert _said(folder, "wsltool boxes maps.h5 --threshold 1.4") == (
        2,
        "",
        "wsltool: --threshold must be in [0, 1), got 1.4.\n",
    )
    code, out, err = _said(folder, "wsltool boxes maps.h5 --treshold 0.4")
    assert (code, out) == (2, "")
    assert "No such option: --treshold" in err


def test_images_left_out_are_3_and_the_next_stages_go_on(folder: Path, pictures: Path) -> None:
    (folder / "bad" / "a").mkdir(parents=True)
    (folder / "bad" / "b").symlink_to(pictures / "in" / "b")
    (folder / "bad" / "a" / "000.png").write_bytes(b"no picture")
    ingest = "wsltool ingest folder bad -o bad.h5"
    code, out, err = _said(folder, ingest)
    assert (code, out) == (1, "bad.h5\n")
    assert "Pass --on-bad skip to leave it out." in err
    script = f"{ingest} --on-bad skip | wsltool baseline -q --prior whole; echo ${{PIPESTATUS[*]}}"
    for _ in range(2):
        code, out, err = _said(folder, script)
        assert out == "bad.baseline.h5\n3 0\n"
        assert "1 image was left out." in err
    with wsltool.open_store(folder / "bad.baseline.h5") as store:
        assert store.whole("image_status")[:2].tolist() == [2, 0]
        assert store.whole("box_start")[:3].tolist() == [0, 0, 1]


def test_a_bug_is_70_with_a_traceback(folder: Path) -> None:
    command = Command(folder, "cam", "in.h5", "--model", "tests.cli.networks:odd", "--workers", "0")
    assert (command.wait(), command.stdout) == (70, "in.cam.h5\n")
    assert "ZeroDivisionError: a bug of ours looks like this" in command.stderr
    assert command.stderr.endswith(
        "wsltool: This is a bug in wsltool. Please report it with the lines above.\n"
    )


def test_an_interruption_is_one_line_wherever_it_comes(folder: Path) -> None:
    network = "tests.cli.networks:interrupted"
    command = Command(folder, "cam", "in.h5", "--model", network, "--workers", "0")
    assert command.wait() == 130
    line = "wsltool: interrupted; the same command continues where this one stopped."
    assert command.stderr.splitlines() == [line]


def test_a_full_disk_is_one_line(folder: Path) -> None:
    code, out, err = _said(folder, "ulimit -f 2; wsltool boxes maps.h5 -q --components all")
    assert (code, out, err) == (1, "maps.boxes.h5\n", "wsltool: File too large.\n")
    code, out, err = _said(folder, "wsltool boxes maps.h5 -q --components all")
    assert (code, err) == (0, "")


def test_an_interrupted_stage_in_a_pipe_says_so_and_fails_the_next(folder: Path) -> None:
    first, second = _cam_into_boxes(folder, "--workers", "0")
    while not WorkInProgress(folder / "in.cam.h5").folder.is_dir():
        time.sleep(0.02)
    time.sleep(0.3)
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=30)
    assert first.returncode == 130
    assert err.splitlines()[-1] == (
        b"wsltool: interrupted; the same command continues where this one stopped."
    )
    out, err = second.communicate(timeout=30)
    assert (second.returncode, out) == (1, b"")
    assert b"in.cam.h5: not finished, 2 of 2 blocks missing (0, 1)." in err
    assert WorkInProgress(folder / "in.cam.h5").folder.is_dir()


@pytest.mark.parametrize(
    "command", ["inspect in.h5", "verify in.h5", "score b.h5 --protocol gt-known -q"]
)
def test_results_are_json_or_text_on_stdout(folder: Path, command: str) -> None:
    wsltool.baseline(folder / "in.h5", output=folder / "b.h5")
    code, out, err = _said(folder, f"wsltool {command} --json")
    assert (code, err) == (0, "")
    assert isinstance(json.loads(out), dict)
    code, out, err = _said(folder, f"wsltool {command}")
    assert (code, err) == (0, "")
    assert "\x1b" not in out


def test_verify_of_a_damaged_store_tells_on_stdout_and_fails(folder: Path) -> None:
    script = (
        "wsltool convert maps.h5 -q && rm -r maps.zarr/map/c && wsltool verify maps.zarr --json"
    )
    code, out, err = _said(folder, script)
    assert code == 1
    found = json.loads(out.partition("\n")[2])
    assert found["problems"][0].startswith("maps.zarr: array map: chunk c/0/0/0/0 is missing.")
    assert err == "wsltool: maps.zarr: 1 problems.\n"


def test_progress_is_plain_lines_where_stderr_is_no_terminal(folder: Path) -> None:
    code, _, err = _said(folder, "wsltool boxes maps.h5")
    assert code == 0
    [line] = err.splitlines()
    assert line.startswith("boxes: 300/300 images, ")
    assert line.endswith(", 0:00") or line[-5:].startswith(", 0:")


def test_quiet_is_silent(folder: Path) -> None:
    assert _said(folder, "wsltool boxes maps.h5 -q; wsltool boxes maps.h5 -q") == (
        0,
        "maps.boxes.h5\nmaps.boxes.h5\n",
        "",
    )


def test_progress_is_a_bar_on_a_terminal(folder: Path) -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "wsltool", "boxes", "maps.h5"],
        cwd=folder,
        env=environment(TERM="xterm", COLUMNS="100"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        check=False,
    )
    os.close(theirs)
    drawn = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert (done.returncode, done.stdout) == (0, b"maps.boxes.h5\n")
    assert "300/300" in drawn
    assert "images/s" in drawn
    assert "\x1b[" in drawn


def test_the_package_runs_as_a_module_from_anywhere(tmp_path: Path) -> None:
    code, out, err = _said(tmp_path, "wsltool --version")
    assert (code, err) == (0, "")
    assert out.count(".") >= 1
