"""The base search spaces, as YAML; mapped into the wheel as
advisor.shipped_search_spaces. No Python belongs here."""
