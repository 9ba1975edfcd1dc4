"""
The wire: one client's Engine.IO session, over long polling or WebSocket.

No module here knows Socket.IO.  An application that needs plain messages only creates an
:class:`~txrealtime.engineio.engine.Engine`, hears the messages of a session through
:class:`~txrealtime.engineio.session.IReceiver`, and puts the engine into a site with
:class:`~txrealtime.engineio.http.resource.EngineResource`.
"""
