"""
The chat that ``twistd -n realtime`` serves: an example to read, and a page to try the server with.

:class:`Chat` is the server's side, :func:`page` serves the browser's.
"""

from txrealtime.chat.chat import Chat, makeServer
from txrealtime.chat.pages import page

__all__ = ["Chat", "makeServer", "page"]
