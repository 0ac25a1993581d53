"""Routes ``maildir:/path``: mail goes into a directory of this machine.

One Maildir takes all mail of the route, one file a message: an address never becomes part
of a path.  In front of the message stand ``Return-Path`` and a ``Delivered-To`` for each
recipient, which is how whoever reads the directory tells them apart, and how a loop is
found: a message that holds ``Delivered-To`` with a recipient already was here before, and
that recipient fails with 5.4.6.

The order of the writes is the Maildir promise: into ``tmp`` under a name that nobody else
draws (created exclusively, mode 0600), fsync, link into ``new``, fsync of ``new``.  Only
then is the message delivered; a crash before leaves a file in ``tmp`` that means nothing, a
crash after may deliver a second copy.  Lines end with LF on disk, as everything expects
that reads Maildirs.  All of it happens in the reactor's thread pool.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import LocalFault
from ..smtp.replies import Reply
from ..spool.api import QueuedMessage
from ..spool.ids import id_name
from ..world import World
from .api import Fate, Outcome

__all__ = ["MaildirTransport", "delivered_to", "with_lf"]

STORED = Reply(250, "2.0.0", "Delivered to the mailbox")
LOOP = Reply(554, "5.4.6", "The message was delivered to this mailbox before: a mail loop")
UNREADABLE = Reply(451, "4.3.0", "The message could not be read from the queue")
#: How much of a message is searched for Delivered-To.
MAX_HEADER = 1 << 20
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_NO_LINKS = frozenset((errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK))
_FIELD = b"delivered-to:"


def with_lf(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a message with LF for each CRLF, however it was cut."""
    held = b""
    for piece in pieces:
        data = held + piece
        held = b"\r" if data.endswith(b"\r") else b""
        yield (data[:-1] if held else data).replace(b"\r\n", b"\n")
    if held:
        yield held


def delivered_to(pieces: Iterable[bytes]) -> frozenset[str]:
    """Return the addresses in Delivered-To fields, in lower case."""
    header = b""
    for piece in pieces:
        header += piece
        if b"\r\n\r\n" in header or len(header) > MAX_HEADER:
            break
    section = header.partition(b"\r\n\r\n")[0]
    if _FIELD not in section.lower():
        return frozenset()
    lines = section.replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ").split(b"\r\n")
    return frozenset(
        line[len(_FIELD) :].strip().strip(b"<>").decode("utf-8", "replace").lower()
        for line in lines
        if line[: len(_FIELD)].lower() == _FIELD
    )


class MaildirTransport:
    """Delivers into the Maildir ``path``, made with mode 0700 where it is missing."""

    def __init__(self, world: World, path: str, hostname: str) -> None:
        self._world = world
        self._path = Path(path)
        self._name = f"maildir:{path}"
        self._host = hostname.replace("/", "\\057").replace(":", "\\072") or "localhost"
        self._drawn = 0

    async def deliver(self, message: QueuedMessage) -> Sequence[Outcome]:
        """Attempt every recipient; see :class:`.api.Transport`."""
        self._drawn += 1
        microseconds = int(self._world.wall() * 1_000_000)
        name = (
            f"{microseconds // 1_000_000}.M{microseconds % 1_000_000:06d}P{os.getpid()}"
            f"Q{self._drawn}_{id_name(message.id)}.{self._host}"
        )
        return await self._world.in_thread(self._store, message, name)

    async def close(self) -> None:
        """Nothing is kept open."""

    # -- in a thread

    def _store(self, message: QueuedMessage, name: str) -> list[Outcome]:
        try:
            seen = delivered_to(message.body.pieces())
            looping = [one for one in message.recipients if one.recipient.mailbox.lower() in seen]
            fresh = [one for one in message.recipients if one not in looping]
            if fresh:
                fields = [f"Return-Path: <{message.envelope.reverse_path}>\n"]
                fields += [f"Delivered-To: {one.recipient.mailbox}\n" for one in fresh]
                self._write("".join(fields).encode(), message, name)
        except OSError as fault:
            reply = _reply_for(fault)
        except LocalFault:
            reply = UNREADABLE
        else:
            # Nobody behind us will send a DSN: that is what RELAYED means to the scheduler.
            done = [Outcome(one.index, Fate.RELAYED, STORED, self._name, "", True) for one in fresh]
            return done + [Outcome(one.index, Fate.FAILED, LOOP, self._name) for one in looping]
        return [Outcome(one.index, Fate.DEFERRED, reply, self._name) for one in message.recipients]

    def _write(self, fields: bytes, message: QueuedMessage, name: str) -> None:
        temporary = self._path / "tmp" / name
        descriptor = self._create(temporary)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(fields)
                file.writelines(with_lf(message.body.pieces()))
                file.flush()
                os.fsync(file.fileno())
            self._publish(temporary, self._path / "new" / name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _create(self, temporary: Path) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(temporary, flags, 0o600)
        except FileNotFoundError:
            for directory in (self._path, *(self._path / part for part in ("tmp", "new", "cur"))):
                directory.mkdir(0o700, parents=True, exist_ok=True)
            _sync(self._path)
            _sync(self._path.parent)
            return os.open(temporary, flags, 0o600)

    @staticmethod
    def _publish(temporary: Path, final: Path) -> None:
        try:
            final.hardlink_to(temporary)
        except OSError as fault:
            if fault.errno not in _NO_LINKS:
                raise
            temporary.rename(final)
        else:
            temporary.unlink()
        _sync(final.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reply_for(fault: OSError) -> Reply:
    why = fault.strerror or type(fault).__name__
    if fault.errno in _FULL:
        return Reply(452, "4.3.1", f"No room for the message: {why}")
    return Reply(451, "4.3.0", f"The mailbox cannot be written: {why}")
