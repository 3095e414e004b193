"""tracardi-lite: an event-ingestion server for customer data platforms.

This module imports nothing, so that importing one backend stays cheap.
"""

__version__ = "0.1.0"
