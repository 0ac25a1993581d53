"""Tells twistd that there is a service named mailsecure."""

from twisted.application.service import ServiceMaker

mailsecure = ServiceMaker(
    "mailsecure",
    "mailsecure.tap",
    "An integrated SMTP security gateway: accepts, keeps and relays mail.",
    "mailsecure",
)
