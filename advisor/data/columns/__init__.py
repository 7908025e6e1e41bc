"""One column: what it holds, and how its cells are read, for training and for new rows alike.

Knows cells, types and formats. Must never know the other columns, targets, facts or torch.
"""
