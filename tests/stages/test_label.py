import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wsltool.errors import (
    DatasetError,
    LineageError,
    StoreError,
    StoreExistsError,
    StoreKindError,
    StoreUnfinishedError,
    UsageError,
)
from wsltool.stages import label_board
from wsltool.stages.label import label
from wsltool.stores.labels import (
    ClassLabels,
    annotation_order,
    new_labels,
    read_labels,
    write_labels,
)
from wsltool.stores.open import open_store

from .cluster_scene import VECTORS, scene, scene_clusters
from .making import Ears, meta

HAND = [(1, "car", ("object", "unsure", "distractor")), (0, "dog", ("object", "distractor"))]


@pytest.fixture
def stores(tmp_path):
    return scene(tmp_path)


@pytest.fixture
def parts(stores):
    return stores[2]


def write_answers(path, parts, answers=HAND, **changes):
    """What a person says, as the page keeps it."""
    with open_store(parts) as clusters:
        labels = new_labels(clusters, path.parent, "person", {})
        for one in answers:
            labels = labels.with_class(ClassLabels(*one, 2.5), annotation_order(clusters))
        write_labels(path, labels)
    return path


def words(path):
    return {one.class_index: one.words for one in read_labels(path).classes}


def test_answers_of_a_file(parts, tmp_path):
    ears = Ears()
    output = label(parts, answers=write_answers(tmp_path / "mine.json", parts), report=ears)
    assert output == tmp_path / "parts.labels.json"
    assert ears.announced == [output]
    assert ears.warnings == []
    assert ears.notes == [f"{output}: 2 of 3 classes labelled by person, 2 with a distractor."]
    found = read_labels(output)
    assert [one.class_index for one in found.classes] == [1, 0]  # in the order of the queue
    assert words(output) == {index: said for index, _, said in HAND}
    assert found.classes[0].seconds == 2.5
    assert (found.annotator, found.clusters_path) == ("person", "parts.zarr")
    assert found.clusters_digest == meta(parts)["digest"]
    assert found.made["stage"] == "label"
    assert found.made["inputs"]["answers"]["path"] == "mine.json"
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "found.zarr", "mine.json", "parts.labels.json", "parts.zarr", "truth.zarr",
    ]  # fmt: skip


def test_answers_from_another_folder(parts, tmp_path):
    (tmp_path / "other").mkdir()
    answers = write_answers(tmp_path / "mine.json", parts)
    output = label(parts, answers=answers, output=tmp_path / "other" / "said.json")
    assert read_labels(output).clusters_path == "../parts.zarr"


def test_equal_clusters_made_anew_take_the_answers(stores, tmp_path):
    answers = write_answers(tmp_path / "mine.json", stores[2])
    anew = scene_clusters(tmp_path / "anew.h5", stores[1])
    assert meta(anew)["id"] != meta(stores[2])["id"]
    output = label(anew, answers=answers)
    assert read_labels(output).clusters_path == "anew.h5"
    assert len(words(output)) == 2


def test_answers_about_other_clusters(stores, tmp_path):
    answers = write_answers(tmp_path / "mine.json", stores[2])
    other = scene_clusters(tmp_path / "other.zarr", stores[1], centroid=np.ones((7, 4), np.float32))
    with pytest.raises(
        LineageError,
        match=r"^mine\.json: was made for parts\.zarr, which other\.zarr is not: their arrays",
    ):
        label(other, answers=answers)
    assert not (tmp_path / "other.labels.json").exists()


def test_answers_that_are_damaged(parts, tmp_path):
    (tmp_path / "mine.json").write_text("{")
    with pytest.raises(DatasetError, match=r"^mine\.json: is no JSON \(Expecting property name"):
        label(parts, answers=tmp_path / "mine.json")
    assert not (tmp_path / "parts.labels.json.wip").exists()


def test_the_same_command_twice(parts, tmp_path):
    answers = write_answers(tmp_path / "mine.json", parts)
    output = label(parts, answers=answers)
    before = output.read_bytes()
    ears = Ears()
    assert label(parts, answers=answers, report=ears) == output
    assert output.read_bytes() == before
    assert ears.announced == [output]
    assert ears.notes[0] == f"{output}: finished already, left alone."


def test_another_command_on_the_same_name(stores, tmp_path):
    truth, _, parts = stores
    answers = write_answers(tmp_path / "mine.json", parts)
    output = label(parts, answers=answers)
    before = output.read_bytes()
    with pytest.raises(StoreExistsError) as caught:
        label(parts, oracle=truth)
    assert str(caught.value) == (
        f"{output}: made with --oracle unset, now truth. Pass -o for another name, or --overwrite "
        "to replace it."
    )
    write_answers(answers, parts, HAND[:1])
    with pytest.raises(StoreExistsError, match=r"made from another answers than mine\.json is now"):
        label(parts, answers=answers)
    assert output.read_bytes() == before
    label(parts, answers=answers, overwrite=True)
    assert words(output) == {1: HAND[0][2]}
    label(parts, oracle=truth, overwrite=True)
    assert read_labels(output).annotator == "oracle boxes"


def test_a_strangers_file_is_never_replaced(parts, tmp_path):
    answers = write_answers(tmp_path / "mine.json", parts)
    output = tmp_path / "parts.labels.json"
    for text in ("{}", answers.read_text()):
        output.write_text(text)
        with pytest.raises(StoreExistsError, match="something stands there that wsltool did not"):
            label(parts, answers=answers, overwrite=True)
        assert output.read_text() == text
    with pytest.raises(UsageError, match="that is the answers it reads"):
        label(parts, answers=answers, output=answers, overwrite=True)


def test_chance_shuffles_other_labels(parts, tmp_path):
    like = write_answers(tmp_path / "mine.json", parts)
    seen = set()
    for seed in range(12):
        output = label(
            parts, oracle="random", like=like, seed=seed, output=tmp_path / f"{seed}.json"
        )
        found = words(output)
        assert sorted(found) == [0, 1]
        for index, _, said in HAND:
            assert sorted(found[index]) == sorted(said)
        seen.add(found[1])
    assert len(seen) > 3
    assert read_labels(output).annotator == "random"
    assert read_labels(output).classes[0].seconds is None
    again = label(parts, oracle="random", like=like, seed=11, output=tmp_path / "again.json")
    assert words(again) == words(output)
    with pytest.raises(StoreExistsError, match="made with --seed 11, now 3"):
        label(parts, oracle="random", like=like, seed=3, output=output)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"answers": "a.json", "oracle": "random"},
            "--answers and --oracle exclude each other: labels have one annotator. Leave one out.",
        ),
        (
            {"answers": "a.json", "oracle": "t.zarr", "export": "d"},
            "--answers and --oracle and --export exclude each other: labels have one annotator. "
            "Leave two out.",
        ),
        (
            {"oracle": "random"},
            "--oracle random needs --like LABELS: it marks as many clusters of each class as those "
            "labels do. Make them first, for instance with --oracle TRUTH.",
        ),
        (
            {"oracle": "t.zarr", "like": "a.json"},
            "--like is not read by --oracle with a truth, only by --oracle random. Leave it out.",
        ),
        (
            {"oracle_from": "masks"},
            "--oracle-from is not read by the page, only by --oracle with a truth. Leave it out.",
        ),
        (
            {"answers": "a.json", "browser": False},
            "--no-browser is not read by --answers, only by the page. Leave it out.",
        ),
        (
            {"answers": "a.json", "samples": 5},
            "--samples is not read by --answers, only by the page and --export. Leave it out.",
        ),
        (
            {"export": "d", "output": "a.json"},
            "-o is not read by --export, only by the page and --answers and --oracle with a truth "
            "and --oracle random. Leave it out.",
        ),
        (
            {"oracle": "t.zarr", "oracle_from": "points"},
            '--oracle-from must be boxes or masks, got "points".',
        ),
        ({"samples": 0}, "--samples must be in [1, 100], got 0."),
        ({"samples": 2.5}, "--samples must be a whole number, got 2.5."),
        ({"port": 70000}, "--port must be in [0, 65535], got 70000."),
        ({"seed": -1}, "--seed must be in [0, 9223372036854775808), got -1."),
        ({"answers": "a.json", "output": "a.zarr"}, "-o a.zarr: labels end in .json."),
    ],
)
def test_options(parts, options, told):
    with pytest.raises(UsageError) as caught:
        label(parts, **options)
    assert str(caught.value) == told


def test_other_inputs(stores, tmp_path):
    with pytest.raises(StoreKindError) as caught:
        label(stores[1])
    assert str(caught.value) == (
        'found.zarr: kind is "features", but label reads "clusters". Run first: wsltool cluster '
        "FEATURES"
    )
    empty = scene_clusters(
        tmp_path / "empty.zarr",
        stores[1],
        centroid=np.zeros((0, 4), np.float32),
        cluster_class=np.zeros(0, np.int32),
        cluster_size=np.zeros(0, np.int64),
        class_note=np.array(["no patterns"] * 4, np.dtypes.StringDType()),
    )
    match = r'^empty\.zarr: none of its 4 classes has clusters \("dog": no patterns\), so there is'
    with pytest.raises(StoreError, match=match):
        label(empty)


def test_no_folder_for_the_output(parts, tmp_path):
    nowhere = tmp_path / "nowhere" / "a.json"
    with pytest.raises(UsageError, match=r"the folder .*nowhere does not exist"):
        label(parts, answers=write_answers(tmp_path / "mine.json", parts), output=nowhere)
    with pytest.raises(UsageError, match=r"the folder .*nowhere does not exist"):
        label(parts, output=nowhere)


@pytest.fixture
def visits(monkeypatch):
    """Instead of a person at a browser: what the page is called with, and one answer a visit."""
    told = []

    def serve(clusters, path, *, report, **options):
        told.append(options)
        labels = read_labels(path)
        answer = ClassLabels(*HAND[len(labels.classes) % 2], 1.5)
        write_labels(path, labels.with_class(answer, annotation_order(clusters)))

    monkeypatch.setattr(label_board, "serve", serve)
    return told


def test_the_page_goes_on_where_the_file_is(parts, tmp_path, visits):
    ears = Ears()
    output = label(parts, samples=5, port=8080, browser=False, seed=3, report=ears)
    assert visits == [
        {"samples": 5, "port": 8080, "browser": False, "seed": 3, "features": None, "images": None}
    ]
    assert words(output) == {1: HAND[0][2]}
    assert ears.notes == [f"{output}: 1 of 3 classes labelled by person, 1 with a distractor."]
    label(parts, report=ears)
    assert words(output) == {1: HAND[0][2], 0: HAND[1][2]}
    assert ears.announced == [output, output]
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "found.zarr", "parts.labels.json", "parts.zarr", "truth.zarr",
    ]  # fmt: skip


def test_the_page_does_not_go_on_from_others_answers(stores, tmp_path, visits):
    truth, _, parts = stores
    output = label(parts, oracle=truth)
    with pytest.raises(StoreExistsError, match="made with --oracle truth, now unset"):
        label(parts)
    assert visits == []
    label(parts, overwrite=True)
    assert read_labels(output).annotator == "person"


def test_a_file_that_a_hand_broke_is_told_before_the_page_opens(parts, visits):
    output = label(parts)
    output.write_text(output.read_text().replace('"unsure", ', ""))
    with pytest.raises(DatasetError, match=r'class 1 "car": clusters in parts\.zarr 3, answers 2'):
        label(parts)
    assert len(visits) == 1


def test_two_pages_on_one_file(parts, monkeypatch):
    def serve(clusters, path, *, report, **options):
        with pytest.raises(StoreUnfinishedError) as caught:
            label(parts)
        assert str(caught.value) == (
            f"{path}: another page is open on it. Go on there, close that one, or pass -o."
        )
        label(parts, output=path.with_name("other.json"), **{"browser": False})

    def once(clusters, path, **options):
        calls.append(path.name)
        if len(calls) == 1:
            serve(clusters, path, **options)

    calls = []
    monkeypatch.setattr(label_board, "serve", once)
    label(parts)
    assert calls == ["parts.labels.json", "other.json"]


def test_a_page_that_ends_while_another_starts(parts, monkeypatch):
    """The second opened the first one's lock, which the first then took away: a third waits."""

    def flock(file, how):
        monkeypatch.setattr(fcntl, "flock", real)
        Path(file.name).unlink()
        real(file, how)

    def serve(clusters, path, **options):
        with pytest.raises(StoreUnfinishedError, match="another page is open on it"):
            label(parts)
        visits.append(path)

    real, visits = fcntl.flock, []
    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(label_board, "serve", serve)
    output = label(parts)
    assert visits == [output]
    assert not list(parts.parent.glob(".*.lock"))


def test_a_folder_where_nothing_can_be_locked(parts, monkeypatch):
    def flock(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StoreError, match=r"json\.lock: cannot be locked \(No locks available\)\."):
        label(parts)


_KILLED = """
import os, signal, sys
from wsltool.stores import wip
from wsltool.stages.label import label
count = [int(sys.argv[1])]
def dying(descriptor, real=os.fsync):
    count[0] -= 1
    if count[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)
os.fsync = dying
label(sys.argv[2], answers=sys.argv[3])
"""


def test_killed_at_any_write(parts, tmp_path):
    answers = write_answers(tmp_path / "mine.json", parts)
    output = tmp_path / "parts.labels.json"
    codes = []
    for num in range(5):
        ended = subprocess.run(
            [sys.executable, "-c", _KILLED, str(num), str(parts), str(answers)],
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
            check=False,
        )
        codes.append(ended.returncode)
        if output.exists():
            assert len(read_labels(output).classes) == 2
    assert codes[0] == -signal.SIGKILL
    assert codes[-1] == 0
    assert label(parts, answers=answers) == output
    assert words(output) == {index: said for index, _, said in HAND}
    assert not (tmp_path / "parts.labels.json.wip").exists()


def test_what_refine_is_told_stays_readable(parts, tmp_path):
    output = label(parts, answers=write_answers(tmp_path / "mine.json", parts))
    lines = output.read_text().splitlines()
    (dog,) = [line for line in lines if '"dog"' in line]
    assert re.fullmatch(
        r'  \{"class": 0, "name": "dog", "clusters": \["object", "distractor"\], '
        r'"seconds": 2\.5, "answered": null\}',
        dog,
    )
    assert json.loads(output.read_text())["kind"] == "labels"
    assert VECTORS.shape == (5, 4)
