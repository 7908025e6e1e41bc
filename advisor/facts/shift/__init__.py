"""Do the rows to come look like the training rows? Two samples of features, compared.

Knows both sides as arrays, and statistics. Must never know rules, spaces or the target of test rows.
"""
