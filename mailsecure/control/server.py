"""The control socket: a Unix socket in the state directory, for postmasters only.

Who may speak is decided twice: the socket is 0600 in a directory of 0700, and the kernel
is asked who is at the other end (SO_PEERCRED): the daemon's own user, or root.

One connection carries one request (:mod:`.wire`).  Everything is bounded: connections,
the length and the time of a request, and how long a client may leave an answer unread;
an answer waits while the client does not read.

A socket left by a daemon that died is removed; one behind which a daemon answers, or
anything that is no socket, is not.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, gatherResults, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IFileDescriptorReceiver,
    IListeningPort,
    IPushProducer,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..background import background
from ..errors import ConfigProblems, LocalFault
from ..world import World
from .api import Desk
from .requests import Requests
from .wire import SOCKET_NAME, Kind, LineReader, Refusal, decode_request, encode, refused

__all__ = ["SOCKET_NAME", "ControlService"]

_log = Logger(namespace="control")

_MAX_PATH = 107
_MAX_CONNECTIONS = 20
_REQUEST_TIMEOUT = 10.0
_READ_TIMEOUT = 60.0
_CREDENTIALS = struct.Struct("3i")


class _Gone(Exception):
    """The client left, or does not read: nobody is there to answer."""


@implementer(IPushProducer, IFileDescriptorReceiver)
class _Conversation(Protocol):
    """One connection: a request in, perhaps with a file, lines out."""

    def __init__(self, service: ControlService) -> None:
        self._service = service
        self._clock = service.world.clock
        self._reader = LineReader()
        self._deadline: IDelayedCall | None = None
        self._room: Deferred[None] | None = None
        self._uid = -1
        self._descriptor: int | None = None
        self._lost = False
        #: Fires when the connection is gone.
        self.ended: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.registerProducer(self, True)
        self._uid = _peer_uid(transport.socket)
        if self._uid not in (0, os.geteuid()):
            _log.warn("control socket refused to uid {uid}", uid=self._uid)
            self._refuse(Refusal(Kind.FORBIDDEN, "only root and the daemon's own user may ask"))
        elif not self._service.admit(self):
            self._refuse(Refusal(Kind.BUSY, "too many control connections at once"))
        else:
            self._deadline = self._clock.callLater(_REQUEST_TIMEOUT, self.abort)

    def dataReceived(self, data: bytes) -> None:
        if self._lost:
            return
        try:
            line = self._reader.feed(data)
        except Refusal as refusal:
            self._refuse(refusal)
            return
        if line is not None:
            self._disarm()
            background("an answer on the control socket", self._answer(line))

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """A file comes with the request; one is enough."""
        if self._descriptor is None and not self._lost:
            self._descriptor = descriptor
        else:
            os.close(descriptor)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.stopProducing()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._service.dismiss(self)
        self.ended.callback(None)

    def pauseProducing(self) -> None:
        """The client does not read: wait, but not for ever."""
        if self._room is None:
            self._room = Deferred()
            self._deadline = self._clock.callLater(_READ_TIMEOUT, self.abort)

    def resumeProducing(self) -> None:
        """There is room again."""
        self._disarm()
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)

    def stopProducing(self) -> None:
        """The client is gone: whoever waits for room learns it."""
        self._lost = True
        self.resumeProducing()

    def abort(self) -> None:
        """Give the client up."""
        self.stopProducing()
        transport: Any = self.transport
        transport.abortConnection()

    def _disarm(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None and deadline.active():
            deadline.cancel()

    async def _answer(self, line: bytes) -> None:
        """Answer one request; whatever goes wrong, the last line says so."""
        try:
            request, arguments = decode_request(line)
            if request == "scan":
                descriptor, self._descriptor = self._descriptor, None
                last = {"done": await self._service.scan(arguments, self._uid, descriptor)}
            else:
                answer = self._service.answer(request, arguments, self._uid, self._send)
                last = {"done": await answer}
        except _Gone:
            return
        except Refusal as refusal:
            last = refused(refusal)
        except ConfigProblems as problems:
            lines = tuple(str(problems).splitlines())
            last = refused(Refusal(Kind.CONFIG, "the ini has problems; nothing changed", lines))
        except LocalFault as fault:
            last = refused(Refusal(Kind.DISK, str(fault)))
        except Exception:
            _log.failure("unexpected error in an answer on the control socket")
            last = refused(Refusal(Kind.INTERNAL, "unexpected error; the log has more"))
        self._finish(last)

    async def _send(self, item: dict[str, Any]) -> None:
        if not self._lost:
            self._write({"item": item})
        if self._room is not None:
            await self._room
        if self._lost:
            raise _Gone

    def _refuse(self, refusal: Refusal) -> None:
        self._disarm()
        self._finish(refused(refusal))

    def _finish(self, last: dict[str, Any]) -> None:
        """Write the last line and close, once it is read or the time is up."""
        if self._lost:
            return
        self._lost = True
        self._write(last)
        self._disarm()
        self._deadline = self._clock.callLater(_READ_TIMEOUT, self.abort)
        transport: Any = self.transport
        transport.unregisterProducer()
        transport.loseConnection()

    def _write(self, message: dict[str, Any]) -> None:
        assert self.transport is not None
        self.transport.write(encode(message))


class _Conversations(Factory):
    """Makes a conversation for each connection."""

    noisy = False

    def __init__(self, service: ControlService) -> None:
        self._service = service

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return _Conversation(self._service)


class ControlService(Service):
    """Listens on the Unix socket ``path`` and answers with what ``desk`` offers.

    Bind it once privileges are dropped, so that the socket belongs to the daemon's user.
    """

    name = "control"

    def __init__(self, path: Path, world: World, desk: Desk) -> None:
        self.world = world
        self._path = path
        self._requests = requests = Requests(world, desk)
        self.answer = requests.answer
        self.scan = requests.scan
        self._port: IListeningPort | None = None
        self._conversations: set[_Conversation] = set()

    def bind(self) -> Deferred[None]:
        """Listen; fails with a :class:`LocalFault` of one line.  Once is enough."""
        try:
            self._bind()
        except LocalFault:
            return fail()
        return succeed(None)

    def startService(self) -> Deferred[None]:
        """Listen, if :meth:`bind` did not yet."""
        super().startService()
        return self.bind()

    def stopService(self) -> Deferred[None]:
        """Close the socket and every conversation."""
        super().stopService()
        port, self._port = self._port, None
        waits: list[Deferred[Any]] = []
        if port is not None:
            waits.append(maybeDeferred(self._closed, port))
        for conversation in tuple(self._conversations):
            conversation.abort()
            waits.append(conversation.ended)
        return gatherResults(waits).addCallback(lambda _: None)

    def _closed(self, port: IListeningPort) -> Deferred[None] | None:
        if not os.path.lexists(self._path):
            # Twisted removes the socket and does not expect that somebody else did.
            self._path.touch()
        return port.stopListening()

    def admit(self, conversation: _Conversation) -> bool:
        """Take one more conversation, if there are not too many."""
        if len(self._conversations) >= _MAX_CONNECTIONS:
            return False
        self._conversations.add(conversation)
        return True

    def dismiss(self, conversation: _Conversation) -> None:
        """Forget a conversation that ended."""
        self._conversations.discard(conversation)

    def _bind(self) -> None:
        if self._port is not None:
            return
        path = str(self._path)
        if len(os.fsencode(path)) > _MAX_PATH:
            raise LocalFault(
                f"cannot listen on {path}: the path of a Unix socket may have {_MAX_PATH} "
                "octets; choose a shorter [node] state"
            )
        _remove_stale(self._path)
        try:
            self._port = self.world.reactor.listenUNIX(path, _Conversations(self), mode=0o600)
        except CannotListenError as problem:
            reason = getattr(problem.socketError, "strerror", None) or problem.socketError
            raise LocalFault(f"cannot listen on {path}: {reason}") from None
        self._requests.start()


def _remove_stale(path: Path) -> None:
    """Remove the socket of a daemon that died; LocalFault if it is anything else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as problem:
        raise LocalFault(f"cannot listen on {path}: {problem.strerror}") from None
    if not stat.S_ISSOCK(mode):
        raise LocalFault(f"cannot listen on {path}: something that is no socket stands there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        answer = probe.connect_ex(str(path))
    if answer != errno.ECONNREFUSED:
        raise LocalFault(f"cannot listen on {path}: another mailsecure runs in this directory")
    path.unlink()


def _peer_uid(connection: socket.socket) -> int:
    octets = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(octets)[1]
    return uid
