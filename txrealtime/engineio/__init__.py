"""
The wire: one client's Engine.IO session, over long polling or WebSocket.

Nothing here knows Socket.IO.  An application that wants plain messages mounts
:class:`~txrealtime.engineio.engine.Engine` and receives them through
:class:`~txrealtime.engineio.session.IReceiver`.
"""
