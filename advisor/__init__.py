"""Advice before you tune a neural network, and the tuning."""
