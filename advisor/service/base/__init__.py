"""What all routes stand on: settings, the database, tokens, limits, problem documents.

Knows HTTP and SQL. Must never know what the service is asked for: advice, studies, runs.
"""
