"""A run as a page, as text and as data: sentences, charts, reasons.

Knows results and reasons as plain data. Must never know how they came about.
"""
