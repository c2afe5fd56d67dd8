"""A recipe at work in a user's own training loop."""
