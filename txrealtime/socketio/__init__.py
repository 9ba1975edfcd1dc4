"""
The talk: Socket.IO on an Engine.IO session.

Namespaces, rooms, events and acks.  No module here knows HTTP or WebSocket.
"""
