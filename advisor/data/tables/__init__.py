"""Tables: sources, columns, the target, the test rows.

Knows how a table is read, typed and divided. Must never know images and series, facts, rules or torch.
"""
