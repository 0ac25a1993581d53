"""The test strings that every scanner knows: EICAR for malware, GTUBE for spam (pure).

Neither stands in this file as it is: a scanner that reads our source would stop there.
"""

from __future__ import annotations

import hashlib
from typing import Final

__all__ = ["has_eicar", "has_gtube", "is_eicar"]

#: The first octets of the EICAR test file, its length, and its SHA-256.
_EICAR_START: Final = b"X5O!P%"
_EICAR_OCTETS: Final = 68
_EICAR_DIGEST: Final = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f"
#: What may follow it in a file.
_SPACE: Final = b" \t\r\n\x1a"

_GTUBE: Final = "*".join(
    ("XJS", "C4JDBQADN1.NSBN3", "2IDNEN", "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL", "C.34X")
)


def is_eicar(content: bytes) -> bool:
    """Say whether a file is the EICAR test file, perhaps with white space after it."""
    if not content.startswith(_EICAR_START):
        return False
    rest = content[_EICAR_OCTETS:]
    return not rest.strip(_SPACE) and _is_string(content)


def has_eicar(text: bytes) -> bool:
    """Say whether the EICAR test string stands anywhere in a text."""
    position = text.find(_EICAR_START)
    while position >= 0:
        if _is_string(text[position : position + _EICAR_OCTETS]):
            return True
        position = text.find(_EICAR_START, position + 1)
    return False


def _is_string(octets: bytes) -> bool:
    return hashlib.sha256(octets[:_EICAR_OCTETS]).hexdigest() == _EICAR_DIGEST


def has_gtube(text: str) -> bool:
    """Say whether the GTUBE test string stands in a text."""
    return _GTUBE in text
