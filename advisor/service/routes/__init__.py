"""The routes, a file for each thing that the service keeps: tokens, data sets, advice, studies, runs.

Knows the workflows and the ask/tell study. Must never know the pages or the server.
"""
