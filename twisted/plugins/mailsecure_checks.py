"""Our checks: each maker here is found by :mod:`mailsecure.scan.finding`."""

from mailsecure.scan.checks.dnsbl import DnsblMaker
from mailsecure.scan.checks.greylist import GreylistMaker
from mailsecure.scan.checks.identity import IdentityMaker
from mailsecure.scan.checks.rates import RatesMaker

dnsbl = DnsblMaker()
greylist = GreylistMaker()
identity = IdentityMaker()
rates = RatesMaker()
