"""Both versions are read as they were written, however they are cut; junk only as RemoteFault."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.errors import RemoteFault
from mailsecure.proxyproto.binary import (
    SIGNATURE,
    crc32c,
    encode_block,
    encode_ssl,
    length_of,
    parse_block,
    parse_ssl,
)
from mailsecure.proxyproto.reading import MAX_BLOCK, HeaderReader
from mailsecure.proxyproto.text import MAX_LINE, encode_line, parse_line
from mailsecure.proxyproto.values import (
    Endpoint,
    Header,
    Inet,
    Ssl,
    SslClient,
    Tlv,
    TlvType,
    Transport,
    Unix,
)

PORTS = st.integers(0, 65535)
PATHS = st.binary(max_size=108).map(lambda path: path.rstrip(b"\0"))
ENDPOINTS = st.one_of(
    st.tuples(*[st.builds(Inet, st.ip_addresses(v=4), PORTS)] * 2),
    st.tuples(*[st.builds(Inet, st.ip_addresses(v=6), PORTS)] * 2),
    st.tuples(*[st.builds(Unix, PATHS)] * 2),
)
TLVS = st.lists(
    st.builds(Tlv, st.integers(0, 255).filter(lambda kind: kind != 3), st.binary(max_size=300)),
    max_size=4,
).map(tuple)
JUNK = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=300).map(lambda tail: SIGNATURE + tail),
    st.binary(max_size=60).map(lambda tail: SIGNATURE + b"\x21\x11\x00\x20" + tail),
    st.lists(
        st.sampled_from(
            b"PROXY| |TCP4|TCP6|UNKNOWN|1.2.3.4|::1|0|25|99999|\r\n|\n|\xff|fe80::1%eth0|x".split(
                b"|"
            )
        )
    ).map(b"".join),
)


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Cut ``data`` anywhere, empty pieces included."""
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def read(pieces: list[bytes], reader: HeaderReader) -> tuple[object, bytes]:
    """Return the header, None or "fault", and what follows a header."""
    for index, piece in enumerate(pieces):
        try:
            header = reader.feed(piece)
        except RemoteFault:
            return "fault", b""
        if header is not None:
            return header, reader.rest + b"".join(pieces[index + 1 :])
    return None, b""


def inet(address: str, port: int) -> Inet:
    """Return one end."""
    return Inet(ip_address(address), port)


class CodecTests(SynchronousTestCase):
    """What is true of both versions."""

    @given(st.data(), ENDPOINTS, TLVS, st.booleans(), st.binary(max_size=40))
    def test_block(
        self,
        data: st.DataObject,
        ends: tuple[Endpoint, Endpoint],
        tlvs: tuple[Tlv, ...],
        checksum: bool,
        rest: bytes,
    ) -> None:
        """Version 2: read as written, under any chunking; what follows is untouched."""
        header = Header(2, False, Transport.STREAM, *ends, tlvs)
        block = encode_block(header, checksum)
        reader = HeaderReader()
        found, left = read(data.draw(cut(block + rest)), reader)
        assert isinstance(found, Header)
        self.assertEqual(left, rest)
        self.assertEqual(reader.raw, block)
        self.assertEqual(found.tlvs[: len(tlvs)], tlvs)
        self.assertEqual(len(found.tlvs), len(tlvs) + checksum)
        self.assertEqual((found.source, found.destination), ends)

    @given(st.data(), ENDPOINTS, st.binary(max_size=40))
    def test_line(self, data: st.DataObject, ends: tuple[Endpoint, Endpoint], rest: bytes) -> None:
        """Version 1: the same; what it cannot say is UNKNOWN."""
        header = Header(1, False, Transport.STREAM, *ends)
        line = encode_line(header)
        self.assertLessEqual(len(line), MAX_LINE)
        found, left = read(data.draw(cut(line + rest)), HeaderReader())
        self.assertEqual(left, rest)
        if isinstance(ends[0], Inet):
            self.assertEqual(found, header)
        else:
            self.assertEqual(found, Header(1, transport=Transport.UNSPEC))

    @given(st.data(), JUNK, st.booleans())
    def test_junk(self, data: st.DataObject, junk: bytes, text: bool) -> None:
        """Anything else ends in RemoteFault or waits for more, the same under any chunking."""
        whole = read([junk], HeaderReader(text))
        self.assertEqual(read(data.draw(cut(junk)), HeaderReader(text)), whole)

    @given(st.data(), ENDPOINTS, TLVS, st.integers(0, 255))
    def test_bent(
        self,
        data: st.DataObject,
        ends: tuple[Endpoint, Endpoint],
        tlvs: tuple[Tlv, ...],
        octet: int,
    ) -> None:
        """A block with one octet changed raises nothing but RemoteFault."""
        block = bytearray(encode_block(Header(2, False, Transport.STREAM, *ends, tlvs), True))
        block[data.draw(st.integers(0, len(block) - 1))] = octet
        read([bytes(block)], HeaderReader())


class TextTests(SynchronousTestCase):
    """Version 1."""

    def test_example(self) -> None:
        """The lines of the standard (§2.1)."""
        header = Header(
            1, False, Transport.STREAM, inet("192.168.0.1", 56324), inet("10.0.0.2", 443)
        )
        line = b"PROXY TCP4 192.168.0.1 10.0.0.2 56324 443"
        self.assertEqual(parse_line(line), header)
        self.assertEqual(encode_line(header), line + b"\r\n")
        self.assertEqual(
            parse_line(b"PROXY UNKNOWN ffff::1 what ever"), parse_line(b"PROXY UNKNOWN")
        )
        longest = b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n"
        self.assertEqual(len(longest), MAX_LINE)
        self.assertIsNotNone(HeaderReader().feed(longest))
        with self.assertRaises(RemoteFault):
            HeaderReader().feed(b"PROXY UNKNOWN " + b"f" * 92 + b"\r\n")

    def test_told_as_unknown(self) -> None:
        """LOCAL, datagrams, two families."""
        four, six = inet("192.0.2.1", 1), inet("2001:db8::1", 2)
        for header in (
            Header(1, True, Transport.STREAM, four, four),
            Header(1, False, Transport.DGRAM, four, four),
            Header(1, False, Transport.STREAM, four, six),
            Header(1, False, Transport.STREAM, four, None),
        ):
            self.assertEqual(encode_line(header), b"PROXY UNKNOWN\r\n")

    def test_refused(self) -> None:
        """Every looseness that could make one address look like another."""
        for line in (
            b"",
            b"PROXY",
            b"PROXIES TCP4 1.2.3.4 1.2.3.4 1 2",
            b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3",
            b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 2",
            b"PROXY TCP4 1.2.3.4  1.2.3.4 1 2",
            b"PROXY TCP4 999.bogus 1.2.3.4 1 2",
            b"PROXY TCP4 01.2.3.4 1.2.3.4 1 2",
            b"PROXY TCP4 ::1 ::1 1 2",
            b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2",
            b"PROXY TCP6 fe80::1%eth0 ::1 1 2",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 2",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 123456",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 ",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 \xb2",
        ):
            with self.assertRaises(RemoteFault, msg=line):
                parse_line(line)

    def test_line_end(self) -> None:
        """A bare LF, and a line that does not end."""
        for data in (b"PROXY UNKNOWN\n", b"PROXY UNKNOWN" + b" " * 94, b"PROXY\n", b"PING"):
            with self.assertRaises(RemoteFault, msg=data):
                HeaderReader().feed(data)
        self.assertIsNone(HeaderReader().feed(b"PROXY UNKNOWN" + b" " * 93))

    def test_not_wanted(self) -> None:
        """Where only version 2 is expected a line is junk at its first octet."""
        with self.assertRaises(RemoteFault):
            HeaderReader(text=False).feed(b"P")


class BinaryTests(SynchronousTestCase):
    """Version 2."""

    def test_example(self) -> None:
        """Octets put together by hand from the standard."""
        block = (
            b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x11\x00\x13"
            b"\xc0\x00\x02\x07\xc0\x00\x02\x19\xc3\x9b\x00\x19\x02\x00\x04mail"
        )
        header = parse_block(block)
        self.assertEqual(
            header,
            Header(
                2,
                False,
                Transport.STREAM,
                inet("192.0.2.7", 50075),
                inet("192.0.2.25", 25),
                (Tlv(TlvType.AUTHORITY, b"mail"),),
            ),
        )
        self.assertEqual(header.values(TlvType.AUTHORITY), [b"mail"])
        self.assertEqual(header.values(TlvType.ALPN), [])
        self.assertEqual(encode_block(header), block)

    def test_local(self) -> None:
        """LOCAL: addresses and family are skipped, TLVs are kept."""
        ends = (inet("192.0.2.7", 1), inet("192.0.2.25", 25))
        tlvs = (Tlv(TlvType.UNIQUE_ID, b"7"),)
        found = parse_block(encode_block(Header(2, True, Transport.STREAM, *ends, tlvs)))
        self.assertEqual(found, Header(2, True, Transport.STREAM, None, None, tlvs))

    def test_unspec(self) -> None:
        """What cannot be told goes as UNSPEC, and UNSPEC says nothing."""
        for ends in (
            (inet("192.0.2.7", 1), inet("2001:db8::1", 25)),
            (inet("192.0.2.7", 1), None),
            (Unix(b"/a"), None),
        ):
            block = encode_block(Header(2, False, Transport.STREAM, *ends))
            self.assertEqual(block[12:], b"\x21\x00\x00\x00")
            self.assertEqual(parse_block(block), Header(2, False, Transport.UNSPEC))
        # A family without a transport: the addresses are there, but are of no use.
        block = SIGNATURE + b"\x21\x10\x00\x0c" + bytes(12)
        self.assertEqual(parse_block(block), Header(2, False, Transport.UNSPEC))

    def test_datagrams(self) -> None:
        """The transport is told; whether it is wanted is for others to say."""
        ends = (inet("192.0.2.7", 1), inet("192.0.2.25", 25))
        header = Header(2, False, Transport.DGRAM, *ends)
        self.assertEqual(parse_block(encode_block(header)), header)

    def test_refused(self) -> None:
        """What the standard calls an error."""
        good = encode_block(
            Header(2, False, Transport.STREAM, inet("1.2.3.4", 1), inet("1.2.3.4", 2))
        )
        for block in (
            b"",
            good[:-1],
            good + b"x",
            b"x" + good[1:],
            good[:12] + b"\x11" + good[13:],
            good[:12] + b"\x22" + good[13:],
            good[:13] + b"\x41" + good[14:],
            good[:13] + b"\x13" + good[14:],
            good[:13] + b"\x21" + good[14:],
            SIGNATURE + b"\x21\x00\x00\x02\x05\x00",
            SIGNATURE + b"\x21\x00\x00\x04\x05\x00\x02x",
            SIGNATURE + b"\x21\x00\x00\x05\x03\x00\x02xx",
        ):
            with self.assertRaises(RemoteFault, msg=block):
                parse_block(block)
        two = encode_block(Header(2, tlvs=(Tlv(3, bytes(4)),)), True)
        with self.assertRaises(RemoteFault):
            parse_block(two)

    def test_checksum(self) -> None:
        """The check value of CRC32C, and a header that was bent on its way."""
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)
        block = encode_block(
            Header(2, False, Transport.STREAM, inet("1.2.3.4", 1), inet("1.2.3.4", 2)), True
        )
        parse_block(block)
        with self.assertRaises(RemoteFault):
            parse_block(block[:16] + b"\x09" + block[17:])

    def test_too_long(self) -> None:
        """The length alone is enough to refuse; nothing is kept for it."""
        head = SIGNATURE + b"\x21\x00"
        self.assertIsNone(HeaderReader().feed(head + (MAX_BLOCK - 16).to_bytes(2, "big")))
        with self.assertRaises(RemoteFault):
            HeaderReader().feed(head + (MAX_BLOCK - 15).to_bytes(2, "big"))
        self.assertEqual(length_of(head + b"\x01\x00"), 272)

    @given(
        st.builds(
            Ssl,
            st.integers(0, 7).map(SslClient),
            st.integers(0, 2**32 - 1),
            *[st.text(max_size=20)] * 5,
        )
    )
    def test_ssl(self, ssl: Ssl) -> None:
        """The SSL TLV: read as written; parts that nobody knows are skipped."""
        value = encode_ssl(ssl)
        self.assertEqual(parse_ssl(value), ssl)
        self.assertEqual(parse_ssl(value + b"\x7f\x00\x01x"), ssl)

    def test_bad_ssl(self) -> None:
        """A short one; a part that ends nowhere; text that is not UTF-8."""
        for value in (b"", bytes(4), bytes(5) + b"\x21", bytes(5) + b"\x21\x00\x02x"):
            with self.assertRaises(RemoteFault):
                parse_ssl(value)
        self.assertEqual(parse_ssl(bytes(5) + b"\x22\x00\x01\xff").common_name, "\\xff")


class AddressTests(SynchronousTestCase):
    """Addresses come back as ipaddress's own values, so that policy can compare them."""

    def test_kinds(self) -> None:
        """One of each family."""
        for text, kind in (("192.0.2.1", IPv4Address), ("2001:db8::1", IPv6Address)):
            header = Header(2, False, Transport.STREAM, inet(text, 1), inet(text, 2))
            source = parse_block(encode_block(header)).source
            assert isinstance(source, Inet)
            self.assertIsInstance(source.address, kind)
