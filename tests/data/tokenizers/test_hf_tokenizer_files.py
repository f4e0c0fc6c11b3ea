"""Files of trained tokenizers: saved to the last bit, and refused with a hint where they are not whole."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors

from mdpipe.data.tokenizers.hf_tokenizer import HFTokenizer
from tests.data.tokenizers.trained import END, LINES, SPECIAL, from_file, from_gpt2, train


def saved(tokenizer, directory):
    directory.mkdir(exist_ok=True)
    tokenizer.save(directory)
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_the_file_adds_truncates_pads_and_randomises_nothing(write, tmp_path):
    trained = train()
    plain = HFTokenizer(json.loads(trained.to_str()), END)
    trained.post_processor = processors.TemplateProcessing(single=f"{END} $0 {END}", special_tokens=[(END, 0)])
    trained.enable_truncation(3)
    trained.enable_padding(length=50)
    trained.model.dropout = 0.9
    tokenizer = from_file(write(trained), END)
    saved(tokenizer, tmp_path / "saved")
    for made in (tokenizer, HFTokenizer.load(tmp_path / "saved", "run it again")):
        for line in LINES:
            assert made.encode(line).tolist() == plain.encode(line).tolist()


def test_a_saved_tokenizer_comes_back_with_the_same_bytes(tokenizer, tmp_path):
    first = saved(tokenizer, tmp_path / "first")
    back = HFTokenizer.load(tmp_path / "first", "run it again")
    assert set(first) == {"tokenizer.json", "model.json"}
    assert json.loads(first["tokenizer.json"]) == {"kind": "hf_tokenizer", "vocab_size": 300, "eos_id": 0}
    assert saved(back, tmp_path / "second") == saved(tokenizer, tmp_path / "first") == first
    assert (back.vocab_size, back.eos_id, back.is_lossless) == (300, 0, True)
    for text in [*LINES, "".join(SPECIAL)]:
        assert back.encode(text).tolist() == tokenizer.encode(text).tolist()


def test_equal_files_make_equal_bytes_in_any_process(folder, tmp_path):
    code = "import sys, pathlib; from tests.data.tokenizers.trained import from_gpt2\n"
    code += "from_gpt2(sys.argv[1]).save(pathlib.Path(sys.argv[2]))"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        subprocess.run([sys.executable, "-c", code, folder, tmp_path / name], check=True)
    for file in ("tokenizer.json", "model.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert os.fsencode(folder) not in (tmp_path / "one" / "model.json").read_bytes()


def word_piece():
    tokenizer = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "[SEP]": 1, "the": 2, "##n": 3}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[UNK] $0 [SEP]", special_tokens=[("[SEP]", 1), ("[UNK]", 0)]
    )
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def unigram():
    scores = np.random.default_rng(0).normal(size=40) * 10.0 ** np.arange(-20, 20)
    subwords = [("[UNK]", 0.0), ("[SEP]", 0.0), *((f"the{n}", float(score)) for n, score in enumerate(scores))]
    tokenizer = tokenizers.Tokenizer(models.Unigram(subwords, 0))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def word_level():
    tokenizer = tokenizers.Tokenizer(models.WordLevel({"then": 0, "[SEP]": 1, "[UNK]": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


@pytest.mark.parametrize("make", [word_piece, unigram, word_level])
def test_every_model_of_the_library_is_saved_as_it_was(write, tmp_path, make):
    """To the last bit of the scores, which the library by itself changes whenever it reads what it wrote."""
    tokenizer = from_file(write(make()), "[SEP]")
    first = saved(tokenizer, tmp_path / "first")
    back = HFTokenizer.load(tmp_path / "first", "run it again")
    assert saved(back, tmp_path / "second") == first
    assert back._tokenizer.to_str() == tokenizer._tokenizer.to_str()
    assert back.encode("then [SEP] the7").tolist() == tokenizer.encode("then [SEP] the7").tolist()
    assert not tokenizer.is_lossless
    assert 1 not in tokenizer.encode("then [SEP] the7")


@pytest.mark.parametrize("file", ["vocab.json", "merges.txt"])
def test_a_missing_file_is_named_with_a_hint(folder, tmp_path, file):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / file).unlink()
    with pytest.raises(ValueError, match=rf"{file} does not exist; name a folder with the vocab\.json and merges\.txt"):
        from_gpt2(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"\xff"'])
def test_a_broken_vocabulary_is_named_with_a_hint(folder, tmp_path, content):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "vocab.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"vocab\.json (is not JSON|should hold).*; name a folder with"):
        from_gpt2(tmp_path)


@pytest.mark.parametrize(
    ("vocabulary", "merges"),
    [
        ({"a": 0, "b": 1, END: 2}, "a c"),
        ({"a": 0, "b": 1, END: 2}, "a b"),
        ({"a": 0, "b": 1}, "a b"),  # on which the library panics
        ({"a": 0, "b": 1, "ab": 2}, "a b c"),
        ({"a": "zero"}, ""),
    ],
)
def test_merges_that_do_not_fit_the_vocabulary_are_refused(tmp_path, vocabulary, merges):
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    with pytest.raises(ValueError, match=r"merges\.txt does not fit .*vocab\.json .*; name a folder with"):
        from_gpt2(tmp_path)


def test_an_id_that_two_tokens_share_is_refused(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "b": 0, END: 1}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(ValueError, match=r"vocab\.json gives one id to two tokens"):
        from_gpt2(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"model": {"type": "BPE", "vocab": {}}}'])
def test_a_broken_tokenizer_file_is_named_with_a_hint(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json (is|does|should) .*; name a tokenizer\.json of the"):
        from_file(path, END)


def test_an_unknown_eos_token_is_refused_with_the_special_tokens(folder, tmp_path):
    known = r"'</s>' is not a token of .*tokenizer\.json, whose special tokens are '<\|endoftext\|>', '<\|mask\|>';"
    with pytest.raises(ValueError, match=known):
        from_file(folder / "tokenizer.json", "</s>")
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(ValueError, match=r"'<\|endoftext\|>' is not a token of .*vocab\.json; change it in params"):
        from_gpt2(tmp_path)


@pytest.mark.parametrize("file", ["tokenizer.json", "model.json"])
@pytest.mark.parametrize("content", [None, "", '{"eos_id": 300}', '{"eos_id": [0]}'])
def test_a_damaged_saved_tokenizer_is_named_with_a_hint(tokenizer, tmp_path, file, content):
    tokenizer.save(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_text(content)
    with pytest.raises(ValueError, match=rf"{file} .*; run it again"):
        HFTokenizer.load(tmp_path, "run it again")


def offline(home, *arguments):
    """Run _resolve in a process that may not ask the Hub, with its cache in `home`."""
    code = "import sys; from mdpipe.data.tokenizers.hf_tokenizer import _resolve\n"
    code += "try: print(_resolve(sys.argv[1], ['vocab.json', 'merges.txt'], *sys.argv[2:] or [None]))\n"
    code += "except ValueError as error: print('refused:', error, error.__suppress_context__)"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "HF_HUB_CACHE": str(home / "hub")}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, cwd=home, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("name", ["someone/model", "./no/folder", "no name"])
def test_without_the_hub_the_files_to_get_are_named(tmp_path, name):
    message = offline(tmp_path, name)
    assert message.startswith(f"refused: {name} is not a local path, and the Hugging Face Hub has no vocab.json and")
    assert "; put the named files into a local folder and name that in params.yaml True" in message


def test_cached_hub_files_are_found_by_their_revision(folder, tmp_path):
    commit = "0123456789" * 4
    snapshot = tmp_path / "hub/models--someone--model/snapshots" / commit
    shutil.copytree(folder, snapshot)
    assert offline(tmp_path, "someone/model", commit) == str(snapshot)
    assert offline(tmp_path, "someone/model", "f" * 40).startswith("refused: ")


def test_a_local_path_is_taken_as_it_is(folder, tmp_path):
    assert offline(tmp_path, str(folder)) == str(folder)
    assert offline(tmp_path, str(folder / "tokenizer.json")) == str(folder / "tokenizer.json")
