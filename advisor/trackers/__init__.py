"""Runs and trials told to experiment trackers: MLflow, TensorBoard, Weights & Biases.

Knows the events of a search and the result of a run. Must never know how a trial is trained, nor make the
search wait.
"""
