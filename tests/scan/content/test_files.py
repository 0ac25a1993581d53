"""Names, types, test strings, winmail.dat."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.scan.content.kinds import (
    ARCHIVES,
    EXECUTABLES,
    MAIL,
    OLE,
    PDF,
    SCRIPT,
    STREAMS,
    ZIP,
    hides_zip,
    is_text,
    real_type,
    zip_type,
)
from mailsecure.scan.content.markers import has_eicar, has_gtube, is_eicar
from mailsecure.scan.content.names import MAX_NAME, clean_name, has_double_extension, matches
from mailsecure.scan.content.tnef import MAX_ATTRIBUTES, tnef_files
from mailsecure.testing.messages import EICAR, GTUBE, zipped


def kind(content: bytes) -> str:
    """Return its type, without any other's guess."""
    return real_type(content, lambda _: "")


class TypeTests(SynchronousTestCase):
    """real_type."""

    def test_programs(self) -> None:
        """Whatever they are called."""
        for content in (
            b"MZ\x90\0\x03\0\0\0",
            b"ZM\0\0",
            b"\x7fELF\x02",
            b"\xcf\xfa\xed\xfe\x07",
            b"\xca\xfe\xba\xbe\0\0\0\x02",
            b"\xca\xfe\xba\xbe\0\0\0\x34",
        ):
            self.assertIn(kind(content), EXECUTABLES)
        self.assertEqual(kind(b"MZ is what the letter begins with"), "text/plain")
        for content in (b"#!/bin/sh\n", b"\xef\xbb\xbf#!/bin/sh\n"):
            self.assertEqual(kind(content), SCRIPT)
        self.assertNotIn(SCRIPT, EXECUTABLES)

    def test_archives(self) -> None:
        """By their first octets, or where theirs are."""
        for content in (
            zipped({"a": b"b"}),
            b"7z\xbc\xaf\x27\x1c\0\x04",
            b"Rar!\x1a\x07\x01\0",
            b"\x1f\x8b\x08\0",
            b"a.txt" + bytes(252) + b"ustar\0",
            bytes(0x8001) + b"CD001",
            b"BZh91AY&SY" + bytes(9),
            b"LZIP\x01\x0c",
            b"070701" + b"0" * 104,
            b"070707" + b"0" * 70,
            b"\xc7\x71" + bytes(24),
            b"\x24\x30-lh5-\x99",
            b"a.txt" + bytes(252) + b"ustar  \0",
        ):
            self.assertIn(kind(content), ARCHIVES)
        self.assertEqual(kind(zipped({})), ZIP)
        self.assertTrue(STREAMS < ARCHIVES)

    def test_words_that_archives_begin_with(self) -> None:
        """Whose text begins with the first letters of an archive wrote no archive."""
        for text in (
            "BZhang wrote:\n",
            "LZIP packs better\n",
            "070707,Huber\n",
            "0707011234 is my number\n",
            "% -lh lists them\n",
            "$ -lha or not\n",
            "xar! he said\n",
            "ITSF is a format\n",
            "GIF8 and GIF9\n",
            "a" * 257 + "ustar is a word\n",
        ):
            self.assertEqual(kind(text.encode()), "text/plain", text)

    def test_documents(self) -> None:
        """OLE, PDF after some junk, and others."""
        self.assertEqual(kind(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), OLE)
        self.assertEqual(kind(b"junk\n%PDF-1.4\n\xff\0"), PDF)
        self.assertEqual(kind(b"{\\rtf1"), "application/rtf")
        self.assertEqual(kind(b"\x89PNG\r\n\x1a\n\0"), "image/png")

    def test_texts(self) -> None:
        """Pages, mail, XML, anything that people read."""
        for content, expected in (
            (b"Hello", "text/plain"),
            (b"", "text/plain"),
            (b"\xff\xfeH\0i\0", "text/plain"),
            (b" <!DOCTYPE html><p>", "text/html"),
            (b"Hello <a href=x>", "text/html"),
            (b"\xef\xbb\xbf<?xml version='1.0'?><a/>", "application/xml"),
            (b"<?xml version='1.0'?><svg/>", "image/svg+xml"),
            (b"<svg onload=x><script>", "image/svg+xml"),
            (b"BEGIN:VCALENDAR\r\n", "text/calendar"),
            (b"Received: from x\r\nFrom: a@b\r\n\r\nHi", MAIL),
            (b"From a@b\r\nFrom: a@b\r\nMIME-Version: 1.0\r\n\r\n", MAIL),
            (b"Subject: of this letter\r\n\r\nis x", "text/plain"),
        ):
            self.assertEqual(kind(content), expected)
            self.assertTrue(is_text(expected))
        self.assertFalse(is_text("application/pdf"))

    def test_guess(self) -> None:
        """What is not known here is asked of another, only then."""
        self.assertEqual(real_type(b"\0\1\2", lambda _: "image/x-odd"), "image/x-odd")
        self.assertEqual(kind(b"\0\1\2"), "application/octet-stream")

    def test_zips(self) -> None:
        """What a zip is, by its files; and one at the end of something else."""
        self.assertIn("wordprocessingml", zip_type("word/document.xml"))
        self.assertEqual(zip_type("META-INF/MANIFEST.MF"), "application/java-archive")
        self.assertEqual(zip_type("a.txt"), "")
        self.assertTrue(hides_zip(b"GIF89a" + zipped({"a": b"b"})))
        self.assertFalse(hides_zip(b"GIF89a" + bytes(100_000)))

    @given(st.binary(max_size=600))
    def test_any_octets(self, content: bytes) -> None:
        """Everything has a type."""
        self.assertIn("/", kind(content))


class NameTests(SynchronousTestCase):
    """File names."""

    def test_clean(self) -> None:
        """As Windows would have them."""
        for name, clean in (
            ("a.exe", "a.exe"),
            ("C:\\x\\a.exe. .", "a.exe"),
            ("../../a.exe", "a.exe"),
            ("a\r\n.exe", "a .exe"),
            ("fdp\u202eexe.exe", "fdp exe.exe"),
            ("", ""),
            ("...", ""),
            ("'a.exe'", "a.exe"),
            ('"a.exe', "a.exe"),
        ):
            self.assertEqual(clean_name(name), clean)
        self.assertEqual(clean_name("x" * 5000 + ".exe")[-5:], "x.exe")
        self.assertEqual(len(clean_name("x" * 5000)), MAX_NAME)

    def test_double(self) -> None:
        """What only looks like a document."""
        for name in ("invoice.pdf.exe", "a.DOC      .SCR", "x.jpg.js", "a.b.txt_.vbs"):
            self.assertTrue(has_double_extension(name), name)
        for name in (
            "a.tar.gz",
            "setup.exe",
            "v1.2.pdf",
            "pdf.exe",
            "a.exe.pdf",
            "",
            ".pdf.exe.txt",
        ):
            self.assertFalse(has_double_extension(name), name)

    def test_patterns(self) -> None:
        """Patterns of the ini, whatever the case."""
        self.assertTrue(matches("A.EXE", ("*.js", "*.exe")))
        self.assertFalse(matches("a.exe.txt", ("*.exe",)))
        self.assertFalse(matches("a", ()))
        self.assertTrue(matches("audio/mp3", ("audio/*",)))


class MarkerTests(SynchronousTestCase):
    """EICAR and GTUBE."""

    def test_eicar(self) -> None:
        """At the start of a file, with white space after it; anywhere in a text."""
        for content in (EICAR, EICAR + b"\r\n \t\x1a"):
            self.assertTrue(is_eicar(content))
        for content in (b"", b" " + EICAR, EICAR + b"x", EICAR[:-1], b"X5O!P%" + b"x" * 62):
            self.assertFalse(is_eicar(content))
        self.assertTrue(has_eicar(b"X5O!P% and\r\n" + EICAR + b" and more"))
        self.assertFalse(has_eicar(EICAR[:-1] + b"x"))

    def test_gtube(self) -> None:
        """Anywhere."""
        self.assertTrue(has_gtube(f"x {GTUBE} y"))
        self.assertFalse(has_gtube(GTUBE[:-1]))


class TnefTests(SynchronousTestCase):
    """winmail.dat."""

    def attribute(self, number: int, value: bytes) -> bytes:
        """Return an attribute."""
        return struct.pack("<BII", 2, number, len(value)) + value + b"\0\0"

    def test_files(self) -> None:
        """Names come before or after the content; what is cut is what there is."""
        begin = self.attribute(0x00069002, b"x")
        title = self.attribute(0x00018010, b"a.exe\0")
        data = self.attribute(0x0006800F, b"content")
        other = self.attribute(0x00012345, b"y")
        head = b"\x78\x9f\x3e\x22\0\0"
        whole = head + other + begin + title + data + begin + data + title
        self.assertEqual(list(tnef_files(whole)), [(b"a.exe", b"content")] * 2)
        self.assertEqual(list(tnef_files(whole[:-22])), [(b"a.exe", b"content"), (b"", b"cont")])
        self.assertEqual(list(tnef_files(head + other)), [])
        self.assertEqual(list(tnef_files(head + other * (MAX_ATTRIBUTES + 1) + data)), [])

    def test_long_names(self) -> None:
        """The title is short, and may say something else; Outlook shows the long name."""
        short = self.attribute(0x00018010, b"report.txt\0") + self.attribute(0x0006800F, b"x")
        wide, narrow = "größe.js\0".encode("utf-16-le"), b"a.js\0"
        for properties, name in (
            (b"\1\0\0\0\x1f\0\x07\x37" + struct.pack("<II", 1, len(wide)) + wide, "größe.js"),
            (b"\1\0\0\0\x1e\0\x07\x37" + struct.pack("<II", 1, len(narrow)) + narrow, "a.js"),
            (b"\1\0\0\0\x1f\0\x07\x37" + struct.pack("<II", 1, 0), "report.txt"),
            (b"\1\0\0\0\x1f\0\x07\x37\1\0", "report.txt"),
            (b"", "report.txt"),
        ):
            content = b"\x78\x9f\x3e\x22\0\0" + short + self.attribute(0x00069005, properties)
            self.assertEqual(list(tnef_files(content)), [(name.encode(), b"x")])

    @given(st.binary(max_size=200))
    def test_any_octets(self, content: bytes) -> None:
        """Nothing is raised."""
        list(tnef_files(content))
