"""Runs ``wsltool`` commands in forks of one process, so that a hundred examples start at once.

Importing torch takes seconds and an example of the documentation takes none. The server imports
everything once; for every command it forks, and the child takes over the caller's descriptors,
folder and environment and calls the real `wsltool.cli.main`. Only the start-up differs from the
console script, which has its own tests.

    python forking_commands.py serve SOCKET            start the server; ends with its stdin
    python forking_commands.py call SOCKET ARG…        what ``wsltool ARG…`` would do
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys


def call(address: str, arguments: list[str]) -> int:
    """Run a command in the server; return its exit code."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(address)
        text = json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode()
        socket.send_fds(line, [len(text).to_bytes(8, "little")], [0, 1, 2])
        line.sendall(text)
        answer = line.recv(1)
    return answer[0] if answer else 70


def serve(address: str) -> None:
    """Fork for each call until stdin ends or says something."""
    _import_all()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen(64)
        os.write(1, b"ready\n")
        while server in select.select([server, 0], [], [])[0]:
            line, _ = server.accept()
            if os.fork() == 0:
                server.close()
                _run(line)
            line.close()
    os.killpg(os.getpid(), signal.SIGKILL)  # itself and whatever command still runs


def _import_all() -> None:
    import importlib
    import pkgutil

    import wsltool

    for module in pkgutil.walk_packages(wsltool.__path__, "wsltool."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def _run(line: socket.socket) -> None:
    """Become the command; never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, descriptors, _, _ = socket.recv_fds(line, 8, 3)
    size, text = int.from_bytes(head, "little"), b""
    while len(text) < size:
        text += line.recv(size - len(text))
    arguments, folder, environment = json.loads(text)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["wsltool", *arguments]
    code = 70
    try:
        from wsltool.cli import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
            line.sendall(bytes([code & 255]))
        os._exit(code)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(call(sys.argv[2], sys.argv[3:]))
