"""The command line's end of the control socket: blocking, with timeouts, no Twisted.

:func:`ask` connects, sends one request (:mod:`.wire`) and yields the answer's items and
at last its result, so that a listing of any length is shown while it arrives.  What goes
wrong is a :class:`~.wire.Refusal` whose text says what to try, and whose kind has the
exit code: the daemon not running (69), not allowed (77), cut off (76), too slow (75).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import RemoteFault
from .wire import Kind, Refusal, decode_answer, encode_request

__all__ = ["ask"]

_CONNECT_TIMEOUT = 5.0


def ask(
    path: Path,
    request: str,
    arguments: dict[str, Any],
    *,
    timeout: float = 60.0,
    descriptor: int | None = None,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ``("item", …)`` any number of times, then ``("done", …)`` once.

    ``timeout`` is how many seconds the daemon may take for each line.  ``descriptor`` is a
    file that goes with the request; it stays the caller's.
    """
    with _connected(path) as connection:
        connection.settimeout(timeout)
        # What was refused before it was read cannot be sent; the answer says why.
        with suppress(OSError):
            octets = encode_request(request, arguments)
            if descriptor is not None:
                socket.send_fds(connection, [octets[:1]], [descriptor])
                octets = octets[1:]
            connection.sendall(octets)
        with connection.makefile("rb", 1 << 16) as lines:
            yield from _answers(path, lines, timeout)


def _answers(path: Path, lines: Any, timeout: float) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        for line in lines:
            word, value = decode_answer(line)
            yield word, value
            if word == "done":
                return
    except TimeoutError:
        text = f"mailsecure did not answer on {path} within {timeout:g} seconds"
        raise Refusal(Kind.BUSY, text, ("It may be very busy; try again.",)) from None
    except (OSError, RemoteFault) as fault:
        raise Refusal(Kind.PROTOCOL, f"the answer on {path} cannot be read: {fault}") from None
    raise Refusal(
        Kind.PROTOCOL,
        f"the answer on {path} was cut off",
        ("The daemon was stopped meanwhile, or dropped the connection; try again.",),
    )


def _connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_CONNECT_TIMEOUT)
    try:
        connection.connect(str(path))
    except OSError as problem:
        connection.close()
        raise _unreachable(path, problem) from None
    return connection


def _unreachable(path: Path, problem: OSError) -> Refusal:
    """Return what to tell somebody who cannot connect to ``path``."""
    if isinstance(problem, FileNotFoundError | ConnectionRefusedError):
        return Refusal(
            Kind.UNAVAILABLE,
            f"the daemon is not running: nobody listens on {path}",
            ("Start it, or name its ini with -c FILE if it has another state directory.",),
        )
    if isinstance(problem, PermissionError):
        return Refusal(
            Kind.FORBIDDEN,
            f"no permission to use {path}",
            ("Ask as root or as the user that mailsecure runs as.",),
        )
    if isinstance(problem, TimeoutError | BlockingIOError):
        return Refusal(Kind.BUSY, f"mailsecure is too busy to answer on {path}; try again")
    return Refusal(Kind.UNAVAILABLE, f"cannot connect to {path}: {problem.strerror or problem}")
