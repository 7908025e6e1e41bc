"""What a run leaves on disk or at a URL: its files, its model, its advice.

Knows the names of files and their formats. Must never know how a search or a final is held.
"""
