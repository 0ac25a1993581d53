"""Routes: the most exact entry wins, and ``*`` makes nothing ours."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.model import Route, RouteKind
from mailsecure.delivery.routes import Routes, next_hop_key

HOST = Route(RouteKind.SMTP, host="10.0.0.5", port=25)
BELOW = Route(RouteKind.LMTP, host="2001:db8::5", port=24)
DEEPER = Route(RouteKind.MAILDIR, path="/var/mail/deep")
MX = Route(RouteKind.MX)

label = st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)


class RoutesTests(SynchronousTestCase):
    """Routes.find and Routes.is_ours."""

    def setUp(self) -> None:
        self.routes = Routes(
            {
                "example.com": HOST,
                ".example.com": BELOW,
                ".deep.example.com": DEEPER,
                "*": MX,
            }
        )

    def test_exact(self) -> None:
        """The domain itself."""
        self.assertIs(self.routes.find("example.com"), HOST)
        self.assertTrue(self.routes.is_ours("example.com"))

    def test_case(self) -> None:
        """Domains have no case."""
        self.assertIs(self.routes.find("EXAMPLE.com"), HOST)
        self.assertIs(Routes({"Example.COM": HOST}).find("example.com"), HOST)

    def test_longest_parent(self) -> None:
        """Of two parents the longer wins; a parent does not name itself."""
        self.assertIs(self.routes.find("a.example.com"), BELOW)
        self.assertIs(self.routes.find("a.b.example.com"), BELOW)
        self.assertIs(self.routes.find("deep.example.com"), BELOW)
        self.assertIs(self.routes.find("a.b.deep.example.com"), DEEPER)
        self.assertIsNone(Routes({".example.com": BELOW}).find("example.com"))

    def test_rest(self) -> None:
        """What only ``*`` names has a route and is not ours."""
        for domain in ("example.org", "notexample.com", "com", "example.com.evil", ""):
            self.assertIs(self.routes.find(domain), MX, domain)
            self.assertFalse(self.routes.is_ours(domain), domain)

    def test_none(self) -> None:
        """Without ``*`` there is no route, with or without parents."""
        self.assertIsNone(Routes({"example.com": HOST}).find("a.example.com"))
        self.assertIsNone(Routes({".example.com": HOST}).find("example.org"))

    def test_literals(self) -> None:
        """An address literal has no parents: its dots are not a domain's."""
        routes = Routes({".2.1]": HOST, "example.com": HOST})
        self.assertIsNone(routes.find("[192.0.2.1]"))
        self.assertIsNone(routes.find("[IPv6:2001:db8::1.2.2.1]"))
        self.assertFalse(self.routes.is_ours("[192.0.2.1]"))
        self.assertIs(self.routes.find("[192.0.2.1]"), MX)

    @given(st.lists(label, min_size=1, max_size=6), st.lists(label, min_size=1, max_size=4))
    def test_only_below(self, front: list[str], parent: list[str]) -> None:
        """``.parent`` names exactly the domains that end in it after a dot."""
        routes = Routes({"." + ".".join(parent): HOST})
        below = ".".join(front + parent)
        self.assertTrue(routes.is_ours(below))
        # Glued on without a dot it is another domain, unless it lies below by chance.
        glued = "x" + ".".join(parent)
        self.assertFalse(routes.is_ours(glued))


class NextHopKeyTests(SynchronousTestCase):
    """next_hop_key."""

    def test_fixed(self) -> None:
        """All domains of a fixed route share it."""
        self.assertEqual(next_hop_key(HOST, "a.example"), "smtp://10.0.0.5:25")
        self.assertEqual(next_hop_key(BELOW, "b.example"), "lmtp://[2001:db8::5]:24")
        self.assertEqual(next_hop_key(DEEPER, "b.example"), "maildir:/var/mail/deep")

    def test_mx(self) -> None:
        """With mx every domain has its own."""
        self.assertEqual(next_hop_key(MX, "a.example"), "mx:a.example")
