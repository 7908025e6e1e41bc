"""What a worker runs: the training of our networks, or a function of the user.

Knows training, evaluation and how both are asked for a loss. Must never know the
command line or how a run is reported.
"""
