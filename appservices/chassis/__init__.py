"""What every application service is made of. Knows no feature."""
