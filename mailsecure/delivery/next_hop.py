"""One message to one of several targets, over pooled connections.

What SMTP and LMTP routes have in common: :class:`NextHops` owns the pools, the TLS and
the patience of one route; :meth:`~NextHops.deliver` tries the targets in turn.

*Which trouble goes where.*  A server that cannot be reached, greets with 4xx or 5xx, or
refuses EHLO leads to the next target; if no target opens a session, the next hop is down
(:class:`~.api.NextHopDown`), and mail waits.  A 5xx greeting does not bounce mail: it says
that this host serves nobody today, or not us, and Postfix defers on it as well
(smtp_skip_5xx_greeting).  A session that fails before the final dot (421, MAIL refused for
now, connection lost) leads to the next target with those recipients; refusals of
recipients, and whatever comes after the final dot, stand.

*Stale connections.*  A connection that was idle may have been given up by the other side
just now.  If it dies before anything was answered, the message is tried once on a fresh one,
and nobody hears of it.

*Dead targets.*  One that could not be reached is tried last for :data:`SHUN` seconds, so
that a dead first MX does not cost each message a timeout.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..config.model import Delivery, TlsLevel
from ..errors import LocalFault
from ..smtp.client import ClientMachine
from ..smtp.connecting import connect_tcp, connect_unix
from ..smtp.envelope import Recipient
from ..smtp.replies import Reply
from ..smtp.sending import ClientPatience, CouldNotOpen, SmtpConnection
from ..smtp.stuffing import UncleanBody
from ..smtp.transaction import Result, Transaction
from ..spool.api import QueuedMessage, QueuedRecipient
from ..world import World
from .api import Fate, NextHopDown, Outcome
from .exchange import header_is_ascii, transaction_for
from .mx import Target
from .pool import ConnectionPool, PoolLimits
from .progress import Progress
from .tls import ClientTls, PlainHosts

__all__ = ["NextHops"]

#: How long a target that could not be reached is tried after all others.
SHUN = 60.0
#: Pools and shunned targets that are remembered at most, the ones in use aside.
MAX_KEPT = 1000
#: How long one message may go on looking for a server that opens a session.
SEARCH_LIMIT = 900.0

UNCLEAN = Reply(554, "5.6.0", "The message holds a CR, LF or NUL alone and cannot be sent")
NO_CERTIFICATE = Reply(454, "4.7.5", "The host has a name that no certificate can bear")
UNREADABLE = Reply(451, "4.3.0", "The message could not be read from the queue")


class NextHops:
    """The pools of one route, and how its servers are spoken to."""

    def __init__(self, world: World, settings: Delivery, hostname: str, lmtp: bool) -> None:
        self._world = world
        self._clock = world.clock
        self._settings = settings
        self._hostname = hostname
        self._lmtp = lmtp
        self._tls = ClientTls(settings.tls, settings.tls_ca)
        self._plain = PlainHosts()
        self._patience = ClientPatience(settings.command_timeout, settings.data_timeout)
        self._limits = PoolLimits(settings.concurrency, settings.reuse, settings.reuse_count)
        self._sources = settings.source_address.split()
        self._pools: dict[Target, ConnectionPool] = {}
        self._shunned: dict[Target, float] = {}

    async def deliver(self, message: QueuedMessage, targets: Sequence[Target]) -> list[Outcome]:
        """Progress ``message``; one Outcome a recipient.  Raises NextHopDown."""
        progress = Progress(message)
        give_up = self._clock.seconds() + SEARCH_LIMIT
        for target in self._in_order(targets):
            try:
                await self._try_target(progress, target)
            except CouldNotOpen as fault:
                self._shun(target)
                progress.down = NextHopDown(fault.reply, str(target))
            if progress.over or self._clock.seconds() > give_up:
                break
        return progress.finish()

    async def probe(self, mailbox: str, targets: Sequence[Target]) -> Reply:
        """Return what the first server that can be asked says to RCPT TO:<mailbox>.

        Raises NextHopDown where no server answers, or MAIL FROM:<> itself is refused.
        """
        recipient = Recipient(mailbox, "")
        question = Transaction("", [recipient], smtputf8=not mailbox.isascii(), probe=True)
        down = NextHopDown(Reply(451, "4.4.1", "No server to ask"))
        for target in self._in_order(targets):
            try:
                result = await self._ask(question, target)
            except CouldNotOpen as fault:
                self._shun(target)
                down = NextHopDown(fault.reply, str(target))
                continue
            if not result.mail_refused and not result.elsewhere:
                return result.replies[0]
            down = NextHopDown(result.replies[0], str(target))
        raise down

    async def close(self) -> None:
        """Close what is idle; the rest closes when its message is through."""
        for pool in self._pools.values():
            await pool.close()

    # -- one target

    async def _try_target(self, progress: Progress, target: Target) -> None:
        """Offer ``target`` whoever is left, in as many transactions as it takes."""
        progress.begin_target()
        pool = self._pool(target)
        connection = pool.take_idle() or await pool.acquire()
        replaced = False
        try:
            while batch := progress.next_batch(connection.capabilities):
                if progress.header_matters(connection.capabilities):
                    await self._check_header(progress)
                    continue
                used = connection.messages > 0
                result = await self._send(progress, connection, batch)
                if result is not None and result.untouched:
                    # Nobody has seen this message: it is the connection that failed.
                    if not used or replaced:
                        raise CouldNotOpen(result.replies[0])
                    replaced = True
                    connection = await self._replace(pool, connection, fresh=True)
                    continue
                if result is not None:
                    progress.settle(batch, result, str(target), connection.tls, self._lmtp)
                if progress.here and not connection.usable:
                    connection = await self._replace(pool, connection, fresh=False)
        finally:
            pool.release(connection)

    async def _replace(
        self, pool: ConnectionPool, connection: SmtpConnection, fresh: bool
    ) -> SmtpConnection:
        pool.release(connection)
        return await pool.acquire(fresh)

    async def _send(
        self, progress: Progress, connection: SmtpConnection, batch: Sequence[QueuedRecipient]
    ) -> Result | None:
        """Carry out one transaction; None where the fault is ours (and is settled)."""
        message = progress.message
        try:
            return await connection.send(transaction_for(message, batch), message.body)
        except UncleanBody:
            progress.refuse(batch, Fate.FAILED, UNCLEAN)
        except LocalFault:
            progress.refuse(batch, Fate.DEFERRED, UNREADABLE)
        return None

    async def _check_header(self, progress: Progress) -> None:
        """Refuse a message whose header section needs SMTPUTF8."""
        body = progress.message.body
        if body.in_memory:
            ascii_only = header_is_ascii(body.pieces())
        else:
            ascii_only = await self._world.in_thread(lambda: header_is_ascii(body.pieces()))
        if not ascii_only:
            progress.refuse_header()

    async def _ask(self, question: Transaction, target: Target) -> Result:
        pool = self._pool(target)
        connection = await pool.acquire()
        try:
            used = connection.messages > 0
            result = await connection.send(question)
            if result.untouched and used:
                connection = await self._replace(pool, connection, fresh=True)
                result = await connection.send(question)
            if result.untouched:
                raise CouldNotOpen(result.replies[0])
            return result
        finally:
            pool.release(connection)

    # -- targets and connections

    def _in_order(self, targets: Sequence[Target]) -> Sequence[Target]:
        if not self._shunned or len(targets) == 1:
            return targets
        now = self._clock.seconds()
        return sorted(targets, key=lambda target: self._shunned.get(target, 0.0) > now)

    def _shun(self, target: Target) -> None:
        if len(self._shunned) >= MAX_KEPT:
            self._shunned.clear()
        self._shunned[target] = self._clock.seconds() + SHUN

    def _pool(self, target: Target) -> ConnectionPool:
        pool = self._pools.get(target)
        if pool is None:
            if len(self._pools) >= MAX_KEPT:
                self._pools = {
                    known: kept for known, kept in self._pools.items() if not kept.unused
                }
            pool = ConnectionPool(self._clock, self._limits, lambda: self._open(target))
            self._pools[target] = pool
        return pool

    async def _open(self, target: Target) -> SmtpConnection:
        """Open a session; without TLS if the handshake fails and TLS is not required."""
        level = TlsLevel.NONE if target.path else self._settings.tls
        if level is TlsLevel.OPPORTUNISTIC:
            if self._plain.plain(target.address, self._clock.seconds()):
                level = TlsLevel.NONE
            else:
                try:
                    return await self._connect(target, level)
                except CouldNotOpen as fault:
                    if not fault.in_handshake:
                        raise
                self._plain.failed(target.address, self._clock.seconds())
                level = TlsLevel.NONE
        return await self._connect(target, level)

    async def _connect(self, target: Target, level: TlsLevel) -> SmtpConnection:
        machine = ClientMachine(
            self._hostname,
            lmtp=self._lmtp,
            want_tls=level is not TlsLevel.NONE,
            need_tls=level is TlsLevel.REQUIRED,
        )
        try:
            options = None if level is TlsLevel.NONE else self._tls.options_for(target.name)
        except ValueError:
            # A name that no certificate can bear.
            raise CouldNotOpen(NO_CERTIFICATE) from None
        connection = SmtpConnection(
            self._clock, machine, self._patience, options, self._world.in_thread
        )
        reactor, timeout = self._world.reactor, self._settings.connect_timeout
        if target.path:
            return await connect_unix(reactor, target.path, connection, timeout)
        source = self._source(target.address)
        return await connect_tcp(reactor, target.address, target.port, connection, timeout, source)

    def _source(self, address: str) -> str:
        """Return our address of the same family, "" for the system's choice."""
        six = ":" in address
        for source in self._sources:
            if (":" in source) is six:
                return source
        return ""
