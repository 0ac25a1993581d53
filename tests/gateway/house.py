"""A whole gateway on real sockets, with a spool in memory and a clock that a test moves.

:class:`House` makes one of an ini; :class:`Caller` is a client, whose waits are bounded and
let the reactor run.
"""

from __future__ import annotations

import errno
import random
import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock, deferLater
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from mailsecure.config.load import parse_config
from mailsecure.config.model import Config
from mailsecure.counters import Counters
from mailsecure.delivery.routes import Routes
from mailsecure.gateway.service import Gateway, GatewayParts
from mailsecure.spool.api import NewMessage
from mailsecure.spool.body import BodyStore
from mailsecure.spool.ids import IdSource
from mailsecure.testing.certificates import make_authority
from mailsecure.testing.spool import MemorySpool
from mailsecure.world import World

__all__ = ["Caller", "House", "HouseTestCase", "ini", "reactor"]

reactor: Any = the_reactor
INI = """\
[node]
hostname = mx.test
[smtp]
{smtp}
[relay]
networks = {networks}
[domains]
inside.test = smtp://192.0.2.1
"""
SMTP = {"listen": "tcp:0:interface=127.0.0.1", "greeting_delay": "0s", "session_rate": "0"}


def ini(smtp: str = "", networks: str = "") -> Config:
    """Return the settings of a gateway; other nodes may come to any port that is free."""
    given = [line.partition(" = ")[0] for line in smtp.split("\n")]
    lines = "\n".join(f"{name} = {SMTP[name]}" for name in SMTP if name not in given)
    lines += "\n" + smtp
    config = parse_config(INI.format(smtp=lines, networks=networks), "test.ini")
    return replace(config, cluster=replace(config.cluster, peer_listen="0"))


class NotingSpool(MemorySpool):
    """One that also keeps what it was given, as it was."""

    def __init__(self) -> None:
        super().__init__()
        self.accepted: list[NewMessage] = []

    def accept(self, message: NewMessage) -> Deferred[None]:
        """See the contract."""
        self.accepted.append(message)
        return super().accept(message)


class House:
    """A gateway and what it needs; ``scanner_of`` makes a scanner, given the world."""

    def __init__(
        self,
        directory: Path,
        config: Config,
        scanner_of: Callable[[World], Any] | None = None,
        **parts: Any,
    ) -> None:
        self.clock = Clock()
        self.counters = Counters()
        self.spool = NotingSpool()
        self.spool.open()
        self.taken: list[NewMessage] = []
        rng = random.Random(1)
        world: Any = World(reactor, self.clock, time.time, rng, resolver=None)  # type: ignore[arg-type]
        directory.mkdir(exist_ok=True)
        if scanner_of is not None:
            parts["scanner"] = scanner_of(world)
        self.gateway = Gateway(
            GatewayParts(
                world,
                self.spool,
                BodyStore(directory, config.smtp.message_memory),
                IdSource(time.time, rng),
                self.taken.append,
                lambda recipient: Deferred(),
                self.counters,
                **parts,
            ),
            config,
            Routes(config.domains),
        )

    def reconfigure(self, config: Config) -> None:
        """Reload."""
        self.gateway.reconfigure(config, Routes(config.domains))

    async def close(self) -> None:
        """Stop it."""
        stopping = self.gateway.stopService()
        ends = time.monotonic() + 10
        while not stopping.called and time.monotonic() < ends:
            self.clock.advance(0.05)
            await deferLater(reactor, 0.001)
        for entrance in self.gateway.front.entrances:
            entrance.wire.close()
        await stopping


class HouseTestCase(TestCase):
    """Makes houses and callers, and closes them."""

    timeout = 60

    def setUp(self) -> None:
        self.house: House
        self.lines: list[str] = []
        observer: Any = self._note
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def _note(self, event: LogEvent) -> None:
        if event.get("log_namespace") == "smtpd":
            self.lines.append(formatEvent(event))

    def path(self) -> Path:
        """Return one for a file or a directory of this test."""
        return Path(self.mktemp())

    async def open_house(self, config: Config, **parts: Any) -> House:
        """Return a gateway that runs."""
        self.house = House(self.path(), config, **parts)
        await self.house.gateway.bind()
        self.house.gateway.startService()
        self.addCleanup(lambda: ensureDeferred(self.house.close()))
        return self.house

    def certificate(self) -> Path:
        """Return a file with a certificate for mx.test and its key."""
        issued = make_authority().certificate("mx.test")
        path = self.path()
        path.write_bytes(issued.key_pem + issued.certificate_pem)
        return path

    def call(self, port: int = 0, address: str = "127.0.0.1", source: str = "") -> Caller:
        """Connect to a port, if 0 to the house's first."""
        port = port or int(self.house.gateway.listening[0].rpartition(":")[2])
        caller = Caller(self, address, port, source)
        self.addCleanup(caller.close)
        return caller

    def said(self, part: str) -> list[str]:
        """Return the lines of the log that have ``part``."""
        return [line for line in self.lines if part in line]

    async def until(self, true: Callable[[], Any], what: str = "") -> Any:
        """Let the reactor run until ``true`` says something true, and return it."""
        ends = time.monotonic() + 10
        while not (value := true()):
            if time.monotonic() > ends:
                raise AssertionError(f"not within 10 s: {what or true}; log: {self.lines}")
            self.house.clock.advance(0)
            await deferLater(reactor, 0.002)
        return value

    async def turn(self, seconds: float = 0.05) -> None:
        """Let the reactor run for a while; the house's clock stands."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self.house.clock.advance(0)
            await deferLater(reactor, 0.002)


class Caller:
    """A client."""

    def __init__(self, case: HouseTestCase, address: str, port: int, source: str = "") -> None:
        self._case = case
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.wire = socket.socket(family, socket.SOCK_STREAM)
        if source:
            self.wire.bind((source, 0))
        self.wire.setblocking(False)
        with suppress(BlockingIOError):
            self.wire.connect((address, port))
        #: What came and was not read yet.
        self.heard = b""
        self.ended = False
        self.reset = False
        self._tls: tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO] | None = None

    def close(self) -> None:
        """End."""
        self.wire.close()

    def reset_it(self) -> None:
        """End at once, with a RST."""
        self.wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.wire.close()

    def say(self, data: bytes) -> None:
        """Send."""
        if self._tls is not None:
            self._tls[0].write(data)
            data = self._tls[2].read()
        self.wire.setblocking(True)
        self.wire.sendall(data)
        self.wire.setblocking(False)

    def look(self) -> bytes:
        """Take what came; return all that was heard and not read."""
        try:
            data = self.wire.recv(65536)
        except OSError as error:
            if error.errno in (errno.ECONNRESET, errno.ECONNREFUSED):
                self.ended = self.reset = True
            return self.heard
        if not data:
            self.ended = True
        elif self._tls is None:
            self.heard += data
        else:
            self._tls[1].write(data)
            with suppress(ssl.SSLWantReadError):
                while piece := self._tls[0].read():
                    self.heard += piece
        return self.heard

    async def reply(self) -> bytes:
        """Return the next reply, whole."""
        await self._case.until(self._whole, "a reply")
        lines = self.heard.split(b"\r\n")
        last = next(i for i, line in enumerate(lines) if line[3:4] == b" ")
        self.heard = b"\r\n".join(lines[last + 1 :])
        return b"\r\n".join(lines[: last + 1])

    def _whole(self) -> bool:
        lines = self.look().split(b"\r\n")[:-1]
        return any(line[3:4] == b" " for line in lines)

    async def ask(self, command: bytes) -> bytes:
        """Send a line and return the reply."""
        self.say(command + b"\r\n")
        return await self.reply()

    async def octets(self, count: int) -> bytes:
        """Return so many octets as they came."""
        await self._case.until(lambda: len(self.look()) >= count, "octets")
        data, self.heard = self.heard[:count], self.heard[count:]
        return data

    async def gone(self) -> bytes:
        """Wait for the end of the connection; return what was said before."""
        await self._case.until(lambda: self.look() is None or self.ended, "the end")
        return self.heard

    async def start_tls(self) -> None:
        """Begin TLS."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(into, out, server_hostname="mx.test")

        def shaken() -> bool:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                done = False
            else:
                done = True
            if data := out.read():
                self.say(data)
            if not done:
                with suppress(BlockingIOError):
                    if piece := self.wire.recv(65536):
                        into.write(piece)
            return done

        await self._case.until(shaken, "the handshake")
        self._tls = tls, into, out

    async def send_mail(self, recipient: bytes = b"postmaster") -> bytes:
        """Send a message after the greeting; return the last reply."""
        await self.ask(b"EHLO client.test")
        await self.ask(b"MAIL FROM:<sender@outside.test>")
        reply = await self.ask(b"RCPT TO:<" + recipient + b">")
        if not reply.startswith(b"250"):
            return reply
        await self.ask(b"DATA")
        return await self.ask(b"Subject: x\r\n\r\nx\r\n.")
