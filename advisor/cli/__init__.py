"""The command line: options in, sentences and documents out, progress in between.

Knows workflows and how to print. Nothing may know it.
"""
