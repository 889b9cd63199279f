"""Shared foundations: errors, random streams, redaction of secrets, memory limits."""
