"""Our checks: each maker here is found by :mod:`mailsecure.scan.finding`."""

from mailsecure.scan.checks.attachments import AttachmentsMaker
from mailsecure.scan.checks.authentication import AuthenticationMaker
from mailsecure.scan.checks.dnsbl import DnsblMaker
from mailsecure.scan.checks.greylist import GreylistMaker
from mailsecure.scan.checks.identity import IdentityMaker
from mailsecure.scan.checks.markers import MarkersMaker
from mailsecure.scan.checks.rates import RatesMaker
from mailsecure.scan.checks.urls import UrlsMaker
from mailsecure.scan.engines import makers

attachments = AttachmentsMaker()
authentication = AuthenticationMaker()
dnsbl = DnsblMaker()
greylist = GreylistMaker()
identity = IdentityMaker()
markers = MarkersMaker()
rates = RatesMaker()
urls = UrlsMaker()

clamav = makers.clamav
icap = makers.icap
milter = makers.milter
rspamd = makers.rspamd
spamassassin = makers.spamassassin
