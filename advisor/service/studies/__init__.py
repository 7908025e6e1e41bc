"""Studies over HTTP: open studies with their leases and their proposals made ahead, and the routes that ask
and tell.

Knows the ask/tell study. Must never know how a proposal is made, and no data set.
"""
