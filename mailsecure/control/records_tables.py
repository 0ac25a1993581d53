"""What ``trace`` and ``why`` show to people (no Twisted).

Lines, so that the terminal's end shows the newest and ``grep`` is of use.  Every text from
outside goes through :func:`~.lines.escape`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..config.scanning import ScanAction
from ..units import format_octets, format_seconds
from .lines import escape
from .tables import age, moment

__all__ = ["counted", "explained", "traced"]

_ACTIONS = [action.value for action in ScanAction]
#: Symbols and recipients that one line names.
_MOST = 12
#: What stands for a score that nothing reaches.
_NEVER = 1e9
_Item = dict[str, Any]


def traced(item: _Item) -> Iterator[str]:
    """Yield the lines of one item of ``trace``."""
    if item["kind"] == "message":
        yield from _message(item)
    elif item["kind"] == "refusal":
        yield from _refusal(item)
    else:
        yield f"{item['id']}  {moment(item['time'])}  session without mail"
        yield from _session(item)


def _message(item: _Item) -> Iterator[str]:
    yield f"{item['id']}  {moment(item['time'])}  {item['action']}, score {_score(item['score'])}"
    yield _from_to(item)
    if item["subject"]:
        yield f"    subject   {escape(item['subject'])}"
    if item["message_id"]:
        name = escape(item["message_id"].strip("<>"))
        yield f"    named     <{name}>, {format_octets(item['octets'])}"
    if item["session"]:
        yield from _session(item["session"])
    elif item["client"]:
        session = f", session {item['session_id']}" if item["session_id"] else ""
        yield f"    client    {_client(item)}{_helo(item)}{session}{_node(item)}"
    if item["symbols"]:
        yield f"    judged    {_symbols(item['symbols'])} in {format_seconds(item['seconds'])}"
    if item["reply"]:
        yield f"    answered  {escape(item['reply'])}"
    happened = [(each["time"], _deed(each)) for each in item["deeds"]]
    happened += _attempts(item["attempts"], item["time"])
    for when, text in sorted(happened):
        yield f"    {_clock(when, item['time'])}  {text}"


def _refusal(item: _Item) -> Iterator[str]:
    what = "connection refused" if item["stage"] == "connect" else f"{item['stage']} refused"
    session = item["session"] or "-"
    yield f"{session:13}  {moment(item['time'])}  {escape(what)}"
    yield from _whose(item)
    yield f"    client    {_client(item)}{_helo(item)}{_node(item)}"
    if item["symbols"]:
        yield f"    judged    {_symbols(item['symbols'])}"
    reason = f" ({escape(item['reason'])})" if item["reason"] else ""
    yield f"    answered  {escape(item['reply'])}{reason}"


def _whose(item: _Item) -> Iterator[str]:
    """Yield for whom a refused command was, where it names anybody."""
    if item["stage"] == "connect":
        return
    if item["recipient"]:
        yield _from_to(item | {"recipients": [{"recipient": item["recipient"], "action": ""}]})
    elif item["sender"]:
        yield f"    from      <{escape(item['sender'])}>"


def _session(item: _Item) -> Iterator[str]:
    tls = f", {escape(item['tls'])}" if item["tls"] else ", no TLS"
    via = f", via {escape(item['via'])}" if item["via"] else ""
    yield (
        f"    client    {_client(item)}:{item['port']}{_helo(item)}{tls}{via}, "
        f"session {item['id']}{_node(item)}"
    )
    yield (
        f"    session   {format_seconds(item['seconds'])}, messages {item['messages']}, "
        f"refused {item['refused']}, errors {item['errors']}, end: {escape(item['ending'])}"
    )


def _from_to(item: _Item) -> str:
    sender = f"<{escape(item['sender'])}>"
    author = item.get("header_from", "")
    if author and author != item["sender"]:
        sender += f" (From: {escape(author)})"
    action = item.get("action", "")
    recipients = [
        f"<{escape(each['recipient'])}>"
        + (f" ({each['action']})" if each["action"] not in ("", action) else "")
        for each in item["recipients"][:_MOST]
    ]
    more = len(item["recipients"]) - len(recipients)
    return f"    from      {sender} to {', '.join(recipients)}" + (f" +{more}" if more else "")


def _client(item: _Item) -> str:
    name = f" ({escape(item['client_name'])})" if item["client_name"] else ""
    return f"{escape(item['client'])}{name}"


def _helo(item: _Item) -> str:
    return f", HELO {escape(item['helo'])}" if item["helo"] else ""


def _node(item: _Item) -> str:
    return f", on {escape(item['node'])}" if item["node"] else ""


def _symbols(symbols: Sequence[_Item]) -> str:
    words = [
        escape(each["name"])
        + (f" {_score(each['score'])}" if each["score"] else "")
        + (f" ({escape(each['action'])})" if each["action"] else "")
        for each in sorted(symbols, key=lambda each: -abs(each["score"]))[:_MOST]
    ]
    more = len(symbols) - len(words)
    return ", ".join(words) + (f" +{more}" if more else "")


def _attempts(attempts: Sequence[_Item], day: float) -> Iterator[tuple[float, str]]:
    """Yield when and what; recipients to whom the same happened in a second share a line."""
    shared: dict[tuple[str, str], tuple[float, list[str]]] = {}
    for each in attempts:
        key = _clock(each["time"], day), _attempt(each)
        _, recipients = shared.setdefault(key, (each["time"], []))
        recipients.append(f"<{escape(each['recipient'])}>")
    for (_, text), (when, recipients) in shared.items():
        more = len(recipients) - _MOST
        yield (
            when,
            ", ".join(recipients[:_MOST]) + (f" +{more}" if more > 0 else "") + f" {text}",
        )


def _attempt(item: _Item) -> str:
    to = f" to {escape(item['next_hop'])}" if item["next_hop"] else ""
    reply = escape(" ".join(item["reply"].split()))
    return f"{item['status']}{to} after {age(item['delay'])}: {reply}"


def _deed(item: _Item) -> str:
    to = ", ".join(f"<{escape(each)}>" for each in item["recipients"][:_MOST])
    copy = f" as {item['copy']}" if item["copy"] else ""
    reason = f": {escape(item['reason'])}" if item["reason"] else ""
    return f"{escape(item['deed'])} by {escape(item['who'])} for {to}{copy}{reason}"


def _clock(when: float, day: float) -> str:
    """Return the time of day; the whole moment where it is another day."""
    text, other = moment(when), moment(day)
    return text[11:19] if text[:10] == other[:10] else text[:19]


def _score(score: float) -> str:
    return f"{score:.10g}"


def counted(found: _Item) -> Iterator[str]:
    """Yield the lines of ``trace --count``."""
    counts = [(action, found["messages"].get(action, 0)) for action in _ACTIONS]
    refusals = sorted(found["refusals"].items())
    counts += [(f"{escape(stage.lower())} refused", number) for stage, number in refusals]
    counts.append(("session without mail", found["sessions"]))
    for word, number in counts:
        if number:
            yield f"{number:>9,}  {word}"
    if not any(number for _, number in counts):
        yield "Nothing was found."


# -- why


def explained(item: _Item) -> Iterator[str]:
    """Yield the lines of ``why``."""
    if item["kind"] == "message":
        yield from _verdict(item)
        return
    session = item["session"]
    yield f"session {item['id']}"
    if session:
        yield from _session(session)
    for each in item["refusals"]:
        yield ""
        yield from _refused(each)
    for each in item["messages"]:
        yield ""
        yield from _verdict(each)
    if not item["refusals"] and not item["messages"]:
        yield "    nothing was refused, and no message came"


def _refused(item: _Item) -> Iterator[str]:
    yield f"{moment(item['time'])}  {escape(item['stage'])} was refused"
    yield from _whose(item)
    yield from _symbol_lines(item["symbols"])
    if item["reason"]:
        yield f"    reason    {escape(item['reason'])}"
    yield f"    answered  {escape(item['reply'])}"


def _verdict(item: _Item) -> Iterator[str]:
    yield f"message {item['id']} of {moment(item['time'])}: {item['action']}"
    yield _from_to(item)
    if item["subject"]:
        yield f"    subject   {escape(item['subject'])}"
    if not item["symbols"]:
        yield "    no check found anything"
    yield from _symbol_lines(item["symbols"])
    yield f"    {_score(item['score']):>8}  is the sum"
    yield f"    levels    {_levels(item['thresholds'])}"
    asked = list(_asked(item))
    for action, text in asked:
        yield f"    {action:<9} {text}"
    if not asked:
        yield "    accept    nothing asks for more"
    yield f"    so        {item['action']}"
    for each in item["recipients"]:
        if each["action"] != item["action"]:
            yield f"    but       {each['action']} for <{escape(each['recipient'])}>"
    if item["reply"]:
        yield f"    answered  {escape(item['reply'])}"
    times = [f"{escape(name)} {format_seconds(took)}" for name, took in item["timings"]]
    among = f": {', '.join(times)}" if times else ""
    yield f"    took      {format_seconds(item['seconds'])}{among}"


def _symbol_lines(symbols: Sequence[_Item]) -> Iterator[str]:
    """Yield a line for each symbol: its score, name, check, what it asks for, its reason."""
    for each in symbols:
        action = f", asks for {escape(each['action'])}" if each["action"] else ""
        reason = f": {escape(each['reason'])}" if each["reason"] else ""
        check = f" by {escape(each['check'])}" if each["check"] else ""
        yield f"    {_score(each['score']):>8}  {escape(each['name'])}{check}{action}{reason}"


def _levels(thresholds: Sequence[Any]) -> str:
    words = [f"{name} from {_score(score)}" for name, score in thresholds if score < _NEVER]
    return ", ".join(words) or "none: the sum does not count"


def _asked(item: _Item) -> Iterator[tuple[str, str]]:
    """Yield what asks for more than accept, the strictest first: (action, why)."""
    asked = [
        (each["action"], f"is what {escape(each['name'])} asks for by itself")
        for each in item["symbols"]
        if each["action"] not in ("", "accept")
    ]
    reached = [each for each in item["thresholds"] if item["score"] >= each[1]]
    if reached:
        name, score = max(reached, key=lambda each: float(each[1]))
        asked.append((name, f"is for a sum of {_score(score)} and more"))
    order = {action: number for number, action in enumerate(_ACTIONS)}
    for action, text in sorted(asked, key=lambda each: -order.get(each[0], 0)):
        yield escape(action), text
