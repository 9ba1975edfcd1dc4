"""
The messages between servers, and their wire forms: native, Node's and python-socketio's.
"""
