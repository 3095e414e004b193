"""Alembic migrations, numbered 0001, 0002, …, so that the text order is the order of time.

To change the schema: change ``tables.py``, copy the newest file of ``versions/`` to the next number, write the step,
and set ``tables.HEAD``. Tests compare the tables with what the migrations make, and HEAD with the newest file.
"""
