"""Ask, report, prune, tell: the search over numbers, and where its study is kept.

Knows Optuna, executors and spaces. Must never know torch, a model, a rule or the command line.
"""
