"""Signed JSON fits Matrix's own signing and refuses everything that was touched."""

from __future__ import annotations

import pytest
from signedjson.key import decode_verify_key_bytes
from signedjson.sign import verify_signed_json

from appservices.vocabulary.signing import (
    SignatureInvalid,
    SigningKey,
    decode_base64,
    sign_json,
    verify_json,
)

WALLET = "@wallet:example.org"


def test_a_signature_verifies_by_the_reference_implementation() -> None:
    key = SigningKey.generate("k1")
    signed = sign_json(
        {"amount_minor": "1250", "memo": "Mittagessen 🍜", "unsigned": {"age": 1}}, signer=WALLET, key=key
    )
    verify_signed_json(signed, WALLET, decode_verify_key_bytes(key.key_id, decode_base64(key.public_base64)))
    verify_json(signed, signer=WALLET, keys={key.key_id: key.public_base64})


def test_a_changed_object_does_not_verify() -> None:
    key = SigningKey.generate()
    signed = sign_json({"amount_minor": "1250"}, signer=WALLET, key=key)
    with pytest.raises(SignatureInvalid):
        verify_json({**signed, "amount_minor": "9999"}, signer=WALLET, keys={key.key_id: key.public_base64})


@pytest.mark.parametrize(
    "signatures",
    [
        None,
        {},
        {WALLET: {}},
        {WALLET: {"ed25519:other": "AAAA"}},
        {WALLET: {"ed25519:k1": "%%%"}},
        {WALLET: {"ed25519:k1": 5}},
        [],
    ],
)
def test_a_missing_or_malformed_signature_does_not_verify(signatures: object) -> None:
    key = SigningKey.generate()
    with pytest.raises(SignatureInvalid):
        verify_json({"a": 1, "signatures": signatures}, signer=WALLET, keys={key.key_id: key.public_base64})


def test_a_key_survives_being_written_down() -> None:
    key = SigningKey.generate("k7")
    read = SigningKey.from_text(key.to_text())
    assert (read.key_id, read.public_base64) == (key.key_id, key.public_base64)
    assert key.to_text().split()[2] not in repr(key)
