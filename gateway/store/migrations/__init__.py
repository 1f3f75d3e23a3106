"""How the tables of each version came from the one before.

Rule: a file that was released is never changed, and names its tables itself: `tables.py` goes on without it.
A new one goes into `versions/`, names the one before as `down_revision`, and its number into `schema.HEAD`.
"""
