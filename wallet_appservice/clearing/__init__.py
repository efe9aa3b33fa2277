"""Clearing: payments between people of two homeservers, each with their own wallet.

`items` is what the wallets tell each other; `peers` whom we do this with and how far we trust them; `paying`
holds money and prepares; `asking` takes requests across, and `packet_answers` what is said of red packets;
`applying` does what comes over the link; `upkeep` asks again, states and warns. docs/protocol/clearing.md
says the same in words.
"""
