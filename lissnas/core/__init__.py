"""What everything stands on: errors, random streams, redaction of secrets, bounds on memory."""
