"""
The server's side of Socket.IO's admin UI.
"""
