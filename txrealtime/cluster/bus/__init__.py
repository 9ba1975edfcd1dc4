"""
Message brokers: the interfaces of a bus, one module for each broker, and the choice by URL.
"""
