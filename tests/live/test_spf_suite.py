"""The suite of RFC 7208 through our own check: its facts at MAIL, replay, jobs, resolver.

Every case of ``rfc7208-tests.yml`` is a test.  None is skipped.  Where the suite admits
several results, any of them will do.
"""

from __future__ import annotations

import unittest
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.resolver.answers import askable_name
from mailsecure.scan.checks.authentication import authentication
from mailsecure.scan.values import Facts, Stage
from mailsecure.world import DnsAbsent, DnsFault, MxHost
from tests.scan.auth_site import site_with

from . import REQUIRED
from .suites import PYSPF, fetched, unpacked

_CASES = 203


class SuiteResolver:
    """The DNS of one scenario: its ``zonedata``."""

    def __init__(self, zone: dict[str, list[Any]]) -> None:
        self.zone = {name.lower(): list(_records(entry)) for name, entry in zone.items()}

    def _find(self, name: str, kind: str) -> list[Any]:
        name = name.lower().removesuffix(".")
        for _ in range(8):
            # As the real resolver, which asks for no name that is none.
            if not askable_name(name):
                raise DnsAbsent(name)
            entry = self.zone.get(name, [])
            found = [value for each, value in entry if each == kind]
            if "TIMEOUT" in found or (not found and ("TIMEOUT", "") in entry):
                raise DnsFault(name)
            if found:
                return found
            aliases = [value for each, value in entry if each == "CNAME"]
            if not aliases:
                break
            name = aliases[0].lower().removesuffix(".")
        raise DnsAbsent(name)

    async def mx(self, domain: str) -> list[MxHost]:
        return [MxHost(p, host.rstrip(".").lower()) for p, host in self._find(domain, "MX")]

    async def ipv4(self, name: str) -> list[str]:
        return self._find(name, "A")

    async def ipv6(self, name: str) -> list[str]:
        return [str(ip_address(each)) for each in self._find(name, "AAAA")]

    async def txt(self, name: str) -> list[bytes]:
        return [
            "".join([each] if isinstance(each, str) else each).encode()
            for each in self._find(name, "TXT")
        ]

    async def ptr(self, address: str) -> list[str]:
        return self._find(ip_address(address).reverse_pointer, "PTR")


def _records(entry: list[Any]) -> Iterator[tuple[str, Any]]:
    """Yield (type, value); an SPF record stands for a TXT one unless there is one."""
    pairs = [
        pair
        for each in entry
        for pair in (each.items() if isinstance(each, dict) else [(each, "")])
    ]
    real = any(kind == "TXT" for kind, _ in pairs)
    for kind, value in pairs:
        if value != "NONE" and not (kind == "SPF" and real):
            yield "TXT" if kind == "SPF" else kind, value


class SpfSuiteTests(SynchronousTestCase):
    """One method a case; they are put in below."""

    def run_case(self, zone: dict[str, list[Any]], case: dict[str, Any]) -> None:
        site = site_with(SuiteResolver(zone))
        check = authentication.make(site)
        facts = Facts("s", case["host"], helo=case["helo"], reverse_path=case["mailfrom"])
        finding = self.successResultOf(Deferred.fromCoroutine(check.check(Stage.MAIL, facts)))
        found = facts.notes["spf"]["mailfrom"]
        wanted = case["result"]
        self.assertIn(found["result"], [wanted] if isinstance(wanted, str) else wanted, found)
        self.assertEqual(finding.symbols[0].name, f"SPF_{found['result'].upper()}")
        self.assertEqual(finding.results[0].result, found["result"])
        if "explanation" in case:
            # The suite calls an explanation of the receiver's own DEFAULT; we have none.
            wanted = case["explanation"].replace("DEFAULT", "")
            self.assertEqual(found["explanation"], wanted)

    def test_all_there(self) -> None:
        """The suite is whole."""
        cases = [name for name in dir(self) if name.startswith("test_case_")]
        self.assertEqual(len(cases), _CASES)


def _load(path: Path) -> None:
    import yaml

    with path.open("rb") as stream:
        for number, scenario in enumerate(yaml.safe_load_all(stream)):
            for name, case in scenario["tests"].items():
                _add(f"test_case_{number:02}_{name.replace('-', '_')}", scenario["zonedata"], case)


def _add(name: str, zone: dict[str, list[Any]], case: dict[str, Any]) -> None:
    def test(self: SpfSuiteTests) -> None:
        self.run_case(zone, case)

    test.__doc__ = f"RFC 7208 §{case.get('spec')}: {case.get('description', name)}"
    setattr(SpfSuiteTests, name, test)


def _absent(case: unittest.TestCase) -> None:
    if REQUIRED:
        case.fail(f"required, but {_TROUBLE}")
    raise unittest.SkipTest(_TROUBLE)


_TROUBLE = fetched(PYSPF)
if _TROUBLE:
    SpfSuiteTests.setUp = _absent  # type: ignore[method-assign]
else:
    _load(unpacked(PYSPF) / "test" / "rfc7208-tests.yml")
