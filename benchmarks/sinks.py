"""A sink behind a balancer: ``python -m benchmarks.sinks ADDRESS PORT [--header] [--bare]``.

Takes mail as Postfix's smtp-sink does, throws it away, and counts nothing.  It is here
because smtp-sink knows no PROXY header: with ``--header`` each connection begins with one
(version 2), which is read and not judged.  With ``--bare`` it speaks no SMTP: it greets
and throws away what comes, unread, so that it costs as little as can be.
"""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import sys

GREETING = b"220 sink.test ESMTP\r\n"
FIXED = 16
PIECE = 65536
#: More than comes at once, for MSG_TRUNC.
MUCH = 1 << 24
END = b"\r\n.\r\n"
OK = b"250 2.0.0 Ok\r\n"
ANSWERS = {b"D": b"354 Go on\r\n", b"Q": b"221 2.0.0 Bye\r\n"}


class Client:
    """One connection; ``tail`` is the end of the message so far, None outside of one."""

    __slots__ = ("number", "tail", "wire")

    def __init__(self, wire: socket.socket) -> None:
        self.wire = wire
        self.number = wire.fileno()
        self.tail: bytes | None = None

    def begin(self) -> bool:
        """Read the header: it came in one piece, as all that our own nodes send."""
        fixed = self.wire.recv(FIXED)
        if len(fixed) == FIXED:
            self.wire.recv(int.from_bytes(fixed[14:], "big"))
        return len(fixed) == FIXED

    def greet(self) -> None:
        """Greet."""
        self.wire.send(GREETING)

    def swallow(self) -> bool:
        """Throw away what has come; False at the end."""
        return bool(self.wire.recv(MUCH, socket.MSG_TRUNC))

    def converse(self) -> bool:
        """Answer what has come; False at the end."""
        data = self.wire.recv(PIECE)
        if not data:
            return False
        if self.tail is not None:
            end = (self.tail + data)[-len(END) :]
            if end != END:
                self.tail = end
                return True
            self.tail = None
            self.wire.send(OK)
            return True
        answers = []
        for line in data.split(b"\r\n")[:-1]:
            first = line[:1].upper()
            answers.append(ANSWERS.get(first, OK))
            if first == b"D":
                self.tail = b"\r\n"
        self.wire.send(b"".join(answers))
        return True


def serve(door: socket.socket, header: bool, bare: bool) -> None:
    """Take connections for ever."""
    poll = select.epoll()
    poll.register(door, select.EPOLLIN)
    clients: dict[int, Client] = {}
    fresh: set[int] = set()
    while True:
        for number, _ in poll.poll():
            if number == door.fileno():
                with contextlib.suppress(BlockingIOError):
                    wire, _ = door.accept()
                    wire.setblocking(False)
                    client = clients[wire.fileno()] = Client(wire)
                    poll.register(wire, select.EPOLLIN)
                    if header:
                        fresh.add(client.number)
                    else:
                        client.greet()
                continue
            client = clients[number]
            try:
                if number in fresh:
                    going = client.begin()
                    fresh.discard(number)
                    if going:
                        client.greet()
                else:
                    going = client.swallow() if bare else client.converse()
            except BlockingIOError:
                continue
            except OSError:
                going = False
            if not going:
                fresh.discard(number)
                del clients[number]
                client.wire.close()


def main() -> None:
    """Listen and serve."""
    address, port, *options = sys.argv[1:]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    door = socket.create_server((address, int(port)), backlog=4096)
    door.setblocking(False)
    serve(door, "--header" in options, "--bare" in options)


if __name__ == "__main__":
    main()
