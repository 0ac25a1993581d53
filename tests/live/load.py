"""Clients that send messages with unique ids, as fast as they may, and remember each 250.

:class:`Load` is what the crash tests are about: ``acknowledged`` holds the ids that the
gateway answered with 250 after the final dot.  An id is put there only when the whole
reply was read, so "it was answered with 250" is a fact of the client's.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
import zlib
from contextlib import suppress

from .harness import until
from .wire import Address, Closed, CutOff, Wire

__all__ = ["Load", "is_intact", "unique_message"]

_numbers = itertools.count(1)
_RUN = f"{random.getrandbits(32):08x}"


def unique_message(octets: int = 200) -> tuple[str, bytes]:
    """Return an id that no other message of this run has, and a message that bears it."""
    unique = f"{_RUN}-{next(_numbers)}"
    line = (unique * 4)[:70].encode() + b"\r\n"
    body = line * max(1, (octets - 120) // len(line))
    head = (
        f"From: load@client.test\r\nSubject: {unique}\r\nX-Unique: {unique}\r\n"
        f"X-Sum: {zlib.crc32(body):08x}\r\n\r\n"
    )
    return unique, head.encode() + body


def is_intact(content: bytes) -> bool:
    """Say whether a message of :func:`unique_message` is whole."""
    head, _, body = content.partition(b"\r\n\r\n")
    return f"X-Sum: {zlib.crc32(body):08x}".encode() in head


class Load:
    """So many clients, each in a thread, until :meth:`stop`."""

    def __init__(
        self,
        address: Address,
        recipient: str,
        clients: int = 4,
        sizes: tuple[int, ...] = (300, 300, 300, 6_000, 50_000),
    ) -> None:
        self.address = address
        self.recipient = recipient
        self.sizes = sizes
        self.acknowledged: set[str] = set()
        self.refused: dict[str, str] = {}
        self.uncertain: set[str] = set()
        self.surprises: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def await_acknowledged(self, count: int, timeout: float = 60.0) -> None:
        """Wait until so many messages in all had their 250, however slow the machine is."""
        until(lambda: len(self.acknowledged) >= count, f"{count} messages with a 250", timeout)

    def stop(self, timeout: float = 20.0) -> None:
        """End the clients and wait for them."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout)
            if thread.is_alive():
                raise AssertionError(f"a client did not end within {timeout:g} s")

    def _client(self) -> None:
        while not self._stop.is_set():
            try:
                with suppress(OSError, Closed, CutOff):
                    self._session()
            except AssertionError as fault:
                self.surprises.append(str(fault))
            # Refused or cut off: the daemon is away, or ends us for too many errors.
            time.sleep(0.01)

    def _session(self) -> None:
        with Wire(self.address, timeout=15) as wire:
            if not wire.hello().startswith("250"):
                return
            while not self._stop.is_set():
                self._message(wire)
            wire.command("QUIT")

    def _message(self, wire: Wire) -> None:
        unique, content = unique_message(random.choice(self.sizes))
        start = f"MAIL FROM:<load@client.test>\r\nRCPT TO:<{self.recipient}>\r\nDATA\r\n".encode()
        wire.send(start)
        replies = [wire.reply() for _ in range(3)]
        if not replies[2].startswith("354"):
            self._refuse(unique, next(each for each in replies if each[0] in "45"))
            time.sleep(0.02)
            return
        self.uncertain.add(unique)
        wire.send(content + b".\r\n")
        reply = wire.reply()
        self.uncertain.discard(unique)
        if reply.startswith("250"):
            self.acknowledged.add(unique)
        else:
            self._refuse(unique, reply)

    def _refuse(self, unique: str, reply: str) -> None:
        self.refused[unique] = reply
        if not reply.startswith("4"):
            self.surprises.append(reply)
