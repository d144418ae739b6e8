"""Masked copies: what is not declared safe is masked, by its type; rules in sql/masks/ say what may be kept, and how."""
