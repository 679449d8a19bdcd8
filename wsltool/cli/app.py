"""The application: how a command is declared, run, and what its exit code is.

A command file declares a signature with `stage`; the common options are added here, once.
Exit codes: 0 done, 1 known failure, 2 wrong usage, 3 done but images were skipped, 70 our
bug, 130 and 143 interrupted.
"""

from __future__ import annotations

import errno
import inspect
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Annotated, Any, get_type_hints

import typer

from wsltool.cli import options
from wsltool.cli.console import ConsoleReporter
from wsltool.cli.pipe import private_stdout, read_input
from wsltool.errors import Interrupted, WslError

__all__ = ["app", "command"]

_CONTINUES = "interrupted; the same command continues where this one stopped."
_BUG = 70
_SKIPPED = 3
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE)

app = typer.Typer(
    name="wsltool",
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Weakly supervised localization as stages over stores. "
    "Each stage reads a store, writes a store, and prints its name: "
    "wsltool cam --model vgg_gap val.zarr | wsltool boxes | wsltool score --protocol voc-ap",
)


def command(
    group: typer.Typer, name: str, *, common: dict[str, Any], reads_input: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare a command.

    Parameters
    ----------
    group : typer.Typer
        Where it belongs.
    name : str
        Its word.
    common : dict
        Common options to add to the signature: name to (type, default), see `options`.
        The body gets them as keyword arguments, ``verbose`` and ``quiet`` turned into
        ``report``.
    reads_input : bool
        Whether the first parameter, INPUT, may come through the pipe.
    """

    def declare(body: Callable[..., None]) -> Callable[..., None]:
        def run(**given: Any) -> None:
            report = ConsoleReporter(given.pop("verbose") - given.pop("quiet"))
            code = _guarded(lambda: _call(body, given, report, reads_input=reads_input))
            raise typer.Exit(code or (_SKIPPED if report.num_skipped else 0))

        _declare_signature(run, body, {**common, **options.TALK})
        group.command(name)(run)
        return body

    return declare


def _declare_signature(
    run: Callable[..., None], body: Callable[..., None], common: dict[str, Any]
) -> None:
    """Give `run` the parameters of `body` and the common options, in the eyes of typer."""
    hints = get_type_hints(body, include_extras=True)
    kinds = inspect.Parameter
    own = [
        p.replace(annotation=hints[p.name], kind=kinds.KEYWORD_ONLY)
        for p in inspect.signature(body).parameters.values()
        if p.kind is not kinds.VAR_KEYWORD
    ]
    shared = [
        kinds(name, kinds.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in common.items()
    ]
    run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in [*own, *shared]}
    run.__doc__ = body.__doc__


def _call(
    body: Callable[..., None], given: dict[str, Any], report: ConsoleReporter, *, reads_input: bool
) -> None:
    with private_stdout():
        if reads_input:
            first = next(iter(inspect.signature(body).parameters))
            given[first] = read_input(given[first])
        body(**given, report=report)


def _guarded(call: Callable[[], None]) -> int:
    """Run a command body; return its exit code, whatever happens and whenever a signal comes."""
    try:
        _on_signals(_interrupt)
        code = _told(call)
        _on_signals(_end)
        return code
    except Interrupted as interrupted:
        _line(_CONTINUES)
        return interrupted.exit_code


def _told(call: Callable[[], None]) -> int:
    """Run a command body; return its exit code, with one line on stderr for a known failure."""
    try:
        call()
    except WslError as error:
        _line(str(error))
        return error.exit_code
    except MemoryError:
        _line("out of memory. Pass a smaller --batch-size, or fewer --workers.")
        return 1
    except OSError as error:
        if error.filename is None and error.errno not in _FULL:
            return _bug()
        place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        _line(f"{place}{error.strerror}.")
        return 1
    except Exception:
        return _bug()
    return 0


def _bug() -> int:
    traceback.print_exc()
    _line("This is a bug in wsltool. Please report it with the lines above.")
    return _BUG


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Drop the work in flight; on a second signal, end at once."""
    _on_signals(_end)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)  # zarr's
    sys.unraisablehook = _end_where_ignored
    raise Interrupted(number)


def _on_signals(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)


def _end_where_ignored(ignored: sys.UnraisableHookArgs) -> None:
    """End at once where Python would ignore an interruption, as inside ``__del__``."""
    if isinstance(ignored.exc_value, Interrupted):
        _line(_CONTINUES)
        os._exit(ignored.exc_value.exit_code)
    sys.__unraisablehook__(ignored)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)


def _line(text: str) -> None:
    print(f"wsltool: {text}", file=sys.stderr, flush=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        typer.echo(metadata.version("wsltool"))
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass
