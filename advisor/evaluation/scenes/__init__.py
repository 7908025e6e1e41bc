"""Images whose target is more than one value: where predicted masks and found boxes are wrong, and what a
network must beat on them.

Knows arrays. Must never know networks, rules or the search.
"""
