"""What is judged of a user's own network and training: one file per family of findings.

A family is a list of functions of a ``Case``. Must never know the command line, and leaves the module as
it was.
"""
