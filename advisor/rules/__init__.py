"""From facts to a recommendation, pure: rules, their resolution, the reasons of every value.

Knows facts by name, spaces and rules. Must never know training, a search, torch, ray or optuna.
"""
