"""Which loaded model a request means, and the names under which models are listed."""

from __future__ import annotations

from collections.abc import Mapping

from jobs import names
from jobs.errors import InvalidRequestError, ModelNotFoundError
from jobs.records import Want

_THINKING = {"-no-thinking": False, "-thinking": True}  # the longer one first


def read_model_id(header: str | None) -> str | None:
    """The model_id in an ``X-Model-Id`` header as Starlette gives it (latin-1); "" is none."""
    if not header:
        return None
    try:
        text = header.encode("latin-1").decode()
    except UnicodeError:
        raise InvalidRequestError("the model_id is not UTF-8", "X-Model-Id") from None
    return names.check_model_id(text)


def resolve(wants: Mapping[str, Want], header: str | None, model: str | None) -> Want:
    """The model meant; ``ModelNotFoundError`` when nothing is loaded under the id so found.

    ``wants`` are by slug, in the order of their ids. The header wins; then ``model`` as a loaded
    model_id, then as the name of a loaded model; else id 0.
    """
    model_id = read_model_id(header) or _id_by_model(wants, model) or names.DEFAULT_MODEL_ID
    want = wants.get(names.slug_of(model_id))
    if want is None:
        raise ModelNotFoundError(
            f"no model is loaded under model_id {model_id!r}", "X-Model-Id" if header else "model"
        )
    return want


def _id_by_model(wants: Mapping[str, Want], model: str | None) -> str | None:
    found = find_by_model(wants, model) if model else None
    return found.model_id if found else None


def split_thinking(wants: Mapping[str, Want], model: str | None) -> tuple[str | None, bool | None]:
    """The model, and whether it is to think, where a suffix says so: the original's clients write
    ``NAME-thinking`` and ``NAME-no-thinking``. A name that addresses a model has no suffix."""
    if model is None or find_by_model(wants, model) is not None:
        return model, None
    for suffix, is_on in _THINKING.items():
        name = model.removesuffix(suffix)
        if name != model and find_by_model(wants, name) is not None:
            return name, is_on
    return model, None


def find_by_model(wants: Mapping[str, Want], model: str) -> Want | None:
    """The loaded model that the text names: by model_id first, then by name (lowest id)."""
    by_name = None
    for want in wants.values():
        if want.model_id == model:
            return want
        if by_name is None and want.load.model_name == model:
            by_name = want
    return by_name


def listed_name(wants: Mapping[str, Want], want: Want) -> str:
    """What addresses this model when sent as ``model``: its name, else its model_id."""
    name = want.load.model_name
    return name if find_by_model(wants, name) is want else want.model_id
