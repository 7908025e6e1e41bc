"""Any source that a user may name -> a raw frame with unique column names.

Knows files, their formats and encodings, and frames. Must never know what a column means, targets, facts
or torch.
"""
