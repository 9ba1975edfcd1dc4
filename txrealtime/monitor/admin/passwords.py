"""
Passwords of the admin UI: a file with lines ``name:hash``, and the form of the hashes.

A hash is ``$scrypt$ln=15,r=8,p=3$SALT$HASH``: the parameters of scrypt (RFC 7914), where ``ln`` is the
logarithm of its cost, then the salt and the hash in base64 without padding.  Other programs write the same
form, such as passlib.  By default a check takes 32 MB and a quarter of a second of a thread.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from base64 import b64decode, b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple
from unicodedata import normalize

__all__ = ["LONGEST", "Passwords", "checkedName", "hashed"]

LONGEST: Final = 1000
"""Characters of a password."""

_FORM: Final = re.compile(
    r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})",
    re.ASCII,
)

_LARGEST: Final = 1 << 20
"""Bytes of a file of passwords: some 10,000 users."""

_MOST_MEMORY: Final = 256 << 20
_MOST_WORK: Final = 1 << 30
"""The product of memory and ``p`` of a hash that is accepted: 10 seconds."""

_LN, _R, _P = 15, 8, 3


class _Hash(NamedTuple):
    """
    A hash and its parameters.

    :ivar ln: the logarithm of the cost, to the base 2.
    """

    ln: int
    r: int
    p: int
    salt: bytes
    hash: bytes

    @property
    def memory(self) -> int:
        """The bytes that a check takes."""
        return 128 * self.r << self.ln

    def of(self, password: str) -> bytes:
        """Hash a password with these parameters."""
        return hashlib.scrypt(
            # As RFC 8265 has it for passwords: two keyboards may compose a letter differently.
            normalize("NFC", password).encode("utf-8", "surrogatepass"),
            salt=self.salt,
            n=1 << self.ln,
            r=self.r,
            p=self.p,
            maxmem=self.memory + (128 * self.r * self.p) + (1 << 20),
            dklen=len(self.hash),
        )


def hashed(password: str, *, ln: int = _LN, r: int = _R, p: int = _P) -> str:
    """
    Return the hash of a password, with a new salt, for a file of passwords.

    This takes a quarter of a second.

    :param ln: the logarithm of the cost, and so of the memory.
    :raises ValueError: if the password is empty or has more than 1000 characters.
    """
    if not 0 < len(password) <= LONGEST:
        raise ValueError(f"a password of {len(password)} characters, expected 1 to {LONGEST}")
    form = _Hash(ln, r, p, secrets.token_bytes(16), bytes(32))
    return f"$scrypt$ln={ln},r={r},p={p}${_text(form.salt)}${_text(form.of(password))}"


def checkedName(name: str) -> str:
    """
    Return the name of a user.

    :raises ValueError: if a file of passwords cannot have it.
    """
    if not name.strip() or name != name.strip() or not name.isprintable() or ":" in name or name[0] == "#":
        raise ValueError(f"{name!r} is no name for a user: expected printable characters without a colon")
    return name


class Passwords:
    """
    The users of the admin UI and their hashes.

    :param hashes: hash by name, in the form of :func:`hashed`.
    :raises ValueError: if a hash has another form, or takes more than 256 MB.
    """

    def __init__(self, hashes: Mapping[str, str]) -> None:
        if not hashes:
            raise ValueError("no user has a password")
        self._hashes = {checkedName(name): _parsed(text) for name, text in hashes.items()}
        # An unknown name takes as long as a known one, so the time does not tell the names.
        dearest = max(self._hashes.values(), key=lambda known: known.memory * known.p)
        self._decoy = dearest._replace(salt=secrets.token_bytes(16), hash=bytes(32))

    @classmethod
    def fromFile(cls, path: str | Path) -> Passwords:
        """
        Read a file with lines ``name:hash``; empty ones and those that begin with ``#`` are skipped.

        :raises OSError: if the file cannot be read.
        :raises ValueError: if a line has another form.  The message has its number, and nothing of the hash.
        """
        hashes: dict[str, str] = {}
        try:
            with open(path, "rb") as file:
                data = file.read(_LARGEST + 1)
            if len(data) > _LARGEST:
                raise ValueError(f"larger than {_LARGEST} bytes: expected a line of 100 for each user")
            lines = data.decode("utf-8").splitlines()
        except UnicodeDecodeError:
            raise ValueError("not a file of text in UTF-8") from None
        for number, line in enumerate(map(str.strip, lines), 1):
            if not line or line.startswith("#"):
                continue
            name, colon, text = line.partition(":")
            try:
                if not colon:
                    raise ValueError("no colon")
                checkedName(name)
                _parsed(text)
                if name in hashes:
                    raise ValueError("a second line for one name")
            except ValueError as error:
                raise ValueError(f"line {number}: {error}; expected a line of txrealtime password") from None
            hashes[name] = text
        return cls(hashes)

    def check(self, name: str, password: str) -> bool:
        """Return whether a user has this password.  For a thread: this takes a quarter of a second."""
        known = self._hashes.get(name)
        form = known or self._decoy
        found = form.of(password[:LONGEST])
        # The decoy's hash is no password's, but the result does not depend on that.
        return hmac.compare_digest(found, form.hash) and known is not None and len(password) <= LONGEST


def _parsed(text: str) -> _Hash:
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError("not a hash of the form $scrypt$ln=15,r=8,p=3$SALT$HASH")
    ln, r, p = (int(number) for number in match.groups()[:3])
    try:
        form = _Hash(ln, r, p, _bytes(match[4]), _bytes(match[5]))
    except ValueError:
        raise ValueError("a hash whose salt or hash is no base64") from None
    if not (ln >= 1 and r and p) or form.memory > _MOST_MEMORY or form.memory * p > _MOST_WORK:
        raise ValueError("a hash whose parameters are 0, or so large that a check takes seconds")
    return form


def _text(data: bytes) -> str:
    return b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return b64decode(text + "=" * (-len(text) % 4), validate=True)
