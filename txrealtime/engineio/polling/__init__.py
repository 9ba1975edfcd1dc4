"""
The HTTP long-polling transport: one GET that waits, and POSTs that deliver.
"""
