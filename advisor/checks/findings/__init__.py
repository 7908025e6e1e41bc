"""What is judged of a user's own network and training: one file per family of findings.

Knows traces, short trainings of copies, and what the notes and the field say about them.
Must never know the command line, and leaves the module as it was.
"""
