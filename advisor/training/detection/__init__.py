"""What training does with lists of boxes: the losses of each head, and images changed together with their
boxes.

Knows tensors. Must never know files, rules or the search.
"""
