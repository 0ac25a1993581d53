"""SPF, asked for: the part of the check ``authentication`` that runs at MAIL (RFC 7208).

The names that a record leads to are resolved ahead, side by side; :mod:`.jobs.spf`
evaluates.  It does so here where all that was answered is short, as it is for most domains:
with :data:`SHORT` octets the worst record that was found takes 2 ms, a usual one 0.1, and a
worker's round trip would cost the reactor more.  Anything longer goes to a worker.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from .api import Site
from .jobs.spf import evaluate
from .replay import Lookups, replay
from .spf_names import follow_ups, may_have_record, plain_address
from .values import Facts

__all__ = ["evaluate_spf"]

#: Octets of answers that are evaluated in the reactor's thread.
SHORT = 2048
#: Ten mechanisms of one MX or PTR answer and ten addresses each, and a few names more.
_MAX_QUESTIONS = 120
_TOO_MANY = {"result": "permerror", "mechanism": "", "explanation": "", "problem": "too deep"}
_NONE = {"result": "none", "mechanism": "", "explanation": "", "problem": ""}


async def evaluate_spf(site: Site, facts: Facts) -> dict[str, Any]:
    """Return what :func:`.jobs.spf.evaluate` found of ``mailfrom`` and ``helo``.

    Raises what :meth:`~.api.Workers.run` raises.
    """
    helo = facts.helo.lower()
    domain = facts.reverse_path.rpartition("@")[2].lower() or helo
    nothing = {"mailfrom": _NONE | {"domain": domain}, "helo": _NONE | {"domain": helo}}
    try:
        client = plain_address(facts.client)
    except ValueError:
        return nothing
    names = [each for each in (domain, helo) if may_have_record(each)]
    lookups = Lookups(site.world.resolver, _MAX_QUESTIONS, partial(follow_ups, client))
    await lookups.fetch(("TXT", each.removesuffix(".")) for each in names)
    if all(lookups.answer(("TXT", each.removesuffix("."))) == [] for each in names):
        # Most names have no record at all: no need to trouble a worker.
        return nothing
    arguments = {
        "client": client,
        "helo": facts.helo,
        "sender": facts.reverse_path,
        "receiver": site.config.node.hostname,
        "now": site.world.wall(),
    }
    if lookups.octets <= SHORT:
        found = evaluate(arguments | {"answers": lookups.as_json()}, b"")
        if "needs" not in found:
            return found
        await lookups.fetch((kind, name) for kind, name in found["needs"])
    judged = await replay(site.workers, lookups, "jobs.spf:evaluate", arguments)
    if judged is None:
        return {"mailfrom": _TOO_MANY | {"domain": domain}, "helo": _NONE | {"domain": helo}}
    return judged
