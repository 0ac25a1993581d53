"""A peer's port that misbehaves as a test says, in front of the true one.

:class:`Rogue` listens on a host, at the port that :mod:`.misled` has the daemon tell the
others.  ``manner`` says what becomes of each connection from now on:

* ``pass``: it goes on to the daemon, at ``pace`` octets a second if that is set;
* ``refuse``: nobody listens;
* ``reset``: it is reset before anything was said;
* ``hear and reset``: it is reset when the header has come;
* ``silent``: it is taken, and nothing is ever said;
* ``close``: it is closed when the header has come;
* ``slow``: it goes on to the daemon, after :data:`SLOW` seconds;
* ``unwilling``: it is greeted with 421;
* ``babble``: it is greeted with what is no SMTP.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress

from .network import Network

__all__ = ["PEER_PORT", "ROGUE_PORT", "SLOW", "Rogue"]

#: Where the daemon takes sessions of others, and where this stands.
PEER_PORT, ROGUE_PORT = 10025, 12025
SLOW = 5.0
_SAID = {"unwilling": b"421 4.3.2 c.test not now\r\n", "babble": b"SSH-2.0-OpenSSH_9.2\r\n"}
_PIECE = 65536
_AT_ONCE_WHEN_PACED = 16384


class Rogue:
    """See the module's text; ``close`` it."""

    def __init__(self, network: Network, host: str) -> None:
        self._network, self._host = network, host
        self._address = network.address(host)
        self._manner = "pass"
        #: Octets a second that pass from the client, 0 for no limit.
        self.pace = 0.0
        #: Connections, by manner.
        self.met: dict[str, int] = {}
        self._kept: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self._listen()

    @property
    def manner(self) -> str:
        """What becomes of connections now."""
        return self._manner

    @manner.setter
    def manner(self, manner: str) -> None:
        self._manner = manner
        if manner == "refuse":
            self._deafen()
        elif self._listener is None:
            self._listen()

    def close(self) -> None:
        """Go away; connections that were left in silence end."""
        self._deafen()
        for each in self._kept:
            each.close()

    def _deafen(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _listen(self) -> None:
        listener = self._network.inside(self._host, self._bound)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _bound(self) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Inherited by what is accepted: little is on its way to one who reads slowly.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _PIECE)
        listener.bind((self._address, ROGUE_PORT))
        listener.listen(512)
        return listener

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            manner = self._manner
            self.met[manner] = self.met.get(manner, 0) + 1
            if manner == "reset":
                _reset(connection)
            elif manner == "silent":
                self._kept.append(connection)
            else:
                threading.Thread(target=self._treat, args=(connection, manner), daemon=True).start()

    def _treat(self, connection: socket.socket, manner: str) -> None:
        if manner in ("hear and reset", "close", *_SAID):
            connection.recv(_PIECE)
            if manner == "hear and reset":
                _reset(connection)
                return
            with suppress(OSError):
                connection.sendall(_SAID.get(manner, b""))
            connection.close()
            return
        if manner == "slow":
            time.sleep(SLOW)
        try:
            daemon = self._network.inside(self._host, self._through)
        except OSError:
            _reset(connection)
            return
        back = threading.Thread(target=self._copy, args=(daemon, connection, False), daemon=True)
        back.start()
        self._copy(connection, daemon, True)
        back.join()
        connection.close()
        daemon.close()

    def _through(self) -> socket.socket:
        return socket.create_connection((self._address, PEER_PORT), 5)

    def _copy(self, source: socket.socket, sink: socket.socket, paced: bool) -> None:
        source.settimeout(None)
        with suppress(OSError):
            while some := source.recv(_AT_ONCE_WHEN_PACED if paced and self.pace else _PIECE):
                if paced and self.pace:
                    time.sleep(len(some) / self.pace)
                sink.sendall(some)
            sink.shutdown(socket.SHUT_WR)
            return
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
