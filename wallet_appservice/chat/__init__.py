"""The wallet in rooms: commands and receipts."""
