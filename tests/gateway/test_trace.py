"""The Received field, and what the traces of others tell."""

from __future__ import annotations

import email
import email.policy

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.gateway.trace import (
    MAX_HEADER,
    count_received,
    delivered_to,
    header_section,
    protocol_word,
    received_field,
    rfc5322_date,
)
from mailsecure.smtp.events import TlsFacts


class TraceTests(SynchronousTestCase):
    """Fields and what is read from them."""

    def test_received(self) -> None:
        """RFC 5321 §4.4, with TLS facts."""
        field = received_field(
            "mail.example",
            "192.0.2.1",
            "us.example",
            "ESMTPS",
            TlsFacts("TLSv1.3", "AES"),
            "ID",
            "a@us.example",
            rfc5322_date(0),
        )
        self.assertEqual(
            field,
            b"Received: from mail.example ([192.0.2.1])\r\n"
            b"\tby us.example with ESMTPS (TLSv1.3 AES)\r\n"
            b"\tid ID\r\n\tfor <a@us.example>;\r\n\tThu, 1 Jan 1970 00:00:00 +0000\r\n",
        )

    def test_several_recipients(self) -> None:
        """None is named, so that none learns of another."""
        field = received_field("h", "2001:db8::1", "us.example", "SMTP", None, "ID", "", "date")
        self.assertEqual(
            field,
            b"Received: from h ([IPv6:2001:db8::1])\r\n"
            b"\tby us.example with SMTP\r\n\tid ID;\r\n\tdate\r\n",
        )

    @given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
    def test_helo_cannot_inject(self, helo: str) -> None:
        """Whatever the client called itself, there is one field of five lines at most."""
        field = received_field(
            helo, "192.0.2.1", "us.example", "SMTP", None, "ID", "a@b.example", "date"
        )
        message = email.message_from_bytes(field + b"\r\n", policy=email.policy.compat32)
        self.assertEqual(message.keys(), ["Received"])
        self.assertEqual(field.count(b"\r\n"), 5)
        self.assertEqual(field.count(b"("), 1)

    def test_dates(self) -> None:
        """Dates are UTC, with English names whatever the locale."""
        self.assertEqual(rfc5322_date(1_795_435_200.9), "Mon, 23 Nov 2026 12:00:00 +0000")

    def test_words(self) -> None:
        """RFC 3848 and RFC 6531."""
        words = [
            protocol_word(e, t, u)
            for e, t, u in (
                (False, False, False),
                (True, False, False),
                (True, True, False),
                (True, True, True),
            )
        ]
        self.assertEqual(words, ["SMTP", "ESMTP", "ESMTPS", "UTF8SMTPS"])

    def test_header_section(self) -> None:
        """Up to the empty line, and never more than the bound."""
        self.assertEqual(
            header_section(b"A: b\r\nC: d\r\n\r\nReceived: x\r\n"), b"A: b\r\nC: d\r\n"
        )
        self.assertEqual(header_section(b"A: b\r\n"), b"A: b\r\n")
        self.assertEqual(len(header_section(b"x" * (MAX_HEADER + 5))), MAX_HEADER)

    def test_count(self) -> None:
        """Received fields are counted in any case, their continuation lines are not."""
        self.assertEqual(
            count_received(b"received: a\r\n\tReceived: no\r\nRECEIVED : b\r\nX-Received: c\r\n"), 2
        )

    def test_delivered_to(self) -> None:
        """The mailboxes of Delivered-To."""
        self.assertEqual(
            delivered_to(b"Delivered-To: A@us.example\r\nDELIVERED-TO: <b@us.example>\r\n"),
            {"a@us.example", "b@us.example"},
        )
        self.assertEqual(delivered_to(b"X: y\r\n"), set())
