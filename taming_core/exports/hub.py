"""Upload of an export to the Hugging Face hub."""

from pathlib import Path

import httpx
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

from taming_core.errors import TamingError


def require_token(name: str) -> None:
    """Check, before any work is done, that a push can succeed.

    Raises:
        TamingError: there is no token, or `name` is not OWNER/NAME.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise TamingError(f"{name} is not a repository name. Give --push OWNER/NAME.") from error
    if name.count("/") != 1:
        raise TamingError(f"{name} has no owner. Give --push OWNER/NAME.")
    if get_token() is None:
        raise TamingError("There is no token for the hub. Run `hf auth login` first, or set HF_TOKEN.")


def push(folder: Path, name: str) -> str:
    """Upload the folder's files to the repository `name`, which is created as private if it is new; returns its URL.

    Raises:
        TamingError: the hub cannot be reached, or refuses.
    """
    api = HfApi()
    try:
        url = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="taming export")
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx.HTTPError) as error:
        reason = str(error).strip().splitlines()[0]
        raise TamingError(f"{folder} was written, but not pushed: {reason} Run the same command again, or "
                          f"`hf upload {name} {folder}`.") from error  # fmt: skip
    return str(url)
