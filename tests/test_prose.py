"""Which plain files look like one document, whose lines are no texts of their own."""

import textwrap

import pytest

from fusion.inputs.data.prose import FEWEST, is_one_document

STORY = (
    "The ferry left the island at six. It carried two cars and a cart of apples. Nobody on deck "
    "had slept. The captain knew every rock of that coast by name. He had learned them from his "
    "mother. She had sailed here before there was a lighthouse. Fog came up behind the second "
    "buoy. That was nothing new in March. The engine was slowed until one could hear the bell. "
    "But the bell was on the wrong side. The mate went forward with a lamp. There was a wall of "
    "grey, and then a darker one. Both men shouted at once. The wheel went over as far as it "
    "would go. A long scrape ran along the hull. Then the ferry hung still. Apples rolled across "
    "the deck and into the sea. They were counted later by the gulls. The passengers put on what "
    "they had for life jackets. However, no water came in. At noon the fog lifted, and the shore "
    "lay a short swim away."
)
SENTENCES = STORY.replace(". ", ".\n").split("\n")
PARAGRAPHS = [  # of two sentences, one a line, as questions and their answers are kept
    f"{what} is found under Settings. Press Save when it is as you like it."
    for what in (
        "The language", "The time zone", "Dark mode", "Your signature", "The ringtone", "The PIN",
        "The list of blocked numbers", "Two-step login", "The default folder", "Automatic backup",
        "The size of letters", "The invoice address", "The newsletter", "The vacation reply",
        "Your avatar", "The preferred currency", "The spelling checker", "The proxy", "Wi-Fi",
        "The printer", "The search provider", "Battery saving",
    )
]  # fmt: skip
CAPTIONS = [f"A {animal} is standing in front of an old red barn." for animal in (
    "dog", "cat", "horse", "goat", "sheep", "goose", "donkey", "mule", "pony", "calf", "cow",
    "duck", "hen", "rooster", "turkey", "pig", "rabbit", "llama", "mare", "fox", "deer", "boar",
)]  # fmt: skip
MESSAGES = [  # in lower case, some with a full stop
    "how do i reset my password", "my parcel has not come yet", "where is the nearest shop.",
    "i would like to return a pair of boots that are too small for me", "do you ship to norway",
    "the app closes when i open a picture", "can i pay by invoice", "cancel my order please.",
    "what does the extended warranty cover and for how long", "is the blue one back in stock",
    "i was charged twice", "change my address", "your site does not load on my phone at all",
    "which size should i take if i am between two", "how long does delivery take to iceland",
    "i cannot find the discount that you sent", "please call me back", "is it made of wool",
    "the zip broke after two days of careful use and i want my money back", "thanks a lot for it.",
    "do you have a shop in bergen or somewhere near it", "who do i write to about a job",
]  # fmt: skip


@pytest.mark.parametrize("width", [40, 60, 72, 100])
def test_hard_wrapped_prose_is_one_document(width):
    lines = textwrap.wrap(" ".join([STORY] * 3), width)
    assert len(lines) >= FEWEST
    assert is_one_document(lines)
    assert is_one_document([line for start in lines for line in (start, "")])


def test_sentences_that_need_one_another_are_one_document():
    assert len(SENTENCES) >= FEWEST
    assert is_one_document(SENTENCES)


@pytest.mark.parametrize(
    "lines", [PARAGRAPHS, CAPTIONS, MESSAGES], ids=["paragraphs", "captions", "messages"]
)
def test_short_texts_one_a_line_are_many(lines):
    assert len(lines) >= FEWEST
    assert not is_one_document(lines)


def test_short_paragraphs_of_a_story_are_many():
    pairs = [" ".join(pair) for pair in zip(SENTENCES[::2], SENTENCES[1::2], strict=False)]
    assert not is_one_document(pairs * 3)


def test_few_lines_tell_nothing():
    assert not is_one_document(SENTENCES[: FEWEST - 1])
