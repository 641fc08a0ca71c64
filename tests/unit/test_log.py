from __future__ import annotations

import ast
import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from serve_app.config.cluster import LogConfig
from serve_app.context import current_request
from serve_app.log import EXTRA_FIELDS, LineHandler, configure_logging, current_handler, rfc3339
from serve_app.telemetry.trace import RequestTrace

ROOT = Path(__file__).parents[2]
LOGGERS = ("", "serve_app", "deployments", "uvicorn", "uvicorn.error", "uvicorn.access", "grpc")


@pytest.fixture(autouse=True)
def _logging_restored() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(each.level, each.propagate, each.handlers[:]) for each in loggers]
    yield
    for each, (level, propagate, handlers) in zip(loggers, before, strict=True):
        each.setLevel(level)
        each.propagate = propagate
        each.handlers[:] = handlers


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().split("\n") if line]


def log_line(stream: io.StringIO, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Logs one message at INFO and returns its only line."""
    configure_logging(LogConfig(), process="ingress", stream=stream)
    logging.getLogger("serve_app.test").info(*args, **kwargs)
    (line,) = lines(stream)
    return line


def test_a_line_has_the_documented_fields(stream: io.StringIO) -> None:
    line = log_line(stream, "table %s", "published", extra={"action": "publish", "revision": 7})
    assert list(line) == [
        "timestamp", "level", "logger", "message", "process", "pid", "action", "revision",
    ]  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["timestamp"])
    assert line["level"] == "INFO"
    assert line["logger"] == "serve_app.test"
    assert line["message"] == "table published"
    assert line["process"] == "ingress"
    assert (line["action"], line["revision"]) == ("publish", 7)


@pytest.mark.parametrize(
    ("timestamp", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1709251199.999, "2024-02-29T23:59:59.999Z"),
        (1709251200.0, "2024-03-01T00:00:00.000Z"),
        (1709251200.0424, "2024-03-01T00:00:00.042Z"),
    ],
)
def test_timestamps(timestamp: float, text: str) -> None:
    assert rfc3339(timestamp) == text
    parsed = datetime.fromisoformat(text)
    assert parsed.tzinfo == UTC
    assert abs(parsed.timestamp() - timestamp) < 0.001


def test_the_time_is_that_of_the_event(stream: io.StringIO) -> None:
    handler = configure_logging(LogConfig(), process="ingress", stream=stream)
    record = logging.makeLogRecord({"msg": "late", "created": 1709251200.5, "levelname": "INFO"})
    handler.emit(record)
    assert lines(stream)[0]["timestamp"] == "2024-03-01T00:00:00.500Z"


@pytest.mark.parametrize(
    "name",
    ["authorization", "token", "password", "headers", "body", "tensor", "query", "x-api-key"],
)
def test_extras_that_are_not_allowed_are_dropped(stream: io.StringIO, name: str) -> None:
    line = log_line(stream, "hello", extra={name: "canary-5417", "action": "load"})
    assert line["action"] == "load"
    assert "canary-5417" not in stream.getvalue()


def test_a_dictionary_as_message_is_no_way_around_the_list(stream: io.StringIO) -> None:
    line = log_line(stream, {"authorization": "canary-5417", "pid": "canary-5417"})
    assert line["message"] == ""
    assert "canary-5417" not in stream.getvalue()


def test_an_exception_is_one_string(stream: io.StringIO) -> None:
    configure_logging(LogConfig(), process="ingress", stream=stream)
    local_value = "canary-" + "5417"
    try:
        raise ValueError("broken\nin two lines")
    except ValueError:
        logging.getLogger("serve_app.test").exception("cannot %s", "load")
    (line,) = lines(stream)
    assert line["level"] == "ERROR"
    assert line["message"] == "cannot load"
    assert line["exception"].startswith("Traceback (most recent call last):")
    assert line["exception"].endswith("ValueError: broken\nin two lines")
    assert local_value not in stream.getvalue()


def test_no_text_can_forge_a_line(stream: io.StringIO) -> None:
    line = log_line(stream, 'x"}\n{"level":"ERROR"}\r\x1b[31m\u2028', extra={"model": 'm"\n{}'})
    assert line["message"] == 'x"}\n{"level":"ERROR"}\r\x1b[31m\u2028'
    assert line["model"] == 'm"\n{}'
    assert len(stream.getvalue().split("\n")) == 2


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (3, 3),
        (2.5, 2.5),
        (True, True),
        (float("nan"), None),
        (2**70, str(2**70)),
        ("\udcff", "\\udcff"),
        (Path("/x"), "/x"),
        (["a"], "['a']"),
        (b"\xff", "b'\\xff'"),
    ],
)
def test_values_of_any_type_make_a_line(stream: io.StringIO, value: Any, written: Any) -> None:
    assert log_line(stream, "x", extra={"replicas": value})["replicas"] == written


@pytest.mark.parametrize("value", [None, ""])
def test_what_is_not_known_is_left_out(stream: io.StringIO, value: Any) -> None:
    assert "model" not in log_line(stream, "x", extra={"model": value})


def test_a_huge_message_is_cut(stream: io.StringIO) -> None:
    assert len(log_line(stream, "x" * 1_000_000)["message"]) == 32_768


def test_the_request_in_progress_is_named(stream: io.StringIO) -> None:
    trace = RequestTrace("http", "id-1")
    token = current_request.set(trace)
    try:
        trace.model, trace.version = "digits", "2"
        line = log_line(stream, "x", extra={"version": "3"})
    finally:
        current_request.reset(token)
    # What the caller says goes first; what the trace says beyond these three is for its own line.
    assert (line["request_id"], line["model"], line["version"]) == ("id-1", "digits", "3")
    assert "protocol" not in line


def test_the_level_holds_for_our_loggers(stream: io.StringIO) -> None:
    configure_logging(LogConfig(level="ERROR"), process="x", stream=stream)
    logging.getLogger("serve_app.test").warning("no")
    logging.getLogger("deployments.test").error("yes")
    configure_logging(LogConfig(level="DEBUG"), process="x", stream=stream)
    logging.getLogger("serve_app.test").debug("yes")
    assert [line["message"] for line in lines(stream)] == ["yes", "yes"]


def test_other_libraries_speak_from_warning_on(stream: io.StringIO) -> None:
    configure_logging(LogConfig(level="DEBUG"), process="x", stream=stream)
    for name in ("httpx", "botocore.auth", "some.library", "uvicorn.error"):
        logging.getLogger(name).debug("Authorization: canary")
        logging.getLogger(name).info("GET https://host/?signature=canary")
        logging.getLogger(name).warning("heard")
    assert [line["message"] for line in lines(stream)] == ["heard"] * 4


@pytest.mark.parametrize("name", ["uvicorn", "uvicorn.error", "uvicorn.access", "grpc"])
def test_handlers_of_the_servers_are_replaced(stream: io.StringIO, name: str) -> None:
    foreign = io.StringIO()
    logger = logging.getLogger(name)
    logger.addHandler(logging.StreamHandler(foreign))
    logger.propagate = False
    configure_logging(LogConfig(), process="x", stream=stream)
    logger.error("once")
    assert foreign.getvalue() == ""
    assert [line["logger"] for line in lines(stream)] == [name]


def test_configuring_again_writes_each_line_once(stream: io.StringIO) -> None:
    first = io.StringIO()
    for each in (first, stream, stream):
        configure_logging(LogConfig(), process="x", stream=each)
    logging.getLogger("serve_app.test").info("once")
    assert first.getvalue() == ""
    assert len(lines(stream)) == 1


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogConfig(), process="x")
    logging.getLogger("serve_app.test").info("hello")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["message"] == "hello"


def test_a_file_is_appended_to_and_closed(tmp_path: Path, stream: io.StringIO) -> None:
    path = tmp_path / "logs" / "router-1.log"
    for message in ("first", "grün"):
        configure_logging(LogConfig(), process="router", path=path)
        logging.getLogger("serve_app.test").info(message)
    configure_logging(LogConfig(), process="router", stream=stream)
    logging.getLogger("serve_app.test").info("elsewhere")
    written = [json.loads(line)["message"] for line in path.read_text("utf-8").splitlines()]
    assert written == ["first", "grün"]


def test_lines_of_others_go_the_same_way(stream: io.StringIO) -> None:
    handler = configure_logging(LogConfig(), process="x", stream=stream)
    assert current_handler() is handler
    handler.write('{"message":"from the access log"}\n')
    assert lines(stream) == [{"message": "from the access log"}]


def test_a_stream_that_is_gone_stops_nobody(stream: io.StringIO) -> None:
    handler = LineHandler("x", stream)
    stream.close()
    handler.write("lost\n")


def test_without_configuration_there_is_still_a_handler() -> None:
    logging.getLogger().handlers[:] = []
    assert isinstance(current_handler(), LineHandler)


def _extra_keys(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.keyword)
            and node.arg == "extra"
            and isinstance(node.value, ast.Dict)
        ):
            yield from (key.value for key in node.value.keys if isinstance(key, ast.Constant))  # type: ignore[misc]  # keys of extra are strings


def test_every_extra_that_the_source_passes_is_allowed() -> None:
    for package in ("serve_app", "deployments"):
        for path in (ROOT / package).rglob("*.py"):
            assert set(_extra_keys(path)) <= set(EXTRA_FIELDS), path


def test_the_reference_lists_every_field() -> None:
    text = (ROOT / "docs/reference/logs.md").read_text()
    documented = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    fixed = ["timestamp", "level", "logger", "message", "process", "pid"]
    assert documented == [*fixed, *EXTRA_FIELDS, "exception"]


def test_a_full_file_is_kept_once_beside_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "ingress.log"
    log = LogConfig(max_file_bytes=4096)
    handler = configure_logging(log, process="ingress", path=path)
    try:
        for _ in range(10):
            handler.write('{"line": "' + "x" * 1000 + '"}\n')
        assert path.stat().st_size < 4096
        former = path.with_name("ingress.log.1")
        assert 4096 <= former.stat().st_size < 6000
        assert sorted(each.name for each in path.parent.iterdir()) == [path.name, former.name]
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def test_a_file_that_was_there_counts(tmp_path: Path) -> None:
    path = tmp_path / "ingress.log"
    path.write_text("x" * 4000)
    handler = LineHandler("x", path.open("a", encoding="utf-8"), path=path, max_bytes=4096)
    handler.write("ü" * 60 + "\n")
    handler.close()
    assert path.with_name("ingress.log.1").stat().st_size == 4121
    assert path.read_text() == ""


def test_a_file_that_somebody_cut_is_not_full(tmp_path: Path) -> None:
    path = tmp_path / "ingress.log"
    handler = LineHandler("x", path.open("a", encoding="utf-8"), path=path, max_bytes=4096)
    handler.write("x" * 4000)
    os.truncate(path, 0)
    handler.write("y" * 200)
    handler.close()
    assert path.read_text() == "y" * 200
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_full_disk_reaches_no_caller(
    tmp_path: Path, stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ingress.log"
    path.symlink_to("/dev/full")
    handler = configure_logging(LogConfig(max_file_bytes=4096), process="x", path=path)
    for _ in range(100):
        logging.getLogger("serve_app.test").info("lost " * 100)
        handler.write("lost\n" * 100)
    configure_logging(LogConfig(), process="x", stream=stream)
    logging.getLogger("serve_app.test").info("heard")
    assert [line["message"] for line in lines(stream)] == ["heard"]
    assert capsys.readouterr().err == ""


def test_a_disk_that_has_room_again_gets_lines_again(tmp_path: Path) -> None:
    path = tmp_path / "ingress.log"
    code = """
import logging, resource, sys
from pathlib import Path
from serve_app.config.cluster import LogConfig
from serve_app.log import configure_logging
path = Path(sys.argv[1])
configure_logging(LogConfig(max_file_bytes=100_000), process="x", path=path)
logger = logging.getLogger("serve_app.test")
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
for _ in range(100):
    logger.info("x" * 1000)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
logger.info("after")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert path.stat().st_size > 20_000
    assert json.loads(path.read_text().splitlines()[-1])["message"] == "after"


def test_a_message_that_cannot_be_made_stops_nobody(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = LineHandler("x", stream)
    for message, args in (("%d", ("no number",)), ("next", ())):
        handler.handle(logging.makeLogRecord({"msg": message, "args": args}))
    assert [line["message"] for line in lines(stream)] == ["next"]
    assert "TypeError" in capsys.readouterr().err


def test_a_traceback_is_whole_where_print_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    handler = configure_logging(LogConfig(), process="x", stream=stream)
    monkeypatch.setattr("builtins.print", lambda *objects, **options: None)
    try:
        raise ValueError("the cause")
    except ValueError:
        logging.getLogger("serve_app.test").exception("failed")
    finally:
        logging.getLogger().removeHandler(handler)
    text = json.loads(stream.getvalue())["exception"]
    assert text.startswith("Traceback (most recent call last):\n  File")
    assert text.endswith("ValueError: the cause")
