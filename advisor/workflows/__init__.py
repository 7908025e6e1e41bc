"""One file per verb: recommend, tune, check, status, and what these share.

Knows everything below. Must never know click, the terminal or the network.
"""
