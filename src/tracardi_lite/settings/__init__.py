"""Settings: what can be set, and where each value came from."""

from tracardi_lite.settings.loader import Loaded, Origin, Problem, Problems, load, near_misses
from tracardi_lite.settings.schema import Option, Settings

__all__ = ["Loaded", "Option", "Origin", "Problem", "Problems", "Settings", "load", "near_misses"]
