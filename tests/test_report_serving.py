"""The runs of a folder, served: live, to this machine alone, whatever lies in the folder."""

import http.client
import json
import random
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from browser import VIEWS, launched
from playwright.sync_api import Browser, Page
from run_folders import HOSTILE, control_row, write_run

from vantage.commands.main import main
from vantage.errors import InputError
from vantage.reporting.folder import RunsFolder
from vantage.reporting.serving import server
from vantage.runs.run import append_metrics

LOOK = (Path(__file__).parent / "site_look.js").read_text()
NAME = "deep/<b>run"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / NAME, 40)
    write_run(folder / "rises", 60, seed=1, config={"environment": {"name": "CartPole-v1"}})
    write_run(folder / "language", 30, language=True, said={1: 8})
    write_run(folder / "broken", 3)
    (folder / "broken" / "metrics.jsonl").write_text('{"update": 1}\nnothing\n')
    (folder / "secret.txt").write_text("a secret")
    return folder


@pytest.fixture(scope="module")
def running(root: Path) -> Iterator[ThreadingHTTPServer]:
    with server(root, 0) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield one
        one.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as one:
        yield one


def ask(running: ThreadingHTTPServer, path: str, host: str | None = None) -> tuple[int, str]:
    """Status and text of a request, its path sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", running.server_port)
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{running.server_port}")
    connection.endheaders()
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_it_is_bound_to_this_machine(running: ThreadingHTTPServer) -> None:
    assert running.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{}", "127.0.0.1", "127.0.0.1:1"])
def test_another_name_for_this_machine_is_refused(running: ThreadingHTTPServer, host: str) -> None:
    """A page elsewhere whose name is made to lead here (DNS rebinding) sends its own name."""
    status, text = ask(running, "/runs.json", host.format(running.server_port))
    assert status == 421
    assert "rises" not in text
    assert ask(running, "/runs.json", f"localhost:{running.server_port}")[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/secret.txt", "/../secret.txt", "/%2e%2e/secret.txt", "//etc/passwd", "/run?run=../x",
     "/run?run=..", "/run?run=/etc", "/run?run=%00", "/run?run=secret.txt", "/run", "/deep"],
)  # fmt: skip
def test_nothing_but_runs_is_read(running: ThreadingHTTPServer, path: str) -> None:
    status, text = ask(running, path)
    assert status == 404
    assert "secret" not in text


def test_links_are_not_followed(root: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "outside", 3)
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "link").symlink_to(tmp_path / "outside")
    assert RunsFolder(tmp_path / "inside").runs() == {}
    write_run(tmp_path / "inside" / "run", 3)
    (tmp_path / "inside" / "run" / "metrics.jsonl").unlink()
    (tmp_path / "inside" / "run" / "metrics.jsonl").symlink_to(root / "rises" / "metrics.jsonl")
    assert "is a link" in RunsFolder(tmp_path / "inside").runs()["run"].fault


def test_a_damaged_run_is_a_line_that_says_what_is_wrong(running: ThreadingHTTPServer) -> None:
    runs = {run["name"]: run for run in json.loads(ask(running, "/runs.json")[1])["runs"]}
    assert set(runs) == {NAME, "rises", "language", "broken"}
    assert "metrics.jsonl, line 2" in runs["broken"]["fault"]
    assert runs["rises"]["last"]["updates"] == 60
    status, text = ask(running, "/run?run=broken")
    assert status == 200
    assert "line 2" in text


def test_a_run_that_goes_on_is_read_again_and_no_other(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_run(tmp_path / name, 5)
    folder = RunsFolder(tmp_path)
    before = folder.runs()
    append_metrics(tmp_path / "one", control_row(6, random.Random(0)))
    after = folder.runs()
    assert len(after["one"].subject.history) == 6
    assert after["two"] is before["two"]
    assert after["one"].stamp != before["one"].stamp


def test_what_cannot_be_served_is_refused(
    tmp_path: Path, running: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with pytest.raises(InputError, match="is no folder"):
        server(tmp_path / "nowhere")
    with pytest.raises(InputError, match="leave it out for a free one"):
        server(tmp_path, running.server_port)
    monkeypatch.setattr("sys.argv", ["vantage", "report", str(tmp_path), "--port", "80"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "it goes with --serve" in capsys.readouterr().err


# ---- in a browser --------------------------------------------------------------------------------


def opened(
    browser: Browser, address: str, width: int = 1300, scheme: Any = "light"
) -> tuple[Page, list[str]]:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text))
    page.on("request", lambda asked: (
        None if asked.url.startswith(address[:20]) else faults.append(asked.url)
    ))  # fmt: skip
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
    page.wait_for_selector(".chart svg path")
    return page, faults


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
@pytest.mark.parametrize("path", ["", f"run?run={quote(NAME, safe='')}"])
def test_a_served_page_is_whole_and_stays_in_its_frame(
    browser: Browser, running: ThreadingHTTPServer, width: int, scheme: str, path: str
) -> None:
    address = f"http://127.0.0.1:{running.server_port}/{path}"
    page, faults = opened(browser, address, width, scheme)
    look = page.evaluate(LOOK)
    assert faults == []
    assert look["out"] == []
    assert not look["sideways"]
    assert page.locator("img").count() == 0
    assert page.evaluate("window.hurt") is None
    page.context.close()


def test_runs_are_sorted_by_any_metric_and_drawn_over_one_another(
    browser: Browser, running: ThreadingHTTPServer
) -> None:
    page, faults = opened(browser, f"http://127.0.0.1:{running.server_port}/")
    page.wait_for_selector('html[data-drawn="3"]')
    names = page.locator(".runs tbody th")
    assert set(names.all_text_contents()) == {NAME, "rises", "language", "broken"}
    page.get_by_role("button", name="updates").click()
    assert names.all_text_contents()[:3] == ["rises", NAME, "language"]
    page.get_by_role("button", name="updates").click()
    assert names.all_text_contents()[:3] == ["language", NAME, "rises"]
    page.locator("select[name=metric]").select_option("value_loss")
    assert names.all_text_contents()[:2] == [NAME, "rises"]  # it falls, and rises is longer
    first = page.locator(".chart").first
    assert first.locator(".key span").count() >= 2
    page.get_by_label("show rises").uncheck()
    page.wait_for_selector('html[data-drawn="2"]')
    assert "rises" not in page.locator("#charts").text_content()
    assert HOSTILE.split("&")[0] in page.locator(".runs").text_content()
    assert faults == []
    page.context.close()


def test_a_growing_run_is_followed(
    browser: Browser, running: ThreadingHTTPServer, root: Path
) -> None:
    """Both the table of all runs and a run's own page show what was appended, without a reload."""
    address = f"http://127.0.0.1:{running.server_port}/"
    table, _ = opened(browser, address)
    one, faults = opened(browser, f"{address}run?run=rises")
    table.evaluate("window.stayed = true")
    one.evaluate("window.stayed = true")
    draw = random.Random(5)
    for update in range(61, 101):
        append_metrics(root / "rises", control_row(update, draw))
    line = table.locator("tr", has=table.get_by_label("show rises"))
    line.get_by_text("100", exact=True).wait_for(timeout=15_000)
    one.locator("#facts").get_by_text("100", exact=True).wait_for(timeout=15_000)
    one.locator(".readout").first.get_by_text("1 to 100").wait_for(timeout=15_000)
    assert table.evaluate("window.stayed")
    assert one.evaluate("window.stayed")
    assert faults == []
    for page in (table, one):
        page.context.close()
