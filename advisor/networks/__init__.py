"""A configuration as a network: its plan as data, and the torch modules built from it.

Knows shapes, layers and memory. Must never know data files, rules, optimizers or a search.
"""
