"""What can be measured: name, type, unit and meaning of each fact.

Knows words alone. Must never know how a fact is measured, and loads no arrays or tables.
"""
