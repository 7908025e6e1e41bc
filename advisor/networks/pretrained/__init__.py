"""Networks that are trained already: timm's backbones, their weights, and the start from weights.

Knows timm, files of weights and tensors. Must never know data files, rules, optimizers or a search.
"""
