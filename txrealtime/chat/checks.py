"""
The checks of what clients of the chat send.
"""

from __future__ import annotations

import unicodedata
from typing import Any

__all__ = ["MAX_PICTURE", "MAX_TEXT", "Refusal", "line", "pictureType", "prose"]

MAX_TEXT = 2000
"Characters."

MAX_PICTURE = 700_000
"Bytes. Long polling carries it in base64, a third longer, and that has to pass the default maxPayload."

SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}
"The first bytes of pictures that a browser shows and that hold no scripts; WebP is RIFF, a size, WEBP."


class Refusal(ValueError):
    """A client's request is refused; the text is for the person at the page."""


def line(value: Any, what: str, most: int) -> str:
    """Return one line of text without invisible characters; `what` names the text in a refusal."""
    if not isinstance(value, str):
        raise Refusal(f"{what} must be text.")
    visible = "".join(
        c for c in unicodedata.normalize("NFKC", value[: most * 4]) if c.isprintable() or c.isspace()
    )
    tidy = " ".join(visible.split())
    if not 0 < len(tidy) <= most:
        raise Refusal(f"{what} must have 1 to {most} characters.")
    return tidy


def prose(value: Any) -> str:
    """Return text of several lines without control characters."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT:
        raise Refusal(f"A message must have 1 to {MAX_TEXT} characters.")
    return "".join(c for c in value if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs"))


def pictureType(data: Any) -> str:
    """Return the MIME type of a picture by its first bytes, whatever the client calls it."""
    if not isinstance(data, bytes) or len(data) > MAX_PICTURE:
        raise Refusal(f"A picture must be bytes, {MAX_PICTURE} at most.")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    for signature, kind in SIGNATURES.items():
        if data.startswith(signature):
            return kind
    raise Refusal("A picture can be PNG, JPEG, GIF or WebP.")
