"""Does it learn, and what is wrong with a network: the pre-flight and the inspection.

Knows networks, training and traces of them. Must never know the command line or how a run is made.
"""
