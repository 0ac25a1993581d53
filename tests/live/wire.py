"""A client that says exactly what a test wants, octet by octet.

:class:`Wire` is one connection; :func:`play` sends a script of :class:`Step` in one of
the three segmentations of attacks.md and returns every reply:

* ``AS_WRITTEN``: one write a step, waiting for its replies before the next;
* ``OCTETS``: one octet a segment, waiting for nothing;
* ``ONE_SEGMENT``: everything in one write, waiting for nothing.

A script ends with QUIT, or with what makes the server close: :func:`play` reads to the
end of the connection, so a reply too many is seen as well as one too few.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

__all__ = [
    "AS_WRITTEN",
    "OCTETS",
    "ONE_SEGMENT",
    "SEGMENTATIONS",
    "Closed",
    "CutOff",
    "Step",
    "Wire",
    "envelope",
    "message",
    "play",
    "raw",
    "say",
    "send_message",
]

AS_WRITTEN = "as written"
OCTETS = "one octet a segment"
ONE_SEGMENT = "all in one segment"
SEGMENTATIONS = (AS_WRITTEN, OCTETS, ONE_SEGMENT)

_DRAWN = re.compile(r"\b[0-7][0-9A-HJKMNP-TV-Z]{12}\b")

Address = tuple[str, int]


class Closed(Exception):
    """The server closed the connection where a reply was due."""


class CutOff(AssertionError):
    """The server closed the connection within a reply, as only one that was killed may."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a client sends in one go, and how many replies it then waits for."""

    octets: bytes
    replies: int = 1


def say(line: str | bytes) -> Step:
    """One command line, with CRLF."""
    return Step((line.encode() if isinstance(line, str) else line) + b"\r\n")


def raw(octets: bytes, replies: int = 1) -> Step:
    """Octets as they are."""
    return Step(octets, replies)


def envelope(*recipients: str, sender: str = "s@client.test") -> tuple[Step, ...]:
    """EHLO, MAIL and RCPT for each recipient."""
    return (
        say("EHLO client.test"),
        say(f"MAIL FROM:<{sender}>"),
        *(say(f"RCPT TO:<{recipient}>") for recipient in recipients),
    )


def message(content: bytes) -> tuple[Step, ...]:
    """DATA, the content (not stuffed here), and the final dot."""
    return (say("DATA"), raw(content + b".\r\n"))


class Wire:
    """One connection as a client.  ``timeout`` bounds every wait, in seconds."""

    def __init__(
        self,
        address: Address,
        timeout: float = 15.0,
        source: str = "",
        receive_buffer: int = 0,
    ) -> None:
        self.timeout = timeout
        self.socket = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            self.socket.bind((source, 0))
        self.socket.settimeout(timeout)
        self.socket.connect(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def reset(self) -> None:
        """Hang up with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, octets: bytes) -> None:
        """Send; that the server has hung up is seen when its replies are read."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(octets)

    def send_octets(self, octets: bytes) -> None:
        """Send one octet a segment."""
        pause = 0.00005 if len(octets) < 3000 else 0.0
        with suppress(BrokenPipeError, ConnectionResetError):
            for position in range(len(octets)):
                self.socket.sendall(octets[position : position + 1])
                if pause:
                    time.sleep(pause)

    def _line(self) -> str:
        while (end := self._buffer.find(b"\r\n")) < 0:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                raise Closed("reset") from None
            except TimeoutError:
                raise AssertionError(
                    f"no reply within {self.timeout:g} s; so far {self._buffer!r}"
                ) from None
            if not data:
                if self._buffer:
                    raise CutOff(f"cut off within a reply: {self._buffer!r}")
                raise Closed("closed")
            self._buffer += data
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        if b"\r" in line or b"\n" in line or b"\0" in line:
            raise AssertionError(f"a reply line with a control character: {line!r}")
        return line.decode()

    def reply(self) -> str:
        """Return the next reply, its lines joined by LF.  :class:`Closed` at the end."""
        lines = [self._line()]
        while lines[-1][3:4] == "-":
            lines.append(self._line())
        return "\n".join(lines)

    def rest(self) -> list[str]:
        """Return every reply to the end of the connection."""
        replies = []
        with suppress(Closed):
            while True:
                replies.append(self.reply())
        return replies

    def is_silent(self, seconds: float) -> bool:
        """Say whether nothing comes for so long; :class:`Closed` where the end does."""
        self.socket.settimeout(seconds)
        try:
            if not self._buffer:
                self._buffer += self.socket.recv(65536)
                if not self._buffer:
                    raise Closed("closed")
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(self.timeout)
        return False

    def command(self, line: str | bytes) -> str:
        """Send one line and return its reply."""
        self.send(say(line).octets)
        return self.reply()

    def hello(self, name: str = "client.test") -> str:
        """Read the greeting and say EHLO; returns its reply."""
        greeting = self.reply()
        if not greeting.startswith("220"):
            return greeting
        return self.command(f"EHLO {name}")

    def start_tls(self, context: ssl.SSLContext | None = None) -> None:
        """Shake hands now; the reply to STARTTLS was read."""
        if context is None:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self.socket = context.wrap_socket(self.socket, server_hostname="mx.test")
        self._buffer = b""

    def transact(
        self, content: bytes, *recipients: str, sender: str = "s@client.test"
    ) -> list[str]:
        """Send one message, pipelined; returns the replies from MAIL to the final dot."""
        commands = [f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{each}>" for each in recipients)]
        self.send("".join(f"{line}\r\n" for line in (*commands, "DATA")).encode())
        replies = [self.reply() for _ in (*commands, "DATA")]
        if replies[-1].startswith("354"):
            self.send(content + b".\r\n")
            replies.append(self.reply())
        return replies


def send_message(
    address: Address, content: bytes, *recipients: str, sender: str = "s@client.test"
) -> str:
    """Send one message in a session of its own; returns the first refusal, or the 250."""
    with Wire(address) as wire:
        hello = wire.hello()
        if not hello.startswith("250"):
            return hello
        replies = wire.transact(content, *recipients, sender=sender)
        wire.command("QUIT")
        return next((each for each in replies if each[0] in "45"), replies[-1])


def play(
    address: Address, steps: Sequence[Step], segmentation: str, early: bool = False
) -> list[str]:
    """Send a script and return the replies after the greeting, ids as ``ID``.

    ``early``: do not wait for the greeting, which is then the first of the replies.
    """
    with Wire(address) as wire:
        if not early:
            greeting = wire.reply()
            if not greeting.startswith("220"):
                raise AssertionError(f"greeted with {greeting}")
        replies = _played(wire, steps, segmentation)
    return [_DRAWN.sub("ID", reply) for reply in replies]


def _played(wire: Wire, steps: Sequence[Step], segmentation: str) -> list[str]:
    whole = b"".join(step.octets for step in steps)
    if segmentation == OCTETS:
        wire.send_octets(whole)
    elif segmentation == ONE_SEGMENT:
        wire.send(whole)
    else:
        return _in_turn(wire, steps)
    return wire.rest()


def _in_turn(wire: Wire, steps: Iterable[Step]) -> list[str]:
    replies: list[str] = []
    try:
        for step in steps:
            wire.send(step.octets)
            replies.extend(wire.reply() for _ in range(step.replies))
    except Closed:
        return replies
    return replies + wire.rest()
