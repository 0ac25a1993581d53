"""Next hops that do as a test says, and remember everything they take.

:class:`Sink` is an SMTP or LMTP server in threads of the test's own process: it outlives
the gateway's crashes, so what it took is what arrived.  A message is recorded before it
is answered.  Its switches are plain attributes, read at each command.

It ends DATA at CRLF.CRLF alone and keeps the octets as they came (``raw``), so that a
test can see what a laxer server would have made of them.

:class:`Maildir` reads the messages of a Maildir.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from .harness import free_port

__all__ = ["Maildir", "Sink", "Taken", "unique_of", "without_trace"]

_PATH = re.compile(rb"(?:FROM|TO):\s*<([^>]*)>\s*(.*)", re.IGNORECASE)
_UNIQUE = re.compile(rb"^X-Unique: (\S+)\r$", re.MULTILINE)
_RECEIVED = re.compile(rb"Received: [^\r\n]*(?:\r\n[ \t][^\r\n]*)*\r\n")
_END = b"\r\n.\r\n"


def unique_of(content: bytes) -> str:
    """Return the value of a message's X-Unique field, "" without one."""
    found = _UNIQUE.search(content)
    return found[1].decode() if found else ""


def without_trace(content: bytes) -> bytes:
    """Return a message without the Received field at its start."""
    found = _RECEIVED.match(content)
    if found is None:
        raise AssertionError(f"no Received field in front of {content[:200]!r}")
    return content[found.end() :]


@dataclass(slots=True)
class Taken:
    """One message as it came: ``raw`` with its stuffed dots, ``content`` without."""

    sender: str
    recipients: tuple[str, ...]
    raw: bytes
    helo: str
    tls: str
    parameters: str
    session: int
    when: float = field(default_factory=time.monotonic)

    @property
    def content(self) -> bytes:
        """The message, its dots unstuffed (RFC 5321 §4.5.2)."""
        return (b"\r\n" + self.raw).replace(b"\r\n.", b"\r\n")[2:]


class Sink:
    """One next hop.  ``unix`` is the path of a Unix socket, else a free port is taken."""

    def __init__(
        self,
        *,
        lmtp: bool = False,
        unix: str = "",
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        name: str = "sink.test",
        keywords: tuple[str, ...] = ("PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 0"),
    ) -> None:
        self.lmtp = lmtp
        self.unix = unix
        self.host = host
        # Not one that the kernel lends: a client could have it while we do not listen.
        self.port = port if unix else port or free_port(host)
        self.name = name
        self.keywords = keywords
        self.tls = tls
        #: Replies instead of the usual ones: by verb (``greeting``, ``mail``, ``data``,
        #: ``dot``), and by mailbox for RCPT or, in LMTP, after the dot.
        self.answers: dict[str, str] = {}
        self.recipient_answers: dict[str, str] = {}
        self.final_answers: dict[str, str] = {}
        #: Called with the message before the reply to the dot; may wait.
        self.before_final: Callable[[Taken], None] = lambda taken: None
        #: Seconds to wait before each reply.
        self.delay = 0.0
        #: Sent in one segment with the 220 of STARTTLS.
        self.after_starttls = b""
        #: While set, a session is closed in place of the reply to the final dot.
        self.hang_up_at_dot = False
        #: While set, the reply to the final dot does not come.
        self.stalled = threading.Event()
        self.sessions = 0
        self.open = 0
        self.most_open = 0
        self.commands: list[bytes] = []
        self._taken: list[Taken] = []
        self._news = threading.Condition()
        self._connections: set[socket.socket] = set()
        self._closed = False
        self._listener: socket.socket | None = None
        self.up()

    # -- for the test

    @property
    def route(self) -> str:
        """This sink as a route of ``[domains]``."""
        if self.unix:
            return f"lmtp+unix:{self.unix}"
        return f"{'lmtp' if self.lmtp else 'smtp'}://{self.host}:{self.port}"

    def up(self) -> None:
        """Listen (again)."""
        if self._listener is not None:
            return
        if self.unix:
            Path(self.unix).unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(self.unix)
            Path(self.unix).chmod(0o777)
        else:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self.port))
            self.port = listener.getsockname()[1]
        listener.listen(512)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def down(self) -> None:
        """Listen no more and cut every connection: clients are refused."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """The end."""
        self._closed = True
        self.stalled.clear()
        self.down()

    def taken(self) -> list[Taken]:
        """Return what came since the last :meth:`clear`."""
        with self._news:
            return list(self._taken)

    def clear(self) -> list[Taken]:
        """Return what came, and forget it."""
        with self._news:
            taken, self._taken = self._taken, []
            return taken

    def wait(self, count: int = 1, timeout: float = 15.0) -> list[Taken]:
        """Wait until ``count`` messages came; returns them all."""
        with self._news:
            if not self._news.wait_for(lambda: len(self._taken) >= count, timeout):
                raise AssertionError(
                    f"{len(self._taken)} messages instead of {count} within {timeout:g} s"
                )
            return list(self._taken)

    def uniques(self) -> list[str]:
        """Return the X-Unique fields of what came, in order."""
        return [unique_of(taken.raw) for taken in self.taken()]

    # -- the server

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with self._news:
            self.sessions += 1
            number = self.sessions
            self.open += 1
            self.most_open = max(self.most_open, self.open)
            self._connections.add(connection)
        try:
            connection.settimeout(120)
            if not self.unix:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _Session(self, connection, number).run()
        except (OSError, EOFError):
            pass
        finally:
            with self._news:
                self.open -= 1
                self._connections.discard(connection)
            connection.close()

    def keep(self, taken: Taken) -> None:
        """Record one message."""
        with self._news:
            self._taken.append(taken)
            self._news.notify_all()


class _Session:
    """One connection to a sink."""

    def __init__(self, sink: Sink, connection: socket.socket, number: int) -> None:
        self._sink = sink
        self._connection = connection
        self._number = number
        self._buffer = b""
        self._helo = ""
        self._tls = ""
        self._sender = ""
        self._parameters = ""
        self._recipients: list[str] = []

    def run(self) -> None:
        sink = self._sink
        greeting = sink.answers.get("greeting", f"220 {sink.name} ready")
        self._send(greeting)
        if not greeting.startswith("220"):
            return
        while True:
            line = self._line()
            sink.commands.append(line)
            verb, _, argument = line.partition(b" ")
            if not self._obey(verb.upper().decode("ascii", "replace"), argument):
                return

    def _send(self, reply: str) -> None:
        if self._sink.delay:
            time.sleep(self._sink.delay)
        self._connection.sendall(reply.encode() + b"\r\n")

    def _more(self) -> None:
        data = self._connection.recv(262_144)
        if not data:
            raise EOFError
        self._buffer += data

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._more()
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    def _obey(self, verb: str, argument: bytes) -> bool:
        sink = self._sink
        if verb in ("EHLO", "LHLO", "HELO"):
            self._hello(verb, argument)
        elif verb == "STARTTLS" and sink.tls is not None:
            self._connection.sendall(b"220 go ahead\r\n" + sink.after_starttls)
            self._connection = sink.tls.wrap_socket(self._connection, server_side=True)
            self._tls = self._connection.version() or ""
            self._buffer = b""
        elif verb == "MAIL":
            self._mail(argument)
        elif verb == "RCPT":
            self._rcpt(argument)
        elif verb == "DATA":
            return self._data()
        elif verb == "QUIT":
            self._send("221 bye")
            return False
        elif verb in ("RSET", "NOOP"):
            self._recipients = []
            self._send("250 ok")
        else:
            self._send("502 what?")
        return True

    def _hello(self, verb: str, argument: bytes) -> None:
        sink = self._sink
        self._helo = argument.decode("utf-8", "replace")
        if verb == "HELO" or (sink.lmtp and verb != "LHLO"):
            self._send("250 hello" if verb == "HELO" and not sink.lmtp else "500 LHLO, please")
            return
        keywords = list(sink.keywords)
        if sink.tls is not None and not self._tls:
            keywords.append("STARTTLS")
        lines = [sink.name, *keywords]
        self._send("".join(f"250-{line}\r\n" for line in lines[:-1]) + f"250 {lines[-1]}")

    def _mail(self, argument: bytes) -> None:
        reply = self._sink.answers.get("mail", "250 ok")
        if match := _PATH.match(argument):
            self._sender = match[1].decode()
            self._parameters = match[2].decode()
        self._recipients = []
        self._send(reply)

    def _rcpt(self, argument: bytes) -> None:
        match = _PATH.match(argument)
        mailbox = match[1].decode() if match else ""
        reply = self._sink.recipient_answers.get(mailbox, "250 ok")
        if reply.startswith("2"):
            self._recipients.append(mailbox)
        self._send(reply)

    def _data(self) -> bool:
        sink = self._sink
        if not self._recipients:
            self._send("554 no recipients")
            return True
        go_ahead = sink.answers.get("data", "354 go ahead")
        self._send(go_ahead)
        if not go_ahead.startswith("354"):
            return True
        taken = Taken(
            self._sender,
            tuple(self._recipients),
            self._content(),
            self._helo,
            self._tls,
            self._parameters,
            self._number,
        )
        sink.before_final(taken)
        if sink.hang_up_at_dot:
            return False
        while sink.stalled.is_set():
            time.sleep(0.02)
            if sink._closed:
                return False
        self._final(taken)
        return True

    def _final(self, taken: Taken) -> None:
        """Record what is to be taken, then answer."""
        sink = self._sink
        usual = sink.answers.get("dot", "250 taken")
        if not sink.lmtp:
            if usual.startswith("2"):
                sink.keep(taken)
            self._send(usual)
            return
        replies = [sink.final_answers.get(each, usual) for each in taken.recipients]
        pairs = zip(taken.recipients, replies, strict=True)
        good = tuple(each for each, reply in pairs if reply.startswith("2"))
        if good:
            taken.recipients = good
            sink.keep(taken)
        for reply in replies:
            self._send(reply)

    def _content(self) -> bytes:
        """Read to CRLF.CRLF; returns what stands before, with the CRLF of the last line."""
        pieces = [b"\r\n" + self._buffer]
        while True:
            end = pieces[-1].find(_END)
            if end >= 0:
                break
            data = self._connection.recv(262_144)
            if not data:
                raise EOFError
            last = pieces.pop()
            pieces.extend((last[:-4], last[-4:] + data) if len(last) > 4 else (last + data,))
        self._buffer = pieces[-1][end + 5 :]
        pieces[-1] = pieces[-1][: end + 2]
        return b"".join(pieces)[2:]


class Maildir:
    """A Maildir as its owner finds it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def messages(self) -> list[bytes]:
        """Return what is in ``new``, in order of the names."""
        new = self.path / "new"
        return [each.read_bytes() for each in sorted(new.iterdir())] if new.is_dir() else []

    def leftovers(self) -> list[Path]:
        """Return what is in ``tmp``: half-written messages."""
        tmp = self.path / "tmp"
        return sorted(tmp.iterdir()) if tmp.is_dir() else []
