"""One session's policy: the :class:`~mailsecure.smtp.serving.Receiver` of the gateway.

Each method is a stage of RFC 5321's conversation, and the only place that decides it.
What a session needs of the node (rules, limits, scanner, spool, delivery) it finds in its
:class:`~.desk.Desk`, one for all sessions of one configuration; the session keeps only what
is its own.

The message's way: ``mail`` and ``rcpt`` gather the envelope, ``content`` fills a body
of the spool's, ``message`` has it judged (:mod:`.judging`) and hands both to the spool, and
only when the spool says that they are durable comes the 250 (design section 5).  Then
delivery is told at once.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..entrance import Screening
from ..errors import LocalFault
from ..records.values import RefusalEvent, SessionEvent
from ..scan.inspection import Inspection, Judgement
from ..scan.values import Facts, Symbol
from ..smtp.envelope import Arrival, Envelope, Recipient
from ..smtp.events import ContentEnd, Data, Helo, Mail, Rcpt, TlsFacts
from ..smtp.replies import Reply
from ..smtp.serving import EARLY_TALKER, GOING_DOWN, Answer
from ..spool.api import NewMessage, SpoolFull
from ..spool.body import BodyBuilder
from ..spool.ids import id_name
from .desk import Client, Desk
from .judging import Arriving, Judge
from .telling import message_event
from .trace import (
    MAX_HEADER,
    count_received,
    delivered_to,
    header_section,
    protocol_word,
    received_field,
    rfc5322_date,
)

__all__ = ["GatewaySession"]

_log = Logger(namespace="smtpd")

MAIL_OK = Reply(250, "2.1.0", "Ok")
RCPT_OK = Reply(250, "2.1.5", "Ok")
HELO_OK = Reply(250, "", "Ok")
GO_AHEAD = Reply(354, "", "End data with <CR><LF>.<CR><LF>")
SPOOL_FULL = Reply(452, "4.3.1", "Insufficient storage, try again later")
SPOOL_BROKEN = Reply(451, "4.3.0", "Storage trouble, try again later")
TOO_MANY_MESSAGES = Reply(450, "4.7.1", "Too many messages, try again later")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients")
TOO_FAST_RECIPIENTS = Reply(450, "4.7.1", "Too many recipients a minute, try again later")
SESSION_USED_UP = Reply(421, "4.7.0", "Too many messages in one session")
LOOPING = Reply(554, "5.4.6", "Too many hops: this message is in a loop")
CLIENT_GONE = Reply(451, "4.4.2", "You had left before the message was judged")
OWN_LOOP = Reply(554, "5.4.6", "This message was delivered here already")

SESSION = (
    "session {session}: client=[{client}]:{port} helo=<{helo}> tls={tls} messages={messages} "
    "refused={refused} errors={errors} seconds={seconds} end={why}"
)
SESSION_VIA = SESSION.replace(" helo=", " via={via} helo=")


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
        "_inspection",
        "_logged",
        "_mail",
        "_messages",
        "_name",
        "_opened",
        "_over",
        "_overshoot",
        "_pipelined",
        "_recipients",
        "_refused",
        "_screened",
        "_spared",
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
        self._inspection: Inspection | None = None
        self._over = False
        self._spared: Reply | None = None
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
        if desk.scanner is not None and not client.relay_only:
            self._inspection = desk.scanner.open(
                Facts(self.name, client.address, client.port, client.trusted)
            )
            if self._inspection is not None:
                self._inspection.connected()
        return desk.greeting

    def turned_away(self, reply: Reply, why: str) -> Reply:
        """Refuse the session itself; that is its one line in the log."""
        counters = self._desk.counters
        counters.sessions_opened += 1
        if reply is not GOING_DOWN:
            counters.sessions_refused += 1
        self._turned_away = True
        self._tell_session(why, str(reply))
        return self._refuse("CONNECT", reply, why, told=True)

    def helo(self, event: Helo) -> Answer:
        """Note the name; what it is worth is for the checks."""
        self.reset()
        self._helo = event.name
        self._extended = event.extended
        if self._inspection is not None:
            self._inspection.helo(event.name, event.extended)
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
        if self._inspection is not None:
            self._inspection.mail(event.reverse_path, event.domain, event.size, event.smtputf8)
        return MAIL_OK

    def rcpt(self, event: Rcpt) -> Answer:
        """Take the recipient, refuse it, or ask the checks and the next hop first."""
        desk, client = self._desk, self._client
        recipient = event.recipient
        if len(self._recipients) >= desk.smtp.max_recipients:
            return self._refuse_recipient(TOO_MANY_RECIPIENTS, recipient)
        if not client.trusted and not desk.limits.recipient(client.key, desk.clock.seconds()):
            return self._refuse_recipient(TOO_FAST_RECIPIENTS, recipient)
        decided = desk.rules.decide(recipient, event.local, client.trusted, client.own_address)
        if isinstance(decided, Reply):
            return self._refuse_recipient(decided, recipient)
        inspection = self._inspection
        # The postmaster can always be written to (RFC 5321 §4.5.1).
        if inspection is None or event.local.lower() == "postmaster":
            return self._offer(decided)
        return Deferred.fromCoroutine(self._inspected(inspection, decided))

    async def _inspected(self, inspection: Inspection, recipient: Recipient) -> Reply:
        """Have the checks their say."""
        refused = await inspection.rcpt(recipient, tuple(self._recipients.values()))
        if refused is not None:
            reply, symbols = refused
            self._desk.counters.recipients_refused_by_checks += 1
            if reply.transient:
                self._spared = reply
            return self._refuse_recipient(reply, recipient, symbols)
        answer = self._offer(recipient)
        return answer if isinstance(answer, Reply) else await answer

    def _offer(self, recipient: Recipient) -> Answer:
        """Take the recipient, or ask the next hop first."""
        desk = self._desk
        if desk.verifier is not None and desk.needs_verifying(recipient):
            refusal = desk.verifier.refusal(recipient)
            if isinstance(refusal, Deferred):
                return refusal.addCallback(self._verified, recipient)
            return self._verified(refusal, recipient)
        return self._take_recipient(recipient)

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
        """Have the message judged and make it durable, or say why not."""
        self.content(event.data)
        start = b"".join(self._head)
        header = header_section(start)
        refusal = event.fault or self._fault or self._loop(header)
        body, mail = self._body, self._mail
        if refusal is not None or body is None or mail is None:
            return self._refuse_message(
                refusal or SPOOL_BROKEN, mail.reverse_path if mail else "", ""
            )
        self._body = None
        whole = len(header) < len(start) or len(start) < MAX_HEADER
        arriving = self._arriving(mail, body, header if whole else b"")
        return Deferred.fromCoroutine(self._decide(arriving))

    def _loop(self, header: bytes) -> Reply | None:
        """RFC 5321 §6.3: too many traces, or our own delivery's mark."""
        if count_received(header) > self._desk.smtp.max_received:
            return LOOPING
        marks = delivered_to(header)
        if marks and any(mailbox.lower() in marks for mailbox in self._recipients):
            return OWN_LOOP
        return None

    def _arriving(self, mail: Mail, body: BodyBuilder, header: bytes) -> Arriving:
        desk, client = self._desk, self._client
        drawn = desk.ids.draw()
        now = desk.wall()
        recipients = tuple(self._recipients.values())
        protocol = protocol_word(self._extended, self._tls is not None, mail.smtputf8)
        received = received_field(
            self._helo,
            client.address,
            desk.hostname,
            protocol,
            self._tls,
            id_name(drawn),
            recipients[0].mailbox if len(recipients) == 1 else "",
            rfc5322_date(now),
        )
        envelope = Envelope(
            mail.reverse_path, recipients, mail.eight_bit, mail.smtputf8, mail.ret, mail.envid
        )
        arrival = Arrival(client.address, self._helo, protocol, self.name)
        return Arriving(drawn, envelope, arrival, now, received, header, body)

    async def _decide(self, arriving: Arriving) -> Reply:
        """Judge the message where that is wanted, and do what follows."""
        inspection, judge = self._inspection, self._desk.judge
        sender = arriving.envelope.reverse_path
        judgement: Judgement | None = None
        message: NewMessage | None = None
        try:
            if judge is None:
                message = arriving.unjudged()
            elif inspection is None:
                facts = Facts(self.name, self._client.address, trusted=self._client.trusted)
                message = await judge.relayed(facts, arriving)
            else:
                judgement = await judge.judge(inspection, arriving)
                reply = CLIENT_GONE if self._over else judge.reply(arriving, judgement)
                if reply is not None:
                    return self._dispose(arriving, judge, judgement, reply)
                message = await judge.kept(inspection, arriving, judgement)
        except LocalFault as fault:
            return self._refuse_message(self._not_kept(fault), sender, str(fault))
        finally:
            # Whatever happened: nothing of this transaction may get into the next one.
            self.reset()
            if message is None:
                arriving.body.discard()
        try:
            await self._desk.spool.accept(message)
        except LocalFault as fault:
            return self._refuse_message(self._not_kept(fault), sender, str(fault))
        finally:
            arriving.release()
        return self._durable(message, arriving, judgement)

    def _dispose(
        self, arriving: Arriving, judge: Judge, judgement: Judgement, reply: Reply
    ) -> Reply:
        """Answer for a message of which nothing is kept."""
        self._tell_message(arriving, judgement, reply)
        if reply.positive:
            self._messages += 1
            return reply
        self._desk.counters.messages_refused += 1
        self._refused += 1
        if reply.transient:
            self._spared = reply
        why = judge.reasons(judgement)
        return self._refuse("DATA", reply, why, arriving.envelope.reverse_path, told=True)

    def _durable(
        self, message: NewMessage, arriving: Arriving, judgement: Judgement | None
    ) -> Reply:
        """The spool has it: from here on it is ours to deliver."""
        desk, client = self._desk, self._client
        counters = desk.counters
        counters.messages_accepted += 1
        octets = message.body.octets
        counters.octets_accepted += octets
        self._messages += 1
        if not client.trusted and message.quarantine is None:
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
        reply = Reply(250, "2.0.0", f"Ok: queued as {name}")
        self._tell_message(arriving, judgement, reply, octets)
        if message.quarantine is None or len(message.quarantine.recipients) < len(
            envelope.recipients
        ):
            desk.take(message)
        return reply

    def _refuse_message(self, reply: Reply, sender: str, reason: str) -> Reply:
        self._desk.counters.messages_refused += 1
        self._refused += 1
        refused = self._refuse("DATA", reply, reason, sender=sender)
        self.reset()
        return refused

    def _not_kept(self, fault: BaseException | None) -> Reply:
        self._desk.counters.spool_failures += 1
        return SPOOL_FULL if isinstance(fault, SpoolFull) else SPOOL_BROKEN

    def reset(self) -> None:
        """Forget the transaction."""
        self._forget()
        if self._inspection is not None:
            self._inspection.reset()

    def _forget(self) -> None:
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
        if self._inspection is not None:
            self._inspection.started_tls(facts.version)
        self._desk.counters.sessions_tls += 1

    # -- refusals and the end

    def _refuse_recipient(
        self, reply: Reply, recipient: Recipient, symbols: tuple[Symbol, ...] = ()
    ) -> Reply:
        self._desk.counters.recipients_refused += 1
        self._refused += 1
        sender = self._mail.reverse_path if self._mail is not None else ""
        why = ", ".join(symbol.name for symbol in symbols)
        return self._refuse("RCPT", reply, why, sender, recipient.mailbox, symbols)

    def _refuse(
        self,
        stage: str,
        reply: Reply,
        reason: str = "",
        sender: str = "",
        recipient: str = "",
        symbols: tuple[Symbol, ...] = (),
        told: bool = False,
    ) -> Reply:
        """Log a refusal; ``told`` says that the history has it already."""
        self._logged = True
        if not told:
            self._tell_refusal(stage, reply, reason, sender, recipient, symbols)
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
        if reply is self._spared:
            # Who is asked to come again made no mistake.
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
        self._over = True
        # A message may be with the checks still: its facts stay.
        self._forget()
        if self._inspection is not None:
            self._inspection.close()
        if self._counted:
            desk.limits.close(client.key)
        if why == "timeout":
            desk.counters.timeouts += 1
        if self._turned_away:
            return
        self._tell_session(why)
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

    # -- the history

    def _tell_session(self, why: str, refusal: str = "") -> None:
        desk, client = self._desk, self._client
        if desk.recorder is None:
            return
        seconds = desk.clock.seconds() - self._opened
        event = SessionEvent(
            session=self.name,
            started=desk.wall() - seconds,
            seconds=seconds,
            client=client.address,
            port=client.port,
            client_name=self._client_name,
            helo=self._helo,
            tls=self._tls.version if self._tls is not None else "",
            via=client.via,
            messages=self._messages,
            refused=self._refused,
            errors=self._errors,
            end=why,
            refusal=refusal,
        )
        desk.recorder.tell(event)

    @property
    def _client_name(self) -> str:
        return "" if self._inspection is None else self._inspection.facts.name

    def _tell_refusal(
        self,
        stage: str,
        reply: Reply,
        reason: str,
        sender: str,
        recipient: str,
        symbols: tuple[Symbol, ...],
    ) -> None:
        desk = self._desk
        if desk.recorder is None:
            return
        found = () if desk.judge is None else desk.judge.symbols(symbols)
        event = RefusalEvent(
            session=self.name,
            time=desk.wall(),
            client=self._client.address,
            stage=stage,
            reverse_path=sender,
            recipient=recipient,
            reply=str(reply),
            reason=reason,
            symbols=found,
        )
        desk.recorder.tell(event)

    def _tell_message(
        self, arriving: Arriving, judgement: Judgement | None, reply: Reply, octets: int = 0
    ) -> None:
        desk = self._desk
        if desk.recorder is None:
            return
        told = message_event(arriving, judgement, desk.judge, self._client_name, str(reply), octets)
        desk.recorder.tell(told)
