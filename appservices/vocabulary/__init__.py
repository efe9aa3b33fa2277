"""Pure values shared by every part of Weft: money, ids, event blocks, signing. No I/O."""
