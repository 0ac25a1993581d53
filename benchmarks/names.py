"""The DNS for those that scan: ``python -m benchmarks.names ZONE.json ADDRESS [TTL]``.

Serves a zone as of :mod:`mailsecure.testing.resolver` on port 53, UDP, for all names there
are: what the zone does not have does not exist.  Each answer is made once and then sent
again, so that the server is no part of what is measured: a question costs it some 10
microseconds, where the one of the tests (:mod:`mailsecure.testing.dns`, which has switches
for faults) takes twenty times as long.

Answers are never cut short: they have to fit into 512 octets, which is checked.
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from mailsecure.testing.resolver import Zone

__all__ = ["Names"]

TTL = 300
#: Octets of an answer over UDP (RFC 1035 §4.2.1), and of a piece of a TXT record (§3.3.14).
LARGEST = 512
PIECE = 255
#: Questions whose answers are kept; some resolvers write names in random case.
KEPT = 10_000


class Names:
    """A zone, and the answers made so far."""

    def __init__(self, zone: Zone, ttl: int = TTL) -> None:
        self.zone = zone
        self.ttl = ttl
        self.made: dict[bytes, bytes] = {}

    def answer(self, question: bytes) -> bytes:
        """Return the answer to one question, both as they are in a datagram."""
        asked = question[2:]
        found = self.made.get(asked)
        if found is None:
            if len(self.made) >= KEPT:
                self.made.clear()
            found = self.made[asked] = self.make(question)[2:]
        return question[:2] + found

    def make(self, question: bytes) -> bytes:
        """Make an answer."""
        query = dns.message.from_wire(question)
        answer = dns.message.make_response(query, recursion_available=True)
        answer.flags |= dns.flags.AA
        asked = query.question[0]
        name = asked.name.to_text(omit_final_dot=True).lower()
        entry = self.zone.get(name)
        kind = dns.rdatatype.to_text(asked.rdtype)
        texts = entry.get(kind, []) if isinstance(entry, dict) else []
        if texts:
            rows = [quoted(text) if kind == "TXT" else absolute(text) for text in texts]
            answer.answer.append(dns.rrset.from_text_list(asked.name, self.ttl, "IN", kind, rows))
        else:
            if not self.exists(name):
                answer.set_rcode(dns.rcode.NXDOMAIN)
            soa = f"ns.example. root.example. 1 3600 600 86400 {self.ttl}"
            answer.authority.append(dns.rrset.from_text(dns.name.root, self.ttl, "IN", "SOA", soa))
        octets: bytes = answer.to_wire()
        if len(octets) > LARGEST:
            raise SystemExit(f"the answer about {asked.name} has {len(octets)} octets")
        return octets

    def exists(self, name: str) -> bool:
        """Say whether there is a name, be it without records because it has some below."""
        return any(each == name or each.endswith(f".{name}") for each in self.zone)


def quoted(text: str) -> str:
    """Return a TXT record in pieces, as zone files have it."""
    pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
    return " ".join(f'"{piece}"' for piece in pieces)


def absolute(text: str) -> str:
    """Return a record with its name absolute: the last word, unless it is an address."""
    return text if text[-1:].isdigit() or text.endswith(".") else f"{text}."


def main() -> None:
    """Listen and answer."""
    path, address, *rest = sys.argv[1:]
    names = Names(json.loads(Path(path).read_text()), *map(int, rest))
    wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    wire.bind((address, 53))
    while True:
        question, client = wire.recvfrom(4096)
        wire.sendto(names.answer(question), client)


if __name__ == "__main__":
    main()
