"""Signatures for what goes out: DKIM for our own mail, ARC for what is relayed on.

Mail of clients in ``[relay] networks`` is signed with every key whose ``[signing:NAME]``
names the domain of From (RFC 6376); a stranger's is sealed with the key of ``[arc]``, with
what we found of it (RFC 8617 §5.1).  The gateway asks
(:meth:`Signer.sign`) when the header section is as it will go out, just before the message
is kept; :mod:`.jobs.sign` signs, in a worker.  Keys are read when a :class:`Signer` is
made, at the start and at each reload.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from ..errors import ConfigProblems, LocalFault, Problem
from ..spool.values import Body
from .api import Site, Unscannable
from .authors import authors_of
from .authresults import authentication_results
from .header_fields import TooManyFields, split_fields
from .private_keys import load_key
from .tags import ARC_NAMES
from .values import AuthResult, Facts

__all__ = ["Signer"]

_LONGEST_KEY = 64 << 10
#: RFC 8301 §3.2.
_MIN_BITS = 1024


@dataclass(frozen=True, slots=True)
class _Key:
    """One key; ``domains`` are whose mail it signs, ``domain`` is d= ("" that of From)."""

    domains: tuple[str, ...]
    domain: str
    selector: str
    pem: str

    def __repr__(self) -> str:
        return f"<key {self.selector} of {self.domain or self.domains}>"

    def signs(self, domain: str) -> bool:
        """Say whether it is for mail from ``domain``."""
        return any(
            domain.endswith(each.lower()) if each.startswith(".") else domain == each.lower()
            for each in self.domains
        )

    def for_job(self, domain: str) -> dict[str, str]:
        """Return it as :mod:`.jobs.sign` wants it."""
        return {"domain": self.domain or domain, "selector": self.selector, "pem": self.pem}


class Signer:
    """Signs for one configuration.  Raises ConfigProblems where a key cannot be used."""

    def __init__(self, site: Site) -> None:
        config = site.config
        self._site = site
        self._authserv_id = config.authentication.authserv_id or config.node.hostname
        problems: list[Problem] = []
        self._keys: list[_Key] = []
        for name, each in config.signing.items():
            pem = _read(config.file, f"signing:{name}", each.key, False, problems)
            if pem:
                self._keys.append(_Key(each.domains, each.domain, each.selector, pem))
        arc = config.arc
        pem = _read(config.file, "arc", arc.key, True, problems)
        self._arc = _Key((), arc.domain or config.node.hostname, arc.selector, pem) if pem else None
        if problems:
            raise ConfigProblems(problems)

    @property
    def active(self) -> bool:
        """Say whether there is any key."""
        return bool(self._keys) or self._arc is not None

    @property
    def signs(self) -> bool:
        """Say whether there is a key for what our own clients send."""
        return bool(self._keys)

    async def sign(
        self, facts: Facts, header: bytes, body: Body, cut: int, results: Sequence[AuthResult]
    ) -> bytes:
        """Return the fields to put in front of a message, CRLF lines; b"" for none.

        ``header`` is its header section as it goes out, without the empty line; what
        follows is in ``body`` behind its first ``cut`` octets.  ``results`` are those of
        its Authentication-Results field.  LocalFault: it should be signed and cannot be.
        """
        arguments: dict[str, Any] = {"keys": [], "seal": None}
        if facts.trusted:
            arguments["keys"] = self._keys_for(header)
            if not arguments["keys"] and (cut or not self._keys):
                return b""
        else:
            arguments["seal"] = self._seal(header, results)
            if arguments["seal"] is None:
                return b""
        arguments |= {"header": header.decode("latin-1"), "cut": cut}
        arguments["now"] = self._site.world.wall()
        try:
            made = await self._site.workers.run("jobs.sign:sign", arguments, body)
        except Unscannable as fault:
            raise LocalFault(f"cannot be signed: {fault}") from None
        if made["trouble"] and facts.trusted:
            raise LocalFault(f"cannot be signed: {made['trouble']}")
        fields: str = made["fields"]
        return fields.encode("latin-1")

    def _keys_for(self, header: bytes) -> list[dict[str, str]]:
        """Return the keys for the first author's domain that has any."""
        if not self._keys:
            return []
        try:
            authors = authors_of(split_fields(header))
        except TooManyFields as trouble:
            raise LocalFault(f"cannot be signed: {trouble}") from None
        for domain in authors.domains:
            keys = [each.for_job(domain) for each in self._keys if each.signs(domain)]
            if keys:
                return keys
        return []

    def _seal(self, header: bytes, results: Sequence[AuthResult]) -> dict[str, str] | None:
        """Return the key and what is sealed; None where nothing is.

        A chain that was not verified is not continued: our seal would say what it is.  Of one
        that is broken it says so.
        """
        if self._arc is None:
            return None
        status = next((each.result for each in results if each.method == "arc"), "none")
        if status not in ("none", "pass", "fail"):
            return None
        if status == "none" and _is_sealed(header):
            return None
        told = authentication_results(self._authserv_id, results)
        return self._arc.for_job("") | {"cv": status, "results": told}


def _is_sealed(header: bytes) -> bool:
    try:
        return any(name.lower() in ARC_NAMES for name, _ in split_fields(header))
    except TooManyFields:
        return True


def _read(file: str, section: str, path: Path | None, rsa: bool, problems: list[Problem]) -> str:
    """Return a key in PEM; what is wrong with it goes to ``problems``, never the key."""
    if path is None:
        return ""
    try:
        with path.open("rb") as stream:
            pem = stream.read(_LONGEST_KEY).decode("ascii")
        key = load_key(pem)
    except OSError as error:
        problems.append(
            Problem(file, 0, section, "key", f"{path} cannot be read: {error.strerror}")
        )
        return ""
    except UnicodeDecodeError:
        problems.append(Problem(file, 0, section, "key", f"{path} is no private key in PEM"))
        return ""
    except ValueError as fault:
        problems.append(Problem(file, 0, section, "key", f"{path} {fault}"))
        return ""
    what = ""
    if isinstance(key, RSAPrivateKey):
        if key.key_size < _MIN_BITS:
            what = f"has {key.key_size} bits; nobody believes less than {_MIN_BITS} (RFC 8301)"
    elif rsa:
        what = "is no RSA key: ARC has no other (RFC 8617)"
    if what:
        problems.append(Problem(file, 0, section, "key", f"{path} {what}"))
    return "" if what else pem
