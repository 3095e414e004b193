"""Settings: what can be set, and where each value came from."""

from tracardi_lite.settings.schema import Option, Settings

__all__ = ["Option", "Settings"]
