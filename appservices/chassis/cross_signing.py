"""Cross-signing of a bot's device by its own user (Matrix spec, Cross-signing).

Clients that trust cross-signed devices only (MSC4153) neither talk to nor believe a bot without it. The keys
lie beside the bot's crypto store. Application services with MSC4190 upload them without a password.

A user's master key is never replaced while we hold the one that we uploaded: if the homeserver has another,
somebody else made it, and that is for the operator to decide.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nacl.signing import SigningKey as NaclSigningKey

from appservices.chassis.crypto_store import write_secret
from appservices.chassis.intents import Intent
from appservices.vocabulary.signing import (
    SignatureInvalid,
    SigningKey,
    decode_base64,
    encode_base64,
    sign_json,
    verify_json,
)

logger = logging.getLogger(__name__)

JsonObject = dict[str, Any]

KEYS_NAME: Final = "cross_signing.json"
_USAGES: Final = ("master", "self_signing", "user_signing")


class CrossSigningConflict(Exception):
    """The homeserver has another master key than the one we uploaded; the message says what to do."""


class CrossSigningUnusable(Exception):
    """The key file can't be read, or the homeserver doesn't take our signature; one sentence."""


@dataclass(frozen=True, slots=True)
class CrossSigningKeys:
    """The three private keys of a user. `uploaded` = the homeserver has confirmed them once."""

    master: SigningKey
    self_signing: SigningKey
    user_signing: SigningKey
    uploaded: bool

    @classmethod
    def generate(cls) -> CrossSigningKeys:
        master, self_signing, user_signing = (_key(NaclSigningKey.generate()) for _ in _USAGES)
        return cls(master=master, self_signing=self_signing, user_signing=user_signing, uploaded=False)

    def to_text(self) -> str:
        seeds = {usage: encode_base64(bytes(getattr(self, usage).key)) for usage in _USAGES}
        return json.dumps({**seeds, "uploaded": self.uploaded}, indent=1) + "\n"

    @classmethod
    def from_text(cls, text: str) -> CrossSigningKeys:
        """Raises ValueError when the text is of another form."""
        values = json.loads(text)
        if not isinstance(values, dict) or not all(isinstance(values.get(usage), str) for usage in _USAGES):
            raise ValueError("not a file of cross-signing keys")
        master, self_signing, user_signing = (
            _key(NaclSigningKey(decode_base64(values[usage]))) for usage in _USAGES
        )
        return cls(
            master=master,
            self_signing=self_signing,
            user_signing=user_signing,
            uploaded=values.get("uploaded") is True,
        )

    def public(self, user_id: str) -> JsonObject:
        """The body of /keys/device_signing/upload."""
        body: JsonObject = {}
        for usage in _USAGES:
            key: SigningKey = getattr(self, usage)
            public = {"user_id": user_id, "usage": [usage], "keys": {key.key_id: key.public_base64}}
            if usage != "master":
                public = sign_json(public, signer=user_id, key=self.master)
            body[f"{usage}_key"] = public
        return body


async def ensure_cross_signed(intent: Intent, *, folder: Path, device_id: str) -> None:
    """Makes sure that the user has cross-signing keys and that they sign this device. Idempotent.

    The device's own keys must be on the homeserver. Raises CrossSigningConflict, CrossSigningUnusable,
    MatrixRefused and MatrixUnavailable.
    """
    path = folder / KEYS_NAME
    keys = _load(path)
    if keys is None:
        keys = CrossSigningKeys.generate()
        # Written before they are uploaded, so that a crash never leaves public keys that nobody holds.
        write_secret(path, keys.to_text())
    known = await intent.call("POST", "/keys/query", {"device_keys": {intent.user_id: []}})
    if not _has_all(known, keys, intent.user_id):
        await _upload(intent, keys, known)
    if not keys.uploaded:
        keys = CrossSigningKeys(
            master=keys.master, self_signing=keys.self_signing, user_signing=keys.user_signing, uploaded=True
        )
        write_secret(path, keys.to_text())
    await _sign_device(intent, keys.self_signing, known, device_id)


async def _upload(intent: Intent, keys: CrossSigningKeys, known: Mapping[str, Any]) -> None:
    present = _public_key(known, "master_keys", intent.user_id)
    if present is not None and present != keys.master.public_base64:
        if keys.uploaded:
            raise CrossSigningConflict(
                f"the homeserver has another cross-signing identity of {intent.user_id} than {KEYS_NAME}: "
                f"to replace it by a new one of Weft's, remove that file and start again"
            )
        logger.warning(
            "%s gets a new cross-signing identity, because the keys of its earlier one are lost; "
            "people who verified it will be told",
            intent.user_id,
        )
    await intent.call("POST", "/keys/device_signing/upload", keys.public(intent.user_id))


async def _sign_device(
    intent: Intent, self_signing: SigningKey, known: Mapping[str, Any], device_id: str
) -> None:
    device = known.get("device_keys", {}).get(intent.user_id, {}).get(device_id)
    if device is None:
        raise CrossSigningUnusable(f"the homeserver has no keys of {intent.user_id}'s device {device_id}")
    try:
        verify_json(
            {**device, "signatures": _only_by(device, intent.user_id, self_signing.key_id)},
            signer=intent.user_id,
            keys={self_signing.key_id: self_signing.public_base64},
        )
        return
    except SignatureInvalid:
        pass
    bare = {name: value for name, value in device.items() if name not in ("signatures", "unsigned")}
    signed = sign_json(bare, signer=intent.user_id, key=self_signing)
    answer = await intent.call("POST", "/keys/signatures/upload", {intent.user_id: {device_id: signed}})
    if answer.get("failures"):
        raise CrossSigningUnusable(
            f"the homeserver doesn't take the signature of {intent.user_id}'s device: {answer['failures']}"
        )


def _has_all(known: Mapping[str, Any], keys: CrossSigningKeys, user_id: str) -> bool:
    return all(
        _public_key(known, f"{usage}_keys", user_id) == getattr(keys, usage).public_base64
        for usage in _USAGES
    )


def _public_key(known: Mapping[str, Any], name: str, user_id: str) -> str | None:
    by_id = known.get(name, {}).get(user_id, {}).get("keys", {})
    return next(iter(by_id.values()), None)


def _only_by(device: Mapping[str, Any], user_id: str, key_id: str) -> JsonObject:
    signature = device.get("signatures", {}).get(user_id, {}).get(key_id)
    return {} if signature is None else {user_id: {key_id: signature}}


def _key(key: NaclSigningKey) -> SigningKey:
    # A cross-signing key's version is the public key itself.
    return SigningKey(version=encode_base64(bytes(key.verify_key)), key=key)


def _load(path: Path) -> CrossSigningKeys | None:
    try:
        return CrossSigningKeys.from_text(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CrossSigningUnusable(
            f"{path} can't be read ({error}): put it back, or remove it to make a new identity"
        ) from error
