"""The documentation is true: examples run, pages agree with the code, links lead somewhere.

``python -m tests.test_docs`` writes ``docs/stages/reference.md`` anew.

A fenced block of ``bash`` or ``python`` is run, unless an HTML comment right above it says why
not (``<!-- not run: needs SLURM -->``). The blocks of a page run in order, in one shell, in an
empty folder that holds only what the page names (``<!-- files: VOCdevkit val.zarr -->``) of the
data set of `tests.example_data`.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import wsltool
from tests.example_data import write_example_data
from wsltool.errors import ExtraMissingError
from wsltool.localize.selective_search import load_selective_search
from wsltool.stores.schema import KINDS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
FORKING = ROOT / "tests" / "forking_commands.py"
REFERENCE = DOCS / "stages" / "reference.md"
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])

_FENCE = re.compile(r"^```(\w*)\s*$")
_NOT_RUN = re.compile(r"<!-- not run: (\S.*) -->")
_FILES = re.compile(r"<!-- files: (.+) -->")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_OPTION = re.compile(r"^  (?:-\w, )?(--[\w-]+)", re.MULTILINE)
_LONGEST_S = 300


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    line: int
    text: str
    reason: str | None


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, with the reason of each that is not run."""
    found: list[Block] = []
    above: list[str] = []
    lines: list[str] = []
    inside, start, language = False, 0, ""
    for number, line in enumerate(page.read_text("utf-8").split("\n"), 1):
        fence = _FENCE.match(line)
        if inside and line.strip() == "```":
            reason = _NOT_RUN.search("\n".join(above))
            found.append(Block(language, start, "\n".join(lines), reason[1] if reason else None))
            above, inside = [], False
        elif inside:
            lines.append(line)
        elif fence:
            inside, start, language, lines = True, number, fence[1], []
        elif line.startswith("<!--"):
            above.append(line)
        elif line.strip():
            above = []
    assert not inside, f"{page.name}: the fence of line {start} is not closed"
    return found


def script_of(page: Path) -> str:
    """Return the examples of a page as one shell script; empty if none is run."""
    parts = []
    for block in blocks_of(page):
        if block.reason is not None or block.language not in ("bash", "python"):
            continue
        where = f"echo '== {page.name} line {block.line}' >&2"
        text = block.text
        if block.language == "python":
            text = f"python - <<'END_OF_EXAMPLE'\n{text}\nEND_OF_EXAMPLE"
        parts.append(f"{where}\n{text}\n")
    return "\n".join(parts)


RUN_PAGES = [page for page in PAGES if script_of(page)]


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all that examples may start from."""
    return write_example_data(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """Return the address of a process that runs ``wsltool`` commands in forks of itself."""
    with tempfile.TemporaryDirectory(prefix="wsl") as folder:
        address = f"{folder}/socket"
        process = subprocess.Popen(
            [sys.executable, str(FORKING), "serve", address],
            env=_environment(Path(folder)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield address
            assert process.stdin is not None
            process.stdin.close()


@pytest.fixture
def place(server: str, tmp_path: Path) -> Iterator[Path]:
    """Return an empty folder to run a page in, with our commands first on the path."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, call in (("wsltool", f'-ES "{FORKING}" call "{server}"'), ("python", "")):
        file = commands / name
        file.write_text(f'#!/bin/sh\nexec "{sys.executable}" {call} "$@"\n')
        file.chmod(0o755)
    folder = tmp_path / "work"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def _environment(commands: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    kept.pop("WSLTOOL_MODELS", None)
    return kept | {
        "PATH": f"{commands}{os.pathsep}{kept.get('PATH', os.defpath)}",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "100",
        "TORCH_HOME": str(commands),
    }


def _give(world: Path, folder: Path, page: Path) -> None:
    """Copy what the page says that it starts from."""
    for words in _FILES.findall(page.read_text("utf-8")):
        for name in words.split():
            source = world / name
            if source.is_dir():
                shutil.copytree(source, folder / name)
            else:
                shutil.copyfile(source, folder / name)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_PAGES, ids=_name)
def test_examples_run(page: Path, world: Path, place: Path) -> None:
    script = script_of(page)
    for package in ("efficientnet_lite_pytorch", "xarray"):
        if package in script and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    if "wsltool propose" in script:
        try:
            load_selective_search()
        except ExtraMissingError as error:
            pytest.skip(str(error))
    _give(world, place, page)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=place,
        env=_environment(place.parent / "bin"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_LONGEST_S,
        check=False,
    )
    told = f"{_name(page)} exits {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert done.returncode == 0, told
    assert "Traceback" not in done.stderr, told


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_examples_are_run_or_say_why_not(page: Path) -> None:
    for block in blocks_of(page):
        assert block.language, f"{_name(page)} line {block.line}: a fence without a language"
        if block.language not in ("bash", "python"):
            assert block.reason is None, f"{_name(page)} line {block.line}: never run anyway"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_resolve(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in _LINK.findall(text):
        if "://" in target or target.startswith("#"):
            continue
        file = page.parent / target.partition("#")[0]
        assert file.exists(), f"{_name(page)}: {target} leads nowhere"


def test_every_page_can_be_reached() -> None:
    reached, to_do = set(), [ROOT / "README.md"]
    while to_do:
        page = to_do.pop().resolve()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        targets = [target.partition("#")[0] for target in _LINK.findall(page.read_text("utf-8"))]
        to_do += [page.parent / target for target in targets if target and "://" not in target]
    measured = {"docs/benchmarks/results.md"}  # there once benchmarks have been run
    assert {_name(page) for page in PAGES} - measured <= {_name(page) for page in reached}


# ---------------------------------------------------------------- pages against the code


def commands() -> list[str]:
    """Return every command of the command line, ``ingest voc`` as two words."""
    from wsltool.cli import commands as _declared  # noqa: F401
    from wsltool.cli.app import app
    from wsltool.cli.ingest import ingest

    own = [str(one.name) for one in app.registered_commands]
    return sorted([*own, *(f"ingest {one.name}" for one in ingest.registered_commands)])


def help_of(command: str) -> str:
    """Return the help page of a command at 80 columns."""
    from wsltool.cli.app import app

    run = CliRunner().invoke(
        app,
        [*command.split(), "--help"],
        prog_name="wsltool",
        env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"},
        color=False,
    )
    assert run.exit_code == 0, run.output
    return "\n".join(line.rstrip() for line in run.output.strip().split("\n"))


def reference() -> str:
    """Return the reference page as it should be."""
    major_minor = ".".join(typer.__version__.split(".")[:2])
    parts = [
        "# Reference of the command line",
        f"<!-- written by tests/test_docs.py with typer {major_minor}; do not edit -->",
        "What `wsltool COMMAND --help` prints. What each command does exactly stands on its own\n"
        "page, see [the list of stages](../../README.md#stages).",
    ]
    for command in ["", *commands()]:
        title = f"wsltool {command}".strip()
        parts += [f"## {title}", f"```text\n{help_of(command)}\n```"]
    return "\n\n".join(parts) + "\n"


def test_reference_is_the_help() -> None:
    held, now = REFERENCE.read_text("utf-8"), reference()
    how = "Write it anew: python -m tests.test_docs"
    made_with = re.compile(r"with typer [\d.]+")
    if made_with.findall(held) == made_with.findall(now):
        assert held == now, f"{_name(REFERENCE)} is not what --help prints. {how}"
    option = re.compile(r"^  (?:-\w, )?(--[\w-]+)|^## (.+)", re.MULTILINE)
    assert option.findall(held) == option.findall(now), how


def test_every_command_has_a_page_and_a_row() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    for command in commands():
        word = command.split()[0]
        assert f"(docs/stages/{word}.md)" in readme, f"README.md lacks {word}"
        page = (DOCS / "stages" / f"{word}.md").read_text("utf-8")
        assert f"wsltool {command}" in page, f"docs/stages/{word}.md has no {command}"
    own = {DOCS / "stages" / f"{command.split()[0]}.md" for command in commands()}
    further = {
        page.parent / link for page in own for link in _LINK.findall(page.read_text("utf-8"))
    }
    for page in set((DOCS / "stages").glob("*.md")) - own - {REFERENCE}:
        name = page.stem.rpartition("-")[0]  # label-page.md is label's second page
        assert page.with_name(f"{name}.md") in own, page.name
        assert page in further, page.name


@pytest.mark.parametrize("command", commands())
def test_every_option_is_explained(command: str) -> None:
    shared = {
        *("--help", "--verbose", "--quiet", "--output", "--overwrite", "--shard", "--limit"),
        *("--on-bad", "--device", "--batch-size", "--workers", "--precision", "--json"),
    }
    page = (DOCS / "stages" / f"{command.split()[0]}.md").read_text("utf-8")
    for option in set(_OPTION.findall(help_of(command))) - shared:
        assert f"`{option}" in page, f"docs/stages/{command.split()[0]}.md lacks {option}"
    pipes = (DOCS / "pipes.md").read_text("utf-8")
    for option in shared - {"--help"}:
        assert f"`{option}" in pipes, f"docs/pipes.md lacks {option}"


def signature_of(name: str) -> str:
    """Return a public function with its parameters and defaults, without annotations."""
    parameters = inspect.signature(getattr(wsltool, name)).parameters.values()
    plain = [one.replace(annotation=inspect.Parameter.empty) for one in parameters]
    return f"{name}{inspect.Signature(plain)}"


def test_api_page_lists_all_public_functions() -> None:
    text = (DOCS / "api.md").read_text("utf-8")
    titles = re.findall(r"^### `(\w+)`$", text, re.MULTILINE)
    assert sorted(titles) == sorted(wsltool.__all__)
    for name in wsltool.__all__:
        section = text.partition(f"### `{name}`\n")[2].partition("\n### ")[0]
        signature = re.search(r"```text\n(.+?)\n```", section, re.DOTALL)
        assert signature is not None, name
        assert re.sub(r"\s+", " ", signature[1]) == signature_of(name)


def test_store_page_is_the_schema() -> None:
    text = (DOCS / "stores" / "v1.md").read_text("utf-8")
    leaf = re.compile(
        r"^ *[├└]── (\w+) +\(([^)]+)\) +(\w+(?: or \w+)*?) +(required|optional)", re.MULTILINE
    )
    for kind, arrays in KINDS.items():
        section = text.partition(f"## Kind `{kind}`\n")[2].partition("\n## ")[0]
        held = {
            name: (tuple(dims.split(", ")), tuple(dtypes.split(" or ")), word == "required")
            for name, dims, dtypes, word in leaf.findall(section)
        }
        wanted = {name: (spec.dims, spec.dtypes, spec.required) for name, spec in arrays.items()}
        assert held == wanted, kind


def test_protocol_pages_name_every_protocol() -> None:
    from wsltool.metrics.protocols import PROTOCOLS

    text = "".join(page.read_text("utf-8") for page in (DOCS / "protocols").glob("*.md"))
    for name in PROTOCOLS:
        assert f"`{name}`" in text, f"docs/protocols lacks {name}"


if __name__ == "__main__":
    REFERENCE.write_text(reference(), "utf-8")
