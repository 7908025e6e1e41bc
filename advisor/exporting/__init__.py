"""A model for other programs: ONNX, torch.export, and a card that describes it.

Knows the saved model and what it is made of. Must never know the search, nor the command line.
"""
