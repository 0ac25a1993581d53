"""Taking messages apart: what is found in archives, documents, and odd MIME."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
import zipfile
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.load import parse_config
from mailsecure.scan.anatomy import Anatomy, Trait, from_json
from mailsecure.scan.content import opening
from mailsecure.scan.content.archives import KEPT
from mailsecure.scan.content.embedded import ole_files
from mailsecure.scan.content.limits import limits_for
from mailsecure.scan.faults import Unscannable
from mailsecure.scan.jobs.mail import prepare, take_apart
from mailsecure.testing.documents import ole, record, vba_project, workbook
from mailsecure.testing.messages import EICAR, GTUBE, message, multipart, zipped

CONFIG = parse_config("[attachments]\nforbidden_types = audio/* application/x-msi\n", "test.ini")
LIMITS = limits_for(CONFIG.scan, CONFIG.attachments)
#: An archive of 7-Zip's whose list of files is encrypted, with the password "secret".
SEVENZIP = base64.b64decode(
    "N3q8ryccAAR84+sAgAAAAAAAAAAuAAAAAAAAAAsShu9e8t5YXyXzjpxy/vU7B5ZW09oxC9V/XPi7lxWsH59fShSd"
    "w+wTwz5yWoQ/LIbMxT4FBV8C/e5x6j/EfZAGyh2wVwuN5pNxjpfWnF32HekfnV0JV2875gjRNhZeQrbS60gx/dq1"
    "vIGw/sJifiglfTO1LDp5fxIpzaoGm5xUbYxLlhcGEAEJcAAHCwEAASQG8QcBElMP74P89NqsMpez8LlrqMDpJQxi"
    "CgH96nkEAAA="
)


def anatomy(octets: bytes, **limits: Any) -> Anatomy:
    """Return what a message is made of."""
    return from_json(take_apart({**LIMITS, **limits}, octets))


def attached(content: bytes, name: str = "a.bin", **limits: Any) -> Anatomy:
    """Return what a message is made of that has a file attached."""
    return anatomy(message(attached=[(name, content)]), **limits)


def with_password(archive: bytes) -> bytes:
    """Return a zip whose files say that they are encrypted."""
    marked = bytearray(archive)
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = marked.find(signature)
        while at >= 0:
            marked[at + place] |= 1
            at = marked.find(signature, at + 1)
    return bytes(marked)


class MessageTests(SynchronousTestCase):
    """Header sections and texts."""

    def test_header(self) -> None:
        """What people see of a message, decoded."""
        found = anatomy(
            b"From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>\r\nTo: a@b.example, c@d.example\r\n"
            b"Cc: e@f.example\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n  to all\r\n"
            b"Message-ID: <x@example.org>\r\n\r\nHello"
        )
        self.assertEqual(found.subject, "Grüße to all")
        self.assertEqual(found.header_from, ("j@example.org",))
        self.assertEqual((found.to, found.cc, found.message_id), (2, 1, "<x@example.org>"))
        [part] = found.parts
        self.assertEqual((part.path, part.real, part.octets), ("message", "text/plain", 5))

    def test_links(self) -> None:
        """Links of all texts, with the registered domain; none of what is no text."""
        page = b"Content-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + (
            b'<a href=3D"http://www.exa=\r\nmple.co.uk/">x</a> http://192.0.2.1/'
        )
        plain = b"\r\nsee www.example.net and http://co.uk/"
        image = b"Content-Type: image/png\r\n\r\n\x89PNG\r\n\x1a\nhttp://hidden.example/"
        found = anatomy(multipart([plain, page, image])).urls
        self.assertEqual(
            {url.host: url.domain for url in found},
            {
                "www.example.net": "example.net",
                "www.example.co.uk": "example.co.uk",
                "192.0.2.1": "",
                "co.uk": "",
            },
        )

    def test_gtube(self) -> None:
        """In the text, in a page in base64, not in an attached archive."""
        self.assertTrue(anatomy(message(f"Hello\r\n{GTUBE}\r\n")).gtube)
        page = base64.encodebytes(f"<p>{GTUBE}</p>".encode())
        head = b"Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        self.assertTrue(anatomy(head + page).gtube)
        self.assertFalse(anatomy(message()).gtube)

    def test_texts_in_disguise(self) -> None:
        """What is shown as a text is read as one, whatever its first octets are."""
        page = f'<a href="http://a.example/">{GTUBE}</a>'
        for start in (b"\0", b"%PDF-\r\n", b"GIF89a ", b"\x1f\x8b "):
            octets = b"Content-Type: text/html\r\n\r\n" + start + page.encode()
            found = anatomy(octets)
            self.assertTrue(found.gtube, start)
            self.assertEqual([url.host for url in found.urls], ["a.example"])
        wide = b"Content-Type: text/html; charset=utf-16le\r\n\r\n" + page.encode("utf-16le")
        self.assertTrue(anatomy(wide).gtube)
        self.assertTrue(anatomy(b"Subject: x\r\n\r\n\0" + GTUBE.encode()).gtube)

    def test_listed(self) -> None:
        """Of many parts the ordinary ones are not listed, the notable ones are; bounded."""
        files = {f"{n}.txt": b"" for n in range(1000)} | {"z.exe": b"MZ\0\0", "z.js": b""}
        found = attached(zipped(files), "a.zip")
        self.assertEqual(found.parts_in_all, 1004)
        self.assertEqual(len(found.parts), opening.MAX_LISTED + 2)
        self.assertEqual(found.parts[-1].name, "z.js")
        found = attached(zipped({f"{n}.exe": b"MZ\0\0" for n in range(1000)}), "a.zip")
        self.assertEqual(len(found.having(Trait.EXECUTABLE)), opening.MAX_NOTABLE)


class EicarTests(SynchronousTestCase):
    """The test file, wherever it is."""

    def test_found(self) -> None:
        """Plain, encoded, packed, and packed again; with declared types that lie."""
        wrapped = base64.encodebytes(EICAR)
        odd = (
            b"Content-Type: image/png; name=a.png\r\nContent-Transfer-Encoding: BASE64 (x)\r\n\r\n"
            + b"\r\n".join(bytes([each]) for each in base64.b64encode(EICAR))
        )
        for name, octets in {
            "body": message(EICAR.decode() + "\r\n"),
            "after text": message("Hello\r\n" + EICAR.decode() + "\r\nBye\r\n"),
            "attached": message(attached=[("a.txt", EICAR + b"\r\n")]),
            "zip": message(attached=[("a.zip", zipped({"b.com": EICAR}))]),
            "zip in zip": message(attached=[("a", zipped({"b": zipped({"c.com": EICAR})}))]),
            "gzip": message(attached=[("a.gz", gzip.compress(EICAR))]),
            "zip after an image": message(
                attached=[("a.gif", b"GIF89a\1\0\1\0" + zipped({"b.com": EICAR}))]
            ),
            "odd MIME": multipart([b"\r\nHello", odd], "b;=' x"),
            "message in base64": message(attached=[("a.eml", message(EICAR.decode()))]),
            "preceded by padding": b"Content-Transfer-Encoding: base64\r\n\r\n====\r\n" + wrapped,
            "two encodings": b"Content-Transfer-Encoding: 8bit\r\n"
            b"Content-Transfer-Encoding: base64\r\n\r\n" + wrapped,
        }.items():
            self.assertTrue(anatomy(octets).having(Trait.EICAR), name)

    def test_not_found(self) -> None:
        """A file that only talks about it is none."""
        self.assertEqual(attached(b"\0" + EICAR).having(Trait.EICAR), [])
        self.assertEqual(anatomy(message()).having(Trait.EICAR), [])

    def test_path(self) -> None:
        """The path leads there."""
        packed = zipped({"x/b.zip": zipped({"c.com": EICAR})})
        [part] = attached(packed, "a.zip").having(Trait.EICAR)
        self.assertEqual(part.path, "message/a.zip/x/b.zip/c.com")
        self.assertEqual(part.octets, 68)
        self.assertEqual(part.sha256[:8], "275a021b")


class FileTests(SynchronousTestCase):
    """Names, types and archives."""

    def traits(self, content: bytes, name: str = "a.bin", **limits: Any) -> set[Trait]:
        """Return all traits of what is attached."""
        return {trait for part in attached(content, name, **limits).parts for trait in part.traits}

    def test_names(self) -> None:
        """Forbidden names and double extensions, in archives and of all names."""
        self.assertEqual(self.traits(b"x", "a.JS"), {Trait.FORBIDDEN_NAME})
        both = {Trait.FORBIDDEN_NAME, Trait.DOUBLE_EXTENSION}
        self.assertEqual(self.traits(b"x", "a.pdf.scr"), both)
        self.assertEqual(
            self.traits(zipped({"x/invoice.pdf.exe": b"x"}), "a.zip"), {*both, Trait.ARCHIVE}
        )
        two = (
            b"Content-Type: a/b; name=a.exe\r\nContent-Disposition: inline; filename=a.txt\r\n\r\n"
        )
        [part] = anatomy(two).parts
        self.assertEqual((part.name, part.traits), ("a.exe", {Trait.FORBIDDEN_NAME}))

    def test_types(self) -> None:
        """Programs are programs, forbidden types forbidden, whatever they are called."""
        self.assertEqual(self.traits(b"MZ\0\0", "a.jpg"), {Trait.EXECUTABLE})
        self.assertEqual(self.traits(b"#!/bin/sh", "a.jpg"), {Trait.SCRIPT})
        self.assertEqual(self.traits(b"ID3\3\0\0\0\0\0\0" + bytes(99)), {Trait.FORBIDDEN_TYPE})

    def test_archives(self) -> None:
        """tar, compressed tar and files compressed alone."""
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            info = tarfile.TarInfo("x/b.exe")
            info.size = 4
            tar.addfile(info, io.BytesIO(b"MZ\0\0"))
        for content in (
            stream.getvalue(),
            gzip.compress(stream.getvalue()),
            gzip.compress(b"MZ\0\0"),
            gzip.compress(gzip.compress(b"MZ\0\0")),
        ):
            self.assertIn(Trait.EXECUTABLE, self.traits(content))

    def test_zip_documents(self) -> None:
        """A zip is what its files say; macro sheets and projects in it are macros."""
        found = attached(zipped({"[Content_Types].xml": b"<x/>", "word/document.xml": b"<x/>"}))
        self.assertIn("wordprocessingml", found.parts[1].real)
        files = {"xl/macrosheets/sheet1.xml": b"<x/>"}
        self.assertIn(Trait.MACROS, self.traits(zipped(files)))
        files = {"word/vbaProject.bin": vba_project("Sub A()\r\nEnd Sub\r\n", "")}
        self.assertIn(Trait.MACROS, self.traits(zipped(files)))

    def test_winmail_and_uuencode(self) -> None:
        """Attachments that are no MIME parts are found, too."""
        value = b"MZ\0\0"
        tnef = b"\x78\x9f\x3e\x22\0\0" + struct.pack("<BII", 2, 0x0006800F, 4) + value + b"\0\0"
        self.assertIn(Trait.EXECUTABLE, self.traits(tnef, "winmail.dat"))
        found = anatomy(message("Hi\r\nbegin 644 x/a.exe\r\n$35H``@``\r\n`\r\nend\r\n"))
        self.assertEqual(found.having(Trait.EXECUTABLE)[0].path, "message/a.exe")

    def test_encrypted(self) -> None:
        """Zip, 7-Zip with its list of files, PDF, documents old and new."""
        word = bytearray(12)
        word[11] = 1
        user = bytes(12) + b"\xdf\xc4\xd1\xf3"
        for name, content in {
            "zip": with_password(zipped({"a.exe": b"MZ"})),
            "7z": SEVENZIP,
            "pdf": b"%PDF-1.4\ntrailer << /Encrypt 5 0 R >>",
            "new": ole({"EncryptionInfo": b"x", "EncryptedPackage": b"x"}),
            "word": ole({"WordDocument": bytes(word)}),
            "excel": workbook([record(0x809, b""), record(0x2F, bytes(6))]),
            "powerpoint": ole({"Current User": user, "PowerPoint Document": b""}),
        }.items():
            self.assertIn(Trait.ENCRYPTED, self.traits(content), name)
        [archive, inner] = attached(with_password(zipped({"a.exe": b"MZ"})), "a.zip").parts[1:]
        self.assertEqual(archive.traits, {Trait.ARCHIVE, Trait.ENCRYPTED})
        self.assertEqual(
            (inner.path, inner.traits), ("message/a.zip/a.exe", {Trait.FORBIDDEN_NAME})
        )

    def test_not_encrypted(self) -> None:
        """Documents that are not."""
        for content in (
            b"%PDF-1.4\ntrailer << /Root 5 0 R >> /EncryptMetadata",
            ole({"WordDocument": bytes(12)}),
            ole({"Current User": bytes(16), "PowerPoint Document": b""}),
            workbook([record(0x809, b"")]),
        ):
            self.assertEqual(self.traits(content), set())

    def test_macros(self) -> None:
        """Macros are suspicious if they start by themselves and reach for the system."""
        bad = 'Sub AutoOpen()\r\nShell "cmd.exe", 1\r\nEnd Sub\r\n'
        [_, part] = attached(vba_project(bad, others={"WordDocument": bytes(12)}), "a.doc").parts
        self.assertEqual(part.traits, {Trait.MACROS, Trait.SUSPICIOUS})
        self.assertEqual(part.real, "application/msword")
        self.assertEqual(part.words, ("AutoOpen", "Shell"))
        for code in ("Sub AutoOpen()\r\nMsgBox 1\r\nEnd Sub\r\n", "Sub A()\r\nShell 1\r\nEnd Sub"):
            self.assertEqual(self.traits(vba_project(code)), {Trait.MACROS})

    def test_unreadable_macros(self) -> None:
        """Macros that cannot be read are suspicious."""
        broken = ole(
            {"Macros/VBA/dir": b"x", "Macros/VBA/_VBA_PROJECT": b"", "Macros/PROJECT": b""}
        )
        self.assertIn(Trait.MACROS, self.traits(broken))

    def test_macro_sheets(self) -> None:
        """Excel 4's, in old workbooks; those that start by themselves are suspicious."""
        sheet = record(0x85, bytes(5) + b"\1\1\0A")
        ordinary = record(0x85, bytes(5) + b"\0\1\0A")
        start = record(0x18, b"\x20\0\0\1" + bytes(10) + b"\0\1")
        self.assertEqual(self.traits(workbook([ordinary])), set())
        self.assertEqual(self.traits(workbook([ordinary, sheet])), {Trait.MACROS})
        self.assertEqual(self.traits(workbook([sheet, start])), {Trait.MACROS, Trait.SUSPICIOUS})

    def test_hidden_macros(self) -> None:
        """Documents that are saved as web pages or XML."""
        page = b"<html>" + base64.b64encode(b"ActiveMime" + bytes(50))
        self.assertEqual(self.traits(page, "a.mht"), {Trait.MACROS})

    def test_broken(self) -> None:
        """What cannot be read to its end is unscannable."""
        packed = zipped({"a": bytes(range(256)) * 400})
        for content in (
            packed[:300],
            b"PK\x03\x04" + bytes(100),
            gzip.compress(bytes(10_000))[:-12],
            b"Rar!\x1a\x07\x00" + b"x" * 100,
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
        ):
            with self.assertRaises(Unscannable):
                attached(content)

    def test_zips_of_two_minds(self) -> None:
        """A name in the directory counts, too; so does a zip in front of a zip."""
        archive = zipped({"x/a.js": b"alert()", "b.txt": b"x"})
        for first in (True, False):
            at = archive.find(b"a.js") if first else archive.rfind(b"a.js")
            changed = archive[:at] + b"a.tx" + archive[at + 4 :]
            [bad] = attached(changed, "a.zip").having(Trait.FORBIDDEN_NAME)
            self.assertEqual((bad.path, bad.name), ("message/a.zip/x/a.js", "a.js"))
        good, program = zipped({"a.txt": b"x"}), zipped({"b.bin": b"MZ\0\0"})
        for both in (good + program, program + good, good + program + good):
            self.assertIn(Trait.EXECUTABLE, self.traits(both))
        self.assertEqual(attached(good + good, "a.zip").parts_in_all, 5)
        self.assertEqual(attached(archive, "a.zip").parts_in_all, 4)

    def test_zip_in_pieces(self) -> None:
        """A document in pieces in another looks like a zip at its end, and is no broken one."""
        inner = zipped({"word/a.xml": random.Random(1).randbytes(9000)})
        pieces = inner[:6000] + bytes(512) + inner[6000:]
        for octets in (b"%PDF-1.4\n" + pieces, b"\xff\xd8\xff" + inner[3000:]):
            self.assertEqual(self.traits(octets), set())
        broken = b"GIF89a" + zipped({"a.zip": pieces})
        with self.assertRaises(Unscannable):
            attached(broken)

    def test_files_in_documents(self) -> None:
        """Attachments of Outlook's messages, and what was dragged into a document."""
        place = "__attach_version1.0_#00000000"
        for names, path in (
            ({"__substg1.0_3707001F": "a.js".encode("utf-16-le")}, "message/a.msg/a.js"),
            ({"__substg1.0_3704001E": b"a.js\0"}, "message/a.msg/a.js"),
            ({}, "message/a.msg"),
        ):
            streams = {"__substg1.0_37010102": b"MZ\0\0", **names}
            letter = ole({f"{place}/{name}": value for name, value in streams.items()})
            [program] = attached(letter, "a.msg").having(Trait.EXECUTABLE)
            self.assertEqual(program.path, path)
        label, name, content = b"invoice.pdf\0", b"C:\\a.bat\0", b"MZ\0\0"
        package = b"\x02\0" + label + name + b"\0\0\3\0" + struct.pack("<I", 2) + b"x\0"
        package += struct.pack("<I", len(content)) + content
        package = struct.pack("<I", len(package)) + package
        for stream in (package, package[:30], b"\4\0\0\0MZ\0\0", b"", b"\4\0\0\0\2\0a\0b\0"):
            document = zipped({"word/embeddings/oleObject1.bin": ole({"\1Ole10Native": stream})})
            found = self.traits(document, "a.docx")
            self.assertEqual(Trait.FORBIDDEN_NAME in found, stream == package, stream)
            self.assertEqual(Trait.EXECUTABLE in found, b"MZ" in stream, stream)
        nested = ole({"ObjectPool/_1/Package": zipped({"a.exe": b"MZ\0\0"})})
        self.assertIn(Trait.EXECUTABLE, self.traits(nested, "a.doc"))

        with self.assertRaises(Unscannable):
            list(ole_files(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)))

    @given(st.integers(0, 3000), st.binary(min_size=1, max_size=8))
    def test_broken_documents(self, at: int, octets: bytes) -> None:
        """Whatever is wrong with a document, it has its parts, or it is unscannable."""
        letter = bytearray(
            ole({"a/__substg1.0_37010102": b"x" * 500, "a/\1Ole10Native": b"x" * 99})
        )
        letter[at : at + len(octets)] = octets
        try:
            found = attached(bytes(letter), "a.msg")
        except Unscannable:
            return
        self.assertEqual(found.parts[1].name, "a.msg")

    def test_limits(self) -> None:
        """Depth, files, size and ratio of archives."""
        nested = zipped({"a": zipped({"b": zipped({"c": b"x"})})})
        self.assertEqual(len(attached(nested, archive_depth=3).parts), 5)
        packed = zipped({"zeros": bytes(10 << 20)})
        for content, limits in (
            (nested, {"archive_depth": 2}),
            (zipped({"a": b"", "b": b""}), {"archive_files": 1}),
            (packed, {"archive_size": 1 << 20, "archive_ratio": 10_000}),
            (packed, {"archive_ratio": 100}),
            (gzip.compress(bytes(10 << 20)), {"archive_ratio": 100}),
        ):
            with self.assertRaises(Unscannable):
                attached(content, **limits)
        self.assertEqual(len(attached(packed, archive_ratio=10_000).parts), 3)

    def test_large_archive_in_archive(self) -> None:
        """A file is held so far; an archive of more cannot be opened, other files can."""
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.zip", b"PK\x03\x04" + bytes(KEPT))
        with self.assertRaises(Unscannable):
            attached(stream.getvalue(), archive_ratio=10_000)
        found = attached(zipped({"a.txt": b"x" + bytes(KEPT)}), archive_ratio=10_000)
        self.assertEqual(found.parts[-1].octets, KEPT + 1)

    def test_depth_of_what_looks_like_mail(self) -> None:
        """Text that looks like mail is only gone into as deep as may be."""
        text = b"From: a@b.example\r\nMIME-Version: x\r\n\r\n" * 60 + b"Hello"
        self.assertGreater(attached(text, "a.eml").parts_in_all, 40)

    def test_saved_mail(self) -> None:
        """A mail in a file is one by its fields, or by its name, whatever it begins with."""
        inner = message(attached=[("a.exe", b"MZ\0\0")])
        for front in (
            b"DKIM-Signature: v=1\r\n",
            b"ARC-Seal: " + b"i=1;\r\n " * 1000 + b"cv=none\r\n",
            b"Thread-Topic: x\r\n",
        ):
            found = attached(front + inner, "a.dat")
            self.assertTrue(found.having(Trait.EXECUTABLE), front[:20])
        unusual = b"Keywords: x\r\n" + inner
        self.assertFalse(attached(unusual, "a.dat").having(Trait.EXECUTABLE))
        self.assertTrue(attached(unusual, "a.EML").having(Trait.EXECUTABLE))
        self.assertEqual(attached(b"Hello.", "a.eml").parts_in_all, 3)

    def test_signed_mail(self) -> None:
        """What is signed as a whole stands in the envelope in the clear, also in pieces."""
        inner = multipart(
            [
                b"Content-Type: a/b; name=a.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n"
                + base64.b64encode(b"MZ\0\0" + bytes(3000))
            ]
        )
        envelope = b"\x30\x80\x06\x09*\x86H\x86\xf7\r\x01\x07\x02\xa0\x80"
        pieces = [inner[at : at + 1000] for at in range(0, len(inner), 1000)]
        cut = b"".join(b"\x04\x82" + struct.pack(">H", len(each)) + each for each in pieces)
        for kind, name in (("application/pkcs7-mime", "smime.p7m"), ("a/b", "smime.P7M")):
            for octets in (envelope + inner, envelope + cut):
                found = anatomy(message(attached=[(name, octets)], kind=kind))
                self.assertTrue(found.having(Trait.EXECUTABLE), (kind, octets[:20]))
        encrypted = envelope + bytes(5000) + inner
        self.assertEqual(attached(encrypted, "smime.p7m").parts_in_all, 2)
        self.assertEqual(attached(envelope + inner, "a.bin").parts_in_all, 2)

    def test_text_that_quotes_mail(self) -> None:
        """The text of a mail is no mail, whatever it quotes: nobody opens it as one."""
        quoted = "From: a@b.example\r\nReceived: x\r\n" + "X-Y: z\r\n" * 1200
        self.assertEqual(anatomy(message(quoted)).parts_in_all, 1)
        with self.assertRaises(Unscannable):
            attached(quoted.encode(), "a.eml")

    def test_scripts(self) -> None:
        """In an archive, or attached; not where somebody writes one into a letter."""
        tree = zipped({"p/configure": b"#!/bin/sh\n"})
        [_, archive, script] = attached(tree, "p.zip").parts
        self.assertEqual((archive.traits, script.traits), ({Trait.ARCHIVE}, {Trait.SCRIPT}))
        self.assertEqual(anatomy(message("#!/bin/sh\r\nexit\r\n")).parts[0].traits, set())
        hidden = b"#!/bin/sh\n" + zipped({"a.exe": b"MZ\0\0"})
        self.assertIn(Trait.EXECUTABLE, self.traits(hidden))

    def test_packed_nothing(self) -> None:
        """A file of no octets that was compressed is not broken; one that is cut off is."""
        for packed in (gzip.compress(b""), bz2.compress(b""), lzma.compress(b"")):
            self.assertEqual(self.traits(packed), {Trait.ARCHIVE})
        for broken in (
            gzip.compress(b"Hello")[:10] + b"\xff" * 60,
            gzip.compress(b"")[:10],
            bz2.compress(b"")[:4] + bytes(60),
        ):
            with self.assertRaises(Unscannable):
                attached(broken)

    def test_names_in_disguise(self) -> None:
        """What some program takes for the name is a name."""
        for disposition in (
            'attachment; filename="a.exe" (that is it)',
            'attachment filename="a.exe"',
            "attachment; filename='a.exe'",
            'attachment; filename=(x)"a.exe"',
            'attachment; filename=a.txt; x="filename=\'b.exe"',
        ):
            [part] = anatomy(
                f"Content-Disposition: {disposition}\r\n\r\nx".encode(),
            ).parts
            self.assertEqual(part.traits, {Trait.FORBIDDEN_NAME}, disposition)
        [part] = anatomy(b"Content-Disposition: attachment; filename=a (1).txt\r\n\r\nx").parts
        self.assertEqual((part.name, part.traits), ("a (1).txt", set()))

    def test_macros_of_their_own(self) -> None:
        """Those of a document in MHTML are a part; who writes about them sends none."""
        [_, part] = attached(b"ActiveMime\0\0\xf0\x01" + bytes(50), "editdata.mso").parts
        self.assertEqual(part.traits, {Trait.MACROS})
        self.assertEqual(anatomy(message("ActiveMime hides macros\r\n")).parts[0].traits, set())


class PrepareTests(SynchronousTestCase):
    """What the forking process does."""

    def test_prepare(self) -> None:
        """Everything that is needed can be loaded."""
        prepare()
