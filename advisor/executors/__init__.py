"""Where jobs run: in this process, on a simulated clock, on Ray.

Knows jobs, reports and devices. Must never know what a job computes, the study or a rule.
"""
