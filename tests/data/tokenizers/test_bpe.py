"""Trained tokenizers of the `tokenizers` library: text survives, and no document ends itself."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from mdpipe.data.tokenizers.bpe import JsonTokenizer

END = "<|endoftext|>"
GPT2 = Path(__file__).parents[3].parent / "shared/data/gpt2_bpe"
LINES = ["the value of the expression is true\n", "a naïve    statement,\r\n\tis executed 12 times\n", "def t(): …"] * 5
SPECIAL = [END, "<|", "endoftext", "|>", "Ġ", "é", "\0", "\r\n", "\n", "  ", "\u2581", "\ufeff", "\ufffd", "e\u0301"]

unicode_text = st.text(st.characters(exclude_categories=["Cs"]))
any_text = st.lists(st.one_of(unicode_text, st.sampled_from([*SPECIAL, "the", " statement"]))).map("".join)


def train():
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=[END, "<|mask|>"], show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same byte pairs as vocab.json with merges.txt, and as tokenizer.json."""
    folder, tokenizer = tmp_path_factory.mktemp("trained"), train()
    tokenizer.model.save(str(folder))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module", params=["gpt2", "file"])
def tokenizer(request, folder):
    if request.param == "gpt2":
        return JsonTokenizer.from_gpt2(folder)
    return JsonTokenizer.from_file(folder / "tokenizer.json", END)


@pytest.fixture
def write(tmp_path):
    """write(tokenizer): its tokenizer.json."""

    def to_file(tokenizer):
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        return tmp_path / "tokenizer.json"

    return to_file


def saved(tokenizer, directory):
    directory.mkdir(exist_ok=True)
    tokenizer.save(directory)
    return {file.name: file.read_bytes() for file in directory.iterdir()}


@settings(max_examples=300)
@given(text=any_text)
def test_any_text_survives_encoding_and_decoding(tokenizer, text):
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int64
    assert tokenizer.decode(ids) == text
    assert not {*tokenizer.separator} & {*ids.tolist()}
    assert all(0 <= id < tokenizer.vocabulary for id in ids)


@given(ids=st.lists(st.integers(0, 299)))
def test_any_ids_decode_to_text(tokenizer, ids):
    tokenizer.decode(np.array(ids, dtype=np.uint16)).encode()


def test_bytes_that_are_no_utf8_become_the_replacement_character(tokenizer):
    first_byte = tokenizer.encode("…")[:1]
    assert tokenizer.decode(first_byte) == "\ufffd"


def test_both_forms_of_the_same_byte_pairs_are_the_same_tokenizer(folder):
    ours, file = JsonTokenizer.from_gpt2(folder), JsonTokenizer.from_file(folder, END)
    assert (ours.kind, ours.vocabulary, ours.separator, ours.lossless) == ("json", 300, (0,), True)
    assert (file.kind, file.vocabulary, file.separator, file.lossless) == ("json", 300, (0,), True)
    assert all(ours.encode(line).tolist() == file.encode(line).tolist() for line in LINES)


def test_known_ids_of_a_tiny_vocabulary(tmp_path):
    vocabulary = {"a": 0, "b": 1, "Ġ": 2, "ab": 3, "Ġab": 4, "abab": 5, END: 9}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\nĠ ab\nab ab\n", encoding="utf-8")
    tiny = JsonTokenizer.from_gpt2(str(tmp_path))
    assert tiny.encode("abab ab ba").tolist() == [5, 4, 2, 1, 0]
    assert tiny.decode(np.array([5, 4, 2, 1, 0])) == "abab ab ba"
    assert tiny.separator == (9,)
    assert tiny.vocabulary == 10  # one more than the largest id, although there are but seven
    assert not tiny.lossless  # it has no ids for most bytes


def test_the_separator_and_other_special_tokens_decode_to_nothing(tokenizer):
    ids = [*tokenizer.encode("one"), *tokenizer.separator, *tokenizer.encode("two")]
    assert tokenizer.decode(np.array(ids)) == "onetwo"


@pytest.mark.parametrize("special", [True, False])
def test_the_literal_end_of_text_is_no_separator(write, special):
    """Nor is any other special token; an added one that is not special remains a token."""
    trained = train()
    trained.add_tokens([AddedToken("<|end|>", special=special), AddedToken("<|word|>", special=False)])
    tokenizer = JsonTokenizer.from_file(write(trained), "<|end|>")
    assert tokenizer.separator == (300,)
    text = f"the<|end|>{END}<|mask|><|word|><|end|>"
    ids = tokenizer.encode(text).tolist()
    assert not {0, 1, 300} & {*ids}
    assert 301 in ids
    assert tokenizer.decode(np.array(ids)) == text
    assert tokenizer.decode(np.array([300])) == ""


@pytest.mark.parametrize("text", ["</s>", "a</s>b", "</s></s>a", "<</s>/s>", "aé</s>"])
def test_an_end_of_text_among_the_ordinary_pieces_is_cut(write, text):
    pieces = [("<unk>", 0.0), ("</s>", -1.0), *((letter, -9.0) for letter in "ab</s>é")]
    tokenizer = JsonTokenizer.from_file(write(tokenizers.Tokenizer(models.Unigram(pieces, 0))), "</s>")
    ids = tokenizer.encode(text).tolist()
    assert tokenizer.separator == (1,)
    assert [pieces[id][0] for id in ids] == list(text)


def test_an_end_of_text_that_overlaps_itself_is_cut_everywhere(write):
    model = models.BPE({"a": 0, "b": 1, "aa": 2}, [("a", "a")])
    tokenizer = JsonTokenizer.from_file(write(tokenizers.Tokenizer(model)), "aa")
    assert tokenizer.encode("aaaaaba").tolist() == [0, 0, 0, 0, 0, 1, 0]


def test_a_text_with_no_other_id_than_the_end_of_text_is_refused(write):
    tokenizer = JsonTokenizer.from_file(write(train()), "!")
    assert not tokenizer.lossless
    with pytest.raises(ValueError, match=r"the text '!' is the end of text .*; choose another end_of_text"):
        tokenizer.encode("the value!")


def test_the_file_adds_truncates_pads_and_randomises_nothing(write, tmp_path):
    trained = train()
    plain = JsonTokenizer(json.loads(trained.to_str()), END)
    trained.post_processor = processors.TemplateProcessing(single=f"{END} $0 {END}", special_tokens=[(END, 0)])
    trained.enable_truncation(3)
    trained.enable_padding(length=50)
    trained.model.dropout = 0.9
    tokenizer = JsonTokenizer.from_file(write(trained), END)
    saved(tokenizer, tmp_path / "saved")
    for made in (tokenizer, JsonTokenizer.load(tmp_path / "saved", "run it again")):
        for line in LINES:
            assert made.encode(line).tolist() == plain.encode(line).tolist()


def test_a_saved_tokenizer_comes_back_with_the_same_bytes(tokenizer, tmp_path):
    first = saved(tokenizer, tmp_path / "first")
    back = JsonTokenizer.load(tmp_path / "first", "run it again")
    assert set(first) == {"tokenizer.json", "model.json"}
    assert json.loads(first["tokenizer.json"]) == {"kind": "json", "vocabulary": 300, "end_of_text": 0}
    assert saved(back, tmp_path / "second") == saved(tokenizer, tmp_path / "first") == first
    assert (back.vocabulary, back.separator, back.lossless) == (300, (0,), True)
    for text in [*LINES, "".join(SPECIAL)]:
        assert back.encode(text).tolist() == tokenizer.encode(text).tolist()


def test_equal_files_make_equal_bytes_in_any_process(folder, tmp_path):
    code = "import sys, pathlib; from mdpipe.data.tokenizers.bpe import JsonTokenizer\n"
    code += "JsonTokenizer.from_gpt2(sys.argv[1]).save(pathlib.Path(sys.argv[2]))"
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        subprocess.run([sys.executable, "-c", code, folder, tmp_path / place], check=True)
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
    pieces = [("[UNK]", 0.0), ("[SEP]", 0.0), *((f"the{n}", float(score)) for n, score in enumerate(scores))]
    tokenizer = tokenizers.Tokenizer(models.Unigram(pieces, 0))
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
    tokenizer = JsonTokenizer.from_file(write(make()), "[SEP]")
    first = saved(tokenizer, tmp_path / "first")
    back = JsonTokenizer.load(tmp_path / "first", "run it again")
    assert saved(back, tmp_path / "second") == first
    assert back._tokenizer.to_str() == tokenizer._tokenizer.to_str()
    assert back.encode("then [SEP] the7").tolist() == tokenizer.encode("then [SEP] the7").tolist()
    assert not tokenizer.lossless
    assert 1 not in tokenizer.encode("then [SEP] the7")


def split(behavior):
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\s+"), behavior), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )


LOSSY = {
    "normalizer": normalizers.NFC(),
    "pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=True),
    "decoder": decoders.Fuse(),
}


@pytest.mark.parametrize("part", LOSSY)
def test_a_tokenizer_with_a_part_that_alters_text_is_not_lossless(write, part):
    trained = train()
    setattr(trained, part, LOSSY[part])
    assert not JsonTokenizer.from_file(write(trained), END).lossless


@pytest.mark.parametrize(("behavior", "lossless"), [("isolated", True), ("merged_with_next", True), ("removed", False)])
def test_splits_before_the_bytes_are_lossless_unless_they_remove(write, behavior, lossless):
    trained = train()
    trained.pre_tokenizer = split(behavior)
    tokenizer = JsonTokenizer.from_file(write(trained), END)
    assert tokenizer.lossless is lossless
    assert (tokenizer.decode(tokenizer.encode(LINES[1])) == LINES[1]) is lossless


@pytest.mark.parametrize(
    ("added", "lossless"),
    [
        (AddedToken("    "), True),
        (AddedToken("é"), False),  # its letter stands for another byte in a byte-level vocabulary
        (AddedToken("is", lstrip=True), False),
        (AddedToken("is", rstrip=True), False),
        (AddedToken("is", special=True), False),  # also a merge, so that it is found in text, and decoded to nothing
    ],
)
def test_added_tokens_can_cost_text(write, added, lossless):
    trained = train()
    trained.add_tokens([added])
    tokenizer = JsonTokenizer.from_file(write(trained), END)
    assert tokenizer.lossless is lossless
    text = "is naïve é    \n is is true"
    assert (tokenizer.decode(tokenizer.encode(text)) == text) is lossless


@pytest.mark.parametrize("file", ["vocab.json", "merges.txt"])
def test_a_missing_file_is_named_with_the_cure(folder, tmp_path, file):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / file).unlink()
    with pytest.raises(ValueError, match=rf"{file} does not exist; name a folder with the vocab\.json and merges\.txt"):
        JsonTokenizer.from_gpt2(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"\xff"'])
def test_a_broken_vocabulary_is_named_with_the_cure(folder, tmp_path, content):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "vocab.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"vocab\.json (is broken|should hold).*; name a folder with"):
        JsonTokenizer.from_gpt2(tmp_path)


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
        JsonTokenizer.from_gpt2(tmp_path)


def test_an_id_that_two_tokens_share_is_refused(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "b": 0, END: 1}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(ValueError, match=r"vocab\.json gives one id to two tokens"):
        JsonTokenizer.from_gpt2(tmp_path)


@pytest.mark.parametrize("content", [None, "", "{", "{}", "[]", '{"model": {"type": "BPE", "vocab": {}}}'])
def test_a_broken_tokenizer_file_is_named_with_the_cure(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json (is|does|should) .*; name a tokenizer\.json of the"):
        JsonTokenizer.from_file(path, END)


def test_an_unknown_end_of_text_is_refused_with_the_special_tokens_there_are(folder):
    known = r"'</s>' is no token of .*tokenizer\.json, whose special tokens are '<\|endoftext\|>', '<\|mask\|>'; change"
    with pytest.raises(ValueError, match=known):
        JsonTokenizer.from_file(folder / "tokenizer.json", "</s>")
    with pytest.raises(ValueError, match=r"'</s>' is no token of .*vocab\.json; change it in params\.yaml"):
        JsonTokenizer.from_gpt2(folder, end_of_text="</s>")


@pytest.mark.parametrize("file", ["tokenizer.json", "model.json"])
@pytest.mark.parametrize("content", [None, "", '{"end_of_text": 300}', '{"end_of_text": [0]}'])
def test_a_damaged_saved_tokenizer_is_named_with_the_cure(tokenizer, tmp_path, file, content):
    tokenizer.save(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_text(content)
    with pytest.raises(ValueError, match=rf"{file} .*; run it again"):
        JsonTokenizer.load(tmp_path, "run it again")


def offline(home, *arguments):
    """Run resolve in a process that may not ask the Hub, with its cache in `home`."""
    code = "import sys; from mdpipe.data.tokenizers.bpe import resolve\n"
    code += "try: print(resolve(sys.argv[1], ['vocab.json', 'merges.txt'], *sys.argv[2:] or [None]))\n"
    code += "except ValueError as error: print('refused:', error, error.__suppress_context__)"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "HF_HUB_CACHE": str(home / "hub")}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, cwd=home, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("name", ["someone/model", "./no/folder", "no name"])
def test_without_the_hub_the_files_to_get_are_named(tmp_path, name):
    message = offline(tmp_path, name)
    assert message.startswith(f"refused: {name} is no path here, and the Hugging Face Hub gives no vocab.json and")
    assert "; put the named files into a local folder and name that in params.yaml True" in message


def test_files_that_the_hub_gave_before_are_found_by_their_revision(folder, tmp_path):
    commit = "0123456789" * 4
    snapshot = tmp_path / "hub/models--someone--model/snapshots" / commit
    shutil.copytree(folder, snapshot)
    assert offline(tmp_path, "someone/model", commit) == str(snapshot)
    assert offline(tmp_path, "someone/model", "f" * 40).startswith("refused: ")


def test_a_local_path_is_taken_as_it_is(folder, tmp_path):
    assert offline(tmp_path, str(folder)) == str(folder)
    assert offline(tmp_path, str(folder / "tokenizer.json")) == str(folder / "tokenizer.json")


@pytest.mark.skipif(not GPT2.is_dir(), reason="GPT-2's vocabulary is not here")
def test_gpt2s_own_ids():
    gpt2 = JsonTokenizer.from_gpt2(GPT2)
    assert (gpt2.vocabulary, gpt2.separator, gpt2.lossless) == (50257, (50256,), True)
    for text, ids in {
        "Hello world": [15496, 995],
        " Hello world": [18435, 995],
        "Hello, world!": [15496, 11, 995, 0],
        END: [27, 91, 437, 1659, 5239, 91, 29],
    }.items():
        assert gpt2.encode(text).tolist() == ids
        assert gpt2.decode(np.array(ids)) == text
    assert gpt2.decode(np.array([15496, 50256, 995])) == "Hello world"
