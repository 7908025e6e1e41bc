"""Where a study is kept: Optuna's journal opened safely, a database, or memory.

Knows Optuna and files. Must never know what a trial means, an executor or a space.
"""
