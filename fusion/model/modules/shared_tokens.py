"""Texts are tokenised once for all encoders that have one vocabulary."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from torch import Tensor

from .settings import PROMPTS, FusionSettings

PROBES = ["", "A", "Query: naïve Text, e\u0301tude\n(2nd)", "the cat and the dog " * 200]


@dataclass(frozen=True)
class SharedTokens:
    """Encoders with one vocabulary: texts are tokenised once, each one's prompt is spliced in."""

    members: dict[int, SentenceTransformer]
    """By their place in the model."""

    @classmethod
    def find(
        cls, encoders: Sequence[SentenceTransformer], settings: FusionSettings
    ) -> "list[SharedTokens]":
        """Groups of two or more whose spliced tokens were found equal to their own."""
        alike: dict[str, dict[int, SentenceTransformer]] = {}
        for row, encoder in enumerate(encoders):
            if rules := _token_rules(encoder):
                alike.setdefault(rules, {})[row] = encoder
        groups = [cls(members) for members in alike.values() if len(members) > 1]
        prompts = [
            [getattr(entry, f"{role}_prompt") for entry in settings.encoders] for role in PROMPTS
        ]
        return [group for group in groups if all(group.agrees(side) for side in prompts)]

    def agrees(self, prompts: Sequence[str]) -> bool:
        """Whether splicing gives what each encoder's own tokeniser gives, on awkward texts."""
        spliced = self.features(PROBES, prompts)
        for row, encoder in self.members.items():
            tokenise: Any = encoder[0].preprocess
            own = tokenise(PROBES, prompt=prompts[row])
            own.pop("prompt_length", None)
            if own.keys() != spliced[row].keys():
                return False
            tensors = [key for key in own if isinstance(own[key], Tensor)]
            if not all(torch.equal(own[key], spliced[row][key]) for key in tensors):
                return False
        return True

    def features(
        self,
        texts: Sequence[str],
        prompts: Sequence[str],
        hear: Callable[[int, list[int]], None] | None = None,
    ) -> dict[int, dict[str, Any]]:
        """Features by the encoder's place; encoders with equal prompts share their tensors."""
        tokenizer = next(iter(self.members.values())).tokenizer
        limits = {row: int(encoder.max_seq_length or 0) for row, encoder in self.members.items()}
        plain = {"add_special_tokens": False, "return_attention_mask": False}
        bodies = tokenizer(list(texts), truncation=True, max_length=max(limits.values()), **plain)
        whole = token_counts(bodies) if hear else []
        first, last = tokenizer("")["input_ids"]
        made: dict[tuple[str, int], dict[str, Any]] = {}
        for row, limit in limits.items():
            key = (prompts[row], limit)
            lead = tokenizer(prompts[row], **plain)["input_ids"] if prompts[row] else []
            if hear:
                hear(row, [2 + len(lead) + length for length in whole])
            if key in made:
                continue
            rows = [[first, *(lead + ids)[: limit - 2], last] for ids in bodies["input_ids"]]
            width = max(map(len, rows))
            filled = [ids + [tokenizer.pad_token_id] * (width - len(ids)) for ids in rows]
            lengths = torch.tensor([len(ids) for ids in rows])
            tensors = {
                "input_ids": torch.tensor(filled),  # (n, t)
                "attention_mask": (torch.arange(width) < lengths[:, None]).long(),  # (n, t)
            }
            tensors["token_type_ids"] = torch.zeros_like(tensors["input_ids"])
            names = [name for name in tokenizer.model_input_names if name in tensors]
            made[key] = {name: tensors[name] for name in names} | {"modality": "text"}
        return {row: made[prompts[row], limit] for row, limit in limits.items()}


def token_counts(tokens: Any, tokenizer: Any = None) -> list[int]:  # noqa: ANN401 - any library's
    """Tokens of each text, those cut off too; nothing where the tokenizer does not say."""
    special = tokenizer.num_special_tokens_to_add(False) if tokenizer else 0  # in each part
    return [
        sum(part.attention_mask) + sum(sum(o.attention_mask) - special for o in part.overflowing)
        for part in getattr(tokens, "encodings", None) or []
    ]


def _token_rules(encoder: SentenceTransformer) -> str | None:
    """What decides an encoder's tokens; None where splicing is out of the question."""
    first: Any = encoder[0]
    backend = getattr(encoder.tokenizer, "backend_tokenizer", None)
    if type(first) is not Transformer or backend is None or first.max_seq_length is None:
        return None
    if getattr(first, "can_flatten_inputs", False) or encoder.tokenizer.padding_side != "right":
        return None
    if not all(getattr(module, "include_prompt", True) for module in encoder):
        return None  # pooling must then know where a prompt ends
    if len(encoder.tokenizer("")["input_ids"]) != 2:
        return None
    rules = json.loads(backend.to_str())
    rules |= {"truncation": None, "padding": None}  # of the last call, not of the vocabulary
    return json.dumps([rules, encoder.tokenizer.model_input_names], sort_keys=True)
