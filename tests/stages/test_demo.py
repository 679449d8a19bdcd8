"""``demo``, in miniature: the real command line from drawing to gallery."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import wsltool
from wsltool.errors import StoreExistsError, UsageError


@pytest.mark.slow
def test_the_whole_demo_and_the_same_again(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wsltool", "demo", "-o", str(tmp_path / "demo")]
    command += ["--num-train", "12", "--num-test", "8", "--epochs", "1"]
    first = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert first.returncode == 0, first.stderr
    assert first.stdout == f"{tmp_path}/demo/gallery/index.html\n"
    assert "voc-ap" in first.stderr
    assert "peak-in-box" in first.stderr
    assert "$ wsltool cam " in first.stderr
    assert "| wsltool boxes | wsltool score" in first.stderr
    assert (tmp_path / "demo" / "gallery" / "index.html").is_file()
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout
    assert again.stderr.count("finished already, left alone") == 5
    with pytest.raises(StoreExistsError, match=r"demo: holds the demo of .*'num_train': 12"):
        wsltool.demo(tmp_path / "demo", num_train=13, num_test=8)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreExistsError, match=r"holds other files\. Give another folder\."):
        wsltool.demo(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(UsageError, match=r"--num-train must be in \[6, 1000000\), got 5\."):
        wsltool.demo(tmp_path / "new", num_train=5)
