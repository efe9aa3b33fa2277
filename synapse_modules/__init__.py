"""What runs inside Synapse: thin hooks, no business logic."""
