"""What is judged in a final of our networks.

Knows evaluation and models. Must never know executors or the search.
"""
