"""The sections of the ini that are about judging mail, and what is kept of it (pure).

The other half of :mod:`.model`, which says how options are declared; the values here are
read by :mod:`mailsecure.scan`, :mod:`mailsecure.records` and the gateway.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from ..units import Octets, Seconds
from .declaring import option

__all__ = [
    "Arc",
    "Attachments",
    "Authentication",
    "Clamav",
    "DmarcMode",
    "DnsList",
    "Dnsbl",
    "EngineSettings",
    "Greylist",
    "Icap",
    "Identity",
    "Milter",
    "OnFailure",
    "Profile",
    "Quarantine",
    "Rates",
    "Records",
    "Rspamd",
    "Scan",
    "ScanAction",
    "Signing",
    "SiteCheck",
    "Spamassassin",
    "Urls",
]

#: The score that nothing reaches, written ``never``.
NEVER = float("inf")

Network = IPv4Network | IPv6Network


class OnFailure(Enum):
    """What becomes of a message that a scanner could not judge."""

    TEMPFAIL = "tempfail"
    ACCEPT = "accept"


class ScanAction(Enum):
    """What is done with a message, the mildest first."""

    ACCEPT = "accept"
    TAG = "tag"
    QUARANTINE = "quarantine"
    TEMPFAIL = "tempfail"
    REJECT = "reject"
    DISCARD = "discard"


class DmarcMode(Enum):
    """How much a domain's DMARC policy counts."""

    OFF = "off"
    SCORE = "score"
    ENFORCE = "enforce"


@dataclass(frozen=True, slots=True)
class DnsList:
    """One list in the DNS: ``zone``, the answers that count, and the score of a hit.

    Each of ``answers`` is a pattern of the last three octets of an answer in 127.0.0.0/8:
    the first and the last of each, six numbers.  Empty: every answer counts.
    """

    zone: str
    answers: tuple[tuple[int, ...], ...]
    score: float


# One option a line, however long: what follows is read as a table.
# fmt: off


@dataclass(frozen=True, slots=True)
class Scan:
    """How mail is judged, before the final reply.

    Each check finds *symbols*: a name, a score, a reason.  The scores of a message are
    added up, and its action is that of the highest threshold it reaches; some symbols have
    an action of their own (malware), whatever the score.  The actions, the mildest first:

    - ``accept``: deliver it;
    - ``tag``: deliver it, with X-Spam-Flag in its header;
    - ``quarantine``: answer 250 and hold it; see ``mailsecure quarantine``;
    - ``tempfail``: answer 451, the client comes again;
    - ``reject``: answer 554, the client tells the sender;
    - ``discard``: answer 250 and forget it.

    Checks that know enough at MAIL or RCPT refuse there.  ``mailsecure why ID`` explains
    each verdict.
    """

    checks: tuple[str, ...] = option("words", "authentication identity dnsbl rates attachments markers urls", "The checks that run; also greylist, and the name of any plugin. Empty: none.")
    engines: tuple[str, ...] = option("words", "", "The scanners that are asked, each with a section of its own.", "clamav rspamd spamassassin icap milter")
    plugins: Path | None = option("folder?", "", "A directory with plugins of your own, one Python file each.", "/etc/mailsecure/plugins", restart=True)
    on_failure: OnFailure = option("choice", "tempfail", "What becomes of a message that a check or an engine could not judge: tempfail (451), or accept, with a header that says so.")
    max_scan_size: Octets = option("size", "50M", "Messages above this size are not scanned: they count as unscannable.")
    tag: float = option("score", "5", "From this score on a message is tagged; never: not at all.")
    quarantine: float = option("score", "10", "From this score on it is held.")
    reject: float = option("score", "15", "From this score on it is refused.")
    malware: ScanAction = option("choice", "reject", "What is done with malware.")
    unscannable: ScanAction = option("choice", "quarantine", "What is done with a message that cannot be read: broken beyond repair, too deep, too large, a bomb.")
    encrypted: ScanAction = option("choice", "tag", "What is done with a message that holds a password-protected archive or document.")
    check_timeout: Seconds = option("timeout", "15s", "How long one check may take.")
    timeout: Seconds = option("timeout", "1m", "How long all checks of a message may take together.")
    scores: dict[str, float] = option("scores", "", "Scores that differ from the checks' own, one symbol a line.", "SPF_FAIL 4\nHELO_NOT_FQDN 0")
    subject_prefix: str = option("line", "", "What is put in front of the subject of tagged mail.", "[SPAM]")
    headers: bool = option("yes-no", "yes", "Write X-Spam-Status and X-Spam-Flag into what is delivered.")
    relay_only_networks: tuple[Network, ...] = option("networks", "", "Clients whose mail is only relayed, never scanned.", "192.0.2.0/24")
    relay_only_listeners: tuple[str, ...] = option("endpoints", "", "Endpoints of [smtp] listen or listen_tls whose mail is only relayed, one a line, written as there.", "tcp:10026:interface=127.0.0.1")
    workers: int = option("limit", "0", "Processes that take messages apart; 0: as many as there are processors, at least two.", restart=True)
    worker_memory: Octets = option("size", "512M", "The memory that one of them may take.", restart=True)
    worker_time: Seconds = option("timeout", "10s", "How long one of them may be busy with a message; then it is killed, and the message is unscannable.")
    max_parts: int = option("count", "2000", "A message with more MIME parts is unscannable.")
    max_depth: int = option("count", "50", "One whose parts are nested deeper is unscannable.")


@dataclass(frozen=True, slots=True)
class Profile:
    """Recipients for whom other limits hold than those of ``[scan]``.

    Write one section a profile, ``[profile:NAME]``.  An option that is left empty is that
    of ``[scan]``.  Where a message has recipients of several profiles, each gets what is
    his: refused can only be the whole message, so where others get it, it is held for
    those for whom it would be refused.
    """

    recipients: tuple[str, ...] = option("words", "", "Mailboxes (postmaster@example.com), domains (example.com), or all below one (.example.com).", "example.com .example.net")
    scan: bool = option("yes-no", "yes", "no: mail for them is only relayed.")
    tag: float | None = option("score?", "", "From this score on a message is tagged.", "never")
    quarantine: float | None = option("score?", "", "From this score on it is held.", "8")
    reject: float | None = option("score?", "", "From this score on it is refused.", "12")


@dataclass(frozen=True, slots=True)
class Authentication:
    """Who really sent it: SPF, DKIM, ARC and DMARC, and the Authentication-Results field.

    The check ``authentication``.  Symbols: SPF_FAIL, SPF_SOFTFAIL, SPF_NEUTRAL, SPF_PASS,
    DKIM_FAIL, DKIM_PASS, ARC_PASS, ARC_FAIL, DMARC_REJECT, DMARC_QUARANTINE, DMARC_PASS and
    a few more.  Clients in ``[relay] networks`` are not checked.
    """

    authserv_id: str = option("hostname", "", "Our name in Authentication-Results; the node's hostname if empty. Foreign fields with it are removed.", "mx.example.com")
    spf: bool = option("yes-no", "yes", "Check SPF (RFC 7208).")
    spf_reject: bool = option("yes-no", "no", "Refuse at RCPT what SPF says fail of, whatever DMARC would say.")
    dkim: bool = option("yes-no", "yes", "Verify DKIM signatures (RFC 6376).")
    arc: bool = option("yes-no", "yes", "Verify ARC chains (RFC 8617).")
    dmarc: DmarcMode = option("choice", "enforce", "What the policy of the sender's domain (RFC 7489) does: off (not asked), score (adds to the score), enforce (what the domain asks for: quarantine or reject).")
    trusted_sealers: tuple[str, ...] = option("words", "", "Domains of forwarders whose ARC seal is believed where DMARC fails.", "google.com microsoft.com")
    max_signatures: int = option("count", "5", "DKIM signatures of one message that are looked at.")


@dataclass(frozen=True, slots=True)
class Identity:
    """What the client says of itself, and what the DNS says: the check ``identity``.

    Symbols: RDNS_NONE, RDNS_FORGED, HELO_FORGED, HELO_LITERAL_FALSE, HELO_NOT_FQDN,
    HELO_UNRESOLVED, SENDER_NO_MX; RDNS_FAULT and SENDER_DNS_FAULT where the DNS does not say
    what is required here.  Clients in ``[relay] networks`` are not checked.
    """

    reject_forged_helo: bool = option("yes-no", "yes", "Refuse strangers that call themselves by our own name, domain or address.")
    require_reverse_dns: bool = option("yes-no", "no", "Refuse clients whose address has no name that leads back to it.")
    require_sender_domain: bool = option("yes-no", "yes", "Refuse reverse-paths whose domain has neither MX nor address.")


@dataclass(frozen=True, slots=True)
class Dnsbl:
    """Lists of clients in the DNS: the check ``dnsbl``.

    The lists are asked while the client waits for its greeting and says HELO; the scores of
    those that list it are added up.  A negative score is that of a list of the good.  Symbols:
    DNSBL_REFUSED, and one a list, as DNSBL_ZEN_SPAMHAUS_ORG and DNSWL_LIST_DNSWL_ORG.  Clients
    in ``[relay] networks`` are not asked about.
    """

    lists: tuple[DnsList, ...] = option("dns-lists", "", "Lists, one a line: zone, the answers that count if not all do, score.", "zen.spamhaus.org=127.0.0.2-11 6\nlist.dnswl.org=127.0.0-255.1-3 -3")
    reject: float = option("score", "8", "From this sum on the client is refused at RCPT; never: it only adds to the score of the message.")
    timeout: Seconds = option("timeout", "5s", "How long to wait for the lists; one that does not answer says nothing.")
    sender_lists: tuple[DnsList, ...] = option("dns-lists", "", "Lists of domains, asked about the reverse-path and the HELO name, written likewise.", "dbl.spamhaus.org=127.0.1.2-99 5")


@dataclass(frozen=True, slots=True)
class Greylist:
    """Strangers come again: the check ``greylist``, which is off unless [scan] checks names it.

    The first message of a client's network, reverse-path and recipient is answered 450; a
    real mail server comes again, perhaps from another network for which SPF passes.  Known triples pass, and so does a network that came
    again for several of them, and a client that a list of the good knows (``[dnsbl]``).  The
    nodes of a cluster tell each other.  Symbol: GREYLISTED.
    """

    delay: Seconds = option("duration", "5m", "How long a stranger has to wait at least.")
    retry_within: Seconds = option("timeout", "2d", "Within which time it must come again.")
    remember: Seconds = option("timeout", "36d", "How long a triple that passed is known.")
    ipv4_prefix: int = option("count", "24", "The network of an IPv4 client.")
    ipv6_prefix: int = option("count", "64", "The network of an IPv6 client.")
    trust_after: int = option("limit", "5", "A network that passed so many times passes at once; 0: never.")
    pass_networks: tuple[Network, ...] = option("networks", "", "Clients that are never made to wait.", "192.0.2.0/24")
    pass_names: tuple[str, ...] = option("words", "", "Clients that are never made to wait, by their confirmed name, or .domain.", ".example.net")
    pass_senders: tuple[str, ...] = option("words", "", "Reverse-paths that are never made to wait: mailboxes or domains.", "example.net")
    pass_recipients: tuple[str, ...] = option("words", "", "Recipients that never make anybody wait: mailboxes or domains.", "postmaster@example.com")


@dataclass(frozen=True, slots=True)
class Rates:
    """How much a client's network and a sender may send: the check ``rates``.

    Beside the limits of ``[smtp]``, which are there against floods.  Who is above gets 450
    4.7.1.  The nodes of a cluster count together.  Symbols: RATE_NETWORK, RATE_SENDER.
    """

    window: Seconds = option("timeout", "1h", "The time over which is counted.")
    network_messages: int = option("limit", "0", "Messages of a client's network (/24, /64); 0: no limit.", "2000")
    network_recipients: int = option("limit", "0", "Recipients likewise.", "10000")
    sender_messages: int = option("limit", "0", "Messages of one reverse-path, for clients in [relay] networks too: a hijacked account shows here. Of strangers, within their network only.", "200")
    sender_recipients: int = option("limit", "0", "Recipients likewise.", "500")


@dataclass(frozen=True, slots=True)
class Attachments:
    """What is attached, by its real type: the check ``attachments``.

    Archives and documents are opened, within bounds; what is above them is unscannable.
    The name of a file counts, and so do its first octets.
    """

    forbidden_names: tuple[str, ...] = option("words", "*.ade *.adp *.app *.application *.appref-ms *.appx *.appxbundle *.bas *.bat *.chm *.cmd *.com *.cpl *.diagcab *.dll *.exe *.gadget *.hta *.img *.inf *.ins *.iso *.isp *.jar *.jnlp *.js *.jse *.library-ms *.lnk *.mde *.msc *.msi *.msix *.msixbundle *.msp *.mst *.pcd *.pif *.ps1 *.reg *.scf *.scr *.sct *.search-ms *.settingcontent-ms *.shb *.shs *.sys *.vb *.vbe *.vbs *.vhd *.vhdx *.vxd *.ws *.wsc *.wsf *.wsh *.xll", "Patterns of names that are not let through, also within archives.")
    forbidden_types: tuple[str, ...] = option("words", "", "Media types that are not let through, by the real type; with * for a family.", "application/x-iso9660-image audio/*")
    forbidden: ScanAction = option("choice", "reject", "What is done with a forbidden name or type.")
    executables: ScanAction = option("choice", "reject", "What is done with programs (PE, ELF, Mach-O, Java), whatever their name.")
    scripts: ScanAction = option("choice", "accept", "What is done with files that begin with #!, which only Unix runs: any archive of source code has some.")
    double_extensions: ScanAction = option("choice", "reject", "What is done with names such as invoice.pdf.exe.")
    macros: ScanAction = option("choice", "tag", "What is done with Office documents that hold macros.")
    suspicious_macros: ScanAction = option("choice", "quarantine", "What is done with macros that run by themselves and reach for the system.")
    archive_depth: int = option("limit", "5", "How deep archives in archives are opened; deeper is unscannable.")
    archive_files: int = option("count", "5000", "Files of all archives of a message together; more are unscannable.")
    archive_size: Octets = option("size", "200M", "Octets that they may unpack to; more are unscannable.")
    archive_ratio: int = option("count", "250", "An archive that unpacks to more than 1M and more than so many times its size is unscannable.")


@dataclass(frozen=True, slots=True)
class Urls:
    """Where links lead: the check ``urls``.

    The hosts of the links in a message are looked up in lists of domains: by the domain that
    was registered (``example.co.uk``, whatever stands before it), or by their address.
    """

    lists: tuple[DnsList, ...] = option("dns-lists", "", "Lists of domains, one a line: zone, the answers that count if not all do, score.", "multi.uribl.com=127.0.0.2 4\ndbl.spamhaus.org=127.0.1.2-99 5")
    max_names: int = option("count", "20", "Names of one message that are looked up.")
    ignore: tuple[str, ...] = option("words", "", "Domains that are not looked up.", "example.com")


@dataclass(frozen=True, slots=True)
class SiteCheck:
    """What a check of your own is told: ``[check:NAME]``, NAME as the plugin calls itself.

    A plugin is a Python file in ``[scan] plugins`` (docs: *Checks of your own*); it runs if
    ``[scan] checks`` names it.
    """

    settings: dict[str, str] = option("settings", "", "Whatever the plugin wants to know, one name and its value a line.", "limit 5\nword lottery")


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What all engines have in common."""

    timeout: Seconds = option("timeout", "30s", "How long a message may take here, waiting for its turn included; [scan] check_timeout does not count for engines.")
    on_failure: OnFailure | None = option("choice?", "", "What becomes of a message that it could not judge: tempfail or accept; as [scan] says if empty.")
    connections: int = option("count", "10", "Messages that are scanned there at once; more wait.")
    failures: int = option("count", "3", "After so many failures in a row (connections refused, pings not answered) it is left alone for a while.")
    pause: Seconds = option("timeout", "10s", "How long; twice as long each time that it comes back and fails again, up to five minutes.")


@dataclass(frozen=True, slots=True)
class Clamav(EngineSettings):
    """ClamAV's clamd, over its INSTREAM command: finds malware.

    Let clamd's StreamMaxLength be at least ``max_size``.  Symbols: CLAMAV (malware, as
    ``[scan] malware`` says), CLAMAV_SUSPICIOUS (a score of 5), CLAMAV_ENCRYPTED,
    CLAMAV_LIMITS (unscannable), CLAMAV_FAILED.
    """

    address: str = option("client", "unix:/run/clamav/clamd.ctl", "Where clamd listens: unix:PATH or tcp:HOST:PORT.", "tcp:127.0.0.1:3310")
    max_size: Octets = option("size", "25M", "Larger messages count as unscannable here.")
    suspicious: tuple[str, ...] = option("words", "Heuristics.* PUA.*", "Patterns of names that are CLAMAV_SUSPICIOUS and no malware.")


@dataclass(frozen=True, slots=True)
class Rspamd(EngineSettings):
    """Rspamd, over HTTP (/checkv2): its action, score, symbols and headers are honoured.

    Symbols: RSPAMD, with its score, and RSPAMD_FAILED.  Its action is done at least: reject,
    quarantine, discard, soft reject (tempfail), add header and rewrite subject (tag).  Its
    ``greylist`` is a range of scores and asks for nothing: when its module of that name
    greylists, the action is soft reject.
    """

    url: str = option("url", "http://127.0.0.1:11333", "Where its normal worker or its proxy listens.", "http://192.0.2.9:11333")
    password: Path | None = option("secret?", "", "A file with the password, if it wants one.", "/etc/mailsecure/rspamd.password")
    headers: bool = option("yes-no", "yes", "Add and remove the header fields that it asks for.")
    weight: float = option("number", "1", "Its score, times this, is added to that of the message.")
    actions: bool = option("yes-no", "yes", "Honour its action; no: only its score.")
    max_size: Octets = option("size", "50M", "Larger messages are not sent there: unscannable.")


@dataclass(frozen=True, slots=True)
class Spamassassin(EngineSettings):
    """SpamAssassin, over the protocol of spamd: its score is added to that of the message.

    What spamd itself would call spam (``required_score``) does not count: the thresholds of
    ``[scan]`` do.  Symbols: SPAMASSASSIN, SPAMASSASSIN_FAILED.
    """

    address: str = option("client", "tcp:127.0.0.1:783", "Where spamd listens: unix:PATH or tcp:HOST:PORT.", "unix:/run/spamd.sock")
    connections: int = option("count", "4", "Messages that are scanned there at once; more wait. One less than spamd's --max-children, which is 5 as shipped.")
    user: str = option("user", "", "Whose preferences are used; the daemon's default if empty.")
    weight: float = option("number", "1", "Its score, times this, is added to that of the message.")
    max_size: Octets = option("size", "512K", "Larger messages are not sent there; that is no fault of theirs.")


@dataclass(frozen=True, slots=True)
class Icap(EngineSettings):
    """A scanner that speaks ICAP (RFC 3507), asked with RESPMOD: finds malware.

    Many products against malware can be asked this way.  What the server names, blocks or
    would have changed is malware.  Symbols: ICAP, ICAP_FAILED.
    """

    url: str = option("url", "icap://127.0.0.1:1344/avscan", "The service; icaps:// for TLS.", "icap://192.0.2.9:1344/srv_clamav")
    max_size: Octets = option("size", "25M", "Larger messages count as unscannable here.")


@dataclass(frozen=True, slots=True)
class Milter(EngineSettings):
    """A mail filter that speaks the milter protocol (version 6), asked once a message.

    It hears the whole session when the message is there; its verdict and its changes of the
    header are honoured, changes of the body are not.  Symbols: MILTER_REJECT,
    MILTER_TEMPFAIL, MILTER_DISCARD, MILTER_QUARANTINE, MILTER_FAILED.
    """

    address: str = option("client", "unix:/run/milter.sock", "Where it listens: unix:PATH or tcp:HOST:PORT.", "tcp:127.0.0.1:8891")
    max_size: Octets = option("size", "50M", "Larger messages are not sent there: unscannable.")


@dataclass(frozen=True, slots=True)
class Signing:
    """A DKIM key for mail that goes out: ``[signing:NAME]``, as many as there are keys.

    Mail of clients in ``[relay] networks`` is signed (RFC 6376) where its From field is of
    one of the domains.  ``mailsecure dkim keygen`` makes a key and prints what belongs into
    the DNS.
    """

    domains: tuple[str, ...] = option("words", "", "Domains that it signs for; .example.com: all below.", "example.com")
    domain: str = option("hostname", "", "The domain of the signature (d=); that of From if empty.", "example.com")
    selector: str = option("name", "mail", "Under SELECTOR._domainkey.DOMAIN the public key stands in the DNS.")
    key: Path | None = option("secret?", "", "PEM file with the private key, RSA or Ed25519.", "/etc/mailsecure/dkim.pem")


@dataclass(frozen=True, slots=True)
class Arc:
    """Sealing what is relayed on, so that the next one may believe what we found (RFC 8617).

    What comes from strangers and is scanned here is sealed, if ``key`` is set.
    """

    domain: str = option("hostname", "", "The domain of the seal (d=); the node's hostname if empty.", "example.com")
    selector: str = option("name", "arc", "Under SELECTOR._domainkey.DOMAIN the public key stands in the DNS.")
    key: Path | None = option("secret?", "", "PEM file with the private RSA key. Empty: nothing is sealed.", "/etc/mailsecure/arc.pem")


@dataclass(frozen=True, slots=True)
class Quarantine:
    """What is held, and how long: see ``mailsecure quarantine``.

    Held messages are in the spool, as durable as what is queued, their bodies compressed; nobody
    is told of them but the postmaster.
    """

    retention: Seconds = option("timeout", "30d", "Held messages are deleted after this time.")
    max_size: Octets = option("size", "10G", "Octets on disk of all that is held; beyond it the oldest go first.")


@dataclass(frozen=True, slots=True)
class Records:
    """The history: every session, message, recipient, verdict and delivery attempt.

    ``mailsecure trace`` and ``mailsecure why`` read it.  It is written in batches behind the
    mail's back: while the database is away, mail flows, and the history catches up.
    """

    enabled: bool = option("yes-no", "yes", "Keep a history.", restart=True)
    database: str = option("database", "", "postgresql://USER@HOST/NAME, or a file of SQLite; records.db in the state directory if empty. A password belongs in ~/.pgpass or password_file.", "postgresql://mailsecure@db.example.com/mailsecure", restart=True)
    password_file: Path | None = option("secret?", "", "A file with the password of the database.", "/etc/mailsecure/records.password", restart=True)
    retention: Seconds = option("timeout", "90d", "How long the history is kept.")
    max_size: Octets = option("size", "20G", "How large it may grow; beyond it the oldest days go first.")
    subjects: bool = option("yes-no", "yes", "Keep subjects.")
    backlog: Octets = option("size", "256M", "How much is kept on disk while the database is away; beyond it the newest is lost, and said.")
