"""Artifacts from a server that speaks S3: what goes over the wire is real."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from serve_app.artifacts import FetchPolicy, fetch_artifact, hash_artifact
from serve_app.artifacts.__main__ import main
from serve_app.config.model import ArtifactConfig
from serve_app.errors import ArtifactError
from tests.requirements import missing, require_package

CONTENT = os.urandom(3 * 1024 * 1024)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
FOLDER = {"config.json": b"{}", "weights/a.bin": b"a" * 1000, "weights/b.bin": b"b"}
FAST = FetchPolicy(backoff_s=0.01)


@dataclass
class S3:
    """A running server with one bucket."""

    client: Any
    log: Path

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket="models", Key=key, Body=content)

    def gets(self, key: str) -> int:
        """How many times the server was asked for the content of a key."""
        return len(re.findall(rf"GET /models/{re.escape(key)} HTTP", self.log.read_text()))


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """Points every S3 client of this process at the server, by the usual variables only."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        variables = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        for name, value in variables.items():
            patch.setenv(name, value)
        yield variables


@pytest.fixture(scope="module")
def s3(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    require_package("moto")
    program = shutil.which("moto_server", path=str(Path(sys.executable).parent))
    if program is None:
        missing("moto_server is not installed")
    log = tmp_path_factory.mktemp("moto") / "log"
    port = environment["AWS_ENDPOINT_URL"].rpartition(":")[2]
    with log.open("wb") as out:
        server = subprocess.Popen([program, "-H", "127.0.0.1", "-p", port], stdout=out, stderr=out)
    try:
        wait_for(int(port), server)
        import boto3  # type: ignore[import-untyped]  # it ships no types

        client = boto3.client("s3")
        client.create_bucket(Bucket="models")
        store = S3(client, log)
        for name, content in FOLDER.items():
            store.put(f"folder/{name}", content)
        store.put("folder/", b"")  # what the web console writes to mark a folder
        yield store
    finally:
        server.terminate()
        server.wait(20)


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if server.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.1)
        else:
            return


def fetch(key: str, sha256: str | None, cache: Path, policy: FetchPolicy = FAST) -> Path:
    return fetch_artifact(ArtifactConfig(uri=f"s3://models/{key}", sha256=sha256), cache, policy)


def test_a_file_with_one_read(s3: S3, tmp_path: Path) -> None:
    s3.put("one.bin", CONTENT)
    path = fetch("one.bin", DIGEST, tmp_path)
    assert path.name == "one.bin"
    assert path.read_bytes() == CONTENT
    assert fetch("one.bin", DIGEST, tmp_path) == path
    assert s3.gets("one.bin") == 1


def test_ranges(s3: S3, tmp_path: Path) -> None:
    s3.put("ranges.bin", CONTENT)
    policy = FetchPolicy(chunk_bytes=1024 * 1024 + 1)
    assert fetch("ranges.bin", DIGEST, tmp_path, policy).read_bytes() == CONTENT
    assert s3.gets("ranges.bin") == 3


def test_a_folder_and_its_hash_on_the_command_line(
    s3: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["hash", "s3://models/folder"]) == 0
    digest = capsys.readouterr().out.strip()
    path = fetch("folder", digest, tmp_path)
    found = {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*.*")}
    assert found == FOLDER
    assert hash_artifact(str(path)) == digest


def test_an_undeclared_digest_follows_the_etag(s3: S3, tmp_path: Path) -> None:
    s3.put("moving.bin", b"first")
    assert fetch("moving.bin", None, tmp_path).read_bytes() == b"first"
    assert fetch("moving.bin", None, tmp_path).read_bytes() == b"first"
    assert s3.gets("moving.bin") == 1
    s3.put("moving.bin", b"other")
    assert fetch("moving.bin", None, tmp_path).read_bytes() == b"other"


def test_a_digest_mismatch(s3: S3, tmp_path: Path) -> None:
    s3.put("wrong.bin", CONTENT)
    with pytest.raises(ArtifactError, match=f"its sha256 is {DIGEST}, declared is {'0' * 64}"):
        fetch("wrong.bin", "0" * 64, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix == ".bin"] == []


@pytest.mark.parametrize(("bucket", "key"), [("models", "none.bin"), ("no-such-bucket", "x")])
def test_nothing_there(s3: S3, tmp_path: Path, bucket: str, key: str) -> None:
    artifact = ArtifactConfig(uri=f"s3://{bucket}/{key}", sha256=DIGEST)
    with pytest.raises(ArtifactError, match="no such file or folder"):
        fetch_artifact(artifact, tmp_path, FAST)


@pytest.mark.parametrize("key", ["../up.bin", "a/../../up.bin", "a//up.bin", "a\\..\\up.bin"])
def test_keys_that_lead_elsewhere(s3: S3, tmp_path: Path, key: str) -> None:
    folder = f"bad{len(key)}"
    s3.put(f"{folder}/{key}", b"evil")
    with pytest.raises(ArtifactError, match="not allowed in an artifact"):
        fetch(folder, None, tmp_path / "cache")
    assert list(tmp_path.rglob("up.bin")) == []


def test_processes_that_want_the_same_download_it_once(s3: S3, tmp_path: Path) -> None:
    s3.put("shared.bin", CONTENT)
    code = (
        "import sys; from pathlib import Path; from serve_app.artifacts import fetch_artifact; "
        "from serve_app.config.model import ArtifactConfig; "
        "print(fetch_artifact(ArtifactConfig(uri=sys.argv[1], sha256=sys.argv[2]), "
        "Path(sys.argv[3])))"
    )
    command = [sys.executable, "-c", code, "s3://models/shared.bin", DIGEST, str(tmp_path)]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    results = [process.communicate(timeout=120) for process in started]
    assert [err for _, err in results] == [""] * 4
    assert len({out for out, _ in results}) == 1
    assert Path(results[0][0].strip()).read_bytes() == CONTENT
    assert s3.gets("shared.bin") == 1


def test_a_process_killed_while_downloading_leaves_the_cache_usable(s3: S3, tmp_path: Path) -> None:
    s3.put("killed.bin", CONTENT)
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from serve_app.artifacts import FetchPolicy, fetch_artifact, remote\n"
        "from serve_app.config.model import ArtifactConfig\n"
        "read = remote.RemoteArtifact._range\n"
        "def die_later(self, file, start, end):\n"
        "    if start: os.kill(os.getpid(), 9)\n"
        "    return read(self, file, start, end)\n"
        "remote.RemoteArtifact._range = die_later\n"
        "fetch_artifact(ArtifactConfig(uri=sys.argv[1], sha256=sys.argv[2]), Path(sys.argv[3]),\n"
        "               FetchPolicy(chunk_bytes=1024 * 1024))\n"
    )
    command = [sys.executable, "-c", code, "s3://models/killed.bin", DIGEST, str(tmp_path)]
    assert subprocess.run(command, check=False, timeout=120).returncode == -9
    assert (tmp_path / "staging" / DIGEST / "killed.bin").stat().st_size == 1024 * 1024
    assert fetch("killed.bin", DIGEST, tmp_path).read_bytes() == CONTENT
    assert list((tmp_path / "staging").iterdir()) == []


def test_a_truncated_object(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.put("cut.bin", CONTENT)
    import s3fs

    info = s3fs.S3FileSystem._info

    async def longer(self: Any, path: str, *args: Any, **options: Any) -> Any:
        found = dict(await info(self, path, *args, **options))
        return {**found, "size": found["size"] + 10}

    monkeypatch.setattr(s3fs.S3FileSystem, "_info", longer)
    with pytest.raises(ArtifactError, match=f"truncated: {len(CONTENT)} of {len(CONTENT) + 10}"):
        fetch("cut.bin", DIGEST, tmp_path)


def test_a_server_that_is_away(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:  # bound, not listening: nobody else gets this port
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # the client tries again by itself, too
        policy = FetchPolicy(attempts=1)
        with pytest.raises(ArtifactError, match="could not list"):
            fetch("x.bin", DIGEST, tmp_path, policy)
