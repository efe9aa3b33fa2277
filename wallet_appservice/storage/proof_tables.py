"""PINs, as hashes, and passkeys: what shows that a payment is its payer's own."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, String, Table, Text

from wallet_appservice.storage.metadata import metadata

pins = Table(
    "pins",
    metadata,
    Column("user_id", String(255), primary_key=True),
    # argon2id, with salt and parameters in it.
    Column("hash", Text, nullable=False),
    Column("set_at_ms", BigInteger, nullable=False),
    # Tries since the last right one, each counted before it is looked at.
    Column("tries", Integer, nullable=False),
    Column("locked_until_ms", BigInteger, nullable=False),
)

passkeys = Table(
    "passkeys",
    metadata,
    # Base64url of at most 1023 bytes (WebAuthn, section 5.8.3).
    Column("credential_id", String(1400), primary_key=True),
    Column("user_id", String(255), nullable=False),
    Column("name", String(64), nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("sign_count", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("used_at_ms", BigInteger),
    Index("passkeys_by_user", "user_id", "created_at_ms"),
)

passkey_challenges = Table(
    "passkey_challenges",
    metadata,
    # Base64url of 32 random bytes.
    Column("challenge", String(64), primary_key=True),
    Column("user_id", String(255), nullable=False),
    # What the answer may be used for: registering, security, or one very payment.
    Column("purpose", String(64), nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Index("passkey_challenges_by_user", "user_id", "expires_at_ms"),
    Index("passkey_challenges_by_expiry", "expires_at_ms"),
)
