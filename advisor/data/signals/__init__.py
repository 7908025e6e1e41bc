"""Images and series: arrays, folders, archives, long and wide tables of series.

Knows how they are found, decoded, cleaned and divided. Must never know facts, rules or torch.
"""
