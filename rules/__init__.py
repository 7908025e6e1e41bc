"""The rules, as YAML; mapped into the wheel as advisor.shipped_rules. No Python belongs here."""
