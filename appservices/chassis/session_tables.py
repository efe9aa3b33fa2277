"""Tables of sign-in, sessions and chosen languages, in the home database alone.

Of a secret only its hash is kept.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, MetaData, String, Table

session_metadata = MetaData()

web_sessions = Table(
    "web_sessions",
    session_metadata,
    # Names the session to its user; the secret that opens it is another value.
    Column("session_id", String(32), primary_key=True),
    Column("token_hash", String(64), nullable=False, unique=True),
    Column("user_id", String(255), nullable=False),
    # How the user signed in: code, link or openid.
    Column("signed_in_by", String(16), nullable=False),
    Column("user_agent", String(200), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Index("web_sessions_by_user", "user_id", "created_at_ms"),
    Index("web_sessions_by_expiry", "expires_at_ms"),
)

sign_in_codes = Table(
    "sign_in_codes",
    session_metadata,
    Column("code_hash", String(64), primary_key=True),
    Column("browser_hash", String(64), nullable=False, unique=True),
    Column("address_hash", String(64), nullable=False),
    Column("user_agent", String(200), nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    # Who sent the code to the home service; null until then.
    Column("user_id", String(255)),
    # When the browser took its session. The row stays until it expires, so that the same message of the user,
    # delivered again, is not answered by "unknown code".
    Column("taken_at_ms", BigInteger),
    Index("sign_in_codes_by_address", "address_hash"),
    Index("sign_in_codes_by_expiry", "expires_at_ms"),
)

sign_in_links = Table(
    "sign_in_links",
    session_metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("user_id", String(255), nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Index("sign_in_links_by_user", "user_id", "expires_at_ms"),
    Index("sign_in_links_by_expiry", "expires_at_ms"),
)

chosen_languages = Table(
    "chosen_languages",
    session_metadata,
    Column("user_id", String(255), primary_key=True),
    # A language tag (BCP 47). A row of one that this Weft doesn't speak counts as none.
    Column("language", String(35), nullable=False),
)
