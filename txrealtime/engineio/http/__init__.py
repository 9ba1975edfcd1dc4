"""
HTTP in front of the engine: a resource for ``twisted.web``, a site, and a fast path for polling requests.
"""
