"""The suite of RFC 6376, RFC 8463 and RFC 8617 (dkimpy's) through our own check.

dkimpy signs, and where a test of its suite verifies, our check ``authentication`` does:
facts at DATA, look-ups ahead, replay, job.  What counts is the result that would stand in
Authentication-Results.

Left out are the modules that test only the inside of dkimpy (``test_canonicalization``,
``test_crypto``, ``test_util``, ``test_dnsplug``, and the classes ``TestFold``), and
``test_dkim_tlsrpt``, which is about keys for reports on TLS (RFC 8460) that no message to
us is signed with.  Twice we are stricter than dkimpy, and the result is asserted to be
``policy`` for just that reason: a key of 512 bits (``test_dkim_signature_canonicalization``;
RFC 8301), and text behind the end of l= (``test_l_verify``; RFC 6376 §8.2).
"""

from __future__ import annotations

import re
import time
from importlib import import_module
from typing import Any

import dkim
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.scan.checks.authentication import authentication
from mailsecure.scan.values import AuthResult, Facts, Stage
from mailsecure.world import DnsAbsent
from tests.scan.auth_site import content_of, site_with

from . import REQUIRED
from .suites import DKIMPY, fetched, unpacked

_MODULES = (
    "test_dkim",
    "test_dkim_ed25519",
    "test_dkim_rsavariants",
    "test_dkim_generate",
    "test_arc",
)
#: So many tests of theirs verify; with fewer, something was not found.
_TESTS = 48
_STRICTER = ("key of 512 bits", "only a part of the body is signed")


class KeyResolver:
    """The keys that a test of the suite has, and nothing else."""

    def __init__(self, dnsfunc: Any) -> None:
        self.dnsfunc = dnsfunc

    async def txt(self, name: str) -> list[bytes]:
        if "_domainkey" not in name:
            raise DnsAbsent(name)
        try:
            record = self.dnsfunc(f"{name}.".encode())
        except AssertionError:
            # Of another signature than the one that the test is about.
            raise DnsAbsent(name) from None
        return [record.encode() if isinstance(record, str) else record] if record else []


class Suite(SynchronousTestCase):
    """Puts our check in the place of dkimpy's verification."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(dkim, "verify", self.verify)
        self.patch(dkim, "arc_verify", self.verify_chain)
        suite = self

        def verify(signer: Any, idx: int = 0, dnsfunc: Any = None) -> bool:
            if signer.present():
                signer.verify_headerprep(idx)
            header = b"".join(name + b":" + value for name, value in signer.headers)
            return suite.verify(header + b"\r\n" + signer.body, dnsfunc=dnsfunc, idx=idx)

        self.patch(dkim.DKIM, "verify", verify)

    def results(self, message: bytes, dnsfunc: Any, method: str) -> list[AuthResult]:
        message = re.sub(rb"\AFrom .*\n", b"", re.sub(rb"\r?\n", b"\r\n", message))
        check = authentication.make(site_with(KeyResolver(dnsfunc), now=time.time()))
        facts = Facts("s", "192.0.2.1", notes={"spf": None}, content=content_of(message))
        finding = self.successResultOf(Deferred.fromCoroutine(check.check(Stage.DATA, facts)))
        return [each for each in finding.results if each.method == method]

    def verify(self, message: bytes, dnsfunc: Any = None, idx: int = 0, **more: Any) -> bool:
        """Stand in for dkim.verify."""
        found = self.results(message, dnsfunc, "dkim")[idx]
        if found.result == "policy":
            self.assertTrue(any(each in found.comment for each in _STRICTER), found)
            return True
        return found.result == "pass"

    def verify_chain(self, message: bytes, dnsfunc: Any = None) -> tuple[bytes, list[Any], str]:
        """Stand in for dkim.arc_verify."""
        (found,) = self.results(message, dnsfunc, "arc")
        return found.result.encode(), [], found.comment


class ThereTests(SynchronousTestCase):
    """The suite can be had, and is whole."""

    def test_there(self) -> None:
        if _TROUBLE and not REQUIRED:
            self.skipTest(_TROUBLE)
        self.assertEqual(_TROUBLE, "")
        self.assertEqual(len(_FOUND), _TESTS)


_TROUBLE = fetched(DKIMPY)
_FOUND: list[str] = []
if not _TROUBLE:
    # Their tests are part of the package, but not of the wheel.
    dkim.__path__.append(str(unpacked(DKIMPY) / "dkim"))
    for _name in _MODULES:
        _theirs = import_module(f"dkim.tests.{_name}").TestSignAndVerify
        _methods = [each for each in dir(_theirs) if each.startswith("test_")]
        _FOUND += [f"{_name}.{each}" for each in _methods]

        class _Ours(Suite, _theirs):  # type: ignore[misc, valid-type]
            """Their tests with our verification."""

        _Ours.__name__ = _Ours.__qualname__ = f"{_name.title().replace('_', '')}Tests"
        globals()[_Ours.__name__] = _Ours
    del _Ours, _theirs
