"""The manhole: a Python prompt inside the running daemon, over SSH, with keys only.

Off unless ``[manhole] listen`` is set.  Who enters can do whatever the daemon can, so
the only way in is a public key from ``authorized_keys``, which is read again at each
login: taking a key out ends its power at once, except for prompts that are open.  Lines
with options (``from=``, ``command=``) are refused, because they promise restrictions
that are not kept here; so is a file that others may write.  The user name is not looked
at.

The host key is made at the first start and kept in the state directory, 0600.  The
root objects of the daemon stand in the prompt's namespace by name; the banner lists them.

Importing this module imports ``twisted.conch``, which takes long and imports the reactor:
``assemble`` does so only where the manhole is on.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.application.service import Service
from twisted.conch.checkers import IAuthorizedKeysDB, SSHPublicKeyChecker
from twisted.conch.insults.insults import ServerProtocol
from twisted.conch.manhole import ColoredManhole
from twisted.conch.manhole_ssh import TerminalRealm, TerminalSession
from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.ssh.keys import BadKeyError, Key
from twisted.conch.ssh.transport import SSHServerTransport
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from .. import __version__
from ..config.model import Manhole
from ..errors import LocalFault
from ..world import World
from .metrics import listening

__all__ = ["HOST_KEY", "AuthorizedKeys", "ManholeService", "host_key"]

_log = Logger(namespace="control")

HOST_KEY = "manhole_host_key"
_MAX_FILE = 1 << 20
_MAX_CONNECTIONS = 5
_LOGIN_TIMEOUT = 60.0
_WEAK = frozenset({b"ssh-rsa", b"ssh-dss"})
_SIGNATURES = [each for each in SSHServerTransport.supportedPublicKeys if each not in _WEAK]
_KINDS = (b"ssh-", b"ecdsa-", b"sk-")


@implementer(IAuthorizedKeysDB)
class AuthorizedKeys:
    """The keys that may enter: a file in OpenSSH's format, read at each login."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def getAuthorizedKeys(self, username: bytes) -> Iterator[Key]:
        """Yield the keys of the file, whoever asks; none if it cannot be trusted."""
        try:
            with self._path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                lines = file.read(_MAX_FILE).splitlines()
        except OSError as problem:
            _log.error("manhole: cannot read {file}: {why}", file=self._path, why=problem.strerror)
            return
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            _log.error("manhole: {file} may be written by others: not used", file=self._path)
            return
        for number, line in enumerate(map(bytes.strip, lines), 1):
            if line and not line.startswith(b"#"):
                key = _public_key(line)
                if key is not None:
                    yield key
                    continue
                _log.warn(
                    "manhole: line {line} of {file} is no plain public key: not used",
                    line=number,
                    file=self._path,
                )


def _public_key(line: bytes) -> Key | None:
    if not line.startswith(_KINDS):
        return None
    try:
        key: Key = Key.fromString(line, type="public_openssh")
    except (BadKeyError, ValueError, IndexError, TypeError, struct.error, UnsupportedAlgorithm):
        return None
    return key


def host_key(directory: Path) -> Key:
    """Return the host key kept in ``directory``, made there if it is the first time.

    Raises :class:`LocalFault` with the path and the reason.
    """
    path = directory / HOST_KEY
    try:
        if not path.exists():
            _make_key(path)
        key: Key = Key.fromString(path.read_bytes(), type="private_openssh")
    except OSError as problem:
        raise LocalFault(f"cannot use the manhole's key {path}: {problem.strerror}") from None
    except (BadKeyError, ValueError, IndexError, struct.error) as problem:
        raise LocalFault(f"cannot use the manhole's key {path}: {problem}") from None
    return key


def _make_key(path: Path) -> None:
    """Write a new key, whole or not at all."""
    octets = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
    )
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)


class _Prompt(ColoredManhole):
    """Twisted's prompt, with a banner that says what is at hand."""

    def initializeScreen(self) -> None:
        """Clear the screen and greet."""
        super().initializeScreen()
        names = ", ".join(sorted(self.namespace or ()))
        banner = f"mailsecure {__version__}. At hand: {names}. Ctrl-D ends.\r\n"
        self.terminal.write(banner.encode())
        self.terminal.write(self.ps[self.pn])


class _Session(TerminalSession):
    """Twisted's session without the two surprises that it raises."""

    def windowChanged(self, newWindowSize: tuple[int, ...]) -> None:
        """Keep the size: the prompt does not depend on it."""

    def eofReceived(self) -> None:
        """Nothing more comes; the client closes when it likes."""


@implementer(IRealm)
class _Realm(TerminalRealm):
    """Gives every key the same prompt, in a namespace of its own."""

    sessionFactory = _Session
    chainedProtocolFactory: Any

    def __init__(self, namespace: Mapping[str, Any]) -> None:
        super().__init__()
        self.chainedProtocolFactory = partial(_prompt, namespace)

    def requestAvatar(self, avatarId: Any, mind: object, *interfaces: Any) -> Any:
        """Twisted's word for a login that succeeded."""
        _log.warn("manhole: {user} entered", user=avatarId)
        return super().requestAvatar(avatarId, mind, *interfaces)


def _prompt(namespace: Mapping[str, Any]) -> ServerProtocol:
    return ServerProtocol(_Prompt, dict(namespace))


class _Transport(SSHServerTransport):
    """A connection that must log in soon, and that its factory can find."""

    factory: _Factory
    transport: Any
    _deadline: IDelayedCall

    def connectionMade(self) -> None:
        """Twisted's word for the beginning."""
        self.factory.connections.add(self)
        self._deadline = self.factory.clock.callLater(_LOGIN_TIMEOUT, self._late)
        _log.info("manhole: connection from {client}", client=str(self.transport.getPeer()))
        super().connectionMade()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Twisted's word for the end."""
        self.factory.connections.discard(self)
        if self._deadline.active():
            self._deadline.cancel()
        super().connectionLost(reason)

    def sendExtInfo(self, extensions: list[tuple[bytes, bytes]]) -> None:
        """Say which signatures a user may log in with (RFC 8308 §3.1).

        Twisted names those of the *host* key here, which keeps RSA keys of users out.
        """
        super().sendExtInfo([(b"server-sig-algs", b",".join(_SIGNATURES))])

    def _late(self) -> None:
        # Twisted sets the avatar when somebody has logged in.
        if not hasattr(self, "avatar"):
            self.transport.abortConnection()


class _Factory(SSHFactory):
    """Makes SSH connections, a few at once."""

    noisy = False
    protocol = _Transport

    def __init__(self, portal: Portal, key: Key, clock: IReactorTime) -> None:
        self.portal = portal
        self.clock = clock
        self.connections: set[_Transport] = set()
        self.publicKeys = {key.sshType(): key.public()}
        self.privateKeys = {key.sshType(): key}

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Twisted's question for each accepted connection."""
        if len(self.connections) >= _MAX_CONNECTIONS:
            return None
        return super().buildProtocol(addr)


class ManholeService(Service):
    """Listens where ``settings`` say and lets their keys in.

    ``namespace`` holds the daemon's root objects by name.  Bind it once privileges are
    dropped, so that the host key belongs to the daemon's user.
    """

    name = "manhole"

    def __init__(
        self,
        world: World,
        settings: Manhole,
        state_directory: Path,
        namespace: Mapping[str, Any],
    ) -> None:
        self._world = world
        self._settings = settings
        self._directory = state_directory
        self._namespace = namespace
        self._port: IListeningPort | None = None
        self._factory: _Factory | None = None

    def bind(self) -> Deferred[None]:
        """Listen; fails with a :class:`LocalFault` of one line.  Once is enough."""
        if self._port is not None or not self._settings.listen:
            return succeed(None)
        return Deferred.fromCoroutine(self._bind())

    async def _bind(self) -> None:
        keys = self._settings.authorized_keys
        if keys is None:
            raise LocalFault("[manhole] listen needs authorized_keys")
        portal = Portal(_Realm(self._namespace), [SSHPublicKeyChecker(AuthorizedKeys(keys))])
        self._factory = _Factory(portal, host_key(self._directory), self._world.clock)
        self._port = await listening(self._world, self._settings.listen, self._factory)
        _log.warn("manhole open on {listen}", listen=self._settings.listen)

    def startService(self) -> Deferred[None]:
        """Listen, if :meth:`bind` did not yet."""
        super().startService()
        return self.bind()

    def stopService(self) -> Deferred[None]:
        """Listen no more and close every prompt."""
        super().stopService()
        port, self._port = self._port, None
        if port is None or self._factory is None:
            return succeed(None)
        for connection in tuple(self._factory.connections):
            connection.transport.abortConnection()
        return maybeDeferred(port.stopListening).addCallback(lambda _: None)
