"""One customer, one profile: which data identify a person (``keys``), and how two profiles become one (``merger``)."""
