"""Signed JSON as Matrix signs it: canonical JSON, Ed25519, `signatures` and `unsigned` left out.

Source: Matrix spec, appendix 3 (Signing JSON). Signatures and keys are unpadded base64. A key id is
`ed25519:<version>`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from canonicaljson import encode_canonical_json
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey as NaclSigningKey
from nacl.signing import VerifyKey

JsonObject = dict[str, Any]


class SignatureInvalid(ValueError):
    """A signature is missing, malformed, by an unknown key, or does not fit; the message says which."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private Ed25519 key and its version, the `k1` of `ed25519:k1`."""

    version: str
    key: NaclSigningKey

    @classmethod
    def generate(cls, version: str = "k1") -> SigningKey:
        return cls(version=version, key=NaclSigningKey.generate())

    @classmethod
    def from_text(cls, text: str) -> SigningKey:
        """Reads one line `ed25519 <version> <seed, unpadded base64>`, as Synapse keeps its own key.

        Raises ValueError when the line has another form.
        """
        parts = text.split()
        if len(parts) != 3 or parts[0] != "ed25519":
            raise ValueError("a signing key is one line: ed25519 <version> <seed>")
        return cls(version=parts[1], key=NaclSigningKey(decode_base64(parts[2])))

    def to_text(self) -> str:
        return f"ed25519 {self.version} {encode_base64(bytes(self.key))}\n"

    @property
    def key_id(self) -> str:
        return f"ed25519:{self.version}"

    @property
    def public_base64(self) -> str:
        return encode_base64(bytes(self.key.verify_key))

    def __repr__(self) -> str:
        return f"SigningKey({self.key_id})"


def sign_json(value: Mapping[str, Any], *, signer: str, key: SigningKey) -> JsonObject:
    """A copy of the object with the signer's signature added beside those it has already."""
    signature = encode_base64(key.key.sign(signed_bytes(value)).signature)
    signatures = {name: dict(by_key) for name, by_key in value.get("signatures", {}).items()}
    signatures.setdefault(signer, {})[key.key_id] = signature
    return {**value, "signatures": signatures}


def verify_json(value: Mapping[str, Any], *, signer: str, keys: Mapping[str, str]) -> None:
    """Checks that the signer signed the object with one of its keys (key id → unpadded base64).

    Raises SignatureInvalid unless every signature made with a known key is right and there is one.
    """
    signatures = value.get("signatures")
    by_key = signatures.get(signer) if isinstance(signatures, Mapping) else None
    if not isinstance(by_key, Mapping) or not by_key:
        raise SignatureInvalid(f"not signed by {signer}")
    known = {key_id: signature for key_id, signature in by_key.items() if key_id in keys}
    if not known:
        raise SignatureInvalid(f"signed by {signer} with an unknown key")
    message = signed_bytes(value)
    for key_id, signature in known.items():
        try:
            VerifyKey(decode_base64(keys[key_id])).verify(message, decode_base64(signature))
        except (BadSignatureError, ValueError, TypeError) as error:
            raise SignatureInvalid(f"{signer}'s signature with {key_id} does not fit") from error


def signed_bytes(value: Mapping[str, Any]) -> bytes:
    """The bytes that a signature of the object covers."""
    covered = {name: item for name, item in value.items() if name not in ("signatures", "unsigned")}
    return bytes(encode_canonical_json(covered))


def encode_base64(data: bytes) -> str:
    """Unpadded base64 (Matrix spec, appendix 1)."""
    return base64.b64encode(data).rstrip(b"=").decode()


def decode_base64(text: str) -> bytes:
    """Raises ValueError when the text is not base64; padding may be there or not."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
