"""
The fuzzer's first inputs: for each target some that reach its corners, and words to make others of.

An input that has shown a defect is kept here too, under FOUND, with what it showed; each is played by
test_fuzz.py, in every run of the tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.fuzz import buses
from tests.memory import clientFrame

__all__ = ["FOUND", "SEEDS", "WORDS"]

_URL = b"/engine.io/?EIO=4&transport=polling"

# -- stories: see connections.py ---------------------------------------------------

_STORIES = [
    b'P\np40\ng\np421["echo",1]\ng\np1',
    b'P\ng\np40\x1e42["echo"]\x1e3\x1e6\ng\ng\nr\nw\xff',
    b'P\np40\nU\nt2probe\ng\nt5\nt421["echo",{}]\nt41',
    b"P\nU\nt2probe\nt4x",
    b"P\nU\nU\nt2probe\nr\nt5",
    b'W\nt40\nt420["join","x"]\nt42["shout","x"]\nw\xff\nt3\nw\xff\nw\xff\nw\xff',
    b'W\nt40\nt452-1["echo",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]\nbab\nb',
    b'W\nt40/chat,\nt40/chat,{"a":1}\nt42/chat,["bytes"]\nt421/chat,["bytes"]\nt41/chat,\nt40/chat,{"a":1}',
    b"W\nt40/slow,\nt41/slow,\na\nt40/slow,\nt40\na",
    b'W\nt40\nt421["ask"]\nt430[1]\nt42["ask"]\nw\x32\nt431[]',
    b'W\nt40\nt421["wait"]\nt422["wait"]\nt42["back"]\nt42["back"]\nt42["back"]\nt42["back"]\nt42["back"]\na\na',
    b'P\np40\np42["wait"]\x1e42["back"]\x1e42["back"]\x1e42["back"]\x1e42["back"]\x1e42["back"]\np4\na\na',
    b"W\nt40\ns\nenews\nexxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\nc\ns\nk\nc",
    b'W\nt40\nt42["bye"]\nt42["echo"]\nt40\nt42["bye",1]',
    b"P\np40\nk1\ng\ng",
    b"W\nf\x01\x34\nf\x80\x30\nf\x89ping\nf\x88\x03\xe8",
    b'W&b64=1\nt40\nt421["bytes"]\nt4b',
    b'P\nj40\nj421["echo"]\ng&j=1\ng&j=x',
    b"hGET /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n",
    b"P\nhPOST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\\r\\nHost: a\\r\\n"
    b"Content-Length: 2\\r\\n\\r\\n\nd40",
    b"P&EIO=3\nP&transport=x\nP&sid=x\nW&EIO=5",
    b"W\nr\nP\nr\nP\ng\nr",
]

_OLD_STORIES = [
    b'P\ng\np11:421["echo"]\ng\np1:2\ng\np1:1',
    b"P&b64=1\np10:40/chat?a=1\ng\np2:41",
    b'P&t=1795222700237-0\ng\no\x00\x06\xff4["ab"]\ng',
    b"P\no\x00\x01\xff2\x01\x02\xff\x04\x01\ng",
    b'P\nU\nt2probe\ng\nt5\nt421["bytes"]\nt2\nt2x',
    b'W\nt421["echo",1]\nt40/chat?a=1,\nt42/chat,["bytes"]\nb\x04x',
    b'W&b64=1\nt421["bytes"]\ntb4AAAA\nt3',
    b'W\nt451-["echo",{"_placeholder":true,"num":0}]\nb\x04ab\nw\xff\nw\xff',
    "P\np4:4€x\ng\np6:4â\x82¬x\ng".encode(),
    b'P\nj11:421["echo"]\ng&j=2',
]

_BINARY_STORIES = [
    b"W\nb\x82\xa4type\x00\xa3nsp\xa1/\nb\x83\xa4type\x02\xa3nsp\xa1/\xa4data\x92\xa4echo\x01\nb\x84\xa4type\x02\xa2id\x01"
    b"\xa3nsp\xa1/\xa4data\x91\xa5bytes",
    b"P\npbgqR0eXBlAKNuc3ChLw==\ng\npbhKR0eXBlAqJpZAGjbnNwoS+kZGF0YZGlYnl0ZXM=\ng",
    b"W\nb\x83\xa4type\x00\xa3nsp\xa5/chat\xa4data\x81\xa1a\x01\nt40",
]

_LIMITED_STORIES = [
    b'W\nz40\nz421["echo","xxxxxxxxxxxxxxxxxxxxxxxxxxxx"]\ne1234567890\nt421["bytes"]\nf\xc1\x00',
    b"W\n" + b'z40\nt42["back"]\n' + b't42["back"]\n' * 12 + b"w\x05\nw\x0a\nw\xff",
    b"P\np40\np" + b"\x1e".join([b'42["back"]'] * 12) + b"\nw\x05\ng\nw\x0a\ng",
    b'W\nt40\nt40/chat,{"a":1}\nt40/slow,\nt42["join",1]\nt42["join",2]\nt42["join",3]',
    b"W\nf\x014\n" + b"f\x00\n" * 5 + b"f\x800",
    b"W\nW\nW\nW\nW\nP\nr\nP\nr\nP",
    b"W\nz40\ns\n" + b"z" + b'42["back","' + b"x" * 900 + b'"]\nw\xff',
]

SEEDS: Mapping[str, Sequence[bytes]] = {
    "engineio4": [b"", b"4hello", b"4a\x1e4b\x1ebAQIDBA==\x1e2", b"2probe", b"0{}", b"b!", "4€🎉".encode()],
    "engineio3": [
        b"\x006:4hello",
        b"\x006:4hello10:b4AQIDBA==",
        b"\x010\x00\x06\xff4hello\x01\x05\xff\x04\x01\x02\x03\x04",
        b"\x01\x00\x06\xff4hello\x01\x05\xff\x04\x01\x02\x03\x04",
        "\x002:4€\n--\n4:4â\x82¬\n--\n3:4🎉".encode(),
        b"\x061:2\n--\n2:4a",
        b"\x020:",
    ],
    "jsonp": [b"0\nd=4hello", b"12\nd=4a%5C%5Cn&x=1", b"x\nd=4", b"1\nd=\xe2\x82\xac</script>", b"1\n"],
    "socketio": [
        b'0\n0{"token":"x"}\n0/chat,\n1/chat,',
        b'2["say","hello"]\n2/chat,7["say"]\n3/chat,7["delivered"]',
        b'51-["photo",{"_placeholder":true,"num":0}]\n=abc',
        b'62-/a,7[[{"_placeholder":true,"num":1}],{"x":{"_placeholder":true,"num":0}}]\n=a\n=b',
        b'2[1,2.5,-0,1e5,18446744073709551616,"\\ud800",true,null]',
        b'4{"message":"no"}',
        b'51-["a"]\n2["b"]',
    ],
    "msgpack": [
        b"\x83\xa4type\x02\xa4data\x92\xa3say\xa5hello\xa3nsp\xa1/",
        b"\x84\xa4type\x03\xa4data\x91\xc4\x02ab\xa2id\x07\xa3nsp\xa5/chat",
        b"\x82\xa4type\x00\xa3nsp\xa1/",
        b"\x83\xa4type\x02\xa4data\x93\xa1d\xd7\x00\x00\x00\x01\x9d\x1e\x1a\x1a\x1a\xd4\x00\x00\xa3nsp\xa1/",
        b"\x83\xa4type\x02\xa4data\x94\xa1d\xd6\xff\x00\x00\x00\x01\xcb?\xf0\x00\x00\x00\x00\x00\x00\xc0\xa3nsp\xa1/",
        b"\xdd\xff\xff\xff\xff",
    ],
    "jsontext": [
        b'["a",1,-1.5e3,true,false,null,{"b":[]}]',
        b'"\\ud83c\\udf89\\n\\u0000"',
        '"€🎉"'.encode(),
        b"[1e400,123456789012345678901234567890,-0,-0.0]",
        b'{"a":1,"a":2}',
        b" [ ] ",
        b"[NaN]",
        b'"\\ud800"',
        b"[" * 40 + b"]" * 40,
    ],
    "frames": [
        b"\x03" + clientFrame(1, b"hello") + clientFrame(2, b"\x00\xff"),
        b"\x00" + clientFrame(1, b"he", False) + clientFrame(9, b"x") + clientFrame(0, b"llo"),
        b"\x05" + clientFrame(2, b"x" * 126) + clientFrame(8, b"\x03\xe8bye"),
        b"\x01" + clientFrame(1, b"\xc3\x28"),
        b"\x01" + clientFrame(1, b"\xe2\x82", False) + clientFrame(0, b"\xac"),
        b"\x07" + clientFrame(1, b"x", mask=None),
        b"\x07" + clientFrame(1, b"x", rsv=4),
        b"\x07" + clientFrame(10) + clientFrame(1) + clientFrame(0),
        b"\x02\x82\xff\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00hello",
        b"\x02\x82\xfe\xff\xff\x00\x00\x00\x00",
    ],
    "handshake": [
        b"/engine.io/?EIO=4&transport=polling\nHost: example.org\nOrigin: http://example.org",
        b'/?EIO=3&t=%20+\nHost: a:80\nOrigin: https://[::1]:x\nCookie: a=b; c="d"',
        b"/?\nX-Forwarded-For: 10.0.0.1, 192.0.2.3\nX-Forwarded-Proto: https\n"
        b"X-Forwarded-Host: b\nOrigin: null",
    ],
    "channel": [
        b"\x10GET " + _URL + b"&sid={sid} HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x03POST " + _URL + b"&sid={sid} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n4ab",
        b"\x03POST "
        + _URL
        + b"&sid={sid} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n4c\r\n0\r\n\r\n",
        b"\x20GET /hello HTTP/1.1\r\nHost: a\r\n\r\nGET "
        + _URL
        + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"\x20POST " + _URL + b"&sid={sid} HTTP/1.1\r\nHost: a\r\nContent-Length: 501\r\n\r\n",
        b"\x20OPTIONS " + _URL + b" HTTP/1.1\r\nHost: a\r\nOrigin: http://b\r\n\r\n",
        b"\x20GET /engine.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    ],
    "transfers": list(buses.stories()),
    "bus": [
        *buses.seeds(),
        b'\x04{"method":"emit","event":"say","data":["a",{"_placeholder":true,"num":0}],"namespace":"/","room":"red",'
        b'"skip_sid":"x","callback":["x","/",1],"host_id":"b","binary":["YWI="]}',
        b'\x04{"method":"callback","host_id":"aaaaaaaaaaaaaaaaaaaa","sid":"x","namespace":"/","id":1,"args":[1]}',
        b'\x04{"method":"enter_room","sid":"x","namespace":"/","room":"red","host_id":"b"}',
        b'\x04{"method":"disconnect","sid":"x","namespace":"/","host_id":"b"}',
        b"\x04\x80\x04}.",
    ],
    "connections": _STORIES,
    "connectionsLongWays": _STORIES,
    "connectionsOld": _OLD_STORIES,
    "connectionsMsgpack": _BINARY_STORIES,
    "connectionsLimited": _LIMITED_STORIES,
}
"Target -> inputs."

_TALK = [
    b"\nt",
    b"\nb",
    b"\np",
    b"\ng",
    b"\nU",
    b"\nP",
    b"\nW",
    b"\nr",
    b"\na",
    b"\nw\xff",
    b"\ns",
    b"\nc",
    b"\nk",
]
_TALK += [
    b"2probe",
    b"5",
    b"40",
    b"41",
    b'42["wait"]',
    b'421["ask"]',
    b"430[]",
    b'42["echo",',
    b'["bytes"]',
    b"/slow,",
]
_TALK += [
    b'/chat,{"a":1}',
    b'51-["back",{"_placeholder":true,"num":0}]',
    b"\x1e",
    b"{sid}",
    b"\ne",
    b'42["back"]',
]
_TALK += [b'42["join",1]', b'42["shout",1]', b'42["bye"]', b"?a=1", b"\\r\\n"]

WORDS: Mapping[str, Sequence[bytes]] = {
    "engineio4": [b"\x1e", b"b", b"=="],
    "engineio3": [b"\n--\n", b"\xff", b"b4", b":", b"\xf0\x9f\x8e\x89", b"\xc3\xa2\xc2\x82\xc2\xac"],
    "jsonp": [b"d=", b"%5Cn", b"\\n", b"&", b"</script", b"+", b"%0A"],
    "socketio": [
        b'{"_placeholder":true,"num":0}',
        b"51-",
        b"62-",
        b"/a,",
        b"2[",
        b"\n=",
        b"\\ud800",
        b"e400",
        b'"connect"',
    ],
    "msgpack": [
        b"\xa4type",
        b"\xa4data",
        b"\xa3nsp",
        b"\xa2id",
        b"\xd7\x00",
        b"\xd6\xff",
        b"\xc7\x0c\xff",
        b"\xdf\xff\xff",
    ],
    "jsontext": [
        b"\\ud83c",
        b"\\udf89",
        b"e308",
        b"1e-400",
        b"18446744073709551615",
        b"-9223372036854775809",
        b"NaN",
    ],
    "frames": [
        b"\x81\x80",
        b"\x82\xfe",
        b"\x89\x80",
        b"\x88\x82",
        b"\x01\x81",
        b"\x80\x81",
        b"\x81\xff\x00\x00\x00\x00",
    ],
    "handshake": [
        b"\nX-Forwarded-For:",
        b"\nOrigin:",
        b"\nHost:",
        b"\nCookie:",
        b"http://",
        b"%",
        b"EIO=",
        b"[",
        b"::1",
    ],
    "channel": [
        b"GET ",
        b"POST ",
        _URL,
        b"&sid={sid}",
        b" HTTP/1.1\r\n",
        b"Host: a\r\n",
        b"Content-Length: ",
        b"\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"Expect: 100-continue\r\n",
        b"&j=1",
        b"Upgrade: ",
    ],
    "transfers": [
        b"claim",
        b"take",
        b"adopt",
        b"carry",
        b"events",
        b"parts",
        b"moved",
        b"owner",
        b"null",
        b"\n",
    ],
    "bus": [
        b'"enter_room"',
        b'"close_room"',
        b'"callback"',
        b'"emit"',
        b"null",
        b'"alive"',
        b'"reply"',
        b"\x93\xa4",
        b"[]",
    ],
    "connections": _TALK,
    "connectionsLongWays": _TALK,
    "connectionsOld": [*_TALK, b"1:", b"\no", b"\x00\x01\xff", b"\x01\x02\xff\x04", b"&b64=1"],
    "connectionsLimited": [*_TALK, b"\nz40", b"\nz", b"\nf\xc1", b"\nf\x01", b"\nf\x00", b"w\x05"],
    "connectionsMsgpack": [*_TALK, b"\xa4type", b"\xa4data", b"\xa3nsp", b"\xa2id", b"\xa1/"],
}
"Target -> words of its language."

FOUND: Mapping[str, Sequence[bytes]] = {
    "channel": [
        # A sid that comes back in a refusal, where the target took two sids for two answers.
        b"\x10GET /engine.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\nOrigin: http://{sid}\r\n\r\n",
    ],
    "connectionsOld": [
        # Half a surrogate pair, which can come but cannot go: as the data of a PING, and as a namespace.
        "P\np4:2í\xa0\x80\ng".encode(),
        "P\np7:40/í\xa0\x80,\ng".encode(),
    ],
}
"Target -> inputs that it did not stand once."
