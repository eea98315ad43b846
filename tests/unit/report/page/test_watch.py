"""The server of `resnext report --watch`: the report alone, to this machine's browsers alone, as the runs are now."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

from helpers.commands import Refuses, report
from helpers.run_folders import write_run
from helpers.runs import environment
from resnext_train.errors import InputError
from resnext_train.report.page.watch import LiveReport, is_own_name, open_server, state_of_files


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("watch") / "runs" / "run", [25.0])


@pytest.fixture(scope="module")
def port(run: Path) -> Iterator[int]:
    with open_server(LiveReport([run.parent], rest=0), 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def ask(port: int, path: str, method: str = "GET", host: str | None = None) -> tuple[HTTPResponse, bytes]:
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path, headers={} if host is None else {"Host": host})
        response = connection.getresponse()
        return response, response.read().replace("\u00a0".encode(), b" ")


def test_the_page_is_made_anew_when_a_run_has_changed(port: int, run: Path) -> None:
    _, before = ask(port, "/version")
    _, page = ask(port, "/")
    assert b"25.00 %" in page
    assert f'data-version="{before.decode()}"'.encode() in page
    assert ask(port, "/version")[1] == before
    (run / "summary.json").unlink()
    with (run / "log.jsonl").open("a") as log:
        log.write('{"event": "epoch", "step": 99, "epoch": 2, "val_count": 1000, "val_top1_correct": 731}\n')
    _, after = ask(port, "/version")
    assert after != before
    assert b"73.10 %" in ask(port, "/")[1]


def test_nothing_else_is_served(port: int) -> None:
    for path in ("/log.jsonl", "/../run/log.jsonl", "/%2e%2e/log.jsonl", "//etc/passwd", "/favicon.ico", "/plots/"):
        assert ask(port, path)[0].status == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        assert ask(port, "/", method)[0].status == 501


def test_a_head_has_no_body(port: int) -> None:
    response, body = ask(port, "/", "HEAD")
    assert (response.status, body) == (200, b"")
    assert int(response.headers["Content-Length"]) > 10_000


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "192.168.0.2:8123", "", "[", "a@evil.example"]
)
def test_other_names_get_no_report(port: int, host: str) -> None:
    response, body = ask(port, "/", host=host)
    assert response.status == 421
    assert b"25.00" not in body
    assert b"<html" not in body


def test_own_names() -> None:
    assert all(map(is_own_name, ("127.0.0.1", "127.0.0.1:8123", "localhost", "LOCALHOST:1")))


def test_only_this_machine_can_connect(run: Path) -> None:
    with open_server(LiveReport([run]), 0) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_the_next_free_port_is_taken(run: Path) -> None:
    live = LiveReport([run])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = taken.getsockname()[1]
        with open_server(live, wanted) as server:
            assert wanted < server.server_address[1] < wanted + 20


def test_no_port_is_free(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnext_train.report.page.watch._PORTS_TRIED", 1)
    live = LiveReport([run])
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match="--port"):
        open_server(live, taken.getsockname()[1])


def test_what_counts_as_a_change(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs" / "a", [25.0], wrong=range(3))
    states = [state_of_files([run.parent])]
    assert state_of_files([run.parent]) == states[0]
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.pt").touch()
    assert state_of_files([run.parent]) == states[0]
    (run / "state.json").write_text('{"status": "failed", "step": 20}')
    states.append(state_of_files([run.parent]))
    os.utime(run / "evaluation" / "classes.csv", ns=(1, 1))
    states.append(state_of_files([run.parent]))
    write_run(tmp_path / "runs" / "b", [25.0])
    states.append(state_of_files([run.parent]))
    assert len(set(states)) == 4


def test_the_runs_have_the_cores_most_of_the_time(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [25.0])
    live, eager = LiveReport([run], rest=1e6), LiveReport([run], rest=0)
    before = eager.current()
    (run / "state.json").write_text('{"status": "failed", "step": 20}')
    assert live.current()[0] == before[0]
    assert eager.current()[0] != before[0]


def test_runs_that_are_gone_leave_the_last_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", [25.0])
    live = LiveReport([run], rest=0)
    before = live.current()
    run.rename(tmp_path / "elsewhere")
    assert live.current() == before
    assert live.current() == before
    assert capsys.readouterr().err.count("the page stays as it is") == 1
    (tmp_path / "elsewhere").rename(run)
    assert live.current() == before


@pytest.mark.slow  # a process of its own
def test_ctrl_c_ends_it(run: Path) -> None:
    command = [sys.executable, "-m", "resnext_train", "report", str(run), "--watch", "--port", "0"]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=environment()) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:")
        port = int(line.split("/")[2].split(":")[1])
        assert ask(port, "/version")[0].status == 200
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "resnext report: interrupted\n"


def test_no_pictures_are_served_where_none_are_wanted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [25.0], wrong=range(3))
    assert b"data:image/webp" in LiveReport([run]).current()[1]
    assert b"data:image/webp" not in LiveReport([run], pictures=False).current()[1]


def test_watching_writes_nothing(refuses: Refuses, run: Path) -> None:
    assert "--watch" in refuses(report, str(run), "--watch", "--text")
    assert "--watch" in refuses(report, str(run), "--watch", "--out", "page.html")
    assert "--port" in refuses(report, str(run), "--watch", "--port", "65536")
