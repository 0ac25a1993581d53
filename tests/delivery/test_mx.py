"""From a domain to targets: preference, chance, families, null MX, ourselves."""

from __future__ import annotations

import random

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.delivery.api import NextHopDown
from mailsecure.delivery.mx import Target, Undeliverable, find_mx_targets
from mailsecure.testing.resolver import SERVFAIL, FakeResolver, Zone

ZONE: Zone = {
    "y.test": {"MX": ["20 c.test", "10 a.test", "10 b.test"]},
    "a.test": {"A": ["192.0.2.1"]},
    "b.test": {"A": ["192.0.2.2"]},
    "c.test": {"A": ["192.0.2.3"]},
    "both.test": {
        "A": ["192.0.2.4", "192.0.2.5", "192.0.2.6"],
        "AAAA": ["2001:db8::4", "2001:db8::5", "2001:db8::6"],
    },
    "six.test": {"AAAA": ["2001:db8::7", "2001:db8::8"], "A": ["192.0.2.9"]},
    "odd.test": {"A": ["0.0.0.0", "224.0.0.1"]},
    "broken.test": SERVFAIL,
}


class MxTests(SynchronousTestCase):
    def ask(self, domain: str, mx: str = "", ours=(), seed: int = 1) -> Deferred[list[Target]]:
        zone = dict(ZONE)
        if mx:
            zone[domain] = {"MX": mx.split(",")}
        return Deferred.fromCoroutine(
            find_mx_targets(
                FakeResolver(zone), random.Random(seed), domain, 25, lambda name: name in ours
            )
        )

    def find(self, *arguments, **ours) -> list[str]:
        return [target.address for target in self.successResultOf(self.ask(*arguments, **ours))]

    def refused(self, *arguments, **ours) -> str:
        failure = self.failureResultOf(self.ask(*arguments, **ours), Undeliverable)
        return failure.value.reply.enhanced

    def waits(self, *arguments, **ours) -> str:
        failure = self.failureResultOf(self.ask(*arguments, **ours), NextHopDown)
        return failure.value.reply.enhanced

    def test_preference_and_chance(self):
        orders = {tuple(self.find("y.test", seed=seed)) for seed in range(20)}
        self.assertEqual(
            orders,
            {
                ("192.0.2.1", "192.0.2.2", "192.0.2.3"),
                ("192.0.2.2", "192.0.2.1", "192.0.2.3"),
            },
        )

    def test_families_take_turns_and_five_are_enough(self):
        found = self.find("both.test")
        self.assertEqual([":" in address for address in found], [True, False, True, False, True])
        self.assertEqual([":" in address for address in self.find("six.test")], [True, False, True])

    def test_without_mx_its_own_address(self):
        self.assertEqual(self.find("a.test"), ["192.0.2.1"])

    def test_no_such_domain(self):
        self.assertEqual(self.refused("nowhere.test"), "5.1.2")
        self.assertEqual(self.refused("z.test", "10 nowhere.test"), "5.4.4")
        self.assertEqual(self.refused("z.test", "10 odd.test"), "5.4.4")

    def test_null_mx(self):
        self.assertEqual(self.refused("z.test", "0 ."), "5.1.10")

    def test_dns_trouble(self):
        self.assertEqual(self.waits("broken.test"), "4.4.3")
        self.assertEqual(self.waits("z.test", "10 broken.test,20 nowhere.test"), "4.4.3")
        self.assertEqual(self.find("z.test", "10 broken.test,20 a.test"), ["192.0.2.1"])

    def test_ourselves(self):
        for ours in (("b.test",), ("192.0.2.2",)):
            self.assertEqual(
                self.find("z.test", "5 a.test,10 b.test,10 c.test,20 both.test", ours=ours),
                ["192.0.2.1"],
            )
            self.assertEqual(self.refused("z.test", "10 b.test,20 a.test", ours=ours), "5.4.6")
            self.assertEqual(self.waits("z.test", "5 broken.test,10 b.test", ours=ours), "4.4.3")

    def test_ourselves_behind_many_addresses(self):
        # Whoever is looked up first: ourselves within the preference is always seen.
        for seed in range(10):
            mx = "10 both.test,10 b.test"
            self.assertEqual(self.refused("z.test", mx, ours=("b.test",), seed=seed), "5.4.6")

    def test_many_hosts(self):
        mx = ",".join(f"{n} both.test" for n in range(30))
        self.assertEqual(len(self.find("z.test", mx)), 5)

    def test_literals(self):
        self.assertEqual(self.find("[192.0.2.8]"), ["192.0.2.8"])
        self.assertEqual(self.find("[IPv6:2001:db8::8]"), ["2001:db8::8"])
        self.assertEqual(self.refused("[192.0.2.8]", ours=("192.0.2.8",)), "5.4.6")
        self.assertEqual(self.refused("[0.0.0.0]"), "5.4.4")
        self.assertEqual(self.refused("[nonsense]"), "5.4.4")

    def test_names_for_people(self):
        self.assertEqual(str(Target("mx.test", "192.0.2.1", 25)), "mx.test[192.0.2.1]:25")
        self.assertEqual(str(Target("lmtp+unix", path="/run/x")), "lmtp+unix:/run/x")
