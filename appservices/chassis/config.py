"""The config file: YAML read once at start into frozen, typed sections.

An unknown key, a wrong type or an unreadable file is a ConfigInvalid with one sentence that names file and
key. Paths are relative to the config file's folder, the data folder.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from appservices.vocabulary.ids import UserId, is_server_name, is_user_id, server_of
from appservices.vocabulary.languages import ENGLISH, LANGUAGES
from appservices.vocabulary.money import (
    AMOUNT_MINOR_MAX,
    AmountUnreadable,
    Currencies,
    Currency,
    CurrencyCode,
    iso_currency,
)
from appservices.vocabulary.signing import SigningKey

CONFIG_NAME = "weft.yaml"
SECRET_FILE_BYTES_MAX = 64 * 1024
DATABASE_FAMILIES = ("sqlite", "postgresql", "postgres")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_HTTP_URL = re.compile(r"https?://[^/\s?#]+(/\S*)?")


class ConfigInvalid(Exception):
    """The config can't be used; the message is one sentence with file and key."""


class Section(BaseModel):
    """A part of the config file: every key known, every type as declared."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Port = Annotated[int, Field(ge=1, le=65535)]


def is_http_url(text: str) -> bool:
    """Whether it is an absolute http or https URL with a host, and a port that can be one."""
    try:
        parts = urlsplit(text)
        return bool(_HTTP_URL.fullmatch(text) and parts.hostname and parts.port != 0)
    except ValueError:
        return False


def _http_url(text: str) -> str:
    if not is_http_url(text):
        raise ValueError(f"a URL looks like http://127.0.0.1:8008, not “{text}”")
    return text


def _database_url(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    family = scheme.partition("+")[0]
    if not separator or family not in DATABASE_FAMILIES:
        raise ValueError("a database is named by sqlite:///FILE or postgresql://USER@HOST/NAME")
    if family == "sqlite" and rest.partition("?")[0] in ("", "/", "/:memory:"):
        raise ValueError("an SQLite database needs a file: sqlite:///wallet.db")
    return text


HttpUrl = Annotated[str, AfterValidator(_http_url)]
DatabaseUrl = Annotated[str, AfterValidator(_database_url)]


class HomeserverSection(Section):
    """Synapse, beside which this Weft runs."""

    url: HttpUrl = Field(description="Where Weft reaches Synapse's client listener.")
    public_url: HttpUrl = Field(description="The homeserver URL that people enter in their Matrix client.")
    managed: bool = Field(
        default=True, description="Whether `weft up` starts Synapse; false beside a Synapse of your own."
    )


class WebSection(Section):
    """The HTTP listener of all services: application-service transactions, APIs, portal, pages."""

    bind_address: str = Field(default="127.0.0.1", description="The address to listen on.")
    port: Port = Field(description="The port to listen on.")
    public_url: HttpUrl = Field(description="How people's browsers reach this listener.")
    session_hours: Annotated[int, Field(ge=1, le=24 * 365)] = Field(
        default=24 * 7, description="How long a browser stays signed in, in hours."
    )
    client_origins: tuple[str, ...] = Field(
        default=(
            "https://app.element.io",
            "https://develop.element.io",
            "vector://vector",
            "http://localhost:*",
            "http://127.0.0.1:*",
        ),
        description="Origins of Matrix clients that may show Weft's pages as widgets (frame-ancestors).",
    )

    operators: tuple[UserId, ...] = Field(
        default=(), description="Matrix users who may open the operator's page, /operator."
    )

    @field_validator("operators", mode="before")
    @classmethod
    def _operators(cls, value: object) -> object:
        if not isinstance(value, list | tuple) or not all(
            isinstance(item, str) and is_user_id(item) for item in value
        ):
            raise ValueError('a list of Matrix users, such as ["@admin:example.org"]')
        return tuple(value)

    @field_validator("client_origins", mode="before")
    @classmethod
    def _origins(cls, value: object) -> object:
        origins = tuple(value) if isinstance(value, list) else value
        if isinstance(origins, tuple):
            for origin in origins:
                if not isinstance(origin, str) or any(character in origin for character in " ;,'\""):
                    raise ValueError("an origin looks like https://app.element.io")
        return origins


class HomeSection(Section):
    """The home service @weft: welcome, sign-in, portal, and the sessions of every page."""

    localpart: str = Field(default="weft", description="The service user's localpart.")
    registration: str = Field(
        default="registrations/weft.yaml", description="Its application-service registration file."
    )
    database: DatabaseUrl = Field(
        default="sqlite:///weft.db", description="sqlite:///FILE or postgresql://USER@HOST/NAME."
    )


class CurrencySection(Section):
    """A currency that an operator defines."""

    code: str = Field(description="3 to 8 capitals, such as HOUR.")
    exponent: int = Field(default=2, description="Number of decimals of its minor unit.")
    symbol: str | None = Field(default=None, description="A symbol, if it has one.")


class WalletSection(Section):
    """Payments: @wallet, its ledger, its currencies and limits."""

    localpart: str = Field(default="wallet", description="The service user's localpart.")
    registration: str = Field(
        default="registrations/wallet.yaml", description="Its application-service registration file."
    )
    database: DatabaseUrl = Field(
        default="sqlite:///wallet.db", description="sqlite:///FILE or postgresql://USER@HOST/NAME."
    )
    signing_key_file: str = Field(
        default="keys/wallet.signing.key", description="The Ed25519 key that signs receipts."
    )
    currencies: tuple[Currency, ...] = Field(
        default=("EUR",),
        validate_default=True,
        description=(
            "ISO 4217 codes, or currencies of your own (code, exponent, symbol); the first is the default."
        ),
    )
    payment_max: Annotated[int, Field(ge=1)] = Field(
        default=10_000, description="The most that one payment may move, in whole units of its currency."
    )
    day_max: Annotated[int, Field(ge=1)] = Field(
        default=20_000,
        description="The most that one user may pay in a day (by UTC) in one currency, in whole units.",
    )
    chat_max: Annotated[int, Field(ge=0)] = Field(
        default=200,
        description="Above this, in whole units, a payment by chat waits until its payer confirms it.",
    )
    no_pin_max: Annotated[int, Field(ge=0)] = Field(
        default=50,
        description=(
            "The most that a till may charge by payment code alone, in whole units of its currency; 0 "
            "charges nothing so."
        ),
    )
    merchants: Literal["by_operator", "open"] = Field(
        default="by_operator",
        description=(
            "Who opens merchant accounts: the operator alone, by `weft wallet merchant add`, or with `open` "
            "every member, too."
        ),
    )
    webhooks_to_private_addresses: bool = Field(
        default=False,
        description=(
            "Whether merchants' notifications may go to addresses of this machine's own network, and by http."
        ),
    )
    red_packet_max: Annotated[int, Field(ge=1)] = Field(
        default=200, description="The most that one red packet may hold, in whole units of its currency."
    )
    acceptance: bool = Field(
        default=False,
        description=(
            "Whether all payments to people wait, for 24 hours, until the payee accepts them; "
            "with false everybody may choose that for themselves."
        ),
    )

    peers: dict[str, tuple[str, ...]] = Field(
        default={},
        description=(
            "Wallets of other homeservers to exchange payments with: server name → credit limits, such as "
            'example.org: ["1000 EUR"]. More can be named by `weft wallet peer add`.'
        ),
    )

    @field_validator("currencies", mode="before")
    @classmethod
    def _currencies(cls, value: object) -> object:
        if not isinstance(value, list | tuple) or not value:
            raise ValueError("a list of currencies, such as [EUR]")
        currencies = tuple(_currency(item) for item in value)
        codes = [currency.code for currency in currencies]
        for code in codes:
            if codes.count(code) > 1:
                raise ValueError(f"{code} is given twice")
        return currencies

    @field_validator("payment_max", "day_max", "chat_max", "no_pin_max")
    @classmethod
    def _limit(cls, value: int, info: ValidationInfo) -> int:
        for currency in info.data.get("currencies", ()):
            highest = AMOUNT_MINOR_MAX // 10**currency.exponent
            if value > highest:
                raise ValueError(
                    f"{value} is too much: with the {currency.exponent} decimals of {currency.code} the most "
                    f"is {highest}"
                )
        return value

    @field_validator("peers", mode="before")
    @classmethod
    def _peers(cls, value: object) -> object:
        if not isinstance(value, dict):
            raise ValueError('server names with their credit limits, such as example.org: ["1000 EUR"]')
        return {name: tuple(limits) if isinstance(limits, list) else limits for name, limits in value.items()}

    @field_validator("peers")
    @classmethod
    def _peer_limits(cls, value: dict[str, tuple[str, ...]], info: ValidationInfo) -> object:
        if "currencies" not in info.data:
            return value
        currencies = Currencies(info.data["currencies"])
        for name, limits in value.items():
            if not is_server_name(name):
                raise ValueError(f"{name} is not a server name")
            for limit in limits:
                try:
                    currencies.parse(limit)
                except AmountUnreadable as error:
                    raise ValueError(f"{name}: {error}") from error
        return value

    @property
    def peer_limits(self) -> dict[str, dict[CurrencyCode, int]]:
        """The credit limits of the peers named here, in minor units."""
        currencies = self.kept_currencies
        named = {}
        for server, limits in self.peers.items():
            read = [currencies.parse(limit) for limit in limits]
            named[server] = {money.currency: money.amount_minor for money in read}
        return named

    @property
    def kept_currencies(self) -> Currencies:
        return Currencies(self.currencies)


class MomentsSection(Section):
    """Moments: @moments, what friends show each other."""

    localpart: str = Field(default="moments", description="The service user's localpart.")
    registration: str = Field(
        default="registrations/moments.yaml", description="Its application-service registration file."
    )
    database: DatabaseUrl = Field(
        default="sqlite:///moments.db", description="sqlite:///FILE or postgresql://USER@HOST/NAME."
    )
    signing_key_file: str = Field(
        default="keys/moments.signing.key",
        description="The Ed25519 key that signs what is told to other homeservers.",
    )
    blocked_servers: tuple[str, ...] = Field(
        default=(), description="Homeservers with which no Moments are exchanged."
    )

    @field_validator("blocked_servers", mode="before")
    @classmethod
    def _blocked_servers(cls, value: object) -> object:
        if not isinstance(value, list | tuple) or not all(
            isinstance(item, str) and is_server_name(item) for item in value
        ):
            raise ValueError('a list of server names, such as ["example.org"]')
        return tuple(value)


class LogSection(Section):
    """Where the log goes and how much of it."""

    level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")

    @field_validator("level")
    @classmethod
    def _level(cls, value: str) -> str:
        if value not in LOG_LEVELS:
            raise ValueError(f"one of {', '.join(LOG_LEVELS)}")
        return value


class WeftConfig(Section):
    """The whole config file."""

    server_name: str = Field(description="The Matrix server name, as in user ids; Synapse has the same.")
    language: str = Field(
        default=ENGLISH,
        description=f"The language of who has not chosen their own: one of {', '.join(LANGUAGES)}.",
    )
    homeserver: HomeserverSection
    web: WebSection
    home: HomeSection = HomeSection()
    wallet: WalletSection = Field(default_factory=lambda: WalletSection())
    moments: MomentsSection = MomentsSection()
    log: LogSection = LogSection()
    folder: Path = Field(default=Path(), exclude=True, description="Set by the loader: the config's folder.")

    @field_validator("server_name")
    @classmethod
    def _server_name(cls, value: str) -> str:
        if not is_server_name(value):
            raise ValueError("a server name looks like example.org or localhost:8448")
        return value

    @field_validator("language")
    @classmethod
    def _language(cls, value: str) -> str:
        if value not in LANGUAGES:
            raise ValueError(f"one of {', '.join(LANGUAGES)}")
        return value

    @field_validator("web")
    @classmethod
    def _own_operators(cls, value: WebSection, info: ValidationInfo) -> WebSection:
        for operator in value.operators:
            if server_of(operator) != info.data.get("server_name", server_of(operator)):
                raise ValueError(f"operators: {operator} is not a user of this server")
        return value

    def user(self, localpart: str) -> UserId:
        return UserId(f"@{localpart}:{self.server_name}")

    @property
    def home_user(self) -> UserId:
        return self.user(self.home.localpart)

    @property
    def wallet_user(self) -> UserId:
        return self.user(self.wallet.localpart)

    @property
    def moments_user(self) -> UserId:
        return self.user(self.moments.localpart)


class Registration(BaseModel):
    """An application-service registration file, the one that Synapse reads too."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    url: str | None
    as_token: str = Field(min_length=16, repr=False)
    hs_token: str = Field(min_length=16, repr=False)
    sender_localpart: str


def load_config(folder: Path) -> WeftConfig:
    """Reads `weft.yaml` in the data folder. Raises ConfigInvalid."""
    path = folder / CONFIG_NAME
    content = _yaml_object(path)
    if "folder" in content:
        raise ConfigInvalid(f"{path}: folder: unknown key")
    try:
        return WeftConfig.model_validate({**content, "folder": folder.resolve()})
    except ValidationError as error:
        raise ConfigInvalid(f"{path}: {_first_error(error)}") from error


def load_registration(config: WeftConfig, name: str) -> Registration:
    """Reads a registration file named in the config. Raises ConfigInvalid."""
    path = config.folder / name
    try:
        return Registration.model_validate(_yaml_object(path))
    except ValidationError as error:
        raise ConfigInvalid(f"{path}: {_first_error(error)}") from error


def load_signing_key(config: WeftConfig, *, key: str, name: str) -> SigningKey:
    """Reads a signing-key file that the config names under `key`. Raises ConfigInvalid."""
    path = config.folder / name
    place = f"{config.folder / CONFIG_NAME}: {key}: {path}"
    try:
        return SigningKey.from_text(read_secret(path))
    except OSError as error:
        raise ConfigInvalid(f"{place} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigInvalid(f"{place}: {error}") from error


def read_secret(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.read(SECRET_FILE_BYTES_MAX).strip()


def _yaml_object(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except OSError as error:
        raise ConfigInvalid(f"{path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigInvalid(f"{path} is not UTF-8 text") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise ConfigInvalid(f"{path}:{where} {getattr(error, 'problem', None) or 'not YAML'}") from error
    if not isinstance(content, dict):
        raise ConfigInvalid(f"{path} must hold keys and values")
    return content


class _UniqueKeyLoader(yaml.SafeLoader):
    """A key given twice is a mistake, not the last one wins."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key}: this key is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _currency(item: object) -> Currency:
    if isinstance(item, Currency):
        return item
    if isinstance(item, str):
        currency = iso_currency(item)
        if currency is None:
            raise ValueError(f"{item} is not an ISO 4217 code; define it with code and exponent")
        return currency
    try:
        section = CurrencySection.model_validate(item)
    except ValidationError as error:
        raise ValueError(_first_error(error)) from error
    return Currency(
        code=CurrencyCode(section.code), exponent=section.exponent, symbol=section.symbol or section.code
    )


def _first_error(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"]) or "config"
    reason = {
        "extra_forbidden": "unknown key",
        "missing": "this key is needed",
    }.get(first["type"], first["msg"].removeprefix("Value error, "))
    return f"{key}: {reason}"
