"""Moments: what people show their friends, in pictures and words, in a room of their own and on a page."""
