"""What a client hands over between MAIL and the final dot: a :class:`Transaction`.

:class:`.session.GatewaySession` decides what may come, and begins one at MAIL; it is thrown
away as a whole at RSET, EHLO, STARTTLS and the end of the session, so that nothing of it
can get into the next (RFC 5321 §4.1.1.5).  What goes wrong while the content comes, and a
loop that shows in it (§6.3), is answered at its end: the client does not listen before.
"""

from __future__ import annotations

from ..errors import LocalFault
from ..smtp.envelope import Arrival, Envelope, Recipient
from ..smtp.events import Mail
from ..smtp.replies import Reply
from ..spool.api import SpoolFull
from ..spool.body import BodyBuilder
from ..spool.ids import id_name
from .account import Account
from .desk import Desk
from .judging import Arriving
from .trace import (
    MAX_HEADER,
    count_received,
    delivered_to,
    header_section,
    protocol_word,
    received_field,
    rfc5322_date,
)

__all__ = ["SPOOL_BROKEN", "SPOOL_FULL", "Transaction", "not_kept"]

SPOOL_FULL = Reply(452, "4.3.1", "Insufficient storage, try again later")
SPOOL_BROKEN = Reply(451, "4.3.0", "Storage trouble, try again later")
LOOPING = Reply(554, "5.4.6", "Too many hops: this message is in a loop")
OWN_LOOP = Reply(554, "5.4.6", "This message was delivered here already")


def not_kept(desk: Desk, fault: LocalFault) -> Reply:
    """Count ``fault``, for which a message cannot be kept; return the reply to it."""
    desk.counters.spool_failures += 1
    return SPOOL_FULL if isinstance(fault, SpoolFull) else SPOOL_BROKEN


class Transaction:
    """See the module's text.  ``recipients`` are those that were taken, by mailbox."""

    __slots__ = ("_body", "_desk", "_fault", "_head", "_head_octets", "mail", "recipients")

    def __init__(self, desk: Desk, mail: Mail) -> None:
        self._desk = desk
        self.mail = mail
        self.recipients: dict[str, Recipient] = {}
        self._body: BodyBuilder | None = None
        self._fault: Reply | None = None
        self._head: list[bytes] = []
        self._head_octets = 0

    def begin(self) -> None:
        """Content is about to come."""
        self._body = self._desk.bodies.begin()

    def write(self, data: bytes) -> None:
        """Keep a piece of it."""
        if not data or self._body is None:
            return
        if self._head_octets < MAX_HEADER:
            self._head.append(data)
            self._head_octets += len(data)
        try:
            self._body.write(data)
        except LocalFault as fault:
            self._fault = not_kept(self._desk, fault)
            self.drop()

    def end(self, account: Account) -> Arriving | Reply:
        """Return the message, which is the caller's from now on, or why it is not taken."""
        start = b"".join(self._head)
        header = header_section(start)
        refusal = self._fault or self._loop(header)
        if refusal is not None:
            return refusal
        body, self._body = self._body, None
        if body is None:
            return SPOOL_BROKEN
        whole = len(header) < len(start) or len(start) < MAX_HEADER
        return self._arriving(account, body, header if whole else b"")

    def _loop(self, header: bytes) -> Reply | None:
        """RFC 5321 §6.3: too many traces, or our own delivery's mark."""
        if count_received(header) > self._desk.smtp.max_received:
            return LOOPING
        marks = delivered_to(header)
        if marks and any(mailbox.lower() in marks for mailbox in self.recipients):
            return OWN_LOOP
        return None

    def _arriving(self, account: Account, body: BodyBuilder, header: bytes) -> Arriving:
        desk, mail, tls = self._desk, self.mail, account.tls
        client = account.client.address
        drawn = desk.ids.draw()
        now = desk.wall()
        recipients = tuple(self.recipients.values())
        protocol = protocol_word(account.extended, tls is not None, mail.smtputf8)
        received = received_field(
            account.helo,
            client,
            desk.hostname,
            protocol,
            tls,
            id_name(drawn),
            recipients[0].mailbox if len(recipients) == 1 else "",
            rfc5322_date(now),
        )
        envelope = Envelope(
            mail.reverse_path, recipients, mail.eight_bit, mail.smtputf8, mail.ret, mail.envid
        )
        arrival = Arrival(client, account.helo, protocol, account.name)
        return Arriving(drawn, envelope, arrival, now, received, header, body)

    def drop(self) -> None:
        """Give back what is held of the content."""
        if self._body is not None:
            self._body.discard()
            self._body = None
