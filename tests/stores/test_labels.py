import json
import random
import re
from dataclasses import replace

import numpy as np
import pytest

from wsltool.errors import DatasetError, LineageError, StoreMissingError, WslError
from wsltool.stores.labels import (
    ClassLabels,
    Labels,
    annotation_order,
    check_labels,
    cluster_labels,
    clusters_of_class,
    find_clusters,
    new_labels,
    read_labels,
    write_labels,
)
from wsltool.stores.open import open_store
from wsltool.stores.schema import string_array

from .examples import write_store

DIGEST = "sha256:" + "0123456789abcdef" * 4
LABELS = Labels(
    clusters_path="runs/train.cluster.zarr",
    clusters_digest=DIGEST,
    annotator="person",
    classes=(
        ClassLabels(6, "Straßenbahn 🚋", ("object", "distractor"), 3.25, "2026-05-04T12:00:00Z"),
        ClassLabels(0, 'a "name"\nof two', ("unsure", "object", "object")),
        ClassLabels(2, "boat", ("distractor",), 0),
    ),
    made={"stage": "label", "params": {"oracle": None}, "id": "ab12"},
)
ROWS = [
    '{"class": 6, "name": "Straßenbahn 🚋", "clusters": ["object", "distractor"], '
    '"seconds": 3.25, "answered": "2026-05-04T12:00:00Z"}',
    '{"class": 0, "name": "a \\"name\\"\\nof two", "clusters": ["unsure", "object", "object"], '
    '"seconds": null, "answered": null}',
    '{"class": 2, "name": "boat", "clusters": ["distractor"], "seconds": 0, "answered": null}',
]


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "some.labels.json"
    assert write_labels(path, LABELS)
    return path


def _clusters(path, *, names=("boat", "car", "idle", "dog"), of=(0, 0, 1, 1, 1, 3, 3), **changes):
    second = [0.5, 0.25, np.nan, 0.5]
    values = {
        "class_name": string_array(list(names)),
        "class_note": string_array(["", "", "nothing fires", ""]),
        "num_patterns": np.full(4, 5),
        "num_zero": np.zeros(4, np.int64),
        "eigenvalue": np.array([[0, one, 1] for one in second]),
        "centroid": np.arange(3 * len(of), dtype=np.float32).reshape(-1, 3),
        "cluster_class": np.array(of, np.int32),
        "cluster_size": np.full(len(of), 2),
    }
    return write_store(path, "clusters", values | changes)


@pytest.fixture
def clusters(tmp_path):
    with open_store(_clusters(tmp_path / "parts.zarr")) as store:
        yield store


def _labelled(clusters, folder):
    labels = new_labels(clusters, folder, "person", {})
    order = annotation_order(clusters)
    for index, name, words in (
        (3, "dog", ("distractor", "object")),
        (1, "car", ("object", "unsure", "distractor")),
    ):
        labels = labels.with_class(ClassLabels(index, name, words), order)
    return labels


def test_what_is_written_is_read(written):
    assert read_labels(written) == LABELS
    assert read_labels(written).origin == "some.labels.json"


def test_people_can_read_and_diff_it(written):
    lines = written.read_text("utf-8").splitlines()
    assert lines[0] == "{"
    assert lines[1:5] == [
        ' "format": 1,',
        ' "kind": "labels",',
        f' "clusters": {{"path": "runs/train.cluster.zarr", "digest": "{DIGEST}"}},',
        ' "annotator": "person",',
    ]
    assert lines[6] == ' "classes": ['
    assert [line.strip().removesuffix(",") for line in lines[7:10]] == ROWS
    assert lines[10:] == [" ]", "}"]
    without = replace(LABELS, classes=LABELS.classes[:1] + LABELS.classes[2:])
    write_labels(written, without)
    assert written.read_text("utf-8").splitlines() == lines[:8] + lines[9:]


def test_no_answers_yet(tmp_path):
    path = tmp_path / "labels.json"
    write_labels(path, replace(LABELS, classes=()))
    assert ' "classes": []\n' in path.read_text()
    assert read_labels(path).classes == ()


def test_a_file_is_replaced_or_left(written):
    other = replace(LABELS, annotator="someone")
    assert not write_labels(written, other, replace=False)
    assert read_labels(written).annotator == "person"
    assert write_labels(written, other)
    assert read_labels(written).annotator == "someone"
    assert [file.name for file in written.parent.iterdir()] == [written.name]


def test_a_write_that_fails_leaves_the_old_file(written, monkeypatch):
    before = written.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_labels(written, replace(LABELS, annotator="someone"))
    assert written.read_bytes() == before
    assert [file.name for file in written.parent.iterdir()] == [written.name]


def test_by_hand_without_what_may_be_absent(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(
        '{"classes": [{"name": "car", "class": 1, "clusters": ["object"]}], "kind": "labels",'
        f'"format": 1, "annotator": "Ana", "clusters": {{"path": "a.zarr", "digest": "{DIGEST}"}}}}'
    )
    found = read_labels(path)
    assert found.classes == (ClassLabels(1, "car", ("object",)),)
    assert found.made == {}


def _changed(change):
    """The file's text after a change of its JSON data."""
    data = {
        "format": 1,
        "kind": "labels",
        "clusters": {"path": "a.zarr", "digest": DIGEST},
        "annotator": "person",
        "made": {},
        "classes": [json.loads(row) for row in ROWS],
    }
    change(data)
    return json.dumps(data)


def _set(*keys, to):
    def change(data):
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = to

    return change


def _drop(*keys):
    def change(data):
        for key in keys[:-1]:
            data = data[key]
        del data[keys[-1]]

    return change


_AGAIN = " Correct it, or run wsltool label again."
_WRONG = {
    "format": (_set("format", to=2), '"format" is 2; expected 1.'),
    "true": (_set("format", to=True), '"format" is true; expected 1.'),
    "kind": (_set("kind", to="maps"), '"kind" is "maps"; expected "labels".'),
    "list": (_set("clusters", to=[1]), "clusters: is [1]; expected an object with path, digest."),
    "digest": (
        _set("clusters", "digest", to="sha256:12"),
        'clusters: "digest" is "sha256:12"; expected sha256: and 64 hexadecimal digits.',
    ),
    "path": (
        _set("clusters", "path", to="a\0b"),
        'clusters: "path" is "a\\u0000b"; expected text that can be printed.',
    ),
    "annotator": (
        _set("annotator", to=""),
        '"annotator" is ""; expected text that can be printed.',
    ),
    "made": (_set("made", to=3), '"made" is 3; expected an object.'),
    "missing": (
        _drop("annotator"),
        'key "annotator" is missing; expected format, kind, clusters, annotator, made, classes.',
    ),
    "unknown": (
        _set("labels", to=1),
        'unknown key "labels"; expected format, kind, clusters, annotator, made, classes.',
    ),
    "classes": (
        _set("classes", to={"6": "object"}),
        '"classes" is {"6": "object"}; expected a list with an object for each class.',
    ),
    "class": (
        _set("classes", 1, "class", to=-1),
        'classes[1]: "class" is -1; expected the number of a class, from 0.',
    ),
    "name as class": (
        _set("classes", 1, "class", to="boat"),
        'classes[1]: "class" is "boat"; expected the number of a class, from 0.',
    ),
    "misspelt": (
        _set("classes", 0, "clusters", 1, to="distracter"),
        'classes[0]: clusters[1]: is "distracter"; expected object, distractor or unsure.',
    ),
    "word alone": (
        _set("classes", 0, "clusters", to="object"),
        'classes[0]: "clusters" is "object"; expected a list with a word for each cluster.',
    ),
    "no words": (
        _set("classes", 0, "clusters", to=[]),
        'classes[0]: "clusters" is []; expected a list with a word for each cluster.',
    ),
    "word of words": (
        _set("classes", 0, "clusters", 0, to=["object"]),
        'classes[0]: clusters[0]: is ["object"]; expected object, distractor or unsure.',
    ),
    "seconds": (
        _set("classes", 2, "seconds", to=-0.5),
        'classes[2]: "seconds" is -0.5; expected a number from 0 to 1e+09, or null.',
    ),
    "yes": (
        _set("classes", 2, "seconds", to=True),
        'classes[2]: "seconds" is true; expected a number from 0 to 1e+09, or null.',
    ),
    "time": (
        _set("classes", 2, "answered", to="yesterday"),
        'classes[2]: "answered" is "yesterday"; expected a time such as '
        "2026-05-04T12:00:00+00:00, or null.",
    ),
    "no time": (
        _set("classes", 2, "answered", to=12),
        'classes[2]: "answered" is 12; expected text.',
    ),
    "long": (
        _set("classes", 2, "name", to=list(range(99))),
        'classes[2]: "name" is [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 1 …; '
        "expected text.",
    ),
}


@pytest.mark.parametrize("case", _WRONG)
def test_what_a_hand_can_break(written, case):
    change, expected = _WRONG[case]
    written.write_text(_changed(change))
    with pytest.raises(DatasetError) as caught:
        read_labels(written)
    assert str(caught.value) == f"some.labels.json: {expected}{_AGAIN}"


def test_a_class_twice(written):
    written.write_text(_changed(lambda data: data["classes"].append(data["classes"][1])))
    with pytest.raises(DatasetError) as caught:
        read_labels(written)
    assert str(caught.value) == (
        "some.labels.json: classes[3]: class 0 stands there twice; expected one line a class. "
        "Remove one."
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "Expecting value: line 1 column 1 (char 0)"),
        (b'{\n "format": 1,\n}', "double quotes"),
        (b"\xff\xfe\xfa", "codec can't decode"),
        (b"[" * 200_000, "recursion"),
        (b'{"format": 1, "format": 2}', 'key "format" stands twice in one object'),
        (b'{"a": "\\ud800"}', "surrogates not allowed"),
        (b'{"a": NaN}', "not JSON compliant"),
        (b'{"a": 1e999}', "not JSON compliant"),
        (b'{"a": ' + b"9" * 5000 + b"}", "4300 digits"),
    ],
)
def test_what_is_no_json(written, text, expected):
    written.write_bytes(text)
    with pytest.raises(DatasetError) as caught:
        read_labels(written)
    told = str(caught.value)
    assert told.startswith("some.labels.json: is no JSON (")
    assert expected in told
    assert told.endswith("; expected a labels.json of wsltool label." + _AGAIN)
    assert "\n" not in told


def test_no_object(written):
    written.write_text("[]")
    with pytest.raises(
        DatasetError, match=r"^some\.labels\.json: is \[\]; expected an object with "
    ):
        read_labels(written)


def test_no_file_there(tmp_path):
    with pytest.raises(
        StoreMissingError,
        match=r"gone\.json: there is no such file\. Run first: wsltool label CLUSTERS",
    ):
        read_labels(tmp_path / "gone.json")
    with pytest.raises(DatasetError, match=r"cannot be read \(Is a directory\); expected a labels"):
        read_labels(tmp_path)


@pytest.mark.parametrize("seed", range(200))
def test_mutations_are_read_or_refused_in_one_line(written, seed):
    chance = random.Random(seed)
    text = bytearray(written.read_bytes())
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        start = chance.randrange(len(text))
        stop = min(len(text), start + chance.choice([0, 1, 1, 3, 30]))
        other = chance.randrange(len(text))
        piece = chance.choice(
            [
                b"",
                bytes([chance.randrange(256)]),
                text[other : other + 20],
                b'"',
                b"9",
                b"null",
                b"}",
            ]
        )
        text[start:stop] = piece
    written.write_bytes(text)
    refusal, found = _tried(written)
    if refusal is None:
        write_labels(written, found)
        assert read_labels(written) == found
    else:
        assert re.fullmatch(r"some\.labels\.json: .+\.", refusal)


def _tried(path):
    try:
        return None, read_labels(path)
    except WslError as error:
        return str(error), None


def test_changing_answers():
    order = np.array([2, 0, 6])
    labels = replace(LABELS, classes=())
    for one in LABELS.classes:
        labels = labels.with_class(one, order)
    assert [one.class_index for one in labels.classes] == [2, 0, 6]
    again = ClassLabels(0, "renamed", ("object",) * 3, 1.5)
    labels = labels.with_class(again, order)
    assert [one.class_index for one in labels.classes] == [2, 0, 6]
    assert labels.of_class(0) == again
    labels = labels.with_class(ClassLabels(5, "no longer asked", ("object",)), order)
    assert [one.class_index for one in labels.classes] == [2, 0, 6, 5]
    assert labels.without_class(6).of_class(6) is None
    assert labels.without_class(9) == labels


def test_the_order_of_annotation(clusters):
    assert annotation_order(clusters).tolist() == [1, 0, 3]


def test_the_order_where_eigenvalues_lack(tmp_path):
    eigenvalue = np.array([[0, np.nan], [0, np.nan], [np.nan, np.nan], [0, 0.5]])
    with open_store(_clusters(tmp_path / "a.zarr", eigenvalue=eigenvalue)) as store:
        assert annotation_order(store).tolist() == [3, 0, 1]
    with open_store(_clusters(tmp_path / "b.zarr", eigenvalue=eigenvalue[:, :1])) as store:
        assert annotation_order(store).tolist() == [0, 1, 3]
    none = {"centroid": np.zeros((0, 3), np.float32), "cluster_size": np.zeros(0, np.int64)}
    with open_store(_clusters(tmp_path / "c.zarr", of=(), **none)) as store:
        assert annotation_order(store).tolist() == []
        assert clusters_of_class(store) == {}


def test_the_word_of_every_cluster(clusters, tmp_path):
    labels = _labelled(clusters, tmp_path)
    assert [one.class_index for one in labels.classes] == [1, 3]
    assert cluster_labels(labels, clusters) == [
        None, None, "object", "unsure", "distractor", "distractor", "object",
    ]  # fmt: skip
    assert {k: v.tolist() for k, v in clusters_of_class(clusters).items()} == {
        0: [0, 1],
        1: [2, 3, 4],
        3: [5, 6],
    }


def test_equal_clusters_made_anew(clusters, tmp_path):
    labels = _labelled(clusters, tmp_path)
    with open_store(_clusters(tmp_path / "anew.h5")) as other:
        check_labels(labels, other)
        del other.meta["digest"]  # of a store that somebody else wrote
        check_labels(labels, other)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"of": (0, 0, 1, 1, 3, 3, 3)},
            'class 1 "car": clusters in other.zarr 2, answers 3',
        ),
        ({"of": (0, 0, 0, 0, 0, 3, 3)}, 'class 1 "car": clusters in other.zarr 0, answers 3'),
        ({"names": ("boat", "cab", "idle", "dog")}, 'class 1 "car" is "cab" in other.zarr'),
        (
            {"centroid": np.ones((7, 3), np.float32)},
            "their arrays have another digest",
        ),
    ],
)
def test_other_clusters(clusters, tmp_path, changes, reason):
    labels = replace(_labelled(clusters, tmp_path), origin="mine.json")
    with open_store(_clusters(tmp_path / "other.zarr", **changes)) as other:
        with pytest.raises(LineageError) as caught:
            check_labels(labels, other)
        assert str(caught.value) == (
            f"mine.json: was made for parts.zarr, which other.zarr is not: {reason}. Label these: "
            "wsltool label other.zarr"
        )


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            ClassLabels(3, "dog", ("object",)),
            'class 3 "dog": clusters in parts.zarr 2, answers 1.',
        ),
        (
            ClassLabels(2, "idle", ("object",)),
            'class 2 "idle": clusters in parts.zarr 0, answers 1.',
        ),
        (ClassLabels(3, "cat", ("object",) * 2), 'class 3 "cat" is "dog" in parts.zarr'),
        (ClassLabels(4, "x", ("object",)), 'class 4 "x" is none of the 4 classes of parts.zarr'),
    ],
)
def test_a_wrong_count_by_hand(clusters, tmp_path, answer, told):
    labels = _labelled(clusters, tmp_path).with_class(answer, [])
    with pytest.raises(DatasetError) as caught:
        cluster_labels(labels, clusters)
    assert str(caught.value).startswith(f"labels: {told}")
    assert str(caught.value).endswith(". Correct it, or run wsltool label parts.zarr again.")


def test_the_clusters_are_found_again(clusters, tmp_path):
    folder = tmp_path / "answers"
    folder.mkdir()
    path = folder / "labels.json"
    labels = _labelled(clusters, folder)
    assert labels.clusters_path == "../parts.zarr"
    with find_clusters(path, labels, "--clusters") as found:
        assert found.path == tmp_path / "parts.zarr"
    clusters.path.rename(folder / "parts.zarr")
    with find_clusters(path, labels, "--clusters") as found:
        assert found.path == folder / "parts.zarr"


def test_the_clusters_are_gone_or_others(clusters, tmp_path):
    labels = _labelled(clusters, tmp_path)
    clusters.path.rename(tmp_path / "away.zarr")
    with pytest.raises(LineageError) as caught:
        find_clusters(tmp_path / "labels.json", labels, "--clusters")
    assert str(caught.value) == (
        "labels.json: its clusters parts.zarr are not there. Say where with --clusters."
    )
    _clusters(tmp_path / "parts.zarr", of=(0, 0, 0, 1, 1, 3, 3))
    with pytest.raises(
        LineageError, match=r"parts\.zarr is another store now \(its digest differs"
    ):
        find_clusters(tmp_path / "labels.json", labels, "--clusters")
