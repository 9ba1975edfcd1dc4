"""
Message brokers: what a bus must do, one module for each broker, and the URLs that name them.
"""
