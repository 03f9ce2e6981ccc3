"""Parameters of other servers that ask for what is not done here: refused by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import create_model

from api.web.base_schema import Body
from jobs.contract.errors import UnsupportedParameterError


class Refusal(NamedTuple):
    """Why a parameter is refused, and the values that change nothing and are taken.

    ``null`` is always taken.
    """

    reason: str
    neutral: tuple[Any, ...] = ()


_NO_BEAMS = "there is no beam search"
_NO_SUCH_SAMPLER = "there is no such sampler"
_ONLY_TEXT = "only texts are read and written"
_ONE_WINDOW = "all penalties have one window: use repetition_context_size"
REFUSED = {
    # OpenAI's
    "audio": Refusal(_ONLY_TEXT),
    "modalities": Refusal(_ONLY_TEXT, ([], ["text"])),
    "web_search_options": Refusal("nothing is searched here"),
    # vLLM's
    "allowed_token_ids": Refusal("use a grammar, or logit_bias", ([],)),
    "bad_words": Refusal("use logit_bias", ([],)),
    "cache_salt": Refusal("the prompt cache is one for all clients"),
    "chat_template": Refusal("the template is the model's", ("",)),
    "early_stopping": Refusal(_NO_BEAMS, (False,)),
    "guided_whitespace_pattern": Refusal("the grammar decides on blanks", ("",)),
    "include_reasoning": Refusal("thoughts are always sent", (True,)),
    "include_stop_str_in_output": Refusal("a stop string is cut off", (False,)),
    "kv_transfer_params": Refusal("the KV cache stays in its worker", ({},)),
    "length_penalty": Refusal(_NO_BEAMS, (1,)),
    "logprob_token_ids": Refusal("use top_logprobs"),
    "logits_processors": Refusal("no code is taken from requests", ([],)),
    "prompt_logprobs": Refusal("use echo with logprobs on /v1/completions"),
    "repetition_detection": Refusal("use penalties, or DRY"),
    "return_prompt_text": Refusal("use /v1/apply-template", (False,)),
    "return_token_ids": Refusal("use return_tokens on /completion", (False,)),
    "return_tokens_as_token_ids": Refusal("tokens are shown as texts", (False,)),
    "skip_special_tokens": Refusal("control tokens have no text here", (True,)),
    "truncation_side": Refusal("the last tokens are kept", ("left",)),
    "use_beam_search": Refusal(_NO_BEAMS, (False,)),
    "vllm_xargs": Refusal("there are none", ({},)),
    "watermarking": Refusal("texts get no marks", (False,)),
    # mlx_lm.server's
    "draft_model": Refusal("it is named when a model is loaded", ("", "default_model")),
    "frequency_context_size": Refusal(_ONE_WINDOW, (20,)),
    "presence_context_size": Refusal(_ONE_WINDOW, (20,)),
    "role_mapping": Refusal("roles are the chat template's", ({},)),
    # llama-server's
    "adaptive_target": Refusal(_NO_SUCH_SAMPLER, (-1,)),
    "grammar_lazy": Refusal("a grammar holds from the first token on", (False,)),
    "image_data": Refusal(_ONLY_TEXT, ([],)),
    "lora": Refusal("use adapter_name", ([],)),
    "min_keep": Refusal("samplers keep one token at least", (0, 1)),
    "post_sampling_probs": Refusal("probabilities are the model's", (False,)),
    "reasoning_format": Refusal("thoughts are always told apart", ("", "auto", "deepseek")),
    "tfs_z": Refusal(_NO_SUCH_SAMPLER, (1,)),
}

if TYPE_CHECKING:

    class RefusedFields(Body):
        """Each of them as a field of any type."""

else:
    RefusedFields = create_model(
        "RefusedFields", __base__=Body, **dict.fromkeys(REFUSED, (Any, None))
    )


def refuse_fields(body: RefusedFields, place: str = "") -> None:
    """Raise ``UnsupportedParameterError`` for one that asks for something.

    ``place`` is what stands before their names.
    """
    for name, refusal in REFUSED.items():
        value = getattr(body, name)
        if value is not None and value not in refusal.neutral:
            raise UnsupportedParameterError(f"{place}{name}: {refusal.reason}", place + name)
