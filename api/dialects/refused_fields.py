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
REFUSED = {
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
    "logits_processors": Refusal("no code is taken from requests", ([],)),
    "priority": Refusal("jobs run in the order in which they come", (0,)),
    "prompt_logprobs": Refusal("use echo with logprobs on /v1/completions"),
    "return_token_ids": Refusal("use return_tokens on /completion", (False,)),
    "return_tokens_as_token_ids": Refusal("tokens are shown as texts", (False,)),
    "skip_special_tokens": Refusal("control tokens have no text here", (True,)),
    "use_beam_search": Refusal(_NO_BEAMS, (False,)),
    "vllm_xargs": Refusal("there are none", ({},)),
    # mlx_lm.server's
    "draft_model": Refusal("it is named when a model is loaded", ("", "default_model")),
    "role_mapping": Refusal("roles are the chat template's", ({},)),
    # llama-server's
    "adaptive_target": Refusal("there is no such sampler", (-1,)),
    "lora": Refusal("use adapter_name", ([],)),
    "min_keep": Refusal("samplers keep one token at least", (0, 1)),
    "post_sampling_probs": Refusal("probabilities are the model's", (False,)),
    "reasoning_format": Refusal("thoughts are always told apart", ("", "auto", "deepseek")),
    "tfs_z": Refusal("there is no such sampler", (1,)),
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
