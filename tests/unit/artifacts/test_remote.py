"""Downloads, against fsspec's memory file system and faults injected into it."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from serve_app.artifacts import FetchPolicy, fetch_artifact, hash_artifact
from serve_app.artifacts.cache import ArtifactCache
from serve_app.config.model import ArtifactConfig
from serve_app.errors import ArtifactError

CONTENT = bytes(range(256)) * 40
DIGEST = hashlib.sha256(CONTENT).hexdigest()
FAST = FetchPolicy(backoff_s=0.0, chunk_bytes=4096)
URI = "memory://store/model.bin"


class Store:
    """The memory file system, with reads counted and changed at will."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads: Counter[str] = Counter()
        self.failures: list[BaseException] = []
        self.cut = 0
        self.extra = b""
        read = MemoryFileSystem.cat_file

        def cat_file(fs: Any, path: str, start: int, end: int) -> bytes:
            self.reads[path] += 1
            if self.failures:
                raise self.failures.pop()
            data: bytes = read(fs, path, start=start, end=end)
            return data[: len(data) - self.cut] + self.extra

        monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)

    def put(self, path: str, content: bytes) -> None:
        MemoryFileSystem().pipe_file(f"/store/{path}", content)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    store = Store(monkeypatch)
    store.put("model.bin", CONTENT)
    yield store
    MemoryFileSystem.store.clear()


def fetch(cache: Path, sha256: str | None = DIGEST, uri: str = URI, policy: Any = FAST) -> Path:
    return fetch_artifact(ArtifactConfig(uri=uri, sha256=sha256), cache, policy)


def left_over(cache: Path) -> list[Path]:
    return [path for path in (cache / "staging").rglob("*")]


def test_a_file_lands_at_its_digest(store: Store, tmp_path: Path) -> None:
    path = fetch(tmp_path)
    assert path == tmp_path / "sha256" / DIGEST[:2] / DIGEST / "model.bin"
    assert path.read_bytes() == CONTENT
    assert store.reads.total() == 3  # 10240 bytes in ranges of 4096
    assert fetch(tmp_path) == path
    assert store.reads.total() == 3
    assert left_over(tmp_path) == []


def test_a_folder(store: Store, tmp_path: Path) -> None:
    files = {"config.json": b"{}", "deep/er/weights.bin": CONTENT, "empty": b""}
    for name, content in files.items():
        store.put(f"folder/{name}", content)
    digest = hash_artifact("memory://store/folder", FAST)
    path = fetch(tmp_path, digest, "memory://store/folder")
    assert {
        p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()
    } == files
    assert hash_artifact(str(path)) == digest
    assert fetch(tmp_path, digest, "memory://store/folder/") == path


def test_hashing_writes_nothing(store: Store, tmp_path: Path) -> None:
    assert hash_artifact(URI, FAST) == DIGEST


def test_a_digest_mismatch_names_both_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        fetch(tmp_path, "0" * 64)
    assert DIGEST in str(caught.value)
    assert "0" * 64 in str(caught.value)
    assert left_over(tmp_path) == []
    assert not (tmp_path / "sha256").exists()


def test_an_undeclared_digest_follows_the_store(store: Store, tmp_path: Path) -> None:
    path = fetch(tmp_path, None)
    reads = store.reads.total()
    assert fetch(tmp_path, None) == path
    assert store.reads.total() == reads
    store.put("model.bin", CONTENT[::-1])
    changed = fetch(tmp_path, None)
    assert changed.read_bytes() == CONTENT[::-1]
    assert path.read_bytes() == CONTENT


def test_a_change_while_reading_is_noticed(store: Store, tmp_path: Path) -> None:
    changed = threading.Event()

    original = MemoryFileSystem.cat_file

    def cat_file(fs: Any, path: str, start: int, end: int) -> Any:
        if start and not changed.is_set():
            changed.set()
            store.put("model.bin", CONTENT[::-1])
        return original(fs, path, start=start, end=end)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryFileSystem, "cat_file", cat_file)
        with pytest.raises(ArtifactError, match="changed while it was being read"):
            fetch(tmp_path, None)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(CONTENT[:-1]),
        lambda path: path.write_bytes(CONTENT[:-1] + b"?"),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
    ],
)
def test_a_damaged_entry_is_fetched_again(store: Store, tmp_path: Path, damage: Any) -> None:
    path = fetch(tmp_path)
    damage(path)
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert store.reads.total() == 6
    assert left_over(tmp_path) == []


def test_a_damaged_folder_is_fetched_again(store: Store, tmp_path: Path) -> None:
    store.put("folder/a", b"a")
    store.put("folder/b", b"b")
    digest = hash_artifact("memory://store/folder", FAST)
    path = fetch(tmp_path, digest, "memory://store/folder")
    for damage in (
        lambda: (path / "a").unlink(),
        lambda: (path / "more").write_bytes(b""),
        lambda: (path / "a").write_bytes(b"x"),
        lambda: shutil.rmtree(path),
    ):
        damage()
        assert fetch(tmp_path, digest, "memory://store/folder") == path
        assert hash_artifact(str(path)) == digest


def test_an_interrupted_download_is_cleaned_up_by_the_next(store: Store, tmp_path: Path) -> None:
    stale = tmp_path / "staging" / DIGEST
    stale.mkdir(parents=True)
    (stale / "model.bin").write_bytes(b"half")
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert left_over(tmp_path) == []


def test_the_network_is_tried_again(store: Store, tmp_path: Path) -> None:
    store.failures = [OSError("reset"), TimeoutError(), RuntimeError("something of a client")]
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert store.reads.total() == 6


def test_but_not_for_ever(store: Store, tmp_path: Path) -> None:
    store.failures = [ConnectionResetError("reset")] * 10
    with pytest.raises(
        ArtifactError, match=r"could not read model.bin: ConnectionResetError: reset"
    ):
        fetch(tmp_path)
    assert store.reads.total() == FAST.attempts
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("error", [PermissionError("denied"), ValueError("no")])
def test_nor_for_what_cannot_pass(store: Store, tmp_path: Path, error: Exception) -> None:
    store.failures = [error]
    with pytest.raises(ArtifactError, match=r"could not read model.bin"):
        fetch(tmp_path)
    assert store.reads.total() == 1


def test_a_truncated_download(store: Store, tmp_path: Path) -> None:
    store.cut = 1
    with pytest.raises(ArtifactError, match="truncated: 4095 of 10240 bytes"):
        fetch(tmp_path)
    assert left_over(tmp_path) == []


def test_a_server_that_sends_too_much(store: Store, tmp_path: Path) -> None:
    store.extra = b"more"
    with pytest.raises(ArtifactError, match=r"sent more of model.bin than asked for"):
        fetch(tmp_path)


def test_caps(store: Store, tmp_path: Path) -> None:
    for name in "abc":
        store.put(f"folder/{name}", b"12345")
    for policy, words in (
        (FetchPolicy(max_bytes=14), "larger than 14 bytes"),
        (FetchPolicy(max_files=2), "more than 2 files"),
    ):
        with pytest.raises(ArtifactError, match=words):
            fetch(tmp_path, None, "memory://store/folder", policy)
    assert store.reads.total() == 0


def test_nothing_there(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file or folder"):
        fetch(tmp_path, None, "memory://store/none")
    with pytest.raises(ArtifactError):
        fetch(tmp_path, None, "memory://")


@pytest.mark.parametrize(
    "name",
    ["../outside", "a/../../outside", "/etc/passwd", "a//b", "./a", "a\\..\\b", "a\nb", "a\0b"],
)
def test_listings_that_lead_elsewhere(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    listing = {f"/store/folder/{name}": {"type": "file", "size": 1, "name": name}}
    store.put("folder/a", b"a")
    monkeypatch.setattr(MemoryFileSystem, "find", lambda *_, **__: listing)
    with pytest.raises(ArtifactError, match="not allowed in an artifact"):
        fetch(tmp_path / "cache", None, "memory://store/folder")
    monkeypatch.setattr(
        MemoryFileSystem, "find", lambda *_, **__: {"/other/x": {"type": "file", "size": 1}}
    )
    with pytest.raises(ArtifactError, match="not allowed in an artifact"):
        fetch(tmp_path / "cache", None, "memory://store/folder")
    assert not list(tmp_path.rglob("*outside*"))


def test_a_listing_with_a_file_that_is_also_a_folder(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("folder/a", b"a")
    names = ("a", "a/b")
    listing = {f"/store/folder/{name}": {"type": "file", "size": 0} for name in names}
    monkeypatch.setattr(MemoryFileSystem, "find", lambda *_, **__: listing)
    with pytest.raises(ArtifactError, match="File exists"):
        fetch(tmp_path, None, "memory://store/folder")
    assert left_over(tmp_path) == []


def test_a_scheme_without_its_package(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="scheme 'gs' needs a package"):
        fetch(tmp_path, None, "gs://bucket/x")


def test_a_cache_that_cannot_be_written(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match=r"model\.bin"):
        fetch(tmp_path / "file" / "cache")


def test_threads_that_want_the_same_download_it_once(store: Store, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: fetch(tmp_path), range(8)))
    assert len(paths) == 1
    assert store.reads.total() == 3


def test_the_same_content_with_and_without_a_digest_is_published_once(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both stage it, under different keys; the later one must not pull the first one's away."""
    together, one_after_the_other = threading.Barrier(2, timeout=10), threading.Lock()
    publish = ArtifactCache.publish
    inodes = []

    def meet(cache: ArtifactCache, staged: Path, digest: str) -> Path:
        together.wait()
        with one_after_the_other:
            path = publish(cache, staged, digest)
            inodes.append((path / "a").stat().st_ino)
        return path

    store.put("folder/a", b"a")
    digest = hash_artifact("memory://store/folder", FAST)
    monkeypatch.setattr(ArtifactCache, "publish", meet)
    with ThreadPoolExecutor(2) as pool:
        paths = set(
            pool.map(
                lambda sha256: fetch(tmp_path, sha256, "memory://store/folder"), [digest, None]
            )
        )
    (path,) = paths
    assert [file.name for file in path.iterdir()] == ["a"]
    assert len(inodes) == 2
    assert len(set(inodes)) == 1
    assert left_over(tmp_path) == []


# --- http, where it is allowed ---------------------------------------------------------------


class Web(BaseHTTPRequestHandler):
    """Serves one file, and a redirect to it."""

    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/model.bin")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(CONTENT)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("path", ["/model.bin", "/moved"])
def test_http_must_be_allowed_and_reaches_no_private_address(
    web: str, tmp_path: Path, path: str
) -> None:
    with pytest.raises(ArtifactError, match="scheme 'http' is not allowed"):
        fetch(tmp_path, uri=web + path)
    guarded = FetchPolicy(schemes=("http",), backoff_s=0.0, attempts=1)
    with pytest.raises(ArtifactError, match=r"127\.0\.0\.1 is not a public address"):
        fetch(tmp_path, uri=web + path, policy=guarded)
    open_ = FetchPolicy(schemes=("http",), private_hosts=True)
    assert fetch(tmp_path, uri=web + path, policy=open_).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "192.168.0.1",
        "172.16.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "fe80::1%lo",
        "fd00::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    import socket

    from serve_app.artifacts.http_client import _public_socket

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with pytest.raises(PermissionError, match="not a public address"):
        _public_socket((family, socket.SOCK_STREAM, 6, "", (address, 80)))
    _public_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 80))).close()
