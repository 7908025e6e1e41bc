"""Jobs on Ray: its workers, its client, its errors, jobs that share a GPU.

Knows Ray. Must never know what a job computes, the study or a rule.
"""
