"""Proves that a copy goes only where one address, and one with a way, says."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.control.forwarding import address_of
from mailsecure.control.wire import Refusal

PIECES = st.sampled_from([*"ab@.<>,:\"' \\\r\n\x00", "é", "\ud800", "example.com", "@x:"])


class AddressTests(SynchronousTestCase):
    """:func:`address_of`."""

    @settings(max_examples=300, deadline=None)
    @given(st.lists(PIECES, max_size=12).map("".join))
    def test_any_text(self, text):
        """Anything is refused, or is one mailbox in one line."""
        asked = []
        try:
            found = address_of(text, lambda domain: not asked.append(domain))
        except Refusal:
            return
        self.assertEqual(asked, [found.domain])
        self.assertTrue(found.mailbox.endswith("@" + found.domain))
        self.assertTrue(found.mailbox.isprintable())
        self.assertEqual(found.notify, "NEVER")
        self.assertEqual(address_of(found.mailbox, bool).mailbox, found.mailbox)
