"""The hub's address and the user's token, as huggingface_hub reads them from the environment.

``HF_ENDPOINT``, ``HF_TOKEN`` or its file (``HF_TOKEN_PATH``, ``HF_HOME``), ``HF_HUB_OFFLINE``,
``HF_HUB_DOWNLOAD_TIMEOUT``.
"""

from __future__ import annotations

from huggingface_hub import constants, get_token

from jobs.contract.errors import RepoAccessError
from workers.pull.hub import HubAccess


def hub_access() -> HubAccess:
    """Raises ``RepoAccessError`` for a token that no header can carry."""
    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise RepoAccessError("HF_TOKEN, or its file, holds no token")
    return HubAccess(
        constants.ENDPOINT.rstrip("/"),
        token,
        constants.HF_HUB_OFFLINE,
        float(constants.HF_HUB_DOWNLOAD_TIMEOUT),
    )
