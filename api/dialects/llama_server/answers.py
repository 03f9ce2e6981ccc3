"""Events of a job to llama-server's answers, whole and streamed. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from api.dialects.openai.generation.usage import timings_object
from api.dialects.sampling_fields import LLAMA_SERVER
from api.web.errors import Problem
from jobs.contract.events import Event, EventKind, TokenLogprob, Usage
from jobs.contract.requests import GenerateRequest

_encode = msgspec.json.encode


class NativeView:
    """How one job is shown, as its client chose."""

    def __init__(self, request: GenerateRequest) -> None:
        self.request = request

    def whole(self, events: Iterable[Event]) -> bytes:
        """The body of an answer that is not streamed; ``events`` are all of the job's."""
        return _encode(self.shown(events))

    def shown(self, events: Iterable[Event]) -> Any:
        """One object, or a list of them for several prompts."""
        texts = [_Text() for _ in self.request.prompts]
        end: Event | None = None
        for event in events:
            end = event
            if event.kind is EventKind.CHUNK:
                texts[event.choice].take(event)
        shown = [self._shown(index, text, end) for index, text in enumerate(texts)]
        return shown[0] if len(shown) == 1 else shown

    def _shown(self, index: int, text: _Text, end: Event | None) -> dict[str, Any]:
        view = self.request.view
        tokens = text.token_ids if view.has_tokens else []
        found = self.final(index, text, end, "".join(text.parts), tokens)
        if self.request.sampling.num_logprobs is not None:
            found["completion_probabilities"] = [_probability(token) for token in text.logprobs]
        return _chosen(found, view.fields) if view.fields else found

    def final(
        self, index: int, text: _Text, end: Event | None, content: str, tokens: list[int]
    ) -> dict[str, Any]:
        """The object that ends a text."""
        usage = (end.usage if end else None) or Usage()
        counts = usage.prompts[index] if usage.prompts else usage
        prompt = self.request.prompts[index]
        return {
            "index": index,
            "content": content,
            "tokens": tokens,
            "id_slot": 0,
            "stop": True,
            "model": self.request.model,
            "tokens_predicted": len(text.token_ids),
            "tokens_evaluated": counts.prompt_tokens,
            "tokens_cached": counts.cached_tokens,
            "generation_settings": settings_object(self.request),
            "prompt": prompt.text if prompt.text is not None else prompt.token_ids or [],
            "has_new_line": any("\n" in part for part in text.parts),
            "truncated": False,
            "stop_type": text.stop_type,
            "stopping_word": text.stopping_word,
            "timings": timings_object(end.timings if end else None, usage),
        }


class _Text:
    """One text as its chunks build it."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.token_ids: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        self.finish_reason = ""
        self.stopping_word = ""

    @property
    def stop_type(self) -> str:
        """llama-server's word for why the text ends."""
        if not self.finish_reason:
            return "none"
        if self.finish_reason == "length":
            return "limit"
        return "word" if self.stopping_word else "eos"

    def take(self, event: Event) -> None:
        self.parts.append(event.text)
        self.token_ids += event.token_ids
        self.logprobs += event.logprobs or ()
        self.finish_reason = event.finish_reason or self.finish_reason
        self.stopping_word = event.stop or self.stopping_word


class NativeEncoder:
    """The frames of one streamed answer; it ends without ``[DONE]``."""

    def __init__(self, view: NativeView) -> None:
        self._view = view
        self._texts = [_Text() for _ in view.request.prompts]

    def feed(self, event: Event) -> bytes:
        """The frames that ``event`` makes, possibly none."""
        if event.kind is EventKind.CHUNK:
            self._texts[event.choice].take(event)
            return b"".join(self._chunks(event))
        if event.kind is EventKind.FINISHED:
            ends = (self._view.final(i, text, event, "", []) for i, text in enumerate(self._texts))
            return b"".join(map(_frame, ends))
        return b""

    def failed(self, problem: Problem) -> bytes:
        """The error's frame, the last one."""
        return problem.frame()

    def _chunks(self, event: Event) -> Iterable[bytes]:
        """One frame, or with probabilities one per token; the text comes with the last."""
        shown = {"index": event.choice, "stop": False, "id_slot": 0}
        tokens = event.logprobs or ()
        for number, token in enumerate(tokens, start=1):
            yield _frame(
                {
                    **shown,
                    "content": event.text if number == len(tokens) else "",
                    "tokens": [token.token_id],
                    "completion_probabilities": [_probability(token)],
                }
            )
        if not tokens and (event.text or event.token_ids):
            yield _frame({**shown, "content": event.text, "tokens": event.token_ids})


def _frame(shown: dict[str, Any]) -> bytes:
    return b"data: " + _encode(shown) + b"\n\n"


def _probability(token: TokenLogprob) -> dict[str, Any]:
    return {**_entry(token), "top_logprobs": [_entry(one) for one in token.top]}


def _entry(token: TokenLogprob) -> dict[str, Any]:
    return {
        "id": token.token_id,
        "token": token.text,
        "bytes": token.raw,
        "logprob": token.logprob,
    }


def settings_object(request: GenerateRequest) -> dict[str, Any]:
    """The values that held, under llama-server's names."""
    sampling = request.sampling
    return {
        **LLAMA_SERVER.shown(sampling),
        "n_predict": -1 if request.max_tokens is None else request.max_tokens,
        "stop": request.stop,
        "stream": request.stream,
        "n_probs": sampling.num_logprobs or 0,
        "logit_bias": [
            {"token": token_id, "bias": bias} for token_id, bias in sampling.logit_bias.items()
        ],
        "grammar": request.grammar.text if request.grammar else "",
    }


def _chosen(found: dict[str, Any], fields: list[str]) -> dict[str, Any]:
    """The fields that the client named; ``a/b`` is b inside a. Unknown ones are left out."""
    chosen = {}
    for field in fields:
        value: Any = found
        for part in field.split("/"):
            value = value.get(part, _MISSING) if isinstance(value, dict) else _MISSING
        if value is not _MISSING:
            chosen[field] = value
    return chosen


_MISSING = object()
