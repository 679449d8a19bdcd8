"""Who may import whom: the table of the design, held over the whole package."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import wsltool
from wsltool.cli import commands

ROOT = Path(wsltool.__file__).parent
ROOMS = {
    "errors": set(),
    "localize": {"errors"},
    "metrics": {"errors"},
    "datasets": {"errors"},
    "stores": {"errors"},
    "nets": {"errors", "localize"},
    "views": {"errors", "localize", "metrics"},
    "stages": {"errors", "localize", "metrics", "datasets", "stores", "views", "nets"},
    "cli": {"errors", "stages"},
}
ONLY_IN = {
    "torch": "nets",
    "torchvision": "nets",
    "safetensors": "nets",
    "zarr": "stores",
    "h5py": "stores",
    "typer": "cli",
    "rich": "cli",
    "click": None,
}
LIGHT = ("cli",)
HEAVY = ("cv2", "h5py", "numpy", "PIL", "rich", "scipy", "torch", "torchvision", "zarr")
NO_NAMES = {"util", "utils", "helper", "helpers", "common", "base", "misc"}
STAGES = {name for name in vars(commands) if not name.startswith("_")}


@dataclass(frozen=True)
class Import:
    """One import: who, what (dotted, whole), where in the file, and whether it is deferred."""

    module: str
    target: str
    line: int
    in_function: bool
    for_types: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"

    @property
    def package(self) -> str:
        """The top-level package that is imported."""
        return self.target.split(".")[0]


def _modules() -> Iterator[tuple[str, Path]]:
    for file in sorted(ROOT.rglob("*.py")):
        parts = file.relative_to(ROOT.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


def _walk(
    node: ast.AST, in_function: bool, for_types: bool
) -> Iterator[tuple[ast.AST, bool, bool]]:
    for child in ast.iter_child_nodes(node):
        function = in_function or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
        typed = for_types or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test))
        yield child, function, typed
        yield from _walk(child, function, typed)


def _imports() -> Iterator[Import]:
    for module, file in _modules():
        for node, in_function, for_types in _walk(ast.parse(file.read_text("utf-8")), False, False):
            where = (getattr(node, "lineno", 0), in_function, for_types)
            if isinstance(node, ast.Import):
                for name in node.names:
                    yield Import(module, name.name, *where)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module}:{node.lineno}: a relative import"
                for name in node.names:
                    yield Import(module, f"{node.module}.{name.name}", *where)


IMPORTS = list(_imports())
OURS = [found for found in IMPORTS if found.package == "wsltool"]


def _room(dotted: str) -> str:
    """Return the room of a module; the top of the package belongs to none."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else ""


def _told(found: list[Import]) -> list[str]:
    return [str(one) for one in found]


def test_the_walk_sees_the_package() -> None:
    assert len(IMPORTS) > 400
    assert {_room(one.module) for one in IMPORTS} - {"", "__main__"} <= set(ROOMS)
    assert {"boxes", "cam", "ingest", "merge", "score", "select", "train_cls"} <= STAGES


def test_every_room_imports_only_what_the_table_allows() -> None:
    wrong = [
        one
        for one in OURS
        if _room(one.module) in ROOMS
        and _room(one.target) not in ROOMS[_room(one.module)] | {_room(one.module), ""}
    ]
    assert _told(wrong) == []


def test_rooms_do_not_reach_for_the_top_of_the_package() -> None:
    wrong = [one for one in OURS if _room(one.module) in ROOMS and one.target == "wsltool"]
    assert _told(wrong) == []


def test_stages_import_nets_inside_functions_or_for_types() -> None:
    wrong = [
        one
        for one in OURS
        if _room(one.module) == "stages"
        and _room(one.target) == "nets"
        and not (one.in_function or one.for_types)
    ]
    assert _told(wrong) == []


def _stage(dotted: str) -> str | None:
    parts = dotted.split(".")
    is_stage = len(parts) > 2 and parts[1] == "stages" and parts[2] in STAGES
    return parts[2] if is_stage else None


def test_no_stage_imports_another_stage() -> None:
    wrong = [
        one
        for one in OURS
        if _room(one.module) == "stages"
        and _stage(one.target) is not None
        and _stage(one.target) != _stage(one.module)
    ]
    assert _told(wrong) == []


@pytest.mark.parametrize(("package", "room"), ONLY_IN.items())
def test_a_library_stays_in_its_room(package: str, room: str | None) -> None:
    wrong = [
        one
        for one in IMPORTS
        if one.package == package and _room(one.module) != room and not one.for_types
    ]
    assert _told(wrong) == []


def test_the_command_line_and_the_top_import_nothing_heavy_at_module_top() -> None:
    wrong = [
        one
        for one in IMPORTS
        if _room(one.module) in (*LIGHT, "")
        and one.package in HEAVY
        and not (one.in_function or one.for_types)
    ]
    assert _told(wrong) == []


def test_only_the_command_line_prints() -> None:
    wrong = []
    for module, file in _modules():
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            prints = isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "print",
                "sys.stdout.write",
                "sys.stderr.write",
            )
            if prints and _room(module) != "cli":
                wrong.append(f"{module}:{node.lineno}")
    assert wrong == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    words = {module: set(module.split(".")[-1].split("_")) for module, _ in _modules()}
    assert [module for module, parts in words.items() if parts & NO_NAMES] == []


def test_rooms_are_docstrings_alone() -> None:
    for room in set(ROOMS) - {"errors", "cli"}:
        tree = ast.parse((ROOT / room / "__init__.py").read_text("utf-8"))
        assert ast.get_docstring(tree), room
        assert len(tree.body) == 1, room


def test_the_public_names_are_these() -> None:
    assert wsltool.__all__ == [
        "as_dataset",
        "as_xarray",
        "baseline",
        "beam_search",
        "boxes",
        "cam",
        "cluster",
        "convert",
        "demo",
        "effort",
        "export",
        "extract_features",
        "fit_cooccurrence",
        "ingest_boxes",
        "ingest_coco",
        "ingest_cub",
        "ingest_folder",
        "ingest_ilsvrc",
        "ingest_maps",
        "ingest_masks",
        "ingest_openimages",
        "ingest_voc",
        "ingest_wsol",
        "inspect",
        "label",
        "merge",
        "open_store",
        "propose",
        "rank_boxes",
        "refine",
        "score",
        "select",
        "train_cls",
        "verify",
        "view",
    ]
    assert dir(wsltool) == wsltool.__all__
    for name in wsltool.__all__:
        assert callable(getattr(wsltool, name)), name
        assert getattr(wsltool, name).__doc__, name
    with pytest.raises(AttributeError, match=r'^module "wsltool" has no attribute "nothing"$'):
        _ = wsltool.nothing
