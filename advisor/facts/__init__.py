"""What is measured of the data and of the machine.

Knows data sets and statistics; its schema is all that a rule's condition may look at. Must
never know rules, spaces or training.
"""
