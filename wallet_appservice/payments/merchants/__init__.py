"""The merchant side: accounts with keys, orders, payment codes, refunds, notifications."""
