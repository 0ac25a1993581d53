"""One session's policy: the :class:`~mailsecure.smtp.serving.Receiver` of the gateway.

Each method is a stage of RFC 5321's conversation, and the only place that decides it.
What a session needs of the node (rules, limits, spool, delivery) it finds in its
:class:`Desk`, one for all sessions of one configuration; the session keeps only what
is its own.

The message's way: ``mail`` and ``rcpt`` gather the envelope, ``content`` fills a body
of the spool's, ``message`` hands both to the spool, and only when the spool says that
they are durable comes the 250 (design section 5).  Then delivery is told at once.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config.model import Smtp
from ..counters import Counters
from ..entrance import Screening
from ..errors import LocalFault
from ..smtp.envelope import Arrival, Envelope, Recipient
from ..smtp.events import ContentEnd, Data, Helo, Mail, Rcpt, TlsFacts
from ..smtp.replies import Reply
from ..smtp.serving import EARLY_TALKER, GOING_DOWN, Answer
from ..spool.api import NewMessage, Spool, SpoolFull
from ..spool.body import BodyBuilder, BodyStore
from ..spool.ids import IdSource, id_name
from .limits import ClientLimits
from .relaying import RelayRules
from .trace import (
    MAX_HEADER,
    count_received,
    delivered_to,
    header_section,
    protocol_word,
    received_field,
    rfc5322_date,
)
from .verify import RecipientVerifier

__all__ = ["Client", "Desk", "GatewaySession"]

_log = Logger(namespace="smtpd")

MAIL_OK = Reply(250, "2.1.0", "Ok")
RCPT_OK = Reply(250, "2.1.5", "Ok")
HELO_OK = Reply(250, "", "Ok")
GO_AHEAD = Reply(354, "", "End data with <CR><LF>.<CR><LF>")
SPOOL_FULL = Reply(452, "4.3.1", "Insufficient storage, try again later")
SPOOL_BROKEN = Reply(451, "4.3.0", "Storage trouble, try again later")
BLOCKED = Reply(554, "5.7.1", "No mail is taken from your network")
TOO_MANY_SESSIONS = Reply(421, "4.7.0", "Too many sessions, try again later")
TOO_MANY_MESSAGES = Reply(450, "4.7.1", "Too many messages, try again later")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients")
TOO_FAST_RECIPIENTS = Reply(450, "4.7.1", "Too many recipients a minute, try again later")
SESSION_USED_UP = Reply(421, "4.7.0", "Too many messages in one session")
LOOPING = Reply(554, "5.4.6", "Too many hops: this message is in a loop")
OWN_LOOP = Reply(554, "5.4.6", "This message was delivered here already")

SESSION = (
    "session {session}: client=[{client}]:{port} helo=<{helo}> tls={tls} messages={messages} "
    "refused={refused} errors={errors} seconds={seconds} end={why}"
)
SESSION_VIA = SESSION.replace(" helo=", " via={via} helo=")


@dataclass(frozen=True, slots=True)
class Client:
    """Who is at the other end; ``own_address`` returns our side as an address literal.

    ``via`` is the node that passed the session on to us; "" where it came straight.
    """

    address: str
    port: int
    key: str
    own_address: Callable[[], str]
    #: In ``[relay] networks``.
    trusted: bool
    via: str = ""


@dataclass(slots=True)
class Desk:
    """What all sessions share; replaced field by field at a reload."""

    clock: IReactorTime
    wall: Callable[[], float]
    hostname: str
    smtp: Smtp
    rules: RelayRules
    limits: ClientLimits
    verifier: RecipientVerifier | None
    needs_verifying: Callable[[Recipient], bool]
    spool: Spool
    bodies: BodyStore
    ids: IdSource
    #: Tells delivery of a message that is durable.
    take: Callable[[NewMessage], None]
    counters: Counters
    #: How many sessions there are, this one included.
    session_count: Callable[[], int]
    #: Addresses that are in ``[smtp] blocked``.
    blocked: Container[str]
    #: Sessions that run are told to go; and nobody new is let in.
    draining: bool = False
    #: Nobody new is let in.
    resting: bool = False

    @property
    def greeting(self) -> Reply:
        """The greeting of a session that may begin (RFC 5321 §4.3.1)."""
        return Reply(220, "", f"{self.hostname} {self.smtp.banner}")

    def no_room(self, more: int = 0) -> tuple[Reply, str] | None:
        """Return the reply to a new session that this node cannot have, and why.

        ``more`` sessions would come, beside those that are counted.
        """
        if self.draining or self.resting:
            return GOING_DOWN, ""
        if self.session_count() + more > self.smtp.max_sessions:
            return TOO_MANY_SESSIONS, "the gateway is full"
        return None

    def turn_away(
        self, address: str, key: str, trusted: bool, here: bool = True
    ) -> tuple[Reply, str] | None:
        """Return the reply to a client that may not come in, and why.

        None: it may, and unless it is ``trusted`` its session was counted under ``key``.
        ``here`` says that this node would have the session.
        """
        if address in self.blocked:
            return BLOCKED, "blocked"
        refusal = self.no_room() if here else None
        if refusal is None and not trusted:
            why = self.limits.open(key, self.clock.seconds())
            if why:
                return TOO_MANY_SESSIONS, why
        return refusal


class GatewaySession:
    """What one client may do.  See :class:`~mailsecure.smtp.serving.Receiver`."""

    __slots__ = (
        "_arrival",
        "_body",
        "_client",
        "_counted",
        "_desk",
        "_errors",
        "_extended",
        "_fault",
        "_head",
        "_head_octets",
        "_helo",
        "_logged",
        "_mail",
        "_messages",
        "_name",
        "_opened",
        "_overshoot",
        "_pipelined",
        "_recipients",
        "_refused",
        "_screened",
        "_tls",
        "_turned_away",
    )

    def __init__(self, desk: Desk, client: Client, screening: Screening | None = None) -> None:
        """``screening`` says that the client was let in already, and what it counts as."""
        self._desk = desk
        self._client = client
        self._opened = desk.clock.seconds()
        self._name = ""
        self._helo = ""
        self._extended = False
        self._tls: TlsFacts | None = None
        self._screened = screening is not None
        self._counted = screening is not None and bool(screening.key)
        self._turned_away = False
        self._logged = False
        self._messages = 0
        self._refused = 0
        self._errors = 0
        self._overshoot = 0
        self._pipelined = False
        self._mail: Mail | None = None
        self._body: BodyBuilder | None = None
        self._recipients: dict[str, Recipient] = {}
        self._fault: Reply | None = None
        self._head: list[bytes] = []
        self._head_octets = 0

    @property
    def name(self) -> str:
        """The session's name in the log."""
        if not self._name:
            self._name = id_name(self._desk.ids.draw())
        return self._name

    # -- the stages

    def greeting(self) -> Reply:
        """Refuse what is too much at once, else greet."""
        desk, client = self._desk, self._client
        if self._screened:
            refusal = desk.no_room()
        else:
            refusal = desk.turn_away(client.address, client.key, client.trusted)
            self._counted = refusal is None and not client.trusted
        if refusal is not None:
            return self.turned_away(*refusal)
        desk.counters.sessions_opened += 1
        return desk.greeting

    def turned_away(self, reply: Reply, why: str) -> Reply:
        """Refuse the session itself; that is its one line in the log."""
        counters = self._desk.counters
        counters.sessions_opened += 1
        if reply is not GOING_DOWN:
            counters.sessions_refused += 1
        self._turned_away = True
        return self._refuse("CONNECT", reply, why)

    def helo(self, event: Helo) -> Answer:
        """Note the name; what it is worth is for later checks."""
        self.reset()
        self._helo = event.name
        self._extended = event.extended
        return HELO_OK

    def mail(self, event: Mail) -> Answer:
        """Begin a transaction if there is room for its message."""
        desk, client = self._desk, self._client
        self._pipelined = True
        if desk.draining:
            return self._refuse("MAIL", GOING_DOWN, sender=event.reverse_path)
        if self._messages >= desk.smtp.max_transactions:
            return self._refuse("MAIL", SESSION_USED_UP, sender=event.reverse_path)
        health = desk.spool.health()
        if not health.well:
            reply = SPOOL_FULL if health.full else SPOOL_BROKEN
            return self._refuse("MAIL", reply, health.why, sender=event.reverse_path)
        if not client.trusted and not desk.limits.message(client.key, desk.clock.seconds()):
            return self._refuse("MAIL", TOO_MANY_MESSAGES, sender=event.reverse_path)
        self._pipelined = False
        self._mail = event
        return MAIL_OK

    def rcpt(self, event: Rcpt) -> Answer:
        """Take the recipient, refuse it, or ask the next hop first."""
        desk, client = self._desk, self._client
        recipient = event.recipient
        if len(self._recipients) >= desk.smtp.max_recipients:
            return self._refuse_recipient(TOO_MANY_RECIPIENTS, recipient)
        if not client.trusted and not desk.limits.recipient(client.key, desk.clock.seconds()):
            return self._refuse_recipient(TOO_FAST_RECIPIENTS, recipient)
        decided = desk.rules.decide(recipient, event.local, client.trusted, client.own_address)
        if isinstance(decided, Reply):
            return self._refuse_recipient(decided, recipient)
        if desk.verifier is not None and desk.needs_verifying(decided):
            refusal = desk.verifier.refusal(decided)
            if isinstance(refusal, Deferred):
                return refusal.addCallback(self._verified, decided)
            return self._verified(refusal, decided)
        return self._take_recipient(decided)

    def _verified(self, refusal: Reply | None, recipient: Recipient) -> Reply:
        if refusal is not None:
            return self._refuse_recipient(refusal, recipient)
        return self._take_recipient(recipient)

    def _take_recipient(self, recipient: Recipient) -> Reply:
        # The same mailbox twice gets one copy.
        self._recipients.setdefault(recipient.mailbox, recipient)
        self._desk.counters.recipients_accepted += 1
        return RCPT_OK

    def data(self, event: Data) -> Answer:
        """Let the content come."""
        self._body = self._desk.bodies.begin()
        return GO_AHEAD

    def content(self, data: bytes) -> None:
        """Keep a piece; what goes wrong is answered at the end."""
        if not data or self._body is None or self._fault is not None:
            return
        if self._head_octets < MAX_HEADER:
            self._head.append(data)
            self._head_octets += len(data)
        try:
            self._body.write(data)
        except LocalFault as fault:
            self._fault = self._not_kept(fault)
            self._drop_body()

    def message(self, event: ContentEnd) -> Answer:
        """Make the message durable, or say why not."""
        self.content(event.data)
        refusal = event.fault or self._fault or self._loop()
        body, mail = self._body, self._mail
        if refusal is not None or body is None or mail is None:
            self._desk.counters.messages_refused += 1
            self._refused += 1
            reply = self._refuse(
                "DATA", refusal or SPOOL_BROKEN, sender=mail.reverse_path if mail else ""
            )
            self.reset()
            return reply
        self._body = None
        return self._keep(mail, body)

    def _loop(self) -> Reply | None:
        """RFC 5321 §6.3: too many traces, or our own delivery's mark."""
        header = header_section(b"".join(self._head))
        if count_received(header) > self._desk.smtp.max_received:
            return LOOPING
        marks = delivered_to(header)
        if marks and any(mailbox.lower() in marks for mailbox in self._recipients):
            return OWN_LOOP
        return None

    def _keep(self, mail: Mail, body: BodyBuilder) -> Answer:
        desk, client = self._desk, self._client
        drawn = desk.ids.draw()
        now = desk.wall()
        recipients = tuple(self._recipients.values())
        protocol = protocol_word(self._extended, self._tls is not None, mail.smtputf8)
        header = received_field(
            self._helo,
            client.address,
            desk.hostname,
            protocol,
            self._tls,
            id_name(drawn),
            recipients[0].mailbox if len(recipients) == 1 else "",
            rfc5322_date(now),
        )
        try:
            kept = body.finish(header)
        except LocalFault as fault:
            self.reset()
            return self._refuse("DATA", self._not_kept(fault), sender=mail.reverse_path)
        message = NewMessage(
            id=drawn,
            envelope=Envelope(
                mail.reverse_path,
                recipients,
                mail.eight_bit,
                mail.smtputf8,
                mail.ret,
                mail.envid,
            ),
            arrival=Arrival(client.address, self._helo, protocol, self.name),
            arrived=now,
            body=kept,
            due=now,
        )
        self.reset()
        return desk.spool.accept(message).addCallbacks(
            self._durable, self._not_durable, callbackArgs=(message,), errbackArgs=(message,)
        )

    def _durable(self, _: None, message: NewMessage) -> Reply:
        """The spool has it: from here on it is ours to deliver."""
        desk, client = self._desk, self._client
        counters = desk.counters
        counters.messages_accepted += 1
        octets = message.body.octets
        counters.octets_accepted += octets
        self._messages += 1
        if not client.trusted:
            desk.limits.sent_mail(client.key, desk.clock.seconds())
        name = id_name(message.id)
        envelope = message.envelope
        _log.info(
            "{message}: accepted client=[{client}] helo=<{helo}> from=<{sender}> "
            "to=<{recipient}> nrcpt={recipients} size={octets} proto={protocol} "
            "session={session}",
            message=name,
            client=client.address,
            helo=self._helo,
            sender=envelope.reverse_path,
            recipient=envelope.recipients[0].mailbox,
            recipients=len(envelope.recipients),
            octets=octets,
            protocol=message.arrival.protocol,
            session=message.arrival.session,
        )
        desk.take(message)
        return Reply(250, "2.0.0", f"Ok: queued as {name}")

    def _not_durable(self, failure: Failure, message: NewMessage) -> Reply:
        failure.trap(LocalFault)
        self._desk.counters.messages_refused += 1
        self._refused += 1
        return self._refuse(
            "DATA", self._not_kept(failure.value), sender=message.envelope.reverse_path
        )

    def _not_kept(self, fault: BaseException | None) -> Reply:
        self._desk.counters.spool_failures += 1
        return SPOOL_FULL if isinstance(fault, SpoolFull) else SPOOL_BROKEN

    def reset(self) -> None:
        """Forget the transaction."""
        self._mail = None
        self._fault = None
        self._head = []
        self._head_octets = 0
        if self._recipients:
            self._recipients = {}
        if self._body is not None:
            self._drop_body()

    def _drop_body(self) -> None:
        if self._body is not None:
            self._body.discard()
            self._body = None

    def tls_started(self, facts: TlsFacts) -> None:
        """All that was said in the clear is forgotten (RFC 3207 §4.2)."""
        self.reset()
        self._tls = facts
        self._helo = ""
        self._desk.counters.sessions_tls += 1

    # -- refusals and the end

    def _refuse_recipient(self, reply: Reply, recipient: Recipient) -> Reply:
        self._desk.counters.recipients_refused += 1
        self._refused += 1
        sender = self._mail.reverse_path if self._mail is not None else ""
        return self._refuse("RCPT", reply, sender=sender, recipient=recipient.mailbox)

    def _refuse(
        self, stage: str, reply: Reply, reason: str = "", sender: str = "", recipient: str = ""
    ) -> Reply:
        self._logged = True
        _log.info(
            "reject {stage} from [{client}]: {reply}; from=<{sender}> to=<{recipient}> "
            "helo=<{helo}> reason={reason} session={session}",
            stage=stage,
            client=self._client.address,
            reply=str(reply),
            sender=sender,
            recipient=recipient,
            helo=self._helo,
            reason=reason or "-",
            session=self.name,
        )
        return reply

    def complained(self, reply: Reply) -> float | None:
        """Count the error; slow down and at last end who makes too many.

        Our own troubles (4.3.x) are not the client's errors.
        """
        desk = self._desk
        if self._logged:
            self._logged = False
        else:
            desk.counters.protocol_errors += 1
            if reply is EARLY_TALKER:
                desk.counters.early_talkers += 1
            self._refuse("COMMAND", reply)
            self._logged = False
        if reply.enhanced.startswith("4.3.") or self._may_overshoot(reply):
            return 0.0
        if reply.code == 503 and self._pipelined:
            # RCPT and DATA that were sent before our 4xx to MAIL was read.
            return 0.0
        self._errors += 1
        most = desk.smtp.max_errors
        if self._errors >= most:
            return None
        return desk.smtp.tarpit if self._errors * 2 > most else 0.0

    def _may_overshoot(self, reply: Reply) -> bool:
        """Spare a list server that names all its recipients before it reads our 452s."""
        if reply is not TOO_MANY_RECIPIENTS:
            return False
        self._overshoot += 1
        return self._overshoot <= self._desk.smtp.max_recipients

    def closed(self, why: str) -> None:
        """Give back what the session held; write its one line."""
        desk, client = self._desk, self._client
        self.reset()
        if self._counted:
            desk.limits.close(client.key)
        if why == "timeout":
            desk.counters.timeouts += 1
        if self._turned_away:
            return
        _log.info(
            SESSION_VIA if client.via else SESSION,
            via=client.via,
            session=self.name,
            client=client.address,
            port=client.port,
            helo=self._helo,
            tls=self._tls.version if self._tls is not None else "no",
            messages=self._messages,
            refused=self._refused,
            errors=self._errors,
            seconds=round(desk.clock.seconds() - self._opened, 3),
            why=why,
        )
