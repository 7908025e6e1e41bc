"""The base search spaces, as YAML; mapped into the wheel as advisor.search_spaces. No Python belongs here."""
