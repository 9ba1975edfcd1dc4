"""
JSON text with binary attachments: the wire form of an event's arguments.

All values of JSON can be sent, with bytes-like values anywhere among them; a UUID is sent as its text, a
member of an :class:`~enum.Enum` as its value.  Received text is strict JSON, without ``NaN``; an integer
beyond 64 bits becomes a float, as in JavaScript.

If `orjson <https://github.com/ijl/orjson>`_ is installed, it encodes and decodes the common cases, and the
standard library the cases that orjson refuses or reads in another way.  The accepted values and the results
are the same with and without orjson.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from enum import Enum
from json import encoder as jsonEncoder
from typing import Any, Final
from uuid import UUID

from txrealtime.foreign import stands
from txrealtime.speedups import isPure

try:
    if isPure:
        raise ImportError("TXREALTIME_PURE")
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]

__all__ = ["JSONText", "escaped", "explained"]

# Characters.  For shorter strings, the standard library writes as fast.
_LONG: Final = 256

# Characters.  The standard library reads shorter text as fast; orjson reads small objects in half the time.
_READ_FROM: Final = 40

_BLANKS: Final = " \t\r\n"

# Without a C compiler, as in PyPy, there is a name, but no encoder.
_MAKES_ENCODERS: Final = (
    stands(
        jsonEncoder,
        "c_make_encoder",
        "encode_basestring",
        "encode_basestring_ascii",
        without="writing JSON takes 0.6 us more for each event",
    )
    and jsonEncoder.c_make_encoder is not None  # type: ignore[attr-defined]
)

# What JSON escapes in a string (RFC 8259, 7).
_ESCAPED: Final = bytes((*range(32), *b'"\\'))


class JSONText:
    """
    An encoder and decoder.

    :param accelerated: use orjson, if it is installed.
    :ivar isAccelerated: ``True`` if orjson is used.
    :ivar loads: decodes text, and raises ``ValueError`` for some that :meth:`decode` takes.
    """

    def __init__(self, accelerated: bool = True) -> None:
        # Empty except while encode() runs.
        self._attachments: list[bytes] = []
        self._default = self._putAside
        if _MAKES_ENCODERS:
            self._toText = self._makeEncoder(jsonEncoder.encode_basestring)
            self._longToText = self._makeEncoder(_quoted)
            self._toASCII = self._makeEncoder(jsonEncoder.encode_basestring_ascii)
        else:
            self._toText = self._longToText = self._plainEncoder(ensure_ascii=False)
            self._toASCII = self._plainEncoder(ensure_ascii=True)
        self.isAccelerated = accelerated and orjson is not None
        self.loads: Callable[[str], Any] = orjson.loads if self.isAccelerated else self.decode

    # -- encoding ----------------------------------------------------------------

    def encode(self, data: Any, first: int = 0) -> tuple[str, Sequence[bytes]]:
        """
        Encode data.

        :param first: the number of the first argument, for error messages.
        :return: the text, and the attachments in the order of its placeholders.
        :raises TypeError: if a value cannot be sent; the message has the path to it.
        :raises ValueError: if JSON lacks a number, the data is nested too deeply, or a dictionary looks
            like a placeholder.
        """
        if self.isAccelerated:
            try:
                text = orjson.dumps(data, self._default, _OPTIONS).decode()
            except TypeError:
                text = "null"  # orjson refuses more than this encoder
            # orjson writes null for NaN, which must be refused.
            if "null" in text and (text == "null" or _mayHoldNaN(data)):
                self._attachments.clear()
                text = self._encodeFully(data, first)
        else:
            text = self._encodeFully(data, first)
        return (text, self._takeAttachments(text)) if self._attachments else (text, ())

    def encodeBehind(self, head: str, id: int, data: Any) -> str | None:
        """
        Encode data behind the head of a packet and its id, while :attr:`isAccelerated`.

        :return: the text, or ``None`` if :meth:`encode` must do it: for attachments and unusual values.
        """
        try:
            text = orjson.dumps(data, self._default, _OPTIONS).decode()
        except TypeError:
            text = "null"
        if self._attachments:
            self._attachments.clear()
            return None
        # As in encode().
        if "null" in text and (text == "null" or _mayHoldNaN(data)):
            return None
        return f"{head}{id}{text}"

    def _takeAttachments(self, text: str) -> Sequence[bytes]:
        attachments, self._attachments = self._attachments, []
        if text.count('"_placeholder":') != len(attachments):
            raise ValueError(
                "cannot send a dictionary with the key '_placeholder' beside bytes: "
                "clients would take it for an attachment"
            )
        return attachments

    def _encodeFully(self, data: Any, first: int) -> str:
        try:
            toText = self._longToText if _hasLongString(data) else self._toText
            text = "".join(toText(data, 0))
            if not text.isascii():
                text = self._withoutLoneSurrogates(text, data)
        except (TypeError, ValueError, RecursionError) as error:
            self._attachments.clear()
            raise explained(data, first, error, _whyNot) from None
        return text

    def _makeEncoder(self, encodeString: Callable[[str], str]) -> Callable[[Any, int], Sequence[str]]:
        # JSONEncoder.encode makes such an encoder at each call: 1.0 us for ["echo", 64 characters], against
        # 0.4 here.  The arguments: no check for cycles (they end in a RecursionError), separators, no
        # sorting, no skipping of keys, no NaN.
        make: Any = jsonEncoder.c_make_encoder  # type: ignore[attr-defined]
        encode: Callable[[Any, int], Sequence[str]] = make(
            None, self._putAside, encodeString, None, ":", ",", False, False, False
        )
        return encode

    def _plainEncoder(self, ensure_ascii: bool) -> Callable[[Any, int], Sequence[str]]:
        """Make the same encoder by documented means."""
        encode = json.JSONEncoder(
            check_circular=False,
            allow_nan=False,
            ensure_ascii=ensure_ascii,
            separators=(",", ":"),
            default=self._putAside,
        ).encode
        return lambda data, depth: [encode(data)]

    def _putAside(self, value: Any) -> Any:
        """Called by the encoders with a value that JSON lacks."""
        if isinstance(value, (bytes, bytearray, memoryview)):
            self._attachments.append(bytes(value))
            return {"_placeholder": True, "num": len(self._attachments) - 1}
        if isinstance(value, UUID):
            return str(value)
        if isinstance(value, Enum):
            return value.value
        raise TypeError

    def _withoutLoneSurrogates(self, text: str, data: Any) -> str:
        """Escape lone surrogates, which JavaScript strings may hold and UTF-8 cannot carry."""
        try:
            text.encode()
        except UnicodeEncodeError:
            self._attachments.clear()
            text = "".join(self._toASCII(data, 0))
        return text

    # -- decoding ----------------------------------------------------------------

    def decode(self, text: str, start: int = 0) -> Any:
        """
        Decode text from a position to its end.

        :raises ValueError: if it is not JSON, or nested too deeply.
        """
        if self.isAccelerated and len(text) > _READ_FROM:
            try:
                return orjson.loads(text[start:])
            except orjson.JSONDecodeError:
                pass  # orjson refuses lone surrogates, for instance
        try:
            data, end = _scan(text, start)
        except StopIteration:
            if start < len(text) and text[start] in _BLANKS:
                return self.decode(text[start:].lstrip(_BLANKS))
            raise ValueError("not JSON") from None
        except RecursionError:
            raise ValueError("JSON nested too deeply") from None
        if end != len(text) and text[end:].strip(_BLANKS):
            raise ValueError("text after the JSON")
        return data


def _quoted(text: str) -> str:
    """
    Write a string as JSON.

    64 KiB without a character to escape take 40 us, where the standard library's encoder takes 140 to 490,
    depending on the build of Python.
    """
    if len(text) > _LONG and text.__class__ is str:
        raw = text.encode("utf-8", "surrogatepass")
        if len(raw.translate(None, _ESCAPED)) == len(raw):
            return f'"{text}"'
    return jsonEncoder.encode_basestring(text)


def _hasLongString(data: Any) -> bool:
    """
    Look for a long string among the arguments and the values of their dictionaries; deeper looks cost time.
    """
    if data.__class__ is list:
        for value in data:
            kind = value.__class__
            if kind is str:
                if len(value) > _LONG:
                    return True
            elif kind is dict:
                for item in value.values():
                    if item.__class__ is str and len(item) > _LONG:
                        return True
    return False


_LEAVES: Final = frozenset([str, int, bool, type(None), bytes])


def _mayHoldNaN(data: Any) -> bool:
    """Look for NaN, an infinity or a value of an unusual class in data that orjson has encoded."""
    containers = [data]
    for container in containers:
        for value in container.values() if container.__class__ is dict else container:
            kind = value.__class__
            if kind in _LEAVES:
                continue
            if kind is dict or kind is list or kind is tuple:
                containers.append(value)
            elif kind is not float or not math.isfinite(value):
                return True
    return False


_OPTIONS: Final = (
    0
    if orjson is None
    else orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
)


_OTHER: Final = re.compile("[^\0-\x7f]+")


def escaped(text: str) -> str:
    """Write JSON text in ASCII, with the same meaning."""
    return _OTHER.sub(lambda match: json.dumps(match[0])[1:-1], text)


def explained(data: Any, first: int, error: Exception, whyNot: Callable[[Any], str | None]) -> Exception:
    """
    Make the error for the caller, with the path to the value that cannot be sent.

    :param first: the number of the first argument.
    :param error: the encoder's error.
    :param whyNot: gives the reason if a value, no list or dictionary, cannot be sent, or ``None`` if it can.
    """
    if isinstance(error, RecursionError):
        return ValueError("cannot send a value that contains itself, or is nested too deeply")
    try:
        found = _findUnsendable(data, whyNot, "", first)
    except RecursionError:  # the encoder may go deeper than Python code can
        found = None
    if found is None:
        return error
    path, value, reason = found
    if isinstance(value, (int, float)):
        return ValueError(f"cannot send {value!r}, found at {path}: {reason}")
    return TypeError(f"cannot send {type(value).__name__}, found at {path}: {reason}")


_SENDABLE: Final = "expected None, bool, int, float, str, bytes, list, tuple, dict, UUID or Enum"


def _whyNot(value: Any) -> str | None:
    if isinstance(value, float):
        return None if math.isfinite(value) else "JSON has no such number"
    known = isinstance(value, (str, int, bytes, bytearray, memoryview, UUID, type(None)))
    return None if known else _SENDABLE


def _findUnsendable(
    value: Any, whyNot: Callable[[Any], str | None], path: str, first: int = 0
) -> tuple[str, Any, str] | None:
    """
    Find the first value that cannot be sent: its path, as in ``argument 0['when']``, itself, the reason.
    """
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, (str, int, float, bool, type(None))):
                return f"a key of {path or 'the data'}", key, _SENDABLE
            if found := _findUnsendable(item, whyNot, f"{path}[{key!r}]"):
                return found
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            name = f"{path}[{index}]" if path else f"argument {first + index}"
            if found := _findUnsendable(item, whyNot, name):
                return found
    elif reason := whyNot(value):
        return path, value, reason
    return None


def _refuseConstant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _readInteger(digits: str) -> int | float:
    if len(digits) < 19:
        return int(digits)
    number = float(digits) if len(digits) > 20 else int(digits)
    if -(1 << 63) <= number < 1 << 64:
        return int(number)
    if math.isinf(number):
        raise ValueError("a number too large")
    return float(number)


_decoder: Final = json.JSONDecoder(parse_constant=_refuseConstant, parse_int=_readInteger)


def _plainScan(text: str, start: int) -> tuple[Any, int]:
    """
    Read a value as ``scan_once`` does, by documented means.

    :raises StopIteration: if there is none.
    """
    try:
        return _decoder.raw_decode(text, start)
    except json.JSONDecodeError:
        raise StopIteration from None


_scan: Callable[[str, int], tuple[Any, int]] = (
    _decoder.scan_once  # type: ignore[attr-defined]
    if stands(_decoder, "scan_once", without="reading JSON takes a little longer")
    else _plainScan
)
