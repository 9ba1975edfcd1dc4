"""
What means no good: each kind of input that has brought down one of this family, and what becomes of it here.
"""
