"""Each kind of option takes what a postmaster would write and says what it cannot take."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.endpoints import serverFromString
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.endpoints import check_endpoint
from mailsecure.config.kinds import KINDS
from mailsecure.config.model import BareNewlines, Route, RouteKind, TlsLevel
from mailsecure.config.routes import parse_domain, parse_hostname, parse_route
from mailsecure.config.scanning import DnsList
from mailsecure.config.schema import SECTIONS

#: Kind, type, text, value, canonical text.
GOOD: list[tuple[str, Any, str, Any, str]] = [
    ("name", str, "", "", ""),
    ("name", str, "mx-1.a", "mx-1.a", "mx-1.a"),
    ("hostname", str, "", "", ""),
    ("hostname", str, "MX1.Example.COM", "mx1.example.com", "mx1.example.com"),
    ("hostname", str, "bücher.example", "xn--bcher-kva.example", "xn--bcher-kva.example"),
    ("directory", Path, "/var/lib//x/", Path("/var/lib/x"), "/var/lib/x"),
    ("user", str, "mail_secure", "mail_secure", "mail_secure"),
    ("group", str, "", "", ""),
    ("endpoints", tuple, "tcp:25\n\n tcp6:25 ", ("tcp:25", "tcp6:25"), "tcp:25\ntcp6:25"),
    ("endpoints", tuple, "", (), ""),
    ("endpoint?", str, "", "", ""),
    ("endpoint?", str, "tcp:0", "tcp:0", "tcp:0"),
    ("line", str, "ESMTP here", "ESMTP here", "ESMTP here"),
    ("file?", Path, "", None, ""),
    ("file?", Path, "a.pem", Path("a.pem"), "a.pem"),
    ("output", str, "-", "-", "-"),
    ("size", int, "0", 0, "0"),
    ("size", int, "1000", 1000, "1000"),
    ("size", int, "1024k", 1 << 20, "1M"),
    ("size", int, "2G", 2 << 30, "2G"),
    ("size", int, "3072", 3072, "3K"),
    ("count", int, "7", 7, "7"),
    ("limit", int, "0", 0, "0"),
    ("duration", float, "0s", 0.0, "0s"),
    ("duration", float, "90s", 90.0, "90s"),
    ("duration", float, "1h30m", 5400.0, "90m"),
    ("duration", float, "24h", 86400.0, "1d"),
    ("duration", float, "0.3s", 0.3, "300ms"),
    ("duration", float, "0.0004s", 0.0004, "0.0004s"),
    ("timeout", float, "5m", 300.0, "5m"),
    ("durations", tuple, "5m, 10m\n1h", (300.0, 600.0, 3600.0), "5m 10m 1h"),
    ("choice?", TlsLevel | None, "", None, ""),
    ("choice?", TlsLevel | None, "Required", TlsLevel.REQUIRED, "required"),
    ("words", tuple, "a, b\n*.exe a", ("a", "b", "*.exe"), "a b *.exe"),
    ("folder?", Path, "", None, ""),
    ("folder?", Path, "plugins", Path("plugins"), "plugins"),
    ("number", float, "-3", -3.0, "-3"),
    ("number", float, "0.123456", 0.123456, "0.123456"),
    ("number", float, "123456.7", 123456.7, "123456.7"),
    ("score", float, "Never", float("inf"), "never"),
    ("score", float, "4.5", 4.5, "4.5"),
    ("score?", float, "", None, ""),
    ("score?", float, "never", float("inf"), "never"),
    (
        "scores",
        dict,
        "SPF_FAIL 4\nX_1  -0.5",
        {"SPF_FAIL": 4.0, "X_1": -0.5},
        "SPF_FAIL 4\nX_1 -0.5",
    ),
    (
        "settings",
        dict,
        "limit 5\nword a b\nbare",
        {"limit": "5", "word": "a b", "bare": ""},
        "limit 5\nword a b\nbare",
    ),
    ("dns-lists", tuple, "", (), ""),
    (
        "dns-lists",
        tuple,
        "zen.example 6\nwl.example=127.0-255.1.2-3|127.0.0.9 -3.5",
        (
            DnsList("zen.example", (), 6.0),
            DnsList("wl.example", ((0, 255, 1, 1, 2, 3), (0, 0, 0, 0, 9, 9)), -3.5),
        ),
        "zen.example 6\nwl.example=127.0-255.1.2-3|127.0.0.9 -3.5",
    ),
    ("client", str, "unix:/run/x", "unix:/run/x", "unix:/run/x"),
    ("client", str, "tcp:Mx.example:25", "tcp:mx.example:25", "tcp:mx.example:25"),
    ("client", str, "tcp:[::1]:25", "tcp:[::1]:25", "tcp:[::1]:25"),
    ("url", str, "http://[::1]:11333/", "http://[::1]:11333", "http://[::1]:11333"),
    ("url", str, "icap://a.example/srv", "icap://a.example/srv", "icap://a.example/srv"),
    ("database", str, "", "", ""),
    ("database", str, "r.db", "r.db", "r.db"),
    ("database", str, "postgresql://a@b/c", "postgresql://a@b/c", "postgresql://a@b/c"),
    ("choice", TlsLevel, "Required", TlsLevel.REQUIRED, "required"),
    ("yes-no", bool, "Yes", True, "yes"),
    ("yes-no", bool, "off", False, "no"),
    (
        "networks",
        tuple,
        "10.0.0.0/8,2001:db8::/32\n192.0.2.1",
        (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"), ip_network("192.0.2.1/32")),
        "10.0.0.0/8 2001:db8::/32 192.0.2.1/32",
    ),
    ("addresses", str, "192.0.2.1 2001:DB8::0:1", "192.0.2.1 2001:db8::1", "192.0.2.1 2001:db8::1"),
    ("addresses", str, "", "", ""),
    (
        "servers",
        tuple,
        "192.0.2.1 192.0.2.2:53 192.0.2.3:5353 ::1 [::1] [::1]:5353",
        ("192.0.2.1", "192.0.2.2", "192.0.2.3:5353", "::1", "::1", "[::1]:5353"),
        "192.0.2.1 192.0.2.2 192.0.2.3:5353 ::1 ::1 [::1]:5353",
    ),
    ("secret?", Path, "", None, ""),
    ("secret?", Path, "cluster.key", Path("cluster.key"), "cluster.key"),
    ("interface", str, "", "", ""),
    ("interface", str, "eth0.25", "eth0.25", "eth0.25"),
    ("interface", str, "enp0s31f6-bridg", "enp0s31f6-bridg", "enp0s31f6-bridg"),
    ("address?", str, "", "", ""),
    ("address?", str, "127.0.0.1", "127.0.0.1", "127.0.0.1"),
    ("address?", str, "FE80::0:1", "fe80::1", "fe80::1"),
    ("multicast", str, "239.1.2.3:694", "239.1.2.3:694", "239.1.2.3:694"),
    ("multicast", str, "224.0.1.9", "224.0.1.9:5025", "224.0.1.9:5025"),
    ("multicast", str, "[FF02::2525]:1", "[ff02::2525]:1", "[ff02::2525]:1"),
    ("multicast", str, "ff02::2525", "[ff02::2525]:5025", "[ff02::2525]:5025"),
    (
        "peers",
        tuple,
        "192.0.2.1, 192.0.2.2:53\n2001:db8::1 [2001:db8::2]:5025",
        ("192.0.2.1", "192.0.2.2:53", "2001:db8::1", "[2001:db8::2]:5025"),
        "192.0.2.1 192.0.2.2:53 2001:db8::1 [2001:db8::2]:5025",
    ),
    ("port", str, "05025", "5025", "5025"),
    ("interfaces", tuple, "", (), ""),
    (
        "interfaces",
        tuple,
        "192.0.2.25/32 192.0.2.26/24, 10.0.0.0/31 127.0.0.9/8\n2001:DB8::25 2001:db8::/127",
        (
            ip_interface("192.0.2.25/32"),
            ip_interface("192.0.2.26/24"),
            ip_interface("10.0.0.0/31"),
            ip_interface("127.0.0.9/8"),
            ip_interface("2001:db8::25/128"),
            ip_interface("2001:db8::/127"),
        ),
        "192.0.2.25 192.0.2.26/24 10.0.0.0/31 127.0.0.9/8 2001:db8::25 2001:db8::/127",
    ),
    ("priority", int, "255", 255, "255"),
    ("advertisement", float, "10ms", 0.01, "10ms"),
    ("advertisement", float, "40.95s", 40.95, "40950ms"),
    ("command", str, "", "", ""),
    ("command", str, "/bin/a 'b c' d", "/bin/a 'b c' d", "/bin/a 'b c' d"),
    ("command", str, "logger moved", "logger moved", "logger moved"),
]

#: Kind, type, text, a part of what is said.
BAD: list[tuple[str, Any, str, str]] = [
    ("name", str, "-x", "is no name"),
    ("hostname", str, "a..b", "is no domain"),
    ("hostname", str, "mx.", "ends in a dot"),
    ("hostname", str, "10.0.0.1", "looks like an address"),
    ("hostname", str, "x" * 254, "253 characters"),
    ("hostname", str, "\u2028.example", "no valid international domain"),
    ("directory", Path, "", "a path is missing"),
    ("directory", Path, "~/mail", "~ is not expanded"),
    ("user", str, "0day", "no name of a user"),
    ("line", str, "grüezi", "ASCII"),
    ("line", str, "x" * 201, "longer than 200"),
    ("output", str, "", "a path is missing"),
    ("size", int, "50MB", "a size is"),
    ("size", int, "9" * 5000, "larger than any disk"),
    ("size", int, "2097152G", "larger than any disk"),
    ("count", int, "0", "1 at least"),
    ("count", int, "-1", "no whole number"),
    ("limit", int, "٣", "no whole number"),
    ("limit", int, "1000000001", "too large"),
    ("limit", int, "9" * 5000, "too large"),
    ("duration", float, "5", "a number with a unit"),
    ("duration", float, "5000d", "ten years"),
    ("duration", float, "9" * 5000 + "d", "ten years"),
    ("timeout", float, "0s", "longer than nothing"),
    ("durations", tuple, " ", "one duration at least"),
    ("choice", BareNewlines, "normalize", "did you mean normalise?"),
    ("choice", BareNewlines, "x", "is not one of reject, normalise"),
    ("choice?", TlsLevel | None, "x", "is not one of"),
    ("number", float, "1e9", "is no number"),
    ("score", float, "x", "is no score"),
    ("scores", dict, "SPF_FAIL", "a symbol and its score"),
    ("scores", dict, "spf 4", "is no symbol"),
    ("scores", dict, "A 4\nA 5", "has a score already"),
    ("scores", dict, "A x", "is no number"),
    ("settings", dict, "a 1\na 2", "is set already"),
    ("dns-lists", tuple, "zen.example", "a zone and its score"),
    ("dns-lists", tuple, "zen.example=10.0.0.1 4", "is no answer of a list"),
    ("dns-lists", tuple, "zen.example=127.0.0.9-2 4", "is no range of octets"),
    ("dns-lists", tuple, "zen.example=127.0.0.256 4", "is no range of octets"),
    ("client", str, "unix:run", "write the whole path"),
    ("client", str, "udp:a:1", "is no address"),
    ("client", str, "tcp:a.example", "0 is no port"),
    ("url", str, "ftp://a.example", "is no URL"),
    ("url", str, "http://u:p@a.example", "does not belong in a URL"),
    ("url", str, "http://a.example:x", "is no port"),
    ("url", str, "http://[::1", "is no URL"),
    ("database", str, "mysql://a/b", "is no database"),
    ("database", str, "postgresql://u:p@h/d", "holds a password"),
    ("database", str, "postgresql://h", "names no database"),
    ("database", str, "postgresql://[h/d", "is no URL"),
    ("yes-no", bool, "maybe", "neither yes nor no"),
    ("networks", tuple, "10.0.0.0/33", "is no network"),
    ("networks", tuple, "10.0.0.5/8", "did you mean 10.0.0.0/8?"),
    ("networks", tuple, "fe80::1%eth0", "without a zone"),
    ("networks", tuple, "::ffff:10.0.0.0/104", "IPv4 as IPv4"),
    ("addresses", str, "192.0.2.1 192.0.2.2", "one IPv4 and one IPv6"),
    ("addresses", str, "mx1", "no IP address"),
    ("servers", tuple, "dns.example", "no IP address"),
    ("servers", tuple, "192.0.2.1:0", "no port"),
    ("servers", tuple, "[::1]:70000", "no port"),
    ("interface", str, "enp0s31f6-bridge", "up to 15 characters"),
    ("interface", str, "eth0:1", "no name of a network interface"),
    ("interface", str, "eth 0", "no name of a network interface"),
    ("interface", str, "..", "no name of a network interface"),
    ("address?", str, "mx1", "no IP address"),
    ("address?", str, "192.0.2.1 192.0.2.2", "no IP address"),
    ("address?", str, "0.0.0.0", "of no machine"),
    ("address?", str, "255.255.255.255", "of no machine"),
    ("address?", str, "239.1.2.3", "is a multicast address"),
    ("address?", str, "::ffff:192.0.2.1", "IPv4 as IPv4"),
    ("address?", str, "fe80::1%eth0", "leave out the zone"),
    ("multicast", str, "192.0.2.1:5025", "no multicast address"),
    ("multicast", str, "", "no IP address"),
    ("multicast", str, "[ff02::1%eth0]:5025", "leave out the zone"),
    ("multicast", str, "239.1.2.3:0", "no port"),
    ("multicast", str, "239.1.2.3:99999", "no port"),
    ("peers", tuple, "mx2", "no IP address"),
    ("peers", tuple, "192.0.2.1:0", "no port"),
    ("peers", tuple, "[ff02::1]:5025", "is a multicast address"),
    ("port", str, "65536", "no port"),
    ("port", str, "0", "no port"),
    ("port", str, "tcp:5025", "no port"),
    ("port", str, "٣", "no port"),
    ("interfaces", tuple, "192.0.2.300", "is no address: write"),
    ("interfaces", tuple, "192.0.2.0/24", "the network itself"),
    ("interfaces", tuple, "2001:db8::/64", "the network itself"),
    ("interfaces", tuple, "192.0.2.255/24", "the broadcast address"),
    ("interfaces", tuple, "224.0.0.18", "is a multicast address"),
    ("interfaces", tuple, "::/128", "of no machine"),
    ("interfaces", tuple, "fe80::1%eth0/64", "leave out the zone"),
    ("interfaces", tuple, "192.0.2.25 192.0.2.25/24", "192.0.2.25 is listed twice"),
    ("priority", int, "0", "no priority"),
    ("priority", int, "256", "no priority"),
    ("priority", int, "high", "no whole number"),
    ("advertisement", float, "9ms", "from 10ms to 40s"),
    ("advertisement", float, "41s", "from 10ms to 40s"),
    ("command", str, "/bin/a 'b", "as a shell would"),
    ("command", str, "bin/a", "write the whole path"),
    ("command", str, "~/a", "~ is not expanded"),
]

GOOD_ENDPOINTS = [
    "tcp:25",
    "tcp:0:interface=127.0.0.1",
    "tcp:port=25:backlog=512",
    r"tcp:25:interface=\:\:1",
    r"tcp6:25:interface=2001\:db8\:\:1:backlog=9",
    "unix:/run/smtp",
    "unix:/run/smtp:mode=660:lockfile=0:backlog=1",
    r"unix:/run/a\:b\=c\\d",
]

BAD_ENDPOINTS = [
    ("tcq:25", "did you mean tcp?"),
    ("25", "is no kind of endpoint"),
    ("tcp=25", "is no kind of endpoint"),
    ("ssl:465", "listen_tls"),
    ("tcp", "needs a port"),
    ("tcp:", "is no port"),
    ("tcp:smtp", "is no port"),
    ("tcp:65536", "is no port"),
    ("tcp:25:interface=::1", "escaped"),
    ("tcp:25:interface=eth0", "no IP address"),
    ("tcp6:25:interface=127.0.0.1", "write tcp, not tcp6"),
    ("tcp:25:127.0.0.1", "what is '127.0.0.1'"),
    ("tcp:25:port=26", "given twice"),
    ("tcp:25:backlog=many", "is no number"),
    ("tcp:25:iface=127.0.0.1", "knows no 'iface'"),
    ("tcp:=25", "knows no ''"),
    ("tcp:25\\", "ends in a backslash"),
    ("unix:smtp", "absolute path"),
    ("unix:/x:mode=999", "no file mode"),
    ("unix:/x:lockfile=yes", "0 or 1"),
    ("systemd:IPX:name=smtp", "no socket family"),
    ("systemd:INET", "either name or index"),
    ("systemd:INET:name=a:index=0", "either name or index"),
    ("systemd:INET:name=", "is empty"),
]

GOOD_ROUTES = [
    ("mx", Route(RouteKind.MX)),
    ("smtp://10.0.0.5:25", Route(RouteKind.SMTP, "10.0.0.5", 25)),
    ("smtp://Mail.Example", Route(RouteKind.SMTP, "mail.example", 25)),
    ("lmtp://host", Route(RouteKind.LMTP, "host", 24)),
    ("lmtp://[2001:DB8::5]:2424", Route(RouteKind.LMTP, "2001:db8::5", 2424)),
    ("lmtp+unix:/run/lmtp", Route(RouteKind.LMTP_UNIX, path="/run/lmtp")),
    ("lmtp+unix:///run/lmtp", Route(RouteKind.LMTP_UNIX, path="/run/lmtp")),
    ("maildir:../mail", Route(RouteKind.MAILDIR, path="../mail")),
]

BAD_ROUTES = [
    ("", "is no route"),
    ("10.0.0.5", "is no route"),
    ("smpt://10.0.0.5", "did you mean smtp?"),
    ("smtp:10.0.0.5", "write smtp://host:port"),
    ("smtp://10.0.0.500", "no IPv4 address"),
    ("smtp://", "a name is missing"),
    ("smtp://a b", "is no domain"),
    ("smtp://user@host", "is no domain"),
    ("smtp://host:25/", "is no port"),
    ("smtp://host:0", "is no port"),
    ("smtp://host:65536", "is no port"),
    ("smtp://[::1", "in brackets"),
    ("smtp://[10.0.0.5]", "no IPv6 address"),
    ("smtp://2001:db8::5", "in brackets"),
    ("lmtp+unix:run/lmtp", "must be absolute"),
    ("maildir:", "a path is missing"),
    ("maildir:~/mail", "~ is not expanded"),
    ("mx:host", "mx stands alone"),
]

BAD_DOMAINS = [
    ("*.example.com", "write .example.com"),
    ("user@example.com", "leave out the @"),
    ("[10.0.0.1]", "in brackets"),
    ("..example.com", "is no domain"),
    (".", "a name is missing"),
    ("exa mple.com", "is no domain"),
    ("-a.example", "is no domain"),
    ("10.0.0.1", "looks like an address"),
]


class Kinds(SynchronousTestCase):
    """Every kind, as a table."""

    def test_good(self) -> None:
        for kind, type_, text, value, written in GOOD:
            parsed = KINDS[kind].parse(text, type_)
            self.assertEqual(parsed, value, (kind, text))
            self.assertEqual(KINDS[kind].write(parsed), written, (kind, text))
            self.assertEqual(KINDS[kind].parse(written, type_), value, (kind, written))

    def test_bad(self) -> None:
        for kind, type_, text, said in BAD:
            error = self.assertRaises(ValueError, KINDS[kind].parse, text, type_)
            self.assertIn(said, str(error), (kind, text))

    def test_every_kind_is_tried(self) -> None:
        self.assertEqual({row[0] for row in GOOD}, set(KINDS))

    def test_every_option_has_a_kind_that_takes_its_default_and_example(self) -> None:
        for section in SECTIONS.values():
            for option in section.options.values():
                kind = KINDS[option.kind]
                value = kind.parse(option.default, option.type)
                self.assertEqual(kind.write(value), option.default, option)
                if option.example:
                    example = kind.parse(option.example, option.type)
                    self.assertEqual(kind.write(example).split(), option.example.split())

    @given(st.sampled_from(sorted(KINDS)), st.text())
    def test_any_text_is_a_value_or_a_value_error(self, name: str, text: str) -> None:
        kind = KINDS[name]
        try:
            value = kind.parse(text, TlsLevel)
        except ValueError as error:
            self.assertTrue(str(error))
        else:
            self.assertEqual(kind.parse(kind.write(value), TlsLevel), value)

    @given(st.integers(0, 10**9), st.sampled_from(["", "K", "M"]))
    def test_sizes_survive(self, number: int, unit: str) -> None:
        kind = KINDS["size"]
        value = kind.parse(f"{number}{unit}", int)
        self.assertEqual(kind.parse(kind.write(value), int), value)

    @given(st.decimals(0, 3000, places=7), st.sampled_from(["ms", "s", "m", "h", "d"]))
    def test_durations_survive(self, number: object, unit: str) -> None:
        kind = KINDS["duration"]
        value = kind.parse(f"{number:f}{unit}", float)
        self.assertEqual(kind.parse(kind.write(value), float), value)


class Endpoints(SynchronousTestCase):
    """What is taken is what Twisted takes."""

    def test_good(self) -> None:
        for text in GOOD_ENDPOINTS:
            check_endpoint(text)
            self.assertTrue(serverFromString(MemoryReactor(), text))

    def test_systemd(self) -> None:
        # Twisted can only parse these where systemd has passed sockets on.
        for text in ("systemd:INET:name=smtp", "systemd:domain=INET6:index=0"):
            check_endpoint(text)

    def test_bad(self) -> None:
        for text, said in BAD_ENDPOINTS:
            error = self.assertRaises(ValueError, check_endpoint, text)
            self.assertIn(said, str(error), text)

    @given(st.text("tcp6unix:=\\0123/.", max_size=20))
    def test_what_passes_is_parsed_by_twisted(self, text: str) -> None:
        try:
            check_endpoint(text)
        except ValueError:
            return
        self.assertTrue(serverFromString(MemoryReactor(), text))


class Routes(SynchronousTestCase):
    """The two sides of a line of [domains]."""

    def test_good_routes(self) -> None:
        for text, route in GOOD_ROUTES:
            self.assertEqual(parse_route(text), route)
            self.assertEqual(parse_route(str(route)), route)

    def test_bad_routes(self) -> None:
        for text, said in BAD_ROUTES:
            self.assertIn(said, str(self.assertRaises(ValueError, parse_route, text)), text)

    def test_good_domains(self) -> None:
        for text, domain in (
            ("*", "*"),
            ("Example.COM", "example.com"),
            (".Bücher.example", ".xn--bcher-kva.example"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("win_host.example", "win_host.example"),
        ):
            self.assertEqual(parse_domain(text), domain)

    def test_bad_domains(self) -> None:
        for text, said in BAD_DOMAINS:
            self.assertIn(said, str(self.assertRaises(ValueError, parse_domain, text)), text)

    @given(st.text(max_size=300))
    def test_any_text(self, text: str) -> None:
        for parse in (parse_route, parse_domain, parse_hostname):
            try:
                value = parse(text)
            except ValueError:
                continue
            self.assertEqual(parse(str(value)), value)
