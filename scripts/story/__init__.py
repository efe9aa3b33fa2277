"""The story that `scripts/demo` tells: people on two homeservers, told in the terminal as it happens."""
