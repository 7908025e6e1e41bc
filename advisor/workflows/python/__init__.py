"""What somebody in Python or a notebook holds: the verbs as functions, a run with plots, advice to ask.

Knows the workflows. Must never know the command line, nor how it is shown in a terminal.
"""
