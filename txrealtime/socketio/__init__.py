"""
The talk: Socket.IO on top of an Engine.IO session.

Namespaces, rooms, events and acknowledgements.  Nothing here knows HTTP or WebSocket.
"""
