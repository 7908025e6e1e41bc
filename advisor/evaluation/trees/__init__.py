"""Boosted trees that networks are blended with: fitted by scikit-learn, kept as arrays; their share.

Knows arrays. Must never know networks, rules or the search.
"""
