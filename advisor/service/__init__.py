"""The service: advice, ask and tell, and tuning over HTTP, and the same verbs for coding assistants (MCP).

Knows the workflows, the ask/tell study and how HTTP is spoken. Nothing may know it, and nothing in
it is imported before `advisor serve`, `advisor token` or `advisor mcp` is called.
"""
