"""Resolves the model of a request, and the names under which models are listed.

One rule for all routes. A header ``X-Model-Id`` has precedence. Else ``model`` is the model_id of a
loaded model, else its name, else an alias of either (``MGS_MODEL_ALIASES``), else a model on disk,
which the request then loads. Without ``model``, or with a placeholder, it is the model under id 0,
else ``MGS_DEFAULT_MODEL``. Any other value is an error, or id 0 too (``MGS_UNKNOWN_MODEL``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel

from api.execution.autoload import add_from_disk
from api.execution.services import Services
from jobs.catalog.model_aliases import NO_ALIASES, Aliases
from jobs.catalog.names import near_names
from jobs.contract.errors import InvalidRequestError, ModelNotFoundError
from jobs.contract.records import DesiredModel
from jobs.settings import Settings
from jobs.storage import names

_PLACEHOLDERS = frozenset({"dummy", "default"})
_THINKING = {"-no-thinking": False, "-thinking": True}  # the longer suffix first
_MAX_SHOWN = 80  # characters of a name
_MAX_LISTED = 20
_MAX_NEAR = 5
_HOW_TO_LOAD = "`mgs load` or POST /v1/internal/model/load"
_Body = TypeVar("_Body", bound=BaseModel)


async def resolve(services: Services, header: str | None, model: str | None) -> DesiredModel:
    """The model for a job. One that is only on disk becomes desired; the job will start it.

    Raises ``ModelNotFoundError``, or the error of its last load while no other try is due.
    """
    finder, settings = await finder_of(services), services.settings
    if settings.autoload and (wanted := finder.unloaded_names(header, model)):
        found = await add_from_disk(services, wanted, is_id=bool(header))
        if found is not None:
            return found
    elif model and not header and finder.find(model) is None:
        await _check_not_on_disk(services, finder, model)
    try:
        return finder.resolve(header, model)
    except ModelNotFoundError as error:
        raise await _with_near_names(services, error, model) from None


async def _check_not_on_disk(services: Services, finder: ModelFinder, model: str) -> None:
    """With ``MGS_UNKNOWN_MODEL=default``, refuse the name of a model that is only on disk."""
    if services.settings.unknown_model == "default":
        catalog = await services.runner.in_thread(services.catalog)
        if model in {entry.name for entry in catalog.listed()}:
            raise finder.unknown(model)


async def _with_near_names(
    services: Services, error: ModelNotFoundError, model: str | None
) -> ModelNotFoundError:
    """The error with the names on disk that are most like the one asked for."""
    listed = (await services.runner.in_thread(services.catalog)).listed() if model else []
    near = ", ".join(map(repr, near_names(listed, model or "")[:_MAX_NEAR]))
    if not near:
        return error
    return ModelNotFoundError(f"{error.message}; did you mean {near}?", error.param)


async def resolve_loaded(
    services: Services, header: str | None, model: str | None = None
) -> DesiredModel:
    """The same for a look at a model: only one that is desired already."""
    return (await finder_of(services)).resolve(header, model)


async def resolve_chat(
    services: Services, header: str | None, model: str | None
) -> tuple[DesiredModel, bool | None]:
    """As ``resolve``, and whether a suffix of ``model`` turns reasoning on or off."""
    desired = await resolve(services, header, model)
    finder = await finder_of(services)
    return desired, finder.thinking_of(model, desired)


async def finder_of(services: Services) -> ModelFinder:
    """The models that are loaded now, with the aliases of the settings."""
    models, knows_all = await services.runner.desired_models(), services.caller.has_all_models
    return ModelFinder.of(services.settings, models, knows_all=knows_all)


def with_thinking(body: _Body, is_on: bool | None) -> _Body:
    """The body with ``enable_thinking`` from the model's suffix, unless the body sets it."""
    given = (getattr(body, name, None) for name in ("enable_thinking", "think"))
    if is_on is None or any(value is not None for value in given):
        return body
    return body.model_copy(update={"enable_thinking": is_on})


def read_model_id(header: str | None) -> str | None:
    """The model_id of an ``X-Model-Id`` header, which Starlette decodes as latin-1; "" is none."""
    if not header:
        return None
    try:
        text = header.encode("latin-1").decode()
    except UnicodeError:
        raise InvalidRequestError("the model_id is not UTF-8", "X-Model-Id") from None
    return names.check_model_id(text)


class ModelFinder:
    """The loaded models by id, name and alias. ``desired_models``: by slug, in the order of ids.

    Clients of the original server write ``NAME-thinking`` and ``NAME-no-thinking``, of an alias
    too. A name that is found as a whole has no suffix; the suffix is removed before a prefix alias
    (``claude-*``) is tried.
    """

    def __init__(
        self,
        desired_models: Mapping[str, DesiredModel],
        aliases: Aliases = NO_ALIASES,
        *,
        is_default_for_unknown: bool = False,
        default_model: str = "",
        knows_all: bool = True,
    ) -> None:
        self._knows_all = knows_all
        self._default_model = default_model
        self._desired_models = desired_models
        self._aliases = aliases
        self._is_default_for_unknown = is_default_for_unknown

    @classmethod
    def of(
        cls,
        settings: Settings,
        desired_models: Mapping[str, DesiredModel],
        *,
        knows_all: bool = True,
    ) -> ModelFinder:
        """With the aliases and the rule for unknown names of the settings.

        Unless the caller ``knows_all`` models, no error tells what an alias stands for.
        """
        is_default = settings.unknown_model == "default"
        return cls(
            desired_models,
            settings.aliases,
            is_default_for_unknown=is_default,
            default_model=settings.default_model,
            knows_all=knows_all,
        )

    def resolve(self, header: str | None, model: str | None) -> DesiredModel:
        """The model of a request; ``ModelNotFoundError`` lists the loaded models."""
        model_id = read_model_id(header)
        if model_id is not None:
            return self._under(model_id, "X-Model-Id")
        found = self.find(model) if model else None
        if found is not None:
            return found
        if not model or model in _PLACEHOLDERS or self._is_default_for_unknown:
            return self._under(names.DEFAULT_MODEL_ID, "model")
        raise self.unknown(model)

    def unloaded_names(self, header: str | None, model: str | None) -> list[str]:
        """The names on disk that a request may mean whose model is not loaded, the best first."""
        model_id = read_model_id(header)
        if model_id is not None:
            return [] if names.slug_of(model_id) in self._desired_models else [model_id]
        if not model or model in _PLACEHOLDERS:
            is_loaded = names.slug_of(names.DEFAULT_MODEL_ID) in self._desired_models
            return [] if is_loaded or not self._default_model else [self._default_model]
        if self.find(model) is not None:
            return []
        plain = [model, *(model.removesuffix(suffix) for suffix in _THINKING)]
        aliased = [self._aliases.exact.get(name) for name in plain]
        prefixed = [self._aliases.by_prefix(name) for name in plain]
        return list(dict.fromkeys(name for name in [*plain, *aliased, *prefixed] if name))

    def not_loaded(self, model_id: str, param: str) -> ModelNotFoundError:
        """The error for an id without a model; ``param`` is the field that named it."""
        message = f"no model is loaded under model_id {model_id!r}"
        return ModelNotFoundError(self._with_list(message), param)

    def find(self, model: str) -> DesiredModel | None:
        """The model with that id, name or alias; of several with one name, the lowest id."""
        found = self.find_all(model)
        return found[0] if found else None

    def find_all(self, model: str) -> list[DesiredModel]:
        """All models with that id, name or alias; at most one if it is a model_id."""
        return self._read(model)[0]

    def find_exact(self, model: str) -> DesiredModel | None:
        """As ``find``, without suffixes and prefix aliases."""
        found = self._by_name(model)
        return found[0] if found else None

    def thinking_of(self, model: str | None, new: DesiredModel | None = None) -> bool | None:
        """Whether the suffix of a name turns reasoning on or off; ``None`` without a suffix.

        ``new``: the model that was found, which may be too new to be known here.
        """
        if not model:
            return None
        if new is not None and names.slug_of(new.model_id) not in self._desired_models:
            return next(
                (
                    is_on
                    for suffix, is_on in _THINKING.items()
                    if model.endswith(suffix) and not new.load.model_name.endswith(suffix)
                ),
                None,
            )
        return self._read(model)[1]

    def listed_name(self, desired: DesiredModel) -> str:
        """The value of ``model`` that selects this model: its name, else its model_id."""
        name = desired.load.model_name
        return name if self.find(name) is desired else desired.model_id

    def listed_aliases(self) -> list[tuple[str, DesiredModel]]:
        """The exact aliases of loaded models, without those that are names of loaded models."""
        found = [(alias, self._targets(name)) for alias, name in self._aliases.exact.items()]
        return [
            (alias, desired_models[0])
            for alias, desired_models in found
            if desired_models and not self._targets(alias)
        ]

    def _read(self, model: str) -> tuple[list[DesiredModel], bool | None]:
        """The models found, and the value of the suffix."""
        if found := self._by_name(model):
            return found, None
        for suffix, is_on in _THINKING.items():
            name = model.removesuffix(suffix)
            if name != model and (found := self._by_name(name) or self._by_prefix(name)):
                return found, is_on
        return self._by_prefix(model), None

    def _by_name(self, model: str) -> list[DesiredModel]:
        return self._targets(model) or self._targets(self._aliases.exact.get(model))

    def _by_prefix(self, model: str) -> list[DesiredModel]:
        return self._targets(self._aliases.by_prefix(model))

    def _targets(self, name: str | None) -> list[DesiredModel]:
        """The model of that id, else the models of that name."""
        desired_models = self._desired_models.values()
        by_id = [desired for desired in desired_models if desired.model_id == name]
        return by_id or [desired for desired in desired_models if desired.load.model_name == name]

    def _under(self, model_id: str, param: str) -> DesiredModel:
        desired = self._desired_models.get(names.slug_of(model_id))
        if desired is None:
            raise self.not_loaded(model_id, param)
        return desired

    def unknown(self, model: str) -> ModelNotFoundError:
        """The error for a name that selects no loaded model."""
        shown = repr(_shortened(model))
        target = self._aliases.exact.get(model) or self._aliases.by_prefix(model)
        is_told = target and self._knows_all
        reason = f"stands for {target!r}, which is not loaded" if is_told else "is no loaded model"
        return ModelNotFoundError(self._with_list(f"{shown} {reason}"), "model")

    def _with_list(self, message: str) -> str:
        """The message, the loaded models, and how to load another."""
        if not self._desired_models:
            return f"no model is loaded: load one with {_HOW_TO_LOAD} ({message})"
        desired_models = list(self._desired_models.values())
        listed = [
            f"{w.model_id!r} ({_shortened(w.load.model_name)})"
            for w in desired_models[:_MAX_LISTED]
        ]
        more = (
            f" and {len(desired_models) - _MAX_LISTED} more"
            if len(desired_models) > _MAX_LISTED
            else ""
        )
        return f"{message}; loaded: {', '.join(listed)}{more}; load others with {_HOW_TO_LOAD}"


def _shortened(name: str) -> str:
    return name if len(name) <= _MAX_SHOWN else f"{name[:_MAX_SHOWN]}…"
