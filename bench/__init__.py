"""Measurements against ceilings taken in the same run: ``python -m bench``. See README.md for method and caveats."""
