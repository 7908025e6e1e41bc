"""How good is it, and who wins: the statistics of the final, baselines, where predictions are wrong.

Knows losses row by row. Must never know facts, rules, optuna or ray.
"""
