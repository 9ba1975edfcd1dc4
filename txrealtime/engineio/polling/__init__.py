"""
The HTTP long-polling transport: one GET waits for messages, and POSTs deliver them.
"""
