"""Images of which every point has a class: from folders, tables of paths and arrays to masks of class codes.

Knows files, arrays, colours and legends. Must never know facts, rules or networks.
"""
