"""The language of knowledge: strict YAML, expressions, parameters and search spaces.

Knows how a condition is judged and a space narrowed. Must never know which rules
there are, or what a parameter does.
"""
