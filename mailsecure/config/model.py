"""Every section and option of the ini file, once (pure).

This is the one place where an option is named: the loader (:mod:`.load`) parses by
it, the example file and the documentation are generated from it, and the rest of
mailsecure reads the frozen values.  Each field carries its kind (how the text is
parsed), its default *as text* (so that the documentation shows what a postmaster
would write) and a paragraph of documentation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from ..units import Octets, Seconds

__all__ = [
    "BareNewlines",
    "Config",
    "Delivery",
    "Log",
    "Manhole",
    "Metrics",
    "Network",
    "Node",
    "Relay",
    "Route",
    "RouteKind",
    "Smtp",
    "SpoolSettings",
    "TlsLevel",
]

Network = IPv4Network | IPv6Network


def option(kind: str, default: str | None, doc: str, example: str = "") -> Any:
    """Declare an option: a dataclass field that the loader knows how to fill.

    ``kind`` names a parser of :mod:`.kinds`; ``default`` of None means required.
    """
    return field(metadata={"kind": kind, "default": default, "doc": doc, "example": example})


class BareNewlines(Enum):
    """What becomes of a message that holds a CR or LF alone."""

    REJECT = "reject"
    NORMALISE = "normalise"


class TlsLevel(Enum):
    """How much TLS towards the next hop."""

    OPPORTUNISTIC = "opportunistic"
    REQUIRED = "required"
    NONE = "none"


class RouteKind(Enum):
    """The scheme of a route."""

    SMTP = "smtp"
    LMTP = "lmtp"
    LMTP_UNIX = "lmtp+unix"
    MAILDIR = "maildir"
    MX = "mx"


@dataclass(frozen=True, slots=True)
class Route:
    """Where the mail of a domain goes.

    ``host`` and ``port`` for smtp and lmtp (an IPv6 address without brackets),
    ``path`` for lmtp+unix and maildir.
    """

    kind: RouteKind
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.kind is RouteKind.MX:
            return "mx"
        if self.path:
            return f"{self.kind.value}:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind.value}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Node:
    """This machine."""

    name: str = option("name", "", "What the cluster and the log call this node; the host's short name if empty.")
    hostname: str = option("hostname", "", "The name for greeting, EHLO and trace fields; the host's full name if empty.")
    state: Path = option("directory", "/var/lib/mailsecure", "The state directory: spool and control socket. Made at start with mode 0700.")
    user: str = option("user", "", "The user to become once the ports are bound; required when started as root on a real system. Empty: stay who started it.")
    group: str = option("group", "", "The group to become; the user's own if empty.")


@dataclass(frozen=True, slots=True)
class Smtp:
    """How mail is received."""

    listen: tuple[str, ...] = option("endpoints", "tcp:25", "Endpoints to listen on (Twisted endpoint descriptions), one a line.")
    listen_tls: tuple[str, ...] = option("endpoints", "", "Endpoints on which TLS starts at once (implicit TLS), one a line, written like listen; the certificate is tls_certificate.", "tcp:465")
    banner: str = option("line", "ESMTP mailsecure", "The text of the greeting, after the host's name.")
    tls_certificate: Path | None = option("file?", "", "PEM file of the certificate and its chain. Empty: STARTTLS is not offered. Read again on reload.", "/etc/mailsecure/cert.pem")
    tls_key: Path | None = option("file?", "", "PEM file of the private key; tls_certificate if empty.")
    max_message_size: Octets = option("size", "50M", "The largest message taken (SIZE, RFC 1870).")
    max_recipients: int = option("count", "1000", "Recipients of one message; more get 452 4.5.3. RFC 5321 asks for at least 100.")
    max_line_length: Octets = option("size", "16K", "The longest line of a message. RFC 5321 allows 1000 octets; real mail exceeds it.")
    max_received: int = option("count", "50", "A message with more Received fields than this is in a loop: 554 5.4.6.")
    max_sessions: int = option("count", "2000", "Sessions at once; one more gets 421.")
    max_sessions_per_client: int = option("count", "50", "Sessions at once of one client (IPv4 address, IPv6 /64). Relay networks are exempt.")
    session_rate: int = option("count", "300", "New sessions a minute of one client; more get 421 4.7.0. Relay networks are exempt. 0: no limit.")
    message_rate: int = option("count", "600", "Messages a minute of one client; more get 450 4.7.1. Relay networks are exempt. 0: no limit.")
    recipient_rate: int = option("count", "3000", "Recipients a minute of one client; more get 450 4.7.1. Relay networks are exempt. 0: no limit.")
    max_errors: int = option("count", "10", "Errors in one session before 421 4.7.0 and the end. Half of them, and each further answer is slowed by tarpit.")
    max_transactions: int = option("count", "1000", "Messages in one session before 421.")
    tarpit: Seconds = option("duration", "1s", "How long answers to errors are held back once a client made half of max_errors.")
    command_timeout: Seconds = option("duration", "5m", "How long a client may take for one command (RFC 5321 §4.5.3.2).")
    data_timeout: Seconds = option("duration", "3m", "How long a client may be silent within DATA or BDAT.")
    transaction_timeout: Seconds = option("duration", "30m", "How long one transaction may take from MAIL to the final dot, however alive the client looks.")
    session_timeout: Seconds = option("duration", "2h", "How long a session may last in all.")
    minimum_rate: Octets = option("size", "200", "Octets a second below which a message is too slow, measured after the first minute: 421 4.4.2.")
    greeting_delay: Seconds = option("duration", "1s", "How long a stranger must wait in silence for the greeting; who talks before it gets 554 5.5.0. Clients that sent a message in the last day, and relay networks, do not wait.")
    bare_newlines: BareNewlines = option("choice", "reject", "A message with a CR or LF alone: reject (550 5.5.2), or normalise to CRLF for the clients in bare_newlines_networks.")
    bare_newlines_networks: tuple[Network, ...] = option("networks", "", "Whose bare newlines are normalised.")
    message_memory: Octets = option("size", "256M", "Memory for messages while they are received, in all; beyond it, and for each message beyond 1M, they wait in files.")


@dataclass(frozen=True, slots=True)
class Relay:
    """Who may send anywhere, and how recipients are checked."""

    networks: tuple[Network, ...] = option("networks", "127.0.0.0/8 ::1/128", "Clients that may send to any domain.")
    verify_recipients: bool = option("yes-no", "no", "Ask the next hop of an smtp or lmtp route whether it takes a recipient, before we do. The answers are cached.")
    verify_timeout: Seconds = option("duration", "10s", "How long such a question may take; then the recipient is taken.")
    verify_positive: Seconds = option("duration", "1d", "How long a yes is remembered.")
    verify_negative: Seconds = option("duration", "1h", "How long a no is remembered.")


@dataclass(frozen=True, slots=True)
class Delivery:
    """How mail is sent on."""

    retry: tuple[Seconds, ...] = option("durations", "5m 10m 20m 40m 1h 2h 4h", "Waits between attempts; the last one repeats. Each is varied by a tenth.")
    expire: Seconds = option("duration", "5d", "After how long an undeliverable message is returned.")
    warn_after: Seconds = option("duration", "4h", "After how long the sender is told of a delay; 0s: never.")
    concurrency: int = option("count", "20", "Connections to one next hop.")
    max_connections: int = option("count", "200", "Connections to all next hops.")
    tls: TlsLevel = option("choice", "opportunistic", "TLS towards next hops: opportunistic (STARTTLS if offered), required (with a verified certificate), none.")
    tls_ca: Path | None = option("file?", "", "PEM file of the authorities to trust for tls = required; the system's if empty.")
    source_address: str = option("addresses", "", "Local addresses to send from (one IPv4, one IPv6); the system's choice if empty.")
    dns_servers: tuple[str, ...] = option("servers", "", "DNS servers as address or address:port; those of /etc/resolv.conf if empty.")
    dns_timeout: Seconds = option("duration", "10s", "How long a DNS question may take in all.")
    connect_timeout: Seconds = option("duration", "30s", "How long to wait for a connection.")
    command_timeout: Seconds = option("duration", "5m", "How long to wait for a reply (RFC 5321 §4.5.3.2).")
    data_timeout: Seconds = option("duration", "10m", "How long to wait for the reply to the final dot (RFC 5321 §4.5.3.2.6).")
    reuse: Seconds = option("duration", "5s", "How long an idle connection is kept for the next message.")
    reuse_count: int = option("count", "1000", "Messages over one connection.")
    bounce_size: Octets = option("size", "50K", "How much of the original message a bounce returns.")


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """Where accepted mail is kept (in the state directory)."""

    inline_size: Octets = option("size", "32K", "Bodies up to this size are kept in the database, larger ones in segment files.")
    segment_size: Octets = option("size", "64M", "How large a segment file grows.")
    min_free: Octets = option("size", "100M", "With less free disk than this, mail is answered 452 4.3.1.")


@dataclass(frozen=True, slots=True)
class Manhole:
    """A Python prompt inside the running daemon, over SSH."""

    listen: str = option("endpoint?", "", "Where to listen; empty: off.", "tcp:2222:interface=127.0.0.1")
    authorized_keys: Path | None = option("file?", "", "Public keys that may enter, in OpenSSH's format. Required with listen.")


@dataclass(frozen=True, slots=True)
class Metrics:
    """Figures for Prometheus, at /metrics."""

    listen: str = option("endpoint?", "", "Where to listen; empty: off.", "tcp:9125:interface=127.0.0.1")


class LogFormat(Enum):
    """How log lines look."""

    TEXT = "text"
    JSON = "json"


class LogLevel(Enum):
    """The least serious line that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class LogColour(Enum):
    """Whether text lines are coloured."""

    AUTO = "auto"
    YES = "yes"
    NO = "no"


@dataclass(frozen=True, slots=True)
class Log:
    """What is written of the work."""

    file: str = option("line", "-", "The log file; - is standard output. Opened again on SIGHUP, so that logrotate works.")
    format: LogFormat = option("choice", "text", "text, or json: one object a line.")
    level: LogLevel = option("choice", "info", "The least serious line that is written: debug, info, warn, error.")
    colour: LogColour = option("choice", "auto", "Coloured text: auto (on a terminal), yes, no.")


@dataclass(frozen=True, slots=True)
class Config:
    """One whole ini file."""

    file: str
    node: Node
    smtp: Smtp
    relay: Relay
    #: Domain (lower-case A-label), ``.domain`` for its subdomains, or ``*``.
    domains: dict[str, Route]
    delivery: Delivery
    spool: SpoolSettings
    manhole: Manhole
    metrics: Metrics
    log: Log
