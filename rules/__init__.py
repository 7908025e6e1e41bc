"""The rules, as YAML; mapped into the wheel as advisor.rules. No Python belongs here."""
