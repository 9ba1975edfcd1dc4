"""
The watched connection of a server to the broker: reconnecting, subscriptions, what waits, and counts.
"""
