"""What greylisting takes for the same sender: triples and their digests (pure).

A triple is kept as a digest: that bounds what it takes however long addresses are, and tells
nobody who reads our disk or our links who writes to whom.  The reverse-path is simplified
before, as lists and forwarders write a new one for each message.
"""

from __future__ import annotations

import re

from .matching import digest

__all__ = ["simplified", "triple_of"]

_BATV = re.compile(r"prvs=[0-9a-f]{6,12}=(.+)")
_SRS0 = re.compile(r"srs0[=+-][^=]+=[^=]+=(.+)")
_SRS1 = re.compile(r"srs1[=+-][^=]+=([^=]+)=[=+-][^=]+=[^=]+=(.+)")
_NUMBERED = re.compile(r"[0-9a-z]*[0-9][0-9a-z]*")


def simplified(reverse_path: str) -> str:
    """Return a reverse-path without what changes from message to message.

    What is cut away: the case; a tag behind ``+``; the tag of BATV (``prvs=…=user``); hash and
    day of SRS (``SRS0=hash=day=domain=user``); and every word with a digit in it becomes ``#``
    (``bounce-20261130-a7f3@`` is ``bounce-#-#@``).  That two people become one by that costs
    nothing: the network and the recipient are still theirs.
    """
    local, at, domain = reverse_path.lower().rpartition("@")
    if batv := _BATV.fullmatch(local):
        local = batv[1]
    if srs := _SRS0.fullmatch(local) or _SRS1.fullmatch(local):
        local = "=".join(("srs", *srs.groups()))
    local = local.partition("+")[0] or local
    return f"{_NUMBERED.sub('#', local)}{at}{domain}"


def triple_of(network: str, reverse_path: str, recipient: str) -> str:
    """Return the digest of a triple."""
    return digest(network, simplified(reverse_path), recipient.lower())
