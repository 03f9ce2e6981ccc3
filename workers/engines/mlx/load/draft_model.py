"""Opens the drafter of a loaded model: a second model, or prompt lookup."""

from __future__ import annotations

from pathlib import Path

from jobs.catalog.disk_facts import trained_length
from jobs.catalog.mlx_folder import Json, check_folder
from jobs.catalog.mlx_weights import find_weights
from jobs.contract.errors import ModelLoadError
from workers.engines.base import EngineOptions, OnProgress
from workers.engines.mlx.batch import speculation
from workers.engines.mlx.batch.drafting import Drafter, ModelDrafter, TextDrafter
from workers.engines.mlx.load.loading import LoadedModel, as_load_error, load
from workers.engines.mlx.load.tokenizer import MlxTokenizer, load_tokenizer
from workers.engines.mlx.memory import Memory

_FIELD = "draft_model"


def check_draft_folder(options: EngineOptions, tokenizer: MlxTokenizer) -> None:
    """Raise ``ModelLoadError`` for a draft model that is broken or has another vocabulary."""
    path = options.draft_path
    if path is None:
        return
    with as_load_error(path):
        config = _config(path, options)
        if not tokenizer.has_vocabulary_of(load_tokenizer(path, config)):
            message = f"{path.name} cannot draft, its vocabulary differs from the model's"
            raise ModelLoadError(message, _FIELD)


def open_drafter(
    options: EngineOptions, loaded: LoadedModel, on_progress: OnProgress, memory: Memory
) -> Drafter | None:
    """The drafter that the options request, if any; call ``check_draft_folder`` before.

    Raises ``UnsupportedParameterError`` if the state of one of the models cannot be trimmed.
    """
    if not speculation.is_requested(options):
        return None
    speculation.check_can_draft(loaded.model, speculation.field_of(options))
    if options.draft_path is None:
        return TextDrafter()
    draft = _load(options.draft_path, options, loaded.context_length, on_progress, memory)
    speculation.check_can_draft(draft.model, _FIELD)
    return ModelDrafter(
        draft.model,
        loaded.vocab_size,
        draft.vocab_size,
        draft.context_length,
        state_size=draft.state_size,
    )


def _load(
    path: Path,
    options: EngineOptions,
    context_length: int,
    on_progress: OnProgress,
    memory: Memory,
) -> LoadedModel:
    with as_load_error(path):
        config = _config(path, options)
        length = min(context_length, trained_length(config) or context_length)
    is_trusted = options.is_remote_code_trusted
    own = EngineOptions(context_length=length, num_slots=1, is_remote_code_trusted=is_trusted)
    return load(path, config, own, on_progress, memory)


def _config(path: Path, options: EngineOptions) -> Json:
    config = check_folder(path, is_remote_code_trusted=options.is_remote_code_trusted)
    find_weights(path)
    return config
