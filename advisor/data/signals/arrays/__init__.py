"""NumPy arrays -> images or sequences.

Knows which array is what, which axis is which, and ranges of values. Must never know frames of tables, facts or torch.
"""
