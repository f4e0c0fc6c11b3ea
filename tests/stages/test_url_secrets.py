"""User, password and query of a source's URL reach the server and nothing that the pipeline writes."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mdpipe.cli import app
from mdpipe.params import ParamsError, parse_params
from mdpipe.params.errors import MAX_SHOWN
from mdpipe.stages.download import download
from mdpipe.stages.encode import encode
from mdpipe.stages.fit_tokenizer import fit_tokenizer
from tests.data.sources.http_server import make_quick, serve

SMOKE = yaml.safe_load((Path(__file__).parents[2] / "workflow/presets/smoke.yaml").read_text())
SECRETS = ("s3cret", "t0ken", "me:")


def test_no_artifact_metric_or_log_has_the_secrets_of_a_url(tmp_path, monkeypatch, capfd):
    make_quick(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mdpipe.progress.LOG_INTERVAL", 0.0)
    with serve() as site:
        site.needs_password = True
        site.body = "\n".join(f"hello world of text number {number}" for number in range(300)).encode()
        url = site.url.replace("//", "//me:s3cret@") + "?token=t0ken"
        source = {"kind": "url", "path": "constraints.txt", "url": url, "sha256": None, "member": None, "columns": None}
        source |= {"sample_by": "line", "decode_errors": "strict", "empty_documents": "error", "detokenizer": None}
        dataset = {"source": "notes", "tokenizer": "bytes", "seq_len": 32}
        dataset |= {"splits": {"validation": 0.2, "test": 0.2}}
        data = {**SMOKE, "sources": {**SMOKE["sources"], "notes": source}}
        params = parse_params({**data, "datasets": {**SMOKE["datasets"], "notes": dataset}})
        download(params, "notes")
        fit_tokenizer(params, "notes")
        encode(params, "notes")
        assert site.paths == ["/dc/text8.zip?token=t0ken"]
    manifest = json.loads(Path("data/encoded/notes/manifest.json").read_text())
    assert manifest["origin"] == f"http://127.0.0.1:{site.port}/dc/text8.zip"
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.suffix for file in written} >= {".json", ".jsonl", ".npy", ".parquet"}
    for file in written:
        assert not [secret for secret in SECRETS if secret in file.name or secret.encode() in file.read_bytes()], file
    out = "".join(capfd.readouterr())
    assert "fetching http://127.0.0.1" in out
    assert not [secret for secret in SECRETS if secret in out]


SECRET_URLS = {
    "ftp://me:s3cret@example.org/a?token=t0ken": "sources.notes.url: 'ftp://example.org/a' is refused",
    f"ftp://me:s3cret{'x' * MAX_SHOWN}@example.org/a": "sources.notes.url: 'ftp://example.org/a' is refused",
    "me:s3cret@example.org/a?token=t0ken": "sources.notes.url: is refused",
    "example.org/a?token=t0ken": "sources.notes.url: is refused",
    "https:/me:s3cret@example.org": "sources.notes.url: is refused",
    "ftp://me:s3/cret?s3cret@example.org/a": "sources.notes.url: is refused",
}


@pytest.mark.parametrize("url", [*SECRET_URLS, ["me:s3cret@example.org"]], ids=str)
def test_params_refuse_a_url_without_printing_its_secrets(url):
    """Snakemake prints this error as it is."""
    source = {"kind": "url", "path": "constraints.txt", "url": url, "sha256": None, "member": None, "columns": None}
    with pytest.raises(ParamsError) as error:
        parse_params({**SMOKE, "sources": {"notes": source}})
    shown = str(error.value)
    assert (SECRET_URLS[url] if isinstance(url, str) else "sources.notes.url: is refused") in shown
    assert not [secret for secret in (*SECRETS, "s3/cret") if secret in shown]


def test_params_refuse_a_url_path_without_its_secrets():
    source = {**SMOKE["sources"]["digits"], "path": "https://me:s3cret@example.org/a?token=t0ken"}
    with pytest.raises(
        ParamsError, match=r"path: 'https://example\.org/a' is refused: must be a local path, "
    ) as error:
        parse_params({**SMOKE, "sources": {**SMOKE["sources"], "digits": source}})
    assert not [secret for secret in SECRETS if secret in str(error.value)]


def test_the_command_line_refuses_a_url_without_secrets(tmp_path):
    url = "ftp://me:s3cret@example.org/a?token=t0ken"
    source = {"kind": "url", "path": "constraints.txt", "url": url, "sha256": None, "member": None, "columns": None}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({**SMOKE, "sources": {"notes": source}}))
    result = CliRunner().invoke(app, ["check", str(tmp_path / "params.yaml")])
    assert result.exit_code != 0
    shown = result.output + str(result.exception)
    assert "sources.notes.url: 'ftp://example.org/a' is refused" in shown
    assert not [secret for secret in SECRETS if secret in shown]
