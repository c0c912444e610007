"""An exported folder on the Hugging Face hub: one commit with all of its files, or none."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import cpsae
from cpsae.errors import ExportError, SettingsError, causes, first_line
from cpsae.hub import quiet

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_AGAIN = "the same command again tries once more"


@dataclass(frozen=True)
class HubPlace:
    """ORG/NAME, or a folder in it: a repository may hold several autoencoders."""

    repo: str
    folder: str | None = None

    @classmethod
    def parse(cls, text: str) -> "HubPlace":
        """Of ORG/NAME or ORG/NAME/FOLDER. Raises SettingsError for anything else."""
        found = re.fullmatch(rf"({_PART}/{_PART})(?:/({_PART}(?:/{_PART})*))?", text)
        if found is None:
            raise SettingsError(
                f"--push {text}: expected ORG/NAME, or ORG/NAME/FOLDER, with letters, digits and "
                "._- in each part"
            )
        return cls(found[1], found[2])

    def __str__(self) -> str:
        return f"{self.repo}/{self.folder}" if self.folder else self.repo

    @property
    def download(self) -> str:
        """The Python that gives its folder."""
        if self.folder is None:
            return f'snapshot_download("{self.repo}")'
        return (
            f'snapshot_download("{self.repo}", allow_patterns="{self.folder}/*") + "/{self.folder}"'
        )


def refuse_without_token() -> None:
    """Raises ExportError where the hub's client knows of no token."""
    from huggingface_hub import get_token

    if get_token() is None:
        raise ExportError(
            "--push: the hub knows nobody here; run `hf auth login` once, or set HF_TOKEN to a "
            "token that may write"
        )


def push(
    files: Mapping[str, bytes], place: HubPlace, card: str, private: bool, message: str
) -> str:
    """Make the repository where it is not there yet, and commit all files at once; the address of
    what was pushed. The card of a folder is the repository's too, where that has none.

    private: of a new repository; without it, as the account or organisation has it. Raises
    ExportError, in one line, where that cannot be done; nothing is committed then.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(library_name="cpsae", library_version=cpsae.__version__)
    paths = {f"{place.folder}/{name}" if place.folder else name: c for name, c in files.items()}
    with quiet():
        try:
            api.create_repo(place.repo, private=private or None, exist_ok=True)
            if private and not api.repo_info(place.repo).private:
                raise ExportError(
                    f"--push {place.repo}: is there already and is public; make it private on its "
                    "page, or leave --private out. Nothing was uploaded"
                )
            if place.folder and not api.file_exists(place.repo, card):
                paths[card] = files[card]
            adds = [CommitOperationAdd(path, content) for path, content in paths.items()]
            done = api.create_commit(place.repo, adds, commit_message=message)
        except ExportError:
            raise
        except Exception as error:  # of the hub's client or of its HTTP library, whichever it is
            raise ExportError(f"--push {place}: {explain(error)}") from error
    url = str(done.repo_url)
    return f"{url}/tree/main/{place.folder}" if place.folder else url


def explain(error: Exception) -> str:
    """What went wrong, and what to do, in one line."""
    types = {cause.__name__ for link in causes(error) for cause in type(link).__mro__}
    status = next((s for link in causes(error) if (s := _status(link)) is not None), None)
    if status == 401:
        return f"the hub does not know the token; run `hf auth login` again; {_AGAIN}"
    if status == 403:
        return (
            f"the token may not write there; take one with write access, or another ORG; {_AGAIN}"
        )
    if status == 404:
        return f"the hub has no such place for this token; check ORG, or `hf auth login`; {_AGAIN}"
    if status is not None:
        said = getattr(error, "server_message", None) or first_line(error, 160)
        return f"the hub answered {status} ({' '.join(str(said).split())}); {_AGAIN}"
    if "OfflineModeIsEnabled" in types:
        return "HF_HUB_OFFLINE is set, so that the hub is not asked; unset it"
    if types & {"ConnectionError", "TransportError", "TimeoutError", "RequestException"}:
        return f"the hub cannot be reached; check the network and HF_ENDPOINT; {_AGAIN}"
    return f"cannot be pushed ({type(error).__name__}: {first_line(error, 160)}); {_AGAIN}"


def _status(error: BaseException) -> int | None:
    found = getattr(getattr(error, "response", None), "status_code", None)
    return found if isinstance(found, int) else None
