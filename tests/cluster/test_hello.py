"""The hello datagram: what is said is heard, and nothing else is; every bound holds."""

from __future__ import annotations

import hmac
import string
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure import __version__
from mailsecure.cluster.hello import (
    LONGEST_GROUP,
    LONGEST_NODE,
    LONGEST_VERSION,
    MOST_GROUPS,
    MOST_HEARD,
    MOST_OCTETS,
    MOST_OVERRIDES,
    Drop,
    Rejected,
    decode,
    encode,
    room_for_overrides,
)
from mailsecure.cluster.keys import Key, KeyRing
from mailsecure.cluster.values import (
    CLAIMED,
    Fitness,
    GroupHello,
    Heard,
    Hello,
    Override,
    Role,
)
from mailsecure.config.model import NodeRole

KEY, SECOND, OTHER = (Key(bytes([number]) * 32) for number in (1, 2, 3))
RING = KeyRing((KEY, SECOND))

HELLO = Hello(
    node="mx1",
    address=IPv4Address("192.0.2.11"),
    link_port=5025,
    incarnation=0x0123456789ABCDEF,
    sequence=0x1_0000_0002,
    wall=1_790_000_000.25,
    uptime=86_400.5,
    interval=0.1,
    version="0.1.0",
    role=NodeRole.DIRECTOR,
    weight=100,
    load=250,
    fitness=Fitness.SPOOL | Fitness.DRAINING,
    policy_revision=7,
    asks=True,
    groups=(GroupHello("mail", Role.MASTER, 255, 0.1),),
    heard=(Heard(0xFEDCBA9876543210, 3, 0.05),),
    peer_port=10025,
    overrides=(Override("mx2", 5, 1, 0x0F), Override("mx3", None, 2, 0xF0)),
)
#: Where things stand in HELLO's datagram.
VERSION, FLAGS, KEY_ID, INTERVAL, NODE_ROLE, FAMILY, ADDRESS, NODE = 4, 5, 6, 39, 61, 62, 63, 81
GROUPS, GROUP, GROUP_ROLE, HEARD, OVERRIDES = 91, 92, 97, 104, 122


def texts(longest: int) -> st.SearchStrategy[str]:
    """Return texts that can be said in ``longest`` octets."""
    printable = st.characters(codec="utf-8", exclude_categories=["C", "Z"])
    return st.text(printable, min_size=1, max_size=longest // 4) | st.text(
        string.ascii_letters + " -._", min_size=1, max_size=longest
    )


def micros(least: int = 0, most: int = 2**32 - 1) -> st.SearchStrategy[float]:
    """Return seconds, whole microseconds from ``least`` to ``most``."""
    return st.integers(least, most).map(lambda number: number / 1e6)


sequences = st.integers(0, 2**40 - 1)
incarnations = st.integers(0, 2**64 - 1)
group_hellos = st.builds(
    GroupHello,
    texts(LONGEST_GROUP),
    st.sampled_from(Role),
    st.integers(0, CLAIMED),
    micros(1),
)
overrides = st.builds(
    Override,
    texts(LONGEST_NODE),
    st.none() | st.integers(0, 2**32 - 2),
    st.integers(0, 2**32 - 1),
    incarnations,
)
hellos = st.builds(
    Hello,
    node=texts(LONGEST_NODE),
    address=st.ip_addresses(),
    link_port=st.integers(0, 65535),
    incarnation=incarnations,
    sequence=sequences,
    wall=micros(0, 2**52),
    uptime=micros(0, 2**52),
    interval=micros(1),
    version=texts(LONGEST_VERSION),
    role=st.sampled_from(NodeRole),
    weight=st.integers(0, 10**9),
    load=st.integers(0, 65535),
    fitness=st.integers(0, 65535).map(Fitness),
    policy_revision=st.integers(0, 2**64 - 1),
    asks=st.booleans(),
    groups=st.lists(group_hellos, max_size=MOST_GROUPS).map(tuple),
    heard=st.lists(st.builds(Heard, incarnations, sequences, micros()), max_size=MOST_HEARD).map(
        tuple
    ),
    peer_port=st.integers(0, 65535),
    overrides=st.lists(overrides, max_size=1).map(tuple),
)


def signed(octets: bytes, key: Key = KEY) -> bytes:
    """Return ``octets`` with a right signature."""
    return octets + hmac.digest(key.derived(b"hello"), octets, "sha256")


def changed(*changes: tuple[int, bytes]) -> bytes:
    """Return HELLO's datagram with other octets at some places, signed again."""
    octets = bytearray(encode(HELLO, KEY)[:-32])
    for at, new in changes:
        octets[at : at + len(new)] = new
    return signed(bytes(octets))


class AgreeTests(SynchronousTestCase):
    """encode and decode together."""

    @given(hellos, st.sampled_from([KEY, SECOND]))
    def test_round_trip(self, hello: Hello, key: Key) -> None:
        """What is said with a key of the ring is heard, in at most 1,400 octets."""
        datagram = encode(hello, key)
        self.assertLessEqual(len(datagram), MOST_OCTETS)
        self.assertEqual(decode(datagram, RING), hello)

    def test_form(self) -> None:
        """The form on the wire does not change by accident: other versions speak it."""
        key = Key(bytes(range(32)))
        self.assertEqual(
            encode(HELLO, key).hex(),
            "4d536869"
            "02"
            "01"  # MShi, version, asks
            "ccb78f02"  # the key
            "0123456789abcdef"
            "0100000002"  # incarnation, sequence
            "00065bfeda29b090"
            "000000141ddf0120"
            "000186a0"  # wall, uptime, interval
            "00000064"
            "0000000000000007"
            "13a1"
            "00fa"
            "0003"  # weight … fitness
            "01"
            "04"
            "c000020b000000000000000000000000"
            "2729"  # role, address, peer port
            "036d7831"
            "05302e312e30"  # node, version
            "01"
            "046d61696c"
            "02"
            "00ff"
            "000186a0"  # one group
            "01"
            "fedcba9876543210"
            "0000000003"
            "0000c350"  # one heard
            "02"
            "036d7832"
            "00000005"
            "00000001"
            "000000000000000f"
            "036d7833"
            "ffffffff"
            "00000002"
            "00000000000000f0"  # two overrides
            "ae71b9478a213805dcb2ddbf683f5a6845ccce926bdb700ee9c71626e787e22c",
        )

    def test_largest(self) -> None:
        """A hello with every field at its largest fits."""
        interval = (2**32 - 1) / 1e6
        hello = replace(
            HELLO,
            node="n" * LONGEST_NODE,
            version="v" * LONGEST_VERSION,
            address=IPv6Address("2001:db8::11"),
            groups=tuple(
                GroupHello(f"{number:0{LONGEST_GROUP}}", Role.MASTER, CLAIMED, interval)
                for number in range(MOST_GROUPS)
            ),
            heard=tuple(Heard(2**64 - 1, 2**40 - 1, interval) for number in range(MOST_HEARD)),
            overrides=(Override("n" * LONGEST_NODE, 2**32 - 2, 2**32 - 1, 2**64 - 1),),
        )
        self.assertEqual(room_for_overrides(MOST_GROUPS, MOST_HEARD), 1)
        datagram = encode(hello, KEY)
        self.assertLessEqual(len(datagram), MOST_OCTETS)
        self.assertEqual(decode(datagram, RING), hello)

    def test_room(self) -> None:
        """As many overrides as there is said to be room for do fit."""
        self.assertEqual(room_for_overrides(1, 4), MOST_OVERRIDES)
        for groups in range(MOST_GROUPS + 1):
            for heard in range(0, MOST_HEARD + 1, 7):
                room = room_for_overrides(groups, heard)
                hello = replace(
                    HELLO,
                    node="n" * LONGEST_NODE,
                    version="v" * LONGEST_VERSION,
                    groups=(GroupHello("g" * LONGEST_GROUP, Role.MASTER, 1, 1.0),) * groups,
                    heard=HELLO.heard * heard,
                    overrides=(Override("n" * LONGEST_NODE, 1, 1, 1),) * room,
                )
                self.assertLessEqual(len(encode(hello, KEY)), MOST_OCTETS)

    def test_our_version(self) -> None:
        """What this software calls itself can be said."""
        encode(replace(HELLO, version=__version__), KEY)

    def test_old_clock(self) -> None:
        """A wall clock before 1970 is said to be 1970; a zone of an address is our own matter."""
        address = IPv6Address("fe80::1%eth0")
        heard = decode(encode(replace(HELLO, wall=-5.0, address=address), KEY), RING)
        self.assertEqual((heard.wall, heard.address), (0.0, IPv6Address("fe80::1")))


class EncodeTests(SynchronousTestCase):
    """encode's bounds."""

    def test_bounds(self) -> None:
        """What cannot be said is a ValueError."""
        group, heard, override = HELLO.groups[0], HELLO.heard[0], HELLO.overrides[0]
        changes: list[dict[str, Any]] = [
            {"node": ""},
            {"node": "n" * (LONGEST_NODE + 1)},
            {"node": "ü" * (LONGEST_NODE // 2 + 1)},
            {"node": "two\nlines"},
            {"node": "\ud800"},
            {"version": ""},
            {"version": "v" * (LONGEST_VERSION + 1)},
            {"incarnation": 2**64},
            {"incarnation": -1},
            {"sequence": 2**40},
            {"sequence": -1},
            {"uptime": -0.1},
            {"uptime": float("nan")},
            {"uptime": float("inf")},
            {"interval": 0.0},
            {"interval": 4295.0},
            {"weight": 2**32},
            {"load": 65536},
            {"link_port": 65536},
            {"policy_revision": 2**64},
            {"fitness": Fitness(65536)},
            {"groups": (group,) * (MOST_GROUPS + 1)},
            {"groups": (replace(group, name="g" * (LONGEST_GROUP + 1)),)},
            {"groups": (replace(group, priority=CLAIMED + 1),)},
            {"groups": (replace(group, priority=-1),)},
            {"groups": (replace(group, interval=0.0),)},
            {"heard": (heard,) * (MOST_HEARD + 1)},
            {"heard": (replace(heard, sequence=2**40),)},
            {"heard": (replace(heard, incarnation=2**64),)},
            {"heard": (replace(heard, held=-1.0),)},
            {"heard": (replace(heard, held=4295.0),)},
            {"peer_port": 65536},
            {"overrides": (override,) * (MOST_OVERRIDES + 1)},
            {"overrides": (replace(override, node=""),)},
            {"overrides": (replace(override, weight=2**32 - 1),)},
            {"overrides": (replace(override, weight=-1),)},
            {"overrides": (replace(override, stamp=2**32),)},
            {"overrides": (replace(override, origin=2**64),)},
        ]
        for each in changes:
            with self.assertRaises(ValueError, msg=str(each)):
                encode(replace(HELLO, **each), KEY)


class DecodeTests(SynchronousTestCase):
    """decode, with what nobody said."""

    def assert_rejected(self, datagram: bytes, *reasons: Drop) -> None:
        """Assert that ``datagram`` is rejected for one of ``reasons``."""
        with self.assertRaises(Rejected) as caught:
            decode(datagram, RING)
        self.assertIn(caught.exception.reason, reasons)
        self.assertEqual(str(caught.exception), caught.exception.reason.value)

    @given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda rest: b"MShi\x02" + rest))
    def test_noise(self, datagram: bytes) -> None:
        """Noise is rejected."""
        self.assert_rejected(datagram, Drop.MALFORMED, Drop.OTHER_CLUSTER, Drop.VERSION)

    @given(hellos, st.data())
    def test_cut(self, hello: Hello, data: st.DataObject) -> None:
        """A datagram that was cut is rejected."""
        datagram = encode(hello, KEY)
        end = data.draw(st.integers(0, len(datagram) - 1))
        self.assert_rejected(datagram[:end], Drop.MALFORMED, Drop.BAD_SIGNATURE)

    @given(hellos, st.binary(min_size=1, max_size=MOST_OCTETS))
    def test_longer(self, hello: Hello, more: bytes) -> None:
        """A datagram with something behind it is rejected."""
        self.assert_rejected(encode(hello, KEY) + more, Drop.MALFORMED, Drop.BAD_SIGNATURE)

    @given(hellos, st.data())
    def test_flipped(self, hello: Hello, data: st.DataObject) -> None:
        """A datagram with one bit changed is rejected, wherever the bit."""
        datagram = bytearray(encode(hello, KEY))
        bit = data.draw(st.integers(0, len(datagram) * 8 - 1))
        datagram[bit // 8] ^= 1 << bit % 8
        self.assert_rejected(
            bytes(datagram), Drop.MALFORMED, Drop.VERSION, Drop.OTHER_CLUSTER, Drop.BAD_SIGNATURE
        )

    @given(st.binary(max_size=300), st.integers(0, 255))
    def test_signed_noise(self, rest: bytes, flags: int) -> None:
        """Noise with a right signature is malformed, or by chance a hello."""
        try:
            decode(signed(b"MShi\x02" + bytes([flags]) + KEY.id + rest), RING)
        except Rejected as rejected:
            self.assertIs(rejected.reason, Drop.MALFORMED)

    @given(hellos, st.data())
    def test_signed_change(self, hello: Hello, data: st.DataObject) -> None:
        """A changed datagram with a right signature is malformed, or another hello."""
        octets = bytearray(encode(hello, KEY)[:-32])
        at = data.draw(st.integers(10, len(octets) - 1))
        octets[at] ^= data.draw(st.integers(1, 255))
        try:
            self.assertNotEqual(decode(signed(bytes(octets)), RING), hello)
        except Rejected as rejected:
            self.assertIs(rejected.reason, Drop.MALFORMED)

    def test_reasons(self) -> None:
        """The postmaster is told what sort of datagram it was."""
        datagram = encode(HELLO, KEY)
        for octets, reason in (
            (b"", Drop.MALFORMED),
            (b"X" * 200, Drop.MALFORMED),
            (b"MShi" + bytes(65_000), Drop.MALFORMED),
            (changed((VERSION, b"\x01")), Drop.VERSION),
            (encode(HELLO, OTHER), Drop.OTHER_CLUSTER),
            (datagram[:KEY_ID] + SECOND.id + datagram[KEY_ID + 4 :], Drop.BAD_SIGNATURE),
            (datagram[:-32] + bytes(32), Drop.BAD_SIGNATURE),
        ):
            self.assert_rejected(octets, reason)

    def test_old_key(self) -> None:
        """A key that was dropped is believed no more."""
        with self.assertRaises(Rejected) as caught:
            decode(encode(HELLO, SECOND), KeyRing((KEY,)))
        self.assertIs(caught.exception.reason, Drop.OTHER_CLUSTER)

    def test_out_of_bounds(self) -> None:
        """What has the right key and breaks a rule of the form is malformed all the same."""
        self.assertEqual(decode(changed(), RING), HELLO)
        for what, datagram in (
            ("flags", changed((FLAGS, b"\x02"))),
            ("interval", changed((INTERVAL, bytes(4)))),
            ("role", changed((NODE_ROLE, b"\x03"))),
            ("family", changed((FAMILY, b"\x05"))),
            ("octets behind an IPv4 address", changed((ADDRESS + 15, b"\x01"))),
            ("many overrides", changed((OVERRIDES, b"\x05"))),
            ("one override more", changed((OVERRIDES, b"\x03"))),
            ("one override less", changed((OVERRIDES, b"\x01"))),
            ("name in an override", changed((OVERRIDES + 2, b"\n"))),
            ("empty name", changed((NODE, b"\x00"))),
            ("long name", changed((NODE, b"\x41"))),
            ("name past the end", changed((NODE, b"\x40"))),
            ("no UTF-8", changed((NODE + 1, b"\xff"))),
            ("not printable", changed((NODE + 1, b"\x1b"))),
            ("many groups", changed((GROUPS, b"\x11"))),
            ("one group more", changed((GROUPS, b"\x02"))),
            ("name of a group", changed((GROUP + 1, b"\n"))),
            ("role in a group", changed((GROUP_ROLE, b"\x03"))),
            ("priority", changed((GROUP_ROLE + 1, b"\x01\x01"))),
            ("interval of a group", changed((GROUP_ROLE + 3, bytes(4)))),
            ("nobody heard", changed((HEARD, b"\x00"))),
            ("one heard more", changed((HEARD, b"\x02"))),
            ("many heard", changed((HEARD, b"\x21"))),
            ("nothing after the version", signed(encode(HELLO, KEY)[:GROUPS])),
            ("one octet more", signed(encode(HELLO, KEY)[:-32] + b"\x00")),
        ):
            with self.assertRaises(Rejected, msg=what) as caught:
                decode(datagram, RING)
            self.assertIs(caught.exception.reason, Drop.MALFORMED, what)
