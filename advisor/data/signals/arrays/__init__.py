"""NumPy arrays -> images or sequences.

Knows which array is what, which axis is which, and ranges of values. Must never know files of images,
tables, facts or torch.
"""
