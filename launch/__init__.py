"""The verbs a user types. Modules here import nothing heavy at module level, so that help is immediate."""
