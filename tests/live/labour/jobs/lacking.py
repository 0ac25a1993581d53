"""Jobs that lack what they need: the others can be done all the same."""

from mailsecure.errors import LocalFault


def prepare() -> None:
    """See mailsecure.scan.jobs."""
    raise LocalFault("no library")
