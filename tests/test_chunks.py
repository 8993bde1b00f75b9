"""Long documents become chunks that an encoder reads to their end."""

import random
import re
from itertools import pairwise

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import build_tiny_bert

from fusion.inputs.data.texts import Texts
from fusion.inputs.encoders.limits import SLICE, Tokenizing, shortest, tokenizing_of
from fusion.inputs.reading.chunks import LEAST, Chunker, Chunking, chunk_size
from fusion.inputs.reading.pages.markdown import parse
from fusion.inputs.reading.rows import Reject, Row
from fusion.runs.config import RunConfig
from fusion.runs.folder import check_same


class Encoded:
    def __init__(self, text):
        self.offsets = [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]


class Words:
    """A tokenizer of words and marks, as those of encoders begin."""

    def __init__(self):
        self.asked = []

    def encode_batch(self, texts, add_special_tokens):
        self.asked += texts
        return [Encoded(text) for text in texts]


def count(text):
    return len(Encoded(text).offsets)


def chunker(size="auto", overlap=0, room=40):
    return Chunker(Tokenizing("words", Words(), room), Chunking(size, overlap))


def document(content, key="a.md"):
    outline = parse(content.encode())
    title = outline.text[outline.headings[0].start : outline.headings[0].end]
    return Row(key, outline.text, {"title": title}, tuple(outline.headings))


def sentences(count, word="word"):
    return " ".join(f"The {word} number {n} is here." for n in range(count))


PAGE = f"""# Top
{sentences(3, "intro")}
## First
{sentences(20, "first")}
### Below
{sentences(6, "below")}
## Second
{sentences(2, "second")}
"""


def test_chunks_end_at_sentences_and_sections_and_have_the_headings_above():
    row = document(PAGE)
    parts = list(chunker(40).apart([row]))
    assert [part.id for part in parts] == [f"a.md#{n}" for n in range(1, len(parts) + 1)]
    assert max(count(part.text) for part in parts) <= 40
    for part in parts:
        start, end = part.metadata["start"], part.metadata["end"]
        body = row.text[start:end]
        assert part.text.endswith(body)
        assert body.endswith(".")
        path = part.metadata["title"].split(" > ")
        above = part.text.removesuffix(body).strip()
        begins = body.startswith(path[-1] + "\n")
        assert above == " > ".join(path[:-1] if begins else path)
    titles = [part.metadata["title"] for part in parts]
    assert list(dict.fromkeys(titles)) == [
        "Top", "Top > First", "Top > First > Below", "Top > Second",
    ]  # fmt: skip
    assert not any("first" in p.text and "below" in p.text for p in parts)


def test_nothing_is_lost_and_nothing_comes_twice():
    row = document(PAGE)
    for size in (LEAST, 40, 90):
        spans = [
            (part.metadata["start"], part.metadata["end"])
            for part in chunker(size, room=90).apart([row])
        ]
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
        left = list(row.text)
        for start, end in spans:
            left[start:end] = " " * (end - start)
        assert not "".join(left).strip()


def test_an_overlap_repeats_whole_sentences_of_the_chunk_before():
    row = Row("a", sentences(60))
    apart, over = (list(chunker(40, overlap).apart([row])) for overlap in (0, 15))
    assert len(over) > len(apart)
    for one, two in pairwise(over):
        start, end = two.metadata["start"], one.metadata["end"]
        assert 0 < count(row.text[start:end]) <= 15
        assert two.text.startswith("The word")
        assert count(two.text) <= 40


def test_chunks_of_a_section_are_of_about_one_length():
    lengths = [count(p.text) for p in chunker(40).apart([Row("a", sentences(12))])]
    assert sum(lengths) == 12 * 7
    assert max(lengths) - min(lengths) <= 7


def test_texts_that_fit_stay_as_they_are():
    long, fitting = Row("long", sentences(8)), Row("fits", sentences(5), {"x": 1}, number=3)
    reject = Reject("a", 1, "empty")
    own = chunker(room=40)
    items = list(own.apart([fitting, reject, long, fitting]))
    assert items[0] is items[-1] is fitting
    assert items[1] is reject
    assert [item.id for item in items[2:-1]] == ["long#1", "long#2"]
    assert own.words() == "2 of 1 long texts, at most 40 tokens each"
    for room, size in ((None, "auto"), (40, "none")):
        assert list(chunker(size, room=room).apart([long])) == [long]
    assert len(list(chunker(20, room=None).apart([long]))) > 1
    assert len(list(chunker(20).apart([fitting]))) > 1  # a size that is asked for counts for all


def test_a_text_of_just_the_limit_stays_whole():
    exact = Row("exact", sentences(5) + " one two three four five")
    assert count(exact.text) == 40
    assert list(chunker().apart([exact])) == list(chunker(40).apart([exact])) == [exact]
    assert len(list(chunker().apart([Row("over", exact.text + " six")]))) == 2


def test_short_rows_are_not_tokenised():
    own = chunker(room=40)
    list(own.apart([Row("a", "x" * 40), Row("b", "x " * 40)]))
    assert own.tokens.tokenizer.asked == ["x " * 40]


def test_a_title_stands_above_the_chunks_of_what_begins_with_it():
    text = f"A title. {sentences(20)}"
    with_it, without = (
        list(chunker(40).apart([Row("a", words, {"title": "A title."}, number=1)]))
        for words in (text, sentences(20))
    )
    assert [part.text.count("A title.") for part in with_it] == [1] * len(with_it)
    assert [part.text.count("A title.") for part in without] == [0] * len(without)
    assert {part.metadata["title"] for part in without} == {"A title."}


def test_long_headings_leave_room_for_the_text():
    page = f"# {sentences(5)}\n## {sentences(4)}\n### Short\n{sentences(20)}"
    parts = list(chunker(40).apart([document(page)]))
    assert all(count(part.text) <= 40 for part in parts)
    assert parts[-1].text.startswith("Short\nThe word")


def test_what_has_no_sentences_is_cut_at_lines_words_and_tokens():
    code = "\n".join(f"x{n} = f(y{n}, z)" for n in range(30))
    for part in chunker(40).apart([Row("a", code)]):
        assert part.text.startswith("x")
        assert part.text.endswith(")")
    words = [part.text for part in chunker(40).apart([Row("a", "word " * 100)])]
    assert " ".join(words).split() == ["word"] * 100
    marks = [part.text for part in chunker(40).apart([Row("a", "!" * 100)])]
    assert "".join(marks) == "!" * 100
    assert max(map(len, marks)) <= 40


def test_a_book_is_tokenised_in_slices_with_the_same_starts():
    text = " ".join(random.Random(0).choices(["one", "seventeen", "x"], k=2 * SLICE // 4))
    assert len(text) > 2 * SLICE
    tokens = Tokenizing("words", Words(), 40)
    [found] = tokens.starts([text])
    assert list(found) == [start for start, _ in Encoded(text).offsets]
    assert max(map(len, tokens.tokenizer.asked)) <= SLICE


@settings(max_examples=150, deadline=None)
@given(
    page=st.text("# aA.\n-|é1!", max_size=300),
    size=st.integers(LEAST, 40),
    overlap=st.integers(0, LEAST // 2),
)
def test_any_page_is_covered_by_chunks_that_fit(page, size, overlap):
    outline = parse(page.encode())
    if not outline.text.strip():
        return
    row = Row("a", outline.text, {"title": "Aa"}, tuple(outline.headings))
    parts = list(chunker(size, overlap).apart([row]))
    if parts == [row]:
        assert count(row.text) <= size
        return
    left = list(row.text)
    for part in parts:
        assert 0 < count(part.text) <= size
        start, end = part.metadata["start"], part.metadata["end"]
        left[start:end] = " " * (end - start)
    assert not "".join(left).strip()
    starts = [part.metadata["start"] for part in parts]
    assert starts == sorted(set(starts))


@pytest.mark.parametrize(
    ("size", "overlap", "words"),
    [
        ("many", 0, "chunk must be a number of tokens from 16 on, auto or none, got many"),
        ("0", 0, "from 16 on, auto or none, got 0"),
        ("-5", 0, "got -5"),
        ("100", 51, "chunk-overlap must be from 0 to 50, got 51"),
        ("100", -1, "chunk-overlap must be from 0 to 50, got -1"),
        ("none", 5, "chunk-overlap needs chunks"),
    ],
)
def test_sizes_that_cannot_be_are_refused(size, overlap, words):
    with pytest.raises(ValueError, match=words):
        Chunking(chunk_size(size), overlap)
    with pytest.raises(ValueError, match=words):
        RunConfig(chunk=chunk_size(size), chunk_overlap=overlap)


def test_a_chunk_above_an_encoders_limit_is_refused():
    with pytest.raises(ValueError, match="chunk 41 is above the limit of words, which reads 40"):
        chunker(41)
    chunker(40)
    chunker(41, room=None)


def test_the_room_of_an_encoder_leaves_out_its_prompt_and_marks(tmp_path):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(build_tiny_bert(tmp_path)), device="cpu")
    bare, prompted = tokenizing_of("a", model, ""), tokenizing_of("b", model, "the cat: ")
    assert (bare.room, prompted.room) == (30, 27)
    assert shortest([bare, Tokenizing("static", None, None), prompted]) is prompted
    text = "the cat sat on the mat"
    [starts] = bare.starts([text])
    words = [match.start() for match in re.finditer(r"\w+", text)]
    assert sorted(set(starts) & set(words)) == words
    assert len(starts) == len(model.tokenizer(text, add_special_tokens=False)["input_ids"])


def test_a_run_notes_how_texts_are_read_only_where_it_is_not_as_usual(tmp_path):
    usual = RunConfig(("minilm",), texts="pydocs")
    assert "chunk" not in usual.to_dict()
    own = RunConfig(
        ("minilm",), texts="pydocs", chunk=100, text_fields=("title", "text"), lines=True
    )
    plain = own.to_dict()
    assert (plain["chunk"], plain["text_fields"]) == (100, ["title", "text"])
    assert RunConfig.from_dict(yaml.safe_load(yaml.safe_dump(plain))) == own
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(usual.to_dict()), encoding="utf-8")
    check_same(tmp_path, usual.to_dict())
    with pytest.raises(Exception, match="chunk: none there, 100 now"):
        check_same(tmp_path, plain)


def test_texts_to_learn_from_are_chunks_and_retrieval_data_stay_whole(monkeypatch):
    from fusion.runs import fusing

    class Encoder:
        tokens = Tokenizing("words", Words(), 40)

    monkeypatch.setattr(fusing, "FrozenEncoder", Encoder)
    page, plain = document(PAGE), sentences(20)
    texts = Texts(
        "t", ["page", "file", "data"], [page.text, plain, plain], ["Top", "", ""],
        [page.headings, (), None],
    )  # fmt: skip
    found = fusing.take_apart(texts, [Encoder()], Chunking())
    owners = [key.partition("#")[0] for key in found.ids]
    assert owners.count("page") > 3
    assert owners.count("file") > 1
    assert found.ids[-1] == "data"
    told = [title for title in found.titles if title]
    assert len(set(told)) == len(told)
    assert "Top > First > Below" in told
    assert found.texts[-1] == plain
    asked = fusing.take_apart(texts, [Encoder()], Chunking(20))
    assert asked.ids[-1].startswith("data#")
    assert fusing.take_apart(texts, [Encoder()], Chunking("none")).texts == texts.texts
    whole = fusing.take_apart(texts, [Encoder(), object()], Chunking())
    assert whole is texts
    with pytest.raises(ValueError, match="embeddings that lie in files are of whole texts"):
        fusing.take_apart(texts, [object()], Chunking(20))
