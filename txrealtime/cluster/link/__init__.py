"""
The watched connection of a server to the broker: its two halves, reconnecting, and counts.
"""
