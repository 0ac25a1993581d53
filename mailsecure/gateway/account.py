"""What one session came to: counted, written to the log, told to the history.

:class:`.session.GatewaySession` decides, and has its :class:`Account` say so: each refusal
and each message that is kept, and at the end the session itself, are one line in the log
and one event of :mod:`~mailsecure.records.values`.  The history is not there everywhere;
the log is.
"""

from __future__ import annotations

from twisted.logger import Logger

from ..records.values import RefusalEvent, SessionEvent
from ..scan.inspection import Judgement
from ..scan.values import Facts, Symbol
from ..smtp.events import TlsFacts
from ..smtp.replies import Reply
from ..spool.api import NewMessage
from ..spool.ids import id_name
from .desk import Client, Desk
from .judging import Arriving
from .telling import message_event

__all__ = ["Account"]

_log = Logger(namespace="smtpd")

SESSION = (
    "session {session}: client=[{client}]:{port} helo=<{helo}> tls={tls} messages={messages} "
    "refused={refused} errors={errors} seconds={seconds} end={why}"
)
SESSION_VIA = SESSION.replace(" helo=", " via={via} helo=")


class Account:
    """See the module's text.

    What the client says of itself, the session puts in: ``helo``, ``extended`` (by EHLO),
    ``tls``, and ``facts``, which are None where nothing is scanned; and it counts there the
    recipients and messages that were ``refused``, and the ``errors`` of the client.
    ``messages`` are those that were taken.
    """

    __slots__ = (
        "_desk",
        "_name",
        "_opened",
        "client",
        "errors",
        "extended",
        "facts",
        "helo",
        "messages",
        "refused",
        "tls",
    )

    def __init__(self, desk: Desk, client: Client) -> None:
        self._desk = desk
        self.client = client
        self._opened = desk.clock.seconds()
        self._name = ""
        self.helo = ""
        self.extended = False
        self.tls: TlsFacts | None = None
        self.facts: Facts | None = None
        self.messages = 0
        self.refused = 0
        self.errors = 0

    @property
    def name(self) -> str:
        """The session's name in the log; drawn when it is first asked for."""
        if not self._name:
            self._name = id_name(self._desk.ids.draw())
        return self._name

    @property
    def _client_name(self) -> str:
        return "" if self.facts is None else self.facts.name

    # -- refusals

    def turned_away(self, reply: Reply, why: str) -> None:
        """Tell of a session that was refused itself."""
        self._tell_session(why, str(reply))
        self._log_refusal("CONNECT", reply, why)

    def refused_message(
        self, arriving: Arriving, judgement: Judgement, reply: Reply, why: str
    ) -> None:
        """Tell of a message that was judged and is not taken."""
        self._tell_message(arriving, judgement, reply)
        self._log_refusal("DATA", reply, why, arriving.envelope.reverse_path)

    def refusal(
        self,
        stage: str,
        reply: Reply,
        reason: str = "",
        sender: str = "",
        recipient: str = "",
        symbols: tuple[Symbol, ...] = (),
    ) -> None:
        """Tell of any other refusal; ``symbols`` are what it is for, where checks refuse."""
        desk = self._desk
        if desk.recorder is not None:
            event = RefusalEvent(
                session=self.name,
                time=desk.wall(),
                client=self.client.address,
                stage=stage,
                reverse_path=sender,
                recipient=recipient,
                reply=str(reply),
                reason=reason,
                symbols=() if desk.judge is None else desk.judge.symbols(symbols),
            )
            desk.recorder.tell(event)
        self._log_refusal(stage, reply, reason, sender, recipient)

    def _log_refusal(
        self, stage: str, reply: Reply, reason: str, sender: str = "", recipient: str = ""
    ) -> None:
        _log.info(
            "reject {stage} from [{client}]: {reply}; from=<{sender}> to=<{recipient}> "
            "helo=<{helo}> reason={reason} session={session}",
            stage=stage,
            client=self.client.address,
            reply=str(reply),
            sender=sender,
            recipient=recipient,
            helo=self.helo,
            reason=reason or "-",
            session=self.name,
        )

    # -- messages that were taken

    def discarded(self, arriving: Arriving, judgement: Judgement, reply: Reply) -> None:
        """Tell of a message that was taken and thrown away."""
        self.messages += 1
        self._tell_message(arriving, judgement, reply)

    def accepted(
        self, message: NewMessage, arriving: Arriving, judgement: Judgement | None, reply: Reply
    ) -> None:
        """Tell of a message that is durable."""
        self.messages += 1
        envelope, octets = message.envelope, message.body.octets
        _log.info(
            "{message}: accepted client=[{client}] helo=<{helo}> from=<{sender}> "
            "to=<{recipient}> nrcpt={recipients} size={octets} proto={protocol} "
            "session={session}",
            message=id_name(message.id),
            client=self.client.address,
            helo=self.helo,
            sender=envelope.reverse_path,
            recipient=envelope.recipients[0].mailbox,
            recipients=len(envelope.recipients),
            octets=octets,
            protocol=message.arrival.protocol,
            session=message.arrival.session,
        )
        self._tell_message(arriving, judgement, reply, octets)

    def _tell_message(
        self, arriving: Arriving, judgement: Judgement | None, reply: Reply, octets: int = 0
    ) -> None:
        desk = self._desk
        if desk.recorder is None:
            return
        told = message_event(arriving, judgement, desk.judge, self._client_name, str(reply), octets)
        desk.recorder.tell(told)

    # -- the end

    def closed(self, why: str) -> None:
        """Tell of the session, which is over; ``why`` is a few words of ours."""
        desk, client = self._desk, self.client
        self._tell_session(why)
        _log.info(
            SESSION_VIA if client.via else SESSION,
            via=client.via,
            session=self.name,
            client=client.address,
            port=client.port,
            helo=self.helo,
            tls=self.tls.version if self.tls is not None else "no",
            messages=self.messages,
            refused=self.refused,
            errors=self.errors,
            seconds=round(desk.clock.seconds() - self._opened, 3),
            why=why,
        )

    def _tell_session(self, why: str, refusal: str = "") -> None:
        desk, client = self._desk, self.client
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
            helo=self.helo,
            tls=self.tls.version if self.tls is not None else "",
            via=client.via,
            messages=self.messages,
            refused=self.refused,
            errors=self.errors,
            end=why,
            refusal=refusal,
        )
        desk.recorder.tell(event)
