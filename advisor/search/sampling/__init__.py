"""Optuna's TPE, made cheap for large studies: trials that are read once, densities in few array operations.

Knows Optuna's sampler and trials. Must never know a study's budget, its store or who asks.
"""
