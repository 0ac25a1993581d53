"""What the command line shows to people: plain lines and tables (no Twisted).

Every text that came from outside goes through :func:`~.lines.escape` before it is shown,
and reaches rich only as ``Text``, never as markup: neither a terminal nor rich may be
told anything by a HELO name.  Long listings are lines of fixed columns, so that the first
appears before the last has arrived; what is short is a table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ..config.model import ClusterSettings, Config, Virtual
from ..units import format_octets, format_seconds
from .lines import escape
from .scan_tables import history_line, scan_lines
from .times import age, moment

__all__ = [
    "age",
    "cells",
    "cluster_lines",
    "group_line",
    "header_lines",
    "listing",
    "listing_head",
    "message_facts",
    "moment",
    "shown",
    "status_page",
    "summary",
    "table",
]

_COUNTS = (
    ("sessions", "sessions_opened"),
    ("  under TLS", "sessions_tls"),
    ("  not greeted", "sessions_refused"),
    ("  timed out", "timeouts"),
    ("messages accepted", "messages_accepted"),
    ("messages refused", "messages_refused"),
    ("  scanned", "messages_scanned"),
    ("  tagged", "messages_tagged"),
    ("  quarantined", "messages_quarantined"),
    ("  rejected", "messages_rejected"),
    ("  put off", "messages_put_off"),
    ("recipients accepted", "recipients_accepted"),
    ("recipients refused", "recipients_refused"),
    ("delivered", "delivered"),
    ("deferred", "deferred"),
    ("given up", "failed"),
    ("bounces sent", "bounces_sent"),
    ("internal errors", "internal_errors"),
)
_BAD = frozenset({"internal_errors", "failed"})
_ROLE_STYLES = {"master": "bold green", "backup": "", "init": "yellow"}


def _next(due: float, now: float) -> str:
    return f"in {age(due - now)}" if due > now + 1 else "now"


def _path(mailbox: str) -> str:
    return f"<{escape(mailbox)}>"


def listing_head() -> str:
    """Return the head of a queue listing."""
    return f"{'ID':13}  {'AGE':>7}  {'SIZE':>6}  {'TRIES':>5}  {'NEXT':>9}  SENDER → RECIPIENTS"


def listing(item: dict[str, Any], now: float) -> Iterator[str]:
    """Yield the lines of one message: its own, and the last reply if there is one.

    The figures are those of the recipient that is due first.
    """
    recipients = sorted(item["recipients"], key=lambda each: (each["state"], each["due"]))
    held = sum(each["state"] == "held" for each in recipients)
    first = next((each for each in recipients if each["state"] != "held"), None)
    tries = max((each["attempts"] for each in recipients), default=0)
    more = f" (+{len(recipients) - 1})" if len(recipients) > 1 else ""
    some = f" [{held} held]" if held and first else ""
    shown_recipient = _path((first or recipients[0])["recipient"]) if recipients else "-"
    yield (
        f"{escape(item['id']):13}  {age(now - item['arrived']):>7}  "
        f"{format_octets(item['octets']):>6}  {tries:>5}  "
        f"{_next(first['due'], now) if first else 'held':>9}  "
        f"{_path(item['sender'])} → {shown_recipient}{more}{some}"
    )
    reply = next((each["reply"] for each in recipients if each["reply"]), "")
    if reply:
        yield f"{'':15}{escape(' '.join(reply.split()))}"


def table(*columns: str, numbers: Iterable[str] = ()) -> Table:
    """Return an empty table; the columns named in ``numbers`` are flush right."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    right = frozenset(numbers)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def cells(*values: str) -> list[Text]:
    """Return the cells of one row; the values are escaped already."""
    return [Text(value) for value in values]


def message_facts(item: dict[str, Any], now: float, more: str = "") -> str:
    """Return the lines on a message that queue and quarantine have alike.

    ``more`` stands behind its octets.
    """
    client = escape(item["client"]) or "this machine"
    helo = f" (HELO {escape(item['helo'])})" if item["helo"] else ""
    session = f", session {escape(item['session'])}" if item["session"] else ""
    facts = "".join(f"\n{'':10}{escape(k)}: {escape(v)}" for k, v in item["facts"].items())
    wants = (("8BITMIME", "eight_bit"), ("SMTPUTF8", "smtputf8"))
    flags = [name for name, key in wants if item[key]]
    flags += [f"{name}={escape(item[key])}" for name, key in _ENVELOPE if item[key]]
    return (
        f"message   {escape(item['id'])}{' ' if flags else ''}{' '.join(flags)}\n"
        f"sender    {_path(item['sender'])}\n"
        f"arrived   {moment(item['arrived'])}, {age(now - item['arrived'])} ago, "
        f"{item['octets']} octets{more}\n"
        f"client    {client}{helo} {escape(item['protocol'])}{session}{facts}\n"
    )


def header_lines(header: str) -> Iterator[RenderableType]:
    """Yield a header section, below an empty line; nothing without one."""
    if header:
        yield Text("\n" + "\n".join(map(escape, header.rstrip("\r\n").split("\r\n"))))


def shown(item: dict[str, Any], header: str, now: float) -> Iterator[RenderableType]:
    """Yield what ``queue show`` says of one message; ``header`` is its header section."""
    yield Text(message_facts(item, now))
    made = table("RECIPIENT", "STATE", "TRIES", "NEXT", "LAST REPLY", numbers=("TRIES",))
    for each in item["recipients"]:
        held = each["state"] == "held"
        made.add_row(
            *cells(
                _path(each["recipient"]),
                each["state"],
                str(each["attempts"]),
                "-" if held else _next(each["due"], now),
                escape(" ".join(each["reply"].split())),
            )
        )
    yield made
    yield from header_lines(header)


_ENVELOPE = (("RET", "ret"), ("ENVID", "envid"))


def status_page(status: dict[str, Any]) -> Iterator[RenderableType]:
    """Yield what ``status`` shows (the shape is :mod:`.status`'s)."""
    yield Text(
        f"mailsecure {escape(status['version'])} on {escape(status['host'])}, "
        f"pid {status['pid']}, up {age(status['uptime'])}"
    )
    yield _spool_line(status)
    if status["quarantine"] is not None and status["quarantine"]["messages"]:
        yield _quarantine_line(status["quarantine"], status["now"])
    yield Text(
        f"{status['sessions']} sessions now, {format_octets(status['memory'])} of memory, "
        f"{status['descriptors']} descriptors, the reactor late by at most "
        f"{format_seconds(status['reactor']['late'])} in the last minute"
    )
    drain = status["drain"]
    if drain is not None and drain["state"] != "working":
        but = (
            ", but Master: nobody else is"
            if drain["master"] and drain["state"] == "drained"
            else ""
        )
        text = f"{drain['state']}{but}: mailsecure undrain puts this node to work"
        yield Text(text, style="yellow")
    cluster = status["cluster"] or {"alarms": [], "groups": []}
    for alarm in cluster["alarms"]:
        yield Text(escape(alarm), style="bold red")
    for group in cluster["groups"]:
        yield group_line(group)
    if status["log"]["failures"]:
        log = status["log"]
        text = f"the log could not be written {log['failures']} times, {log['lost']} lines lost"
        yield Text(text, style="red")
    if status.get("scanning") is not None:
        yield from scan_lines(status["scanning"], status["now"])
    if status.get("history") is not None:
        yield history_line(status["history"], status["now"])
    yield Text("")
    yield _counts(status)
    if status["destinations"]:
        yield Text("")
        yield _destinations(status)
    if status["destinations_more"]:
        yield Text(f"and {status['destinations_more']} more destinations")
    if status["problems"]:
        yield Text("\nlast warnings and errors", style="bold")
    for each in status["problems"][:10]:
        style = "yellow" if each["level"] == "warn" else "red"
        when = moment(each["time"])
        yield Text(f"{when} {escape(each['room'])}: {escape(each['text'])}", style=style)


def group_line(group: dict[str, Any]) -> Text:
    """Return one line on a virtual group."""
    master = f"Master is {escape(group['master'])}" if group["master"] else "no Master is known"
    line = Text(f"{escape(group['name'])}: ")
    line.append(escape(group["role"]), style=_ROLE_STYLES.get(group["role"], ""))
    return line.append(f" since {moment(group['since'])}, {master}: {escape(group['reason'])}")


def _spool_line(status: dict[str, Any]) -> Text:
    spool = status["spool"]
    line = Text("spool ")
    if spool["well"]:
        line.append("well", style="green")
    else:
        line.append(("full: " if spool["full"] else "broken: ") + escape(spool["why"]), "bold red")
    if "queue" in spool:
        return line.append(f", {escape(spool['queue'])}", style="red")
    oldest = spool["oldest"]
    return line.append(
        f", messages: {spool['messages']}, recipients: {spool['recipients']}, "
        f"octets: {format_octets(spool['octets'])}"
        + (f", the oldest {age(status['now'] - oldest)} old" if oldest is not None else "")
    )


def _quarantine_line(quarantine: dict[str, Any], now: float) -> Text:
    oldest = quarantine["oldest"]
    return Text(
        f"quarantine, messages: {quarantine['messages']}, "
        f"recipients: {quarantine['recipients']}, "
        f"on disk: {format_octets(quarantine['octets'])}"
        + (f", the oldest {age(now - oldest)} old" if oldest is not None else "")
    )


def _counts(status: dict[str, Any]) -> Table:
    numbers = ("SINCE START", "/s 1m", "/s 5m", "/s 15m")
    made = table("", *numbers, numbers=numbers)
    for words, name in _COUNTS:
        count, rates = status["counters"].get(name, 0), status["rates"].get(name, (0, 0, 0))
        row = cells(words, f"{count:,}", *(f"{rate:.1f}" for rate in rates))
        made.add_row(*row, style="red" if name in _BAD and count else None)
    return made


def _destinations(status: dict[str, Any]) -> Table:
    numbers = ("RECIPIENTS", "IN FLIGHT", "OLDEST")
    made = table("DESTINATION", *numbers, "NEXT", "LAST ERROR", numbers=numbers)
    now = status["now"]
    for each in status["destinations"]:
        oldest = each["oldest"]
        made.add_row(
            *cells(
                escape(each["domain"]),
                str(each["recipients"]),
                str(each["in_flight"]),
                "" if oldest is None else age(now - oldest),
                _next(each["next_attempt"], now),
                escape(" ".join(each["last_error"].split())),
            )
        )
    return made


def summary(config: Config, interfaces: Collection[str]) -> dict[str, Any]:
    """Return what ``check`` tells of a good ini: where it listens, where mail goes.

    ``interfaces`` are the network interfaces that are there.  One that is named and is not
    among them is no mistake, as it may come later, but is worth a word.
    """
    cluster = config.cluster
    named = dict.fromkeys((cluster.interface, *(v.interface for v in config.virtual.values())))
    return {
        "file": config.file,
        "hostname": config.node.hostname,
        "state": str(config.node.state),
        "listen": list(config.smtp.listen),
        "listen_tls": list(config.smtp.listen_tls),
        "starttls": config.smtp.tls_certificate is not None,
        "relay": [str(network) for network in config.relay.networks],
        "domains": {domain: str(route) for domain, route in config.domains.items()},
        "checks": list(config.scan.checks),
        "engines": list(config.scan.engines),
        "manhole": config.manhole.listen,
        "metrics": config.metrics.listen,
        "log": config.log.file,
        "cluster": _cluster(cluster) if cluster.key_file else None,
        "virtual": {name: _virtual(group) for name, group in config.virtual.items()},
        "interfaces_missing": [each for each in named if each and each not in interfaces],
    }


def _cluster(cluster: ClusterSettings) -> dict[str, Any]:
    return {
        "key_file": str(cluster.key_file),
        "interface": cluster.interface,
        "address": cluster.address,
        "group": cluster.group,
        "unicast_peers": list(cluster.unicast_peers),
        "link_port": int(cluster.link_listen),
        "role": cluster.role.value,
        "weight": cluster.weight,
    }


def _virtual(group: Virtual) -> dict[str, Any]:
    return {
        "addresses": [str(address) for address in group.addresses],
        "interface": group.interface,
        "priority": group.priority,
        "start_as": group.start_as.value,
        "advertisement_interval": group.advertisement_interval,
        "preempt": group.preempt,
    }


def cluster_lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield what ``check`` says of the cluster in a :func:`summary`; nothing without one."""
    cluster = found["cluster"]
    if cluster:
        at = " ".join(filter(None, (cluster["interface"], cluster["address"])))
        peers = ", ".join(cluster["unicast_peers"]) or cluster["group"]
        yield f"  cluster        {cluster['role']} at {at}, says hello to {peers}"
        yield f"  cluster key    {escape(cluster['key_file'])}"
    for name, group in found["virtual"].items():
        yield (
            f"  {f'virtual {name}':14} {' '.join(group['addresses'])} on {group['interface']}, "
            f"priority {group['priority']}, starts as {group['start_as']}"
        )
    for interface in found["interfaces_missing"]:
        yield f"  but            there is no interface {interface} on this machine now"
