from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from serve_app.artifacts import FetchPolicy, fetch_artifact, hash_artifact
from serve_app.artifacts.__main__ import main
from serve_app.config.model import ArtifactConfig
from serve_app.errors import ArtifactError

CONTENT = b"weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model with space.bin"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "b.txt").write_bytes(b"b")
    (root / "a.txt").write_bytes(b"a")
    (root / "sub-a").write_bytes(b"")
    return root


def fetch(uri: str | Path, sha256: str | None = None, **policy: object) -> Path:
    nowhere = Path("/nonexistent/cache")  # local artifacts never touch the cache
    return fetch_artifact(
        ArtifactConfig(uri=str(uri), sha256=sha256),
        nowhere,
        FetchPolicy(**policy),  # type: ignore[arg-type]  # keywords of a table of cases
    )


def test_a_file_is_used_where_it_lies(file: Path) -> None:
    assert fetch(file) == file
    assert fetch(file, DIGEST) == file
    assert fetch(file.as_uri(), DIGEST) == file  # %20 decoded
    assert fetch(f"file://localhost{file}") == file


def test_a_relative_path(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert fetch(file.name, DIGEST) == Path(file.name)


def test_a_mismatch_names_both_digests(file: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        fetch(file, "0" * 64)
    assert "0" * 64 in str(caught.value)
    assert DIGEST in str(caught.value)


def test_the_digest_of_a_folder_is_that_of_its_manifest(folder: Path) -> None:
    manifest = "".join(
        f"{hashlib.sha256(content).hexdigest()}  {len(content)}  {name}\n"
        for name, content in (("a.txt", b"a"), ("sub-a", b""), ("sub/b.txt", b"b"))
    )
    digest = hashlib.sha256(manifest.encode()).hexdigest()
    assert hash_artifact(str(folder)) == digest
    assert fetch(folder, digest) == folder
    (folder / "sub" / "b.txt").rename(folder / "sub" / "c.txt")
    assert hash_artifact(str(folder)) != digest


def test_packages_are_found_without_an_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "weights_inside"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "model.bin").write_bytes(CONTENT)
    (package / "out").symlink_to("/etc")
    monkeypatch.syspath_prepend(tmp_path)
    found = fetch("package://weights_inside/model.bin", DIGEST)
    assert found == package / "model.bin"
    for uri, words in (
        ("package://weights_inside/none.bin", "holds no 'none.bin'"),
        ("package://not_installed_here/x", "'not_installed_here' is not installed"),
        ("package://weights_inside/../x", "not allowed"),
        ("package://weights_inside//etc/passwd", "not allowed"),
        ("package://weights_inside", "not allowed"),
        ("package://weights_inside/out/passwd", "leads out of the package"),
        ("package://weights.inside/x", "a top-level package"),
        ("package:///x", "a top-level package"),
        ("package://json.decoder/x", "a top-level package"),
        ("package://sys/x", "is not installed"),
    ):
        with pytest.raises(ArtifactError, match=words):
            fetch(uri)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("ftp://host/x", "scheme 'ftp' is not allowed. Allowed: file, package, s3"),
        ("https://host/x", "scheme 'https' is not allowed"),
        ("HTTP://host/x", "scheme 'http' is not allowed"),
        ("simplecache::s3://bucket/x", "no such file"),
        ("s3://bucket/x::file:///etc/passwd", "chained URIs are not allowed"),
        ("zip+s3://x", "scheme 'zip\\+s3' is not allowed"),
        ("/tmp/a\0b", "control characters"),
        ("file:///tmp/a%00b", "control characters"),
        ("s3://bucket/a\nb", "control characters"),
        ("file://host/etc/passwd", "a file URI has no host"),
        ("/nonexistent/file", "no such file or folder"),
        ("/" + "n" * 5000, "File name too long"),
    ],
)
def test_uris_that_are_refused(uri: str, words: str) -> None:
    with pytest.raises(ArtifactError, match=words):
        fetch(uri)


def test_a_password_in_a_uri_is_refused_and_not_repeated() -> None:
    artifact = ArtifactConfig.model_construct(uri="s3://key:topsecret@bucket/x", sha256=None)
    with pytest.raises(ArtifactError) as caught:
        fetch_artifact(artifact, Path("/nonexistent"))
    assert "topsecret" not in str(caught.value)


def test_local_artifacts_stay_under_their_roots(folder: Path, file: Path) -> None:
    assert fetch(folder / "a.txt", file_roots=(folder,)) == folder / "a.txt"
    (folder / "link").symlink_to(file)
    for path in (file, folder / ".." / file.name, folder / "link", f"file://{folder}/%2e%2e/x"):
        with pytest.raises(ArtifactError, match="must lie in"):
            fetch(path, file_roots=(folder,))


def test_links_that_leave_the_folder(folder: Path, file: Path) -> None:
    inside = folder / "inside"
    inside.symlink_to("a.txt")
    fetch(folder)
    inside.unlink()
    for target, words in (
        (file, "leaves the folder"),
        (Path("../model with space.bin"), "leaves the folder"),
        (folder.parent, "leaves the folder"),
        (Path("sub"), "a symbolic link to a folder"),
        (Path("missing"), "No such file"),
    ):
        inside.symlink_to(target)
        with pytest.raises(ArtifactError, match=words):
            fetch(folder)
        inside.unlink()


def test_what_is_no_plain_file(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(ArtifactError, match="not a regular file"):
        fetch(folder)
    with pytest.raises(ArtifactError, match="not a regular file"):
        fetch("/dev/zero", DIGEST)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="the folder is empty"):
        fetch(tmp_path / "empty")


def test_sizes(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="larger than 1 bytes"):
        fetch(folder, max_bytes=1)
    with pytest.raises(ArtifactError, match="more than 2 files"):
        fetch(folder, max_files=2)
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as out:
        out.truncate(10 * 1024**3)
    with pytest.raises(ArtifactError, match="a sparse file"):
        fetch(sparse, DIGEST)
    full = tmp_path / "zeros"
    full.write_bytes(bytes(2 * 1024**2))
    fetch(full)


def test_names_that_could_forge_a_manifest(folder: Path) -> None:
    (folder / "a\nb").write_bytes(b"")
    with pytest.raises(ArtifactError, match="not allowed in an artifact"):
        fetch(folder)


def test_the_command(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hash", str(file)]) == 0
    assert capsys.readouterr().out == f"{DIGEST}\n"
    assert main(["hash", "/nonexistent/x"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "no such file" in err
    with pytest.raises(SystemExit):
        main([])
