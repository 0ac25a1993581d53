"""Where links lead, as browsers see it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.scan.content import reading
from mailsecure.scan.content.links import host_of, links_in_html, links_in_text
from mailsecure.scan.content.reading import Reader
from mailsecure.testing.messages import GTUBE


class HostTests(SynchronousTestCase):
    """host_of."""

    def test_hosts(self) -> None:
        """Every way to write a host that browsers follow."""
        for link, host in (
            ("http://www.example.com/x?y#z", "www.example.com"),
            ("HTTPS://EXAMPLE.com.:8443", "example.com"),
            ("ftp://example.com", "example.com"),
            ("//example.com/x", "example.com"),
            ("\\\\example.com\\x", "example.com"),
            ("https:example.com", "example.com"),
            ("https:/\\/example.com", "example.com"),
            ("ht\ntp://exa\tmple.com", "example.com"),
            ("http://good.example@evil.example/", "evil.example"),
            ("http://good.example:80@evil.example#@x", "evil.example"),
            ("http://%65vil.example", "evil.example"),
            ("http://bücher.example", "xn--bcher-kva.example"),
            ("http://３.example", "3.example"),
            ("http://192.0.2.1/", "192.0.2.1"),
            ("http://3221225985/", "192.0.2.1"),
            ("http://0xc0.0.513/", "192.0.2.1"),
            ("http://0300.0.02.1/", "192.0.2.1"),
            ("http://[2001:DB8::1]:80/", "2001:db8::1"),
        ):
            self.assertEqual(host_of(link), host, link)

    def test_none(self) -> None:
        """What leads nowhere."""
        for link in (
            "mailto:a@b.example",
            "/path",
            "#x",
            "",
            "javascript:x",
            "http://localhost/",
            "http://a_b/",
            "http://.../",
            "http://a..b/",
            "http://[zz]/",
            "http://256.0.0.1/",
            "http://1.2.3.256/",
            "http://99999999999/",
            "http://08.1.1.1/",
            "http://" + "1" * 50 + "/",
            "http://0xg/",
            "http://\ud800\udfff.example",
            "http://" + "ü" * 300 + ".example",
        ):
            self.assertEqual(host_of(link), "", link)
        self.assertEqual(host_of("http://0x/"), "0.0.0.0")

    @given(st.text(max_size=100))
    def test_any_text(self, text: str) -> None:
        """Nothing is raised; a host is what can be asked for."""
        host = host_of(f"http://{text}")
        self.assertTrue(host.isascii())
        self.assertLessEqual(len(host), 253)


class LinkTests(SynchronousTestCase):
    """links_in_text, links_in_html."""

    def test_text(self) -> None:
        """Bare ones, without what closes the sentence."""
        text = "See http://a.example/x, (https://b.example). WWW.c.example! ftp://d.example/"
        self.assertEqual(
            list(links_in_text(text)),
            ["http://a.example/x", "https://b.example", "http://WWW.c.example", "ftp://d.example/"],
        )

    def test_page(self) -> None:
        """Those to click on first, however they are quoted; then what loads; then bare ones."""
        page = (
            '<img src="http://i.example/"><a HREF = "http://a.example/?a&amp;b">x</a>'
            "<form action='http://f.example'><a href=&#104;ttp://e.example>http://t.example</a>"
            '<meta http-equiv=refresh content="0; URL=http://r.example/">'
        )
        hosts = list(dict.fromkeys(map(host_of, links_in_html(page))))
        expected = "a.example f.example e.example r.example i.example t.example"
        self.assertEqual(hosts, expected.split())


class ReaderTests(SynchronousTestCase):
    """Reader."""

    def setUp(self) -> None:
        self.reader = Reader(lambda host: ".".join(host.split(".")[-2:]))

    def hosts(self) -> list[str]:
        """Return the hosts that were found."""
        return [url.host for url in self.reader.urls]

    def test_once(self) -> None:
        """Each host once, with its first link and its domain."""
        self.reader.read(b"http://www.a.example/1 http://www.a.example/2", False, "")
        [url] = self.reader.urls
        self.assertEqual(url.url, "http://www.a.example/1")
        self.assertEqual(url.domain, "a.example")

    def test_charsets(self) -> None:
        """Declared, in a page, or by its first octets."""
        link = "http://bücher.example/"
        page = f"<meta charset=latin-1><a href={link}>".encode("latin-1")
        for content, is_page, charset in (
            (link.encode("utf-8"), False, ""),
            (link.encode("utf-16"), False, "us-ascii"),
            (link.encode("latin-1"), False, "latin-1"),
            (page, True, ""),
            (f"<a href={link}>".encode("cp1250"), True, "cp1250"),
        ):
            self.setUp()
            self.reader.read(content, is_page, charset)
            self.assertIn("xn--bcher-kva.example", self.hosts())

    def test_gtube(self) -> None:
        """Noticed in any text, and not forgotten."""
        self.assertFalse(self.reader.gtube)
        self.reader.read(GTUBE.encode(), False, "")
        self.reader.read(b"Hello", False, "")
        self.assertTrue(self.reader.gtube)

    def test_bounds(self) -> None:
        """Text, links and hosts are bounded, over all parts."""
        many = " ".join(f"http://h{n}.example/" for n in range(300)).encode()
        self.reader.read(many, False, "")
        self.assertEqual(len(self.hosts()), reading.MAX_HOSTS)
        self.patch(reading, "MAX_TEXT", 30)
        self.setUp()
        self.reader.read(b"http://a.example/ and more text", False, "")
        self.reader.read(b"http://b.example/", False, "")
        self.assertEqual(self.hosts(), ["a.example"])
        self.patch(reading, "MAX_TEXT", 1000)
        self.patch(reading, "MAX_LINKS", 1)
        self.setUp()
        self.reader.read(b"http://a.example/ http://b.example/", False, "")
        self.assertEqual(self.hosts(), ["a.example"])
