"""From a source to typed arrays with a schema that reads new rows alike.

Knows files, frames, columns, cells and pixels. Must never know facts, rules, torch or a run.
"""
