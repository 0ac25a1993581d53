"""Many SMTP clients at once: a program on one host that sends mail and says how it fared.

``python clients.py PLAN``, where PLAN is JSON::

    {"address": [HOST, PORT], "recipient": MAILBOX, "run": WORD, "at_once": N,
     "sessions": N or 0 (until told), "messages": N a session, "sizes": [octets, …],
     "hold": s, "again": false, "patience": s}

Each of ``at_once`` clients makes sessions of its own, one after another, each with so many
messages; between two of them it waits ``hold`` seconds.  Where a session fails, what had
no 250 yet is lost, or, with ``again``, sent anew in further sessions until it has.

The end of standard input is the end of new sessions; those that are open go on to
their end.  Then one line of JSON comes::

    {"sessions": [[began, greeted, ended, node, fault], …], "acknowledged": [[id, node], …]}

Times are of CLOCK_MONOTONIC, ``greeted`` 0 where no greeting came; ``node`` is the first
label of the host in the greeting; ``fault`` is "" where all went well to the reply to
QUIT, else what happened and after which command.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sys
import time
import zlib
from contextlib import suppress
from typing import Any

#: Between a failure and the next session of the same client, in seconds.
BREATH = 0.02


class Trouble(Exception):
    """A session that did not go well, in words."""


class Clients:
    """All of them."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.host, self.port = plan["address"]
        self.recipient: str = plan["recipient"]
        self.run: str = plan["run"]
        self.at_once: int = plan["at_once"]
        self.left: int = plan["sessions"]
        self.endless = not self.left
        self.messages: int = plan["messages"]
        self.sizes: list[int] = plan["sizes"]
        self.hold: float = plan["hold"]
        self.again: bool = plan["again"]
        self.patience: float = plan["patience"]
        self.numbers = itertools.count(1)
        self.sessions: list[tuple[float, float, float, str, str]] = []
        self.acknowledged: list[tuple[str, str]] = []
        self.stopped = False

    async def work(self) -> None:
        """Make all sessions."""
        loop = asyncio.get_running_loop()
        loop.add_reader(0, self.told, loop)
        print("ready", flush=True)
        await asyncio.gather(*(self.client() for _ in range(self.at_once)))
        loop.remove_reader(0)

    def told(self, loop: asyncio.AbstractEventLoop) -> None:
        """Standard input says something, which can only be its end."""
        if not os.read(0, 100):
            self.stopped = True
            loop.remove_reader(0)

    async def client(self) -> None:
        """Be one client."""
        while not self.stopped and (self.endless or self.left > 0):
            self.left -= 1
            to_send = [self.message() for _ in range(self.messages)]
            await self.session(to_send)
            while to_send and self.again:
                await asyncio.sleep(BREATH)
                await self.session(to_send)
            if to_send:
                await asyncio.sleep(BREATH)

    def message(self) -> tuple[str, bytes]:
        """Return a message and its id, which no other has."""
        unique = f"{self.run}-{next(self.numbers)}"
        line = (unique * 8)[:70].encode() + b"\r\n"
        body = line * max(1, random.choice(self.sizes) // len(line))
        head = (
            f"From: load@client.test\r\nSubject: {unique}\r\nX-Unique: {unique}\r\n"
            f"X-Sum: {zlib.crc32(body):08x}\r\n\r\n"
        )
        return unique, head.encode() + body

    async def session(self, to_send: list[tuple[str, bytes]]) -> None:
        """Have one session; what had its 250 is taken off the list."""
        session = _Session(self)
        began = time.monotonic()
        fault = ""
        try:
            await session.talk(to_send)
        except Trouble as trouble:
            fault = str(trouble)
        finally:
            session.close()
        self.sessions.append((began, session.greeted, time.monotonic(), session.node, fault))


class _Session:
    """One connection."""

    def __init__(self, clients: Clients) -> None:
        self.clients = clients
        self.node = ""
        self.greeted = 0.0
        self.step = "connect"
        self.writer: asyncio.StreamWriter | None = None

    def close(self) -> None:
        if self.writer is not None:
            self.writer.transport.abort()

    async def talk(self, to_send: list[tuple[str, bytes]]) -> None:
        clients = self.clients
        try:
            async with asyncio.timeout(clients.patience):
                self.reader, self.writer = await asyncio.open_connection(clients.host, clients.port)
        except TimeoutError:
            raise Trouble("no answer to connect") from None
        except OSError as error:
            raise Trouble(f"connect: {error.strerror}") from None
        self.step = "greeting"
        greeting = await self.reply("220")
        self.greeted = time.monotonic()
        self.node = greeting[4:].partition(b".")[0].decode()
        await self.say(b"EHLO client.test\r\n", "250")
        while to_send:
            unique, content = to_send[0]
            await self.send(content)
            clients.acknowledged.append((unique, self.node))
            del to_send[0]
            if clients.hold:
                await asyncio.sleep(clients.hold)
        await self.say(b"QUIT\r\n", "221")

    async def send(self, content: bytes) -> None:
        envelope = f"MAIL FROM:<load@client.test>\r\nRCPT TO:<{self.clients.recipient}>\r\n"
        self.step = "MAIL, RCPT, DATA"
        self.write(envelope.encode() + b"DATA\r\n")
        for code in ("250", "250", "354"):
            await self.reply(code)
        await self.say(content + b".\r\n", "250", "the final dot")

    async def say(self, octets: bytes, code: str, step: str = "") -> None:
        self.step = step or octets[:4].decode()
        self.write(octets)
        await self.reply(code)

    def write(self, octets: bytes) -> None:
        assert self.writer is not None
        self.writer.write(octets)

    async def reply(self, code: str) -> bytes:
        """Return the reply, which must have this code."""
        try:
            async with asyncio.timeout(self.clients.patience):
                while (line := await self.reader.readline())[3:4] == b"-":
                    pass
        except TimeoutError:
            raise Trouble(f"no reply to {self.step}") from None
        except OSError:
            raise Trouble(f"reset at {self.step}") from None
        if not line.endswith(b"\r\n"):
            raise Trouble(f"closed at {self.step}")
        if not line.startswith(code.encode()):
            raise Trouble(f"{self.step}: {line.decode('utf-8', 'replace').strip()}")
        return line


def main() -> None:
    """Be all clients, then tell."""
    clients = Clients(json.loads(sys.argv[1]))
    asyncio.run(clients.work())
    with suppress(BrokenPipeError):
        print(
            json.dumps({"sessions": clients.sessions, "acknowledged": clients.acknowledged}),
            flush=True,
        )


if __name__ == "__main__":
    main()
