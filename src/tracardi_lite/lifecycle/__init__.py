"""Partitions from birth to drop: made ahead, moved to cheaper nodes as they age, copied, and dropped, by one worker.

* ``plan``: what is due, from the settings, the partitions and the time. Pure
* ``lease``: which worker does it
* ``keeper``: the scheduled pass
"""
