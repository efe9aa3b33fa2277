"""The weft command line: the composition roots and everything an operator types."""
