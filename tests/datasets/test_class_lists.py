from __future__ import annotations

import pytest

from wsltool.datasets.classes import ClassList, read_class_list
from wsltool.errors import DatasetError


@pytest.fixture
def write(tmp_path):
    def put(content):
        path = tmp_path / "classes.txt"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return put


@pytest.mark.parametrize(
    ("text", "names", "ids"),
    [
        ("cat\nFrench horn\n", ["cat", "French horn"], ["cat", "French horn"]),
        ("\ufeffcat\r\n\r\ndog\r\n", ["cat", "dog"], ["cat", "dog"]),
        ("7\n3\n", ["7", "3"], ["7", "3"]),
        (
            "0 n01440764 tench\n1 n01443537 goldfish",
            ["tench", "goldfish"],
            ["n01440764", "n01443537"],
        ),
        (
            "n01440764 0 tench\nn03394916 566 French horn",
            ["tench", "French horn"],
            ["n01440764", "n03394916"],
        ),
        ("n01440764 tench, Tinca tinca\n", ["tench, Tinca tinca"], ["n01440764"]),
        ("n01440764\n", ["n01440764"], ["n01440764"]),
        ("0 n02012849 crane\n1 n03126707 crane\n", ["crane", "crane"], ["n02012849", "n03126707"]),
    ],
)
def test_forms(write, text, names, ids):
    classes = read_class_list(write(text))
    assert (classes.class_name, classes.class_id) == (names, ids)
    assert [classes.index(word) for word in ids] == list(range(len(ids)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"classes\.txt: no class in it; expected one class a line\.$"),
        (" \n\n", r"classes\.txt: no class in it"),
        (
            "cat\ndog\ncat\n",
            r'line 3: class "cat" again, first on line 1\. Give each class one line\.$',
        ),
        ("0 n01440764 a\n1 n01440764 b\n", r'line 2: class "n01440764" again, first on line 1\.'),
        (
            "0 n01440764 a\n2 n01443537 b\n",
            r"line 2: index 2, expected 1; the classes must stand in order\.$",
        ),
        ("1 n01440764 a\n", r"line 1: index 1, expected 0"),
        ("0 n01440764 a\ndog\n", r'line 2: "dog" is not "index id name" as the first line is\.$'),
        ("dog\n0 n01440764 a\n", r'line 2: "0 n01440764 a" is not "name" as the first line is\.$'),
        (b"caf\xe9\n", r"classes\.txt: not UTF-8, byte b'\\xe9'\. Save it as UTF-8\.$"),
    ],
)
def test_faults_name_the_line(write, text, message):
    with pytest.raises(DatasetError, match=message):
        read_class_list(write(text))


def test_missing_file(tmp_path):
    with pytest.raises(
        DatasetError, match=r"none\.txt: cannot be read, No such file or directory\.$"
    ):
        read_class_list(tmp_path / "none.txt")


def test_ids_go_before_names_and_ambiguous_names_are_refused():
    classes = ClassList(["b", "crane", "crane"], ["a", "b", "c"], origin="x.txt")
    assert classes.index("b") == 1
    with pytest.raises(
        LookupError, match=r'"crane" is the name of several classes of x\.txt \(b, c\)'
    ):
        classes.index("crane")
    with pytest.raises(
        LookupError, match=r'"zebra" is none of the 3 classes of x\.txt \(b, crane, crane\)'
    ):
        classes.index("zebra")


@pytest.mark.real
def test_imagenet(data_dir):
    classes = read_class_list(data_dir / "weights/imagenet_classes.txt")
    assert len(classes) == 1000
    assert classes.class_name[0] == "tench"
    assert classes.index("n03394916") == classes.class_name.index("French horn") == 566
    ten = read_class_list(data_dir / "imagenette/classes.txt")
    assert [classes.class_name[classes.index(word)] for word in ten.class_id] == ten.class_name
