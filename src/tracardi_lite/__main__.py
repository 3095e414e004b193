"""``python -m tracardi_lite`` is ``tracardi-lite``."""

from tracardi_lite.cli import main

if __name__ == "__main__":
    main()
