"""Every section and option of the ini file, once (pure).

This is the one place where an option is named: the loader (:mod:`.load`) parses by
it, the example file and the documentation are generated from it, and the rest of
mailsecure reads the frozen values.  Each field carries its kind (how the text is
parsed), its default *as text* (so that the documentation shows what a postmaster
would write), a paragraph of documentation, and whether a change of it needs a restart.
The docstring of each section's class is that section's introduction, in the example
file as in the documentation: it is written for a postmaster.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from pathlib import Path

from ..units import Octets, Seconds
from .declaring import option
from .scanning import (
    Arc,
    Attachments,
    Authentication,
    Clamav,
    Dnsbl,
    Greylist,
    Icap,
    Identity,
    Milter,
    Profile,
    Quarantine,
    Rates,
    Records,
    Rspamd,
    Scan,
    Signing,
    SiteCheck,
    Spamassassin,
    Urls,
)

__all__ = [
    "DOMAINS",
    "BareNewlines",
    "ClusterSettings",
    "Config",
    "Delivery",
    "Interface",
    "Log",
    "LogColour",
    "LogFormat",
    "LogLevel",
    "Manhole",
    "Metrics",
    "Network",
    "Node",
    "NodeRole",
    "Relay",
    "Route",
    "RouteKind",
    "Smtp",
    "SpoolSettings",
    "StartAs",
    "TlsLevel",
    "Virtual",
]

Network = IPv4Network | IPv6Network
#: An address with the length of its prefix.
Interface = IPv4Interface | IPv6Interface


#: The introduction of [domains], the one section whose options are not fixed names.
DOMAINS = """\
Which mail is ours, and where it goes.

Each line names a domain and the route its mail takes.  Mail for these domains is taken
from anyone; mail for any other domain only from the networks of ``[relay]``.

The domain is ``example.com`` for exactly that domain, ``.example.com`` for every domain
below it (but not itself), or ``*`` for everything that no other line names.  What ``*``
names may be reached from the relay networks only, so it never opens the gateway.  The
most exact line wins.  A domain may be written in any script; ``bücher.example`` and
``xn--bcher-kva.example`` are the same domain.

The route is one of these:

- ``smtp://10.0.0.5:25``: a mail server, by name or address, with or without a port (25);
- ``lmtp://10.0.0.5:24``: the same in LMTP (port 24 if none is written);
- ``lmtp+unix:/run/dovecot/lmtp``: LMTP over a Unix socket, by absolute path;
- ``maildir:/var/mail/example.com``: a directory on this machine; a relative path starts
  at the directory of this file;
- ``mx``: wherever the MX records of the domain point.

An IPv6 address stands in brackets: ``smtp://[2001:db8::5]:25``.  A reload applies
changes here; mail that waits is routed anew when its next attempt is due.
"""


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


# One option a line, however long: what follows is read as a table.
# fmt: off


@dataclass(frozen=True, slots=True)
class Node:
    """This machine: what it is called, where it keeps its state, and as whom it runs.

    mailsecure starts as root where it must bind a port below 1024, and then becomes
    ``user``.  Everything that must outlive a restart is in the state directory; it has to
    be on a local disk, because an answer of 250 promises that the message is on it.
    """

    name: str = option("name", "", "What the cluster and the log call this node; the host's short name if empty.", "mx1", restart=True)
    hostname: str = option("hostname", "", "The name for greeting, EHLO and trace fields; the host's full name if empty. Other servers look it up: it should be in the DNS, with the address of this machine.", "mx1.example.com", restart=True)
    state: Path = option("directory", "/var/lib/mailsecure", "The state directory: spool and control socket. Made at start with mode 0700. A relative path starts at the directory of this file.", restart=True)
    user: str = option("user", "", "The user to become once the ports are bound; required when started as root on a real system. Empty: stay who started it.", "mailsecure", restart=True)
    group: str = option("group", "", "The group to become; the user's own if empty.", "mailsecure", restart=True)


@dataclass(frozen=True, slots=True)
class Smtp:
    """How mail is received: where to listen, for whom, and within which limits.

    The limits are safe on the open internet as they stand.  An option that names a client
    means one IPv4 address or one IPv6 network of 64 bits; those listed in ``[relay]
    networks`` are trusted more, as each option says.  In a cluster, what a client may do
    is what it may do at all nodes together.

    Endpoints are written as Twisted endpoint descriptions: ``tcp:25`` listens on every
    IPv4 address, ``tcp6:25`` on every IPv6 address, ``tcp:25:interface=192.0.2.1`` on one.
    Where no IPv4 endpoint has its port, ``tcp6:25`` takes IPv4 too.
    The colons of an IPv6 address are escaped: ``tcp6:25:interface=2001\\:db8\\:\\:1``.
    """

    listen: tuple[str, ...] = option("endpoints", "tcp:25", "Endpoints to listen on (Twisted endpoint descriptions), one a line.", "tcp:25\ntcp6:25", restart=True)
    listen_tls: tuple[str, ...] = option("endpoints", "", "Endpoints on which TLS starts at once (implicit TLS), one a line, written like listen; the certificate is tls_certificate.", "tcp:465", restart=True)
    banner: str = option("line", "ESMTP mailsecure", "The text of the greeting, after the host's name.")
    tls_certificate: Path | None = option("file?", "", "PEM file of the certificate and its chain. Empty: STARTTLS is not offered. Read again on reload.", "/etc/mailsecure/cert.pem")
    tls_key: Path | None = option("file?", "", "PEM file of the private key; tls_certificate if empty. Read again on reload, so the user that mailsecure becomes must be able to read it.", "/etc/mailsecure/key.pem")
    blocked: tuple[Network, ...] = option("networks", "", "Clients that are refused before anything else: 554 5.7.1.", "198.51.100.0/24 2001:db8:bad::/48")
    proxy_protocol: tuple[Network, ...] = option("networks", "", "Load balancers in front of this gateway: a connection from there must begin with a PROXY header (version 1 or 2), and the client that it names is the client. Nobody else may send one.", "192.0.2.80/30")
    max_message_size: Octets = option("size", "50M", "The largest message taken (SIZE, RFC 1870).")
    max_recipients: int = option("count", "1000", "Recipients of one message; more get 452 4.5.3. RFC 5321 asks for at least 100.")
    max_line_length: Octets = option("size", "16K", "The longest line of a message. RFC 5321 allows 1000 octets; real mail exceeds it.")
    max_received: int = option("count", "50", "A message with more Received fields than this is in a loop: 554 5.4.6.")
    max_sessions: int = option("count", "2000", "Sessions at once; one more gets 421.")
    max_sessions_per_client: int = option("count", "50", "Sessions at once of one client (IPv4 address, IPv6 /64). Relay networks are exempt.")
    session_rate: int = option("limit", "300", "New sessions a minute of one client; more get 421 4.7.0. Relay networks are exempt. 0: no limit.")
    message_rate: int = option("limit", "600", "Messages a minute of one client; more get 450 4.7.1. Relay networks are exempt. 0: no limit.")
    recipient_rate: int = option("limit", "3000", "Recipients a minute of one client; more get 450 4.7.1. Relay networks are exempt. 0: no limit.")
    max_errors: int = option("count", "20", "Errors in one session before 421 4.7.0 and the end. Half of them, and each further answer is slowed by tarpit.")
    max_transactions: int = option("count", "1000", "Messages in one session before 421.")
    tarpit: Seconds = option("duration", "1s", "How long answers to errors are held back once a client made half of max_errors.")
    command_timeout: Seconds = option("timeout", "5m", "How long a client may take for one command (RFC 5321 §4.5.3.2).")
    data_timeout: Seconds = option("timeout", "3m", "How long a client may be silent within DATA or BDAT.")
    transaction_timeout: Seconds = option("timeout", "30m", "How long one transaction may take from MAIL to the final dot, however alive the client looks.")
    session_timeout: Seconds = option("timeout", "2h", "How long a session may last in all.")
    minimum_rate: Octets = option("size", "200", "Octets a second below which a message is too slow, measured after the first minute: 421 4.4.2.")
    greeting_delay: Seconds = option("duration", "1s", "How long a stranger must wait in silence for the greeting; who talks before it gets 554 5.5.0. Clients that sent a message in the last day, and relay networks, do not wait.")
    drain_timeout: Seconds = option("duration", "30s", "At SIGTERM no session begins any more; how long those within a transaction may take to finish it.")
    bare_newlines: BareNewlines = option("choice", "reject", "A message with a CR or LF alone: reject (550 5.5.2), or normalise to CRLF for the clients in bare_newlines_networks.")
    bare_newlines_networks: tuple[Network, ...] = option("networks", "", "Whose bare newlines are normalised.", "192.0.2.0/24")
    message_memory: Octets = option("size", "256M", "Memory for messages while they are received, in all; beyond it, and for each message beyond 1M, they wait in files.")


@dataclass(frozen=True, slots=True)
class Relay:
    """Who may send anywhere, and how recipients are checked.

    Mail for the domains of ``[domains]`` is taken from anyone.  Mail for other domains is
    taken only from the networks named here: your own machines, never the whole internet.
    """

    networks: tuple[Network, ...] = option("networks", "127.0.0.0/8 ::1/128", "Clients that may send to any domain, as networks or single addresses. Nobody, if empty.", "127.0.0.0/8 ::1/128 192.0.2.0/24")
    verify_recipients: bool = option("yes-no", "no", "Ask the next hop of an smtp or lmtp route whether it takes a recipient, before we do. The answers are cached.")
    verify_timeout: Seconds = option("timeout", "10s", "How long such a question may take; then the recipient is taken.")
    verify_positive: Seconds = option("duration", "1d", "How long a yes is remembered.")
    verify_negative: Seconds = option("duration", "1h", "How long a no is remembered.")


@dataclass(frozen=True, slots=True)
class Delivery:
    """How mail is sent on: how often, how fast, and how well protected.

    A message that cannot be delivered waits and is tried again after each of the times in
    ``retry``; after ``expire`` it goes back to its sender with an explanation.
    """

    retry: tuple[Seconds, ...] = option("durations", "5m 10m 20m 40m 1h 2h 4h", "Waits between attempts; the last one repeats. Each is varied by a tenth.")
    expire: Seconds = option("timeout", "5d", "After how long an undeliverable message is returned.")
    warn_after: Seconds = option("duration", "4h", "After how long the sender is told of a delay; 0s: never.")
    concurrency: int = option("count", "20", "Connections to one next hop.")
    max_connections: int = option("count", "200", "Connections to all next hops.")
    tls: TlsLevel = option("choice", "opportunistic", "TLS towards next hops: opportunistic (STARTTLS if offered), required (with a verified certificate), none.")
    tls_ca: Path | None = option("file?", "", "PEM file of the authorities to trust for tls = required; the system's if empty.", "/etc/ssl/certs/ca-certificates.crt")
    source_address: str = option("addresses", "", "Local addresses to send from (one IPv4, one IPv6); the system's choice if empty.", "192.0.2.25 2001:db8::25")
    dns_servers: tuple[str, ...] = option("servers", "", "DNS servers as address or address:port; those of /etc/resolv.conf if empty. An IPv6 address with a port stands in brackets.", "192.0.2.53 [2001:db8::53]:5353", restart=True)
    dns_timeout: Seconds = option("timeout", "10s", "How long a DNS question may take in all.", restart=True)
    connect_timeout: Seconds = option("timeout", "30s", "How long to wait for a connection.")
    command_timeout: Seconds = option("timeout", "5m", "How long to wait for a reply (RFC 5321 §4.5.3.2).")
    data_timeout: Seconds = option("timeout", "10m", "How long to wait for the reply to the final dot (RFC 5321 §4.5.3.2.6).")
    reuse: Seconds = option("duration", "5s", "How long an idle connection is kept for the next message.")
    reuse_count: int = option("count", "1000", "Messages over one connection.")
    bounce_size: Octets = option("size", "50K", "How much of the original message a bounce returns.")


# fmt: on


class NodeRole(Enum):
    """What a node is there for."""

    BOTH = "both"
    DIRECTOR = "director"
    SCANNER = "scanner"


class Topology(Enum):
    """Who works for the virtual addresses."""

    ACTIVE_PASSIVE = "active-passive"
    ACTIVE_ACTIVE = "active-active"


class Balance(Enum):
    """How sessions are shared out."""

    ROUND_ROBIN = "round-robin"
    LEAST_SESSIONS = "least-sessions"


class StartAs(Enum):
    """The role that a virtual group begins with (RFC 9568 §6.4.1 is BACKUP, but for 255)."""

    MASTER = "master"
    BACKUP = "backup"


# fmt: off


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """The other nodes: how they are found, and what this one is among them.

    Nodes that share the key find each other by hello datagrams, sent to a multicast group,
    or to ``unicast_peers`` where the network takes no multicast.  Every hello is signed with
    the key; whatever is not, or was heard before, is ignored and counted.  Without
    ``key_file`` this node is on its own.

    ``mailsecure cluster keygen`` writes a key file; copy it to the other nodes.  It holds
    one key a line: the first signs, all are believed, so a new key comes in without a gap.
    """

    key_file: Path | None = option("secret?", "", "The cluster's keys, in a file that only its owner may read. Empty: no cluster. Read again on reload.", "/etc/mailsecure/cluster.key")
    interface: str = option("interface", "", "The network interface towards the other nodes. Needed unless address is set.", "eth0", restart=True)
    address: str = option("address?", "", "This node's own address in the cluster; the first of the interface if empty.", "192.0.2.11", restart=True)
    group: str = option("multicast", "239.255.25.25:5025", "Multicast group and UDP port of the hello datagrams; IPv6 in brackets: [ff02::2525]:5025.", "[ff02::2525]:5025", restart=True)
    unicast_peers: tuple[str, ...] = option("peers", "", "Where multicast is not to be had: the other nodes' addresses; hello goes to them instead of the group, to the group's port unless one is given.", "192.0.2.12 192.0.2.13", restart=True)
    link_listen: str = option("port", "5025", "TCP port at address for the links between nodes, by which the end of a peer is noticed at once. The same number on all nodes is easiest for a firewall, and not required.", restart=True)
    hello_interval: Seconds = option("advertisement", "1s", "How often a node without virtual groups says hello; one that has some says it at the shortest of their advertisement intervals.")
    role: NodeRole = option("choice", "both", "both: may be Master, and takes sessions; director: may be Master, and takes sessions only if it has a weight; scanner: takes sessions, and never is Master.", restart=True)
    topology: Topology = option("choice", "active-passive", "active-passive: the Master handles all sessions; active-active: it shares them out among all nodes, by weight. The same on all nodes.", restart=True)
    weight: int = option("limit", "100", "This node's share of the sessions under active-active, beside the weights of the others; 0: it gets none. 0 if left out where role is director. mailsecure cluster weight overrides it.")
    peer_listen: str = option("port", "10025", "TCP port at address for the sessions that a Master passes on; only nodes with the key can open one.", restart=True)
    balance: Balance = option("choice", "round-robin", "round-robin: each node gets exactly its share of the sessions; least-sessions: the next one goes to the node with the fewest for its weight.")
    slow_start: Seconds = option("duration", "10s", "How long a node that came back takes to rise to its full share; 0s: at once.")
    adaptive: bool = option("yes-no", "yes", "Give a node less than its share while it reports a high load.")
    connect_timeout: Seconds = option("timeout", "2s", "Within this time a client is greeted: by the node that was picked, by another, at last by this one.")
    peer_sessions: int = option("limit", "0", "Sessions at once that are passed to one node; 0: no limit but its own max_sessions.")
    handover_timeout: Seconds = option("duration", "2s", "When the Master drains or stops: how long it holds back new connections so that running sessions end before the address moves. They get through to the new Master a moment later.")


@dataclass(frozen=True, slots=True)
class Virtual:
    """A virtual group: addresses that one node of the cluster holds at a time, the Master.

    Write one section a group, ``[virtual:NAME]``, with the same name and addresses on every
    node that may hold them.  Clients connect to these addresses; when the Master fails, a
    Slave takes them over.  The rules are those of VRRP (RFC 9568): the highest priority
    wins, a Slave waits three advertisement intervals and its skew time, and less where it
    can tell that the Master is gone.
    """

    addresses: tuple[Interface, ...] = option("interfaces", "", "The addresses, IPv4 and IPv6; /32 and /128 unless given otherwise.", "192.0.2.25 2001:db8::25")
    interface: str = option("interface", "", "Where they are held; that of [cluster] if empty.", "eth0")
    priority: int = option("priority", "100", "Who is to be Master: 1 to 255, the highest wins; 255 starts as Master.")
    start_as: StartAs = option("choice", "backup", "master: force an election at start; backup: listen first.")
    advertisement_interval: Seconds = option("advertisement", "1s", "How often the Master speaks: 10ms to 40s.")
    preempt: bool = option("yes-no", "yes", "Take over from a Master of lower priority.")
    preempt_delay: Seconds = option("duration", "0s", "How long to leave such a Master alone first, for example until a node that came back has warmed up.")
    notify: str = option("command", "", "A command to run on each change of role; it gets the group, the old and the new role, and the reason as arguments. It is killed after 30 seconds.", "/etc/mailsecure/role-changed")


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """How accepted mail is kept, in the state directory, until it is delivered.

    Small messages are kept in a database, large ones in files beside it; both are on disk
    before the client is told 250.  The figures as they stand suit most disks.
    """

    inline_size: Octets = option("size", "32K", "Bodies up to this size are kept in the database, larger ones in segment files.", restart=True)
    segment_size: Octets = option("size", "64M", "How large a segment file grows.", restart=True)
    min_free: Octets = option("size", "100M", "With less free disk than this, mail is answered 452 4.3.1.", restart=True)


@dataclass(frozen=True, slots=True)
class Manhole:
    """A Python prompt inside the running daemon, over SSH; off unless ``listen`` is set.

    Who enters can do whatever the daemon can, and read all mail in it.  Let it listen on
    this machine only, and enter from there.
    """

    listen: str = option("endpoint?", "", "Where to listen; empty: off.", "tcp:2222:interface=127.0.0.1", restart=True)
    authorized_keys: Path | None = option("file?", "", "Public keys that may enter, in OpenSSH's format. Required with listen.", "/etc/mailsecure/authorized_keys", restart=True)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Figures for Prometheus, at ``/metrics`` over HTTP; off unless ``listen`` is set.

    They hold no addresses and no subjects, but they are not meant for strangers: let them
    listen on this machine or on the network of your monitoring.
    """

    listen: str = option("endpoint?", "", "Where to listen; empty: off.", "tcp:9125:interface=127.0.0.1", restart=True)


# fmt: on


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


# fmt: off


@dataclass(frozen=True, slots=True)
class Log:
    """What is written of the work: a line a session, a message accepted, a delivery attempt.

    Every line about a message holds its id, which is also in the reply that the client
    got, in the Received field and in the queue.
    """

    file: str = option("output", "-", "The log file; - is standard output. Opened again on SIGHUP, so that logrotate works. A relative path starts at the directory of this file.", "/var/log/mailsecure/mailsecure.log")
    format: LogFormat = option("choice", "text", "text, or json: one object a line.")
    level: LogLevel = option("choice", "info", "The least serious line that is written: debug, info, warn, error.")
    colour: LogColour = option("choice", "auto", "Coloured text: auto (on a terminal), yes, no.")


# fmt: on


@dataclass(frozen=True, slots=True)
class Config:
    """One whole ini file."""

    file: str
    node: Node
    smtp: Smtp
    relay: Relay
    #: Domain (lower-case A-label), ``.domain`` for its subdomains, or ``*`` (:data:`DOMAINS`).
    domains: dict[str, Route]
    delivery: Delivery
    cluster: ClusterSettings
    #: By the NAME of ``[virtual:NAME]``, in the order of the file.
    virtual: dict[str, Virtual]
    spool: SpoolSettings
    scan: Scan
    #: By the NAME of ``[profile:NAME]``, in the order of the file; so the other families.
    profile: dict[str, Profile]
    authentication: Authentication
    identity: Identity
    dnsbl: Dnsbl
    greylist: Greylist
    rates: Rates
    attachments: Attachments
    urls: Urls
    check: dict[str, SiteCheck]
    clamav: Clamav
    rspamd: Rspamd
    spamassassin: Spamassassin
    icap: Icap
    milter: Milter
    signing: dict[str, Signing]
    arc: Arc
    quarantine: Quarantine
    records: Records
    manhole: Manhole
    metrics: Metrics
    log: Log
