"""Rehearsals: the pending revisions on a copy, each statement measured, and what an operator decides by."""
