"""Files, ports, certificates and the running lock, as the command line handles them."""

from __future__ import annotations

import datetime
import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from scripts.weft_cli.certificates import (
    CERTIFICATE_DAYS,
    LocalAuthority,
    ensure_authority,
    ensure_certificate,
)
from scripts.weft_cli.data_folder import DataFolder
from scripts.weft_cli.failure import CommandFailed
from scripts.weft_cli.ports import Listener, check_ports, federation_addresses, federation_port, host_of
from scripts.weft_cli.rotated_log import BYTES_MAX, FILES_KEPT, RotatedLog
from scripts.weft_cli.running import Running, read_running, running_lock, running_pid, write_running
from scripts.weft_cli.written_files import replace_file, write_new_file
from scripts.weft_cli.yaml_values import scalars, with_values

NOW = datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC)


def test_a_new_file_never_takes_the_place_of_one_that_exists(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "key"
    assert write_new_file(path, "first", secret=True)
    assert not write_new_file(path, "second", secret=True)
    assert path.read_text() == "first"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["key"]


def test_of_many_writers_of_a_new_file_one_wins_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(lambda n: write_new_file(path, f"{n}" * 10_000), range(8)))
    assert won.count(True) == 1
    assert path.read_text() == f"{won.index(True)}" * 10_000


def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_new_file(path, "old", secret=True)
    replace_file(path, "new")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o600)


def test_one_value_of_a_yaml_file_changes_and_every_other_byte_stays() -> None:
    text = "# mine\nlisteners:\n  - {port: 8008,   tls: false} # keep\n  - port: 8448\nurl: 'http://a:8008'\n"
    values = scalars(text)
    assert values[("listeners", 1, "port")] == 8448
    assert values[("listeners", 0, "tls")] is False
    changed = with_values(text, {("listeners", 0, "port"): 9009, ("url",): "http://a:9009"})
    assert changed == text.replace("port: 8008", "port: 9009").replace("'http://a:8008'", '"http://a:9009"')
    with pytest.raises(KeyError):
        with_values(text, {("listeners",): 1})


@pytest.mark.parametrize(
    ("name", "host", "port", "addresses"),
    [
        ("localhost", "localhost", None, ["127.0.0.1"]),
        ("localhost:18148", "localhost", 18148, ["127.0.0.1"]),
        ("127.0.0.1:8448", "127.0.0.1", 8448, ["127.0.0.1"]),
        ("[::1]:8448", "[::1]", 8448, ["::1"]),
        ("[2001:db8::1]", "[2001:db8::1]", None, ["::", "0.0.0.0"]),
        ("example.org:8448", "example.org", 8448, ["::", "0.0.0.0"]),
    ],
)
def test_a_server_name_says_where_federation_listens(
    name: str, host: str, port: int | None, addresses: list[str]
) -> None:
    assert (host_of(name), federation_port(name), federation_addresses(name)) == (host, port, addresses)


def test_a_taken_port_is_named_with_what_needs_it_and_what_to_do() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(CommandFailed, match=f"Port {port}, which Synapse needs, is in use .* move it"):
            check_ports([Listener("Synapse", "127.0.0.1", port, "move it")])
    check_ports([Listener("Synapse", "127.0.0.1", port, "move it")])


def test_a_certificate_is_for_the_host_and_this_machine_and_signed_by_the_authority(tmp_path: Path) -> None:
    authority, certificate, key = LocalAuthority(tmp_path / "ca"), tmp_path / "a.pem", tmp_path / "a.key"
    ensure_certificate(authority, host="chat.example", certificate=certificate, key=key, now=NOW)
    made = x509.load_pem_x509_certificate(certificate.read_bytes())
    signer = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    made.verify_directly_issued_by(signer)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"localhost", "chat.example"}
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert key.stat().st_mode & 0o777 == authority.key.stat().st_mode & 0o777 == 0o600


def test_a_certificate_is_kept_while_it_lasts_and_renewed_before_it_ends(tmp_path: Path) -> None:
    authority, certificate, key = LocalAuthority(tmp_path / "ca"), tmp_path / "a.pem", tmp_path / "a.key"

    def ensure(days_later: int) -> bytes:
        now = NOW + datetime.timedelta(days=days_later)
        ensure_certificate(authority, host="localhost", certificate=certificate, key=key, now=now)
        return certificate.read_bytes()

    first = ensure(0)
    assert ensure(30) == first
    assert ensure(CERTIFICATE_DAYS - 10) != first
    key.unlink()
    assert ensure(CERTIFICATE_DAYS - 10)
    assert key.exists()


def test_a_certificate_of_the_operators_own_authority_is_left_alone(tmp_path: Path) -> None:
    other, own = LocalAuthority(tmp_path / "other"), LocalAuthority(tmp_path / "own")
    certificate, key = tmp_path / "a.pem", tmp_path / "a.key"
    ensure_certificate(other, host="localhost", certificate=certificate, key=key, now=NOW)
    before = certificate.read_bytes()
    later = NOW + datetime.timedelta(days=CERTIFICATE_DAYS - 1)
    ensure_certificate(own, host="localhost", certificate=certificate, key=key, now=later)
    assert certificate.read_bytes() == before


def test_an_authority_that_several_ask_for_at_once_is_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "ca"
    program = (
        "import datetime, pathlib, sys\n"
        "from scripts.weft_cli.certificates import LocalAuthority, ensure_certificate\n"
        "folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]\n"
        "ensure_certificate(LocalAuthority(folder), host='localhost', certificate=folder / f'{name}.pem',\n"
        "    key=folder / f'{name}.key', now=datetime.datetime.now(datetime.UTC))\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(folder), f"s{n}"]) for n in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    signer = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    for n in range(4):
        x509.load_pem_x509_certificate((folder / f"s{n}.pem").read_bytes()).verify_directly_issued_by(signer)


def test_half_an_authority_is_made_whole_or_is_one_sentence_when_its_key_is_lost(
    tmp_path: Path,
) -> None:
    authority = LocalAuthority(tmp_path / "ca")
    ensure_authority(authority, now=NOW)
    authority.certificate.unlink()
    ensure_authority(authority, now=NOW)
    signer = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    assert isinstance(signer.public_key(), ec.EllipticCurvePublicKey)
    authority.key.unlink()
    with pytest.raises(CommandFailed, match=r"ca\.pem without ca\.key"):
        ensure_authority(authority, now=NOW)


def test_who_holds_the_lock_runs_and_who_wrote_a_pid_and_died_does_not(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    assert running_pid(folder) is None
    with running_lock(folder):
        assert running_pid(folder) == os.getpid()
        write_running(
            folder, Running(pid=os.getpid(), state="running", homeserver_url="h", portal_url="p", synapse=1)
        )
        running = read_running(folder)
        assert running is not None
        assert (running.state, running.synapse) == ("running", 1)
        with pytest.raises(CommandFailed, match=f"process {os.getpid()}"), running_lock(folder):
            raise AssertionError("two hold the lock")
    assert read_running(folder) is None
    # What a supervisor that was killed leaves behind.
    (folder.run / "up.lock").write_text(f"{os.getpid()} 1\n")
    (folder.run / "up.json").write_text(json.dumps({"pid": os.getpid(), "state": "running"}))
    assert read_running(folder) is None


def test_a_log_stays_bounded_and_remembers_its_last_words(tmp_path: Path) -> None:
    log = RotatedLog(tmp_path / "a.log")
    line = b"x" * 1023 + b"\n"
    for _ in range((FILES_KEPT + 3) * BYTES_MAX // (len(line) * 1024)):
        log.write(line * 1024)
    log.write(b"\x1b[31mlast\x1b[0m words\n\n")
    assert log.last_line.endswith("words")
    assert "\x1b" not in log.last_line
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["a.log", "a.log.1", "a.log.2", "a.log.3"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < (FILES_KEPT + 2) * BYTES_MAX
