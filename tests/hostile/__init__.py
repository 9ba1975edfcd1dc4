"""
Hostile input: each kind that has brought down a server of this family, and its fate here.
"""
