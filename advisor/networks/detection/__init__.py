"""Networks that find boxes: the plan, the backbone that all share, and one head in a file for each way of
finding.

Knows tensors. Must never know data sets, losses or rules.
"""
