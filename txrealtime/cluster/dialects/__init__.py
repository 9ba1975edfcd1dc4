"""
The messages between servers, and their wire forms: ours, Node's and python-socketio's.
"""
