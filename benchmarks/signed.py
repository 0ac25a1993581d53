"""The mail that scanners are measured with, and the DNS that belongs to it.

:func:`prepare` writes some messages of 10 KB, each of a domain of its own: signed (DKIM,
RSA-2048), From aligned with both the signature and the reverse-path, with a text and an
attachment, a PDF or a zip with two files.  :func:`zone` is what the DNS has to say of
those domains: SPF with an include, the public key, DMARC, MX and addresses, and the name
of the client.  Everything passes, so nothing is spared by a refusal.

The messages are as smtp-source -F wants them: one line each, without CR.
"""

from __future__ import annotations

import base64
import io
import random
import zipfile
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from pathlib import Path

import dkim
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from mailsecure.testing.resolver import Zone

__all__ = ["CLIENT", "CLIENT_NAME", "RECIPIENT", "Mail", "prepare", "zone"]

#: The client: an address that is nobody's own.  Many an SPF library lets 127.0.0.0/8 pass
#: unasked, and Rspamd takes private networks for its own.
CLIENT = "198.51.100.7"
CLIENT_NAME = "relay.sender0.example"
RECIPIENT = "to@example.com"
SELECTOR = b"s1"
DOMAINS = 10
OCTETS = 10 * 1024
WORDS = """
the offer of last week order invoice meeting please find attached report about delivery thank you
for your message we shall be glad to see number date until friday kind regards
""".split()  # noqa: SIM905


@dataclass(frozen=True)
class Mail:
    """One message in a file, and its envelope."""

    path: Path
    domain: str

    @property
    def sender(self) -> str:
        """The reverse-path."""
        return f"news@{self.domain}"

    @property
    def helo(self) -> str:
        """What its client calls itself."""
        return f"relay.{self.domain}"


def domains() -> list[str]:
    """Return the domains of the senders."""
    return [f"sender{number}.example" for number in range(DOMAINS)]


def text(rng: random.Random, octets: int) -> str:
    """Return lines of words, of about so many octets."""
    lines: list[str] = []
    while sum(map(len, lines)) + len(lines) < octets:
        lines.append(" ".join(rng.choices(WORDS, k=10)))
    return "\n".join(lines) + "\n"


def pdf(rng: random.Random) -> bytes:
    """Return what a viewer would show as one page with some words."""
    shown = f"BT /F1 12 Tf 72 720 Td ({' '.join(rng.choices(WORDS, k=300))}) Tj ET"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /Contents 4 0 R /MediaBox [0 0 612 792] >>",
        f"<< /Length {len(shown)} >>\nstream\n{shown}\nendstream",
    ]
    body, places = "%PDF-1.4\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(body))
        body += f"{number} 0 obj\n{each}\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    end = f"trailer\n<< /Size 5 /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    return f"{body}xref\n0 5\n0000000000 65535 f \n{table}{end}".encode()


def archive(rng: random.Random) -> bytes:
    """Return a zip with two texts."""
    octets = io.BytesIO()
    with zipfile.ZipFile(octets, "w", zipfile.ZIP_DEFLATED) as made:
        for name in ("list.txt", "notes.csv"):
            made.writestr(zipfile.ZipInfo(name), text(rng, 3000))
    return octets.getvalue()


def message(domain: str, number: int) -> bytes:
    """Return one message, unsigned, with CRLF."""
    rng = random.Random(number)
    mail = EmailMessage(policy=SMTP)
    mail["From"] = f"The News <news@{domain}>"
    mail["To"] = RECIPIENT
    mail["Subject"] = f"Offer {number} of the week"
    mail["Date"] = formatdate()
    mail["Message-ID"] = f"<{number}.offer@{domain}>"
    kind, name = ("zip", "files.zip") if number % 2 else ("pdf", "offer.pdf")
    octets = archive(rng) if number % 2 else pdf(rng)
    # The signature comes on top, and base64 takes four octets for three.
    room = OCTETS - len(octets) * 4 // 3 - 1500
    mail.set_content(text(rng, room), cte="7bit")
    mail.add_attachment(octets, "application", kind, filename=name)
    mail.set_boundary(f"part-{number}-of-{domain}")
    return mail.as_bytes()


def prepare(directory: Path) -> tuple[list[Mail], Zone]:
    """Write the messages, signed with a new key; return them, and the DNS."""
    key = rsa.generate_private_key(65537, 2048)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    directory.mkdir(parents=True, exist_ok=True)
    mails = []
    for number, domain in enumerate(domains()):
        plain = message(domain, number)
        signature = dkim.sign(
            plain, SELECTOR, domain.encode(), private, canonicalize=(b"relaxed", b"relaxed")
        )
        path = directory / f"{number}.eml"
        path.write_bytes((signature + plain).replace(b"\r\n", b"\n"))
        mails.append(Mail(path, domain))
    return mails, zone(base64.b64encode(public).decode())


def zone(key: str) -> Zone:
    """Return the DNS of all domains, with this public key."""
    found: Zone = {
        "localhost": {"A": ["127.0.0.1"]},
        ".".join(CLIENT.split(".")[::-1]) + ".in-addr.arpa": {"PTR": [CLIENT_NAME]},
        "example.com": {"MX": ["10 mx.example.com"]},
        "mx.example.com": {"A": [CLIENT]},
    }
    for domain in domains():
        relay = f"relay.{domain}"
        found[domain] = {"MX": [f"10 {relay}"], "TXT": [f"v=spf1 include:_spf.{domain} -all"]}
        found[f"_spf.{domain}"] = {"TXT": ["v=spf1 ip4:192.0.2.0/24 ip4:198.51.100.0/24 -all"]}
        found[relay] = {"A": [CLIENT], "TXT": ["v=spf1 a -all"]}
        found[f"_dmarc.{domain}"] = {"TXT": ["v=DMARC1; p=reject"]}
        found[f"{SELECTOR.decode()}._domainkey.{domain}"] = {"TXT": [f"v=DKIM1; k=rsa; p={key}"]}
    return found
