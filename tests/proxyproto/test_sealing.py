"""A sealed header counts once, at the node it was made for, and only from a holder of the key."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.errors import RemoteFault
from mailsecure.proxyproto import sealing
from mailsecure.proxyproto.binary import encode_block, parse_block
from mailsecure.proxyproto.sealing import (
    IMPLICIT_TLS,
    SEAL,
    WINDOW,
    ReplayWindow,
    Sealer,
    Seen,
    Verifier,
)
from mailsecure.proxyproto.values import Header, Inet, Tlv, Transport, Unix

KEYS = {b"old-": b"o" * 32, b"new-": b"n" * 32}
US, THEM = 77, 2**64 - 1
CLIENT, VIRTUAL = ip_address("192.0.2.7"), ip_address("192.0.2.25")
CLIENT6, VIRTUAL6 = ip_address("2001:db8::7"), ip_address("2001:db8::25")


def sealer(key_id: bytes = b"new-", key: bytes = KEYS[b"new-"]) -> Sealer:
    """Return the one of the node mx2."""
    return Sealer(key_id, key, "mx2", THEM)


def verifier() -> Verifier:
    """Return ours."""
    return Verifier(US, KEYS.get)


class SealTests(SynchronousTestCase):
    """Sealer and Verifier."""

    def refused(self, block: bytes, why: str, judge: Verifier | None = None) -> None:
        """Check that a header counts for nothing, for a reason."""
        fault = self.assertRaises(RemoteFault, (judge or verifier()).verify, block)
        self.assertIn(why, str(fault))

    def test_proves(self) -> None:
        """The addresses arrive, and the name of the node."""
        block = sealer().proxy(US, CLIENT, 4711, VIRTUAL, 25)
        header = parse_block(block)
        self.assertEqual(header.source, Inet(CLIENT, 4711))
        self.assertEqual(header.destination, Inet(VIRTUAL, 25))
        self.assertIs(header.transport, Transport.STREAM)
        self.assertEqual(verifier().verify(block), Seen("mx2", THEM))

    def test_both_families(self) -> None:
        """IPv6, and one of each."""
        for near, far in ((CLIENT6, VIRTUAL6), (CLIENT, VIRTUAL6), (CLIENT6, VIRTUAL)):
            block = sealer().proxy(US, near, 1, far, 2)
            header = parse_block(block)
            assert isinstance(header.source, Inet) and isinstance(header.destination, Inet)
            for found, meant in ((header.source, near), (header.destination, far)):
                mapped = getattr(found.address, "ipv4_mapped", None)
                self.assertEqual(mapped or found.address, meant)
            verifier().verify(block)

    def test_tls(self) -> None:
        """That the client begins with TLS is said under the seal: it cannot be taken out."""
        for near, far in ((CLIENT, VIRTUAL), (CLIENT6, VIRTUAL6)):
            block = sealer().proxy(US, near, 4711, far, 465, True)
            header = parse_block(block)
            self.assertEqual(header.values(IMPLICIT_TLS), [b""])
            self.assertEqual(header.source, Inet(near, 4711))
            self.assertEqual(verifier().verify(block), Seen("mx2", THEM))
            plain = sealer().proxy(US, near, 4711, far, 465)
            self.assertEqual(parse_block(plain).values(IMPLICIT_TLS), [])
            self.assertEqual(len(block), len(plain) + 3)
            tlvs = tuple(tlv for tlv in header.tlvs if tlv.type == SEAL)
            without = Header(2, False, Transport.STREAM, header.source, header.destination, tlvs)
            self.refused(encode_block(without), "false seal")

    def test_local(self) -> None:
        """A probe proves itself too, and says no address."""
        block = sealer().local(US)
        self.assertTrue(parse_block(block).local)
        self.assertEqual(verifier().verify(block).node, "mx2")

    def test_once(self) -> None:
        """The same header again is refused, and the next one is not."""
        from_them, judge = sealer(), verifier()
        first = from_them.proxy(US, CLIENT, 1, VIRTUAL, 25)
        judge.verify(first)
        self.refused(first, "came before", judge)
        judge.verify(from_them.proxy(US, CLIENT, 1, VIRTUAL, 25))

    def test_for_us(self) -> None:
        """One that was made for another node, or for us before a restart, is refused."""
        self.refused(sealer().proxy(US + 1, CLIENT, 1, VIRTUAL, 25), "another node")

    def test_keys(self) -> None:
        """Any key of the ring will do; a foreign one, or a false one, will not."""
        from_them = sealer(b"old-", KEYS[b"old-"])
        judge = verifier()
        judge.verify(from_them.local(US))
        from_them.use_key(b"new-", KEYS[b"new-"])
        judge.verify(from_them.local(US))
        self.refused(sealer(b"what", b"w" * 32).local(US), "another cluster")
        self.refused(sealer(b"new-", b"w" * 32).local(US), "false seal")

    @given(st.binary(min_size=1, max_size=200))
    def test_keys_of_any_length(self, key: bytes) -> None:
        """The seal is HMAC-SHA256, as the verifier makes it."""
        judge = Verifier(US, {b"some": key}.get)
        self.assertEqual(judge.verify(sealer(b"some", key).local(US)), Seen("mx2", THEM))

    @given(st.binary(max_size=200))
    @example(bytes(65))
    def test_any_key(self, key: bytes) -> None:
        """A key may be longer than a block of the hash, or empty."""
        block = Sealer(b"key1", key, "mx2", THEM).local(US)
        Verifier(US, {b"key1": key}.get).verify(block)

    def test_a_false_seal_uses_no_count(self) -> None:
        """Who has no key cannot keep a true header out by sending its count first."""
        judge = verifier()
        self.refused(sealer(b"new-", b"w" * 32).local(US), "false seal", judge)
        judge.verify(sealer().local(US))

    @given(st.data(), st.integers(0, 255))
    def test_every_octet(self, data: st.DataObject, octet: int) -> None:
        """A header with any octet changed is refused, by the codec or by the seal."""
        block = bytearray(sealer().proxy(US, CLIENT, 4711, VIRTUAL, 25))
        place = data.draw(st.integers(0, len(block) - 1))
        block[place] ^= octet or 1
        with self.assertRaises(RemoteFault):
            parse_block(bytes(block))
            verifier().verify(bytes(block))

    def test_more_tlvs(self) -> None:
        """What stands beside the seal is under it; without a seal, or with two, none counts."""
        plain = Header(2, False, Transport.STREAM, Inet(CLIENT, 1), Inet(VIRTUAL, 25))
        self.refused(encode_block(plain), "without one seal")
        value = parse_block(sealer().local(US)).values(SEAL)[0]
        two = Header(2, True, tlvs=(Tlv(SEAL, value), Tlv(SEAL, value)))
        self.refused(encode_block(two), "without one seal")
        for ends in ((Inet(CLIENT6, 1), Inet(VIRTUAL6, 25)), (Unix(b"/a"), Unix(b"/b"))):
            moved = Header(2, False, Transport.STREAM, *ends, (Tlv(5, b"id"), Tlv(SEAL, value)))
            self.refused(encode_block(moved), "false seal")

    def test_form(self) -> None:
        """Another form, too short, too long."""
        value = parse_block(sealer().local(US)).values(SEAL)[0]
        for bad, why in (
            (b"\x02" + value[1:], "another form"),
            (value[:61], "wrong length"),
            (value + b"x" * 61, "wrong length"),
        ):
            self.refused(encode_block(Header(2, True, tlvs=(Tlv(SEAL, bad),))), why)

    def test_bounded(self) -> None:
        """So many incarnations are remembered, and none of them is forgotten for another."""
        self.patch(sealing, "MAX_SENDERS", 2)
        judge = verifier()
        blocks = [
            Sealer(b"new-", KEYS[b"new-"], "mx2", incarnation).local(US)
            for incarnation in (1, 2, 3)
        ]
        judge.verify(blocks[0])
        judge.verify(blocks[1])
        self.refused(blocks[2], "too many", judge)
        self.refused(blocks[0], "came before", judge)

    def test_misuse(self) -> None:
        """Names and key ids that do not fit are the caller's mistake."""
        for name in ("", "x" * 64):
            with self.assertRaises(ValueError):
                Sealer(b"new-", b"k", name, 1)
        with self.assertRaises(ValueError):
            Sealer(b"new", b"k", "mx2", 1)


class ReplayWindowTests(SynchronousTestCase):
    """ReplayWindow."""

    @given(st.lists(st.integers(-2, 3 * WINDOW), max_size=60))
    def test_once_each(self, counts: list[int]) -> None:
        """Each count once; all that are in the window and new; none below it."""
        window = ReplayWindow()
        taken: set[int] = set()
        for count in counts:
            highest = max(taken, default=0)
            fresh = count >= 1 and count not in taken and count > highest - WINDOW
            self.assertEqual(window.enter(count), fresh)
            if fresh:
                taken.add(count)

    def test_edges(self) -> None:
        """The last one in the window, the first one out of it, and a leap over all of it."""
        window = ReplayWindow()
        self.assertTrue(window.enter(WINDOW + 1))
        self.assertFalse(window.enter(1))
        self.assertTrue(window.enter(2))
        self.assertFalse(window.enter(2))
        self.assertTrue(window.enter(10 * WINDOW))
        self.assertFalse(window.enter(10 * WINDOW))
        self.assertTrue(window.enter(10 * WINDOW - 1))
        self.assertFalse(window.enter(WINDOW + 1))
