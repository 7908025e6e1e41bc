"""One configuration on one split: preprocessing, the loop, its losses epoch by epoch.

Knows arrays and torch, and runs on a worker that has neither polars, optuna nor ray. Must
never know facts, rules or a search.
"""
