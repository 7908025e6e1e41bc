"""Tuning jobs: a queue that is fair among projects, `advisor tune` in a process or a Ray job, predictions.

Knows run folders and the command line's `tune`. Must never know a user's code: it is the service that writes
what is run, from numbers that it has checked.
"""
