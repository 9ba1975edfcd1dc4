"""
HTTP in front of the engine: twisted.web's face, a site, and a fast path for polling requests.
"""
