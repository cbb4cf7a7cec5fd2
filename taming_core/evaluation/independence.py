"""A judge must not be a network that the encoder was made of or trained against: it would score what it taught."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taming_core.errors import TamingError
from taming_core.evaluation.judges import Judges
from taming_core.files import read_json
from taming_core.model.towers import load_tower
from taming_core.params.sections import EvaluateParams
from taming_core.weights.network_fingerprint import network_fingerprint

Roles = Mapping[str, str]  # fingerprint of a network -> its role in the encoder's training

ROLES = {"tower": "tower", "identity_network": "identity network"}


def training_networks(encoder: Path) -> Roles:
    """The networks that an encoder was made of and trained against.

    Their fingerprints are in training.json; of an encoder without them, such as an older one, only the tower is known.
    """
    path = encoder / "training.json"
    record: Mapping[str, Any] = read_json(path).get("networks", {}) if path.is_file() else {}
    if record:
        return {fingerprint: ROLES[role] for role, prints in record.items() for fingerprint in prints}
    folder = encoder / "object_encoder"
    if read_json(folder / "config.json")["tower"] is None:
        return {}
    return {network_fingerprint(load_tower(str(folder))[0]): ROLES["tower"]}


def require_independent(judges: Judges, networks: Roles, p: EvaluateParams) -> None:
    """Require judges of the object that are no network of the encoder's training.

    Raises:
        TamingError: one of them is, by its weights; the message names its key.
    """
    models = {"judge": judges.objects, "strict_judge": judges.strict}
    for key, judge in models.items():
        role = None if judge is None else networks.get(network_fingerprint(judge.model))
        if role is not None:
            raise TamingError(
                f"evaluate.{key} is {getattr(p, key)}, which has the weights of this encoder's {role} and would score "
                f"what it taught. Set evaluate.{key} to another network, such as facebook/dino-vits16."
            )


def text_judge_role(judges: Judges, networks: Roles) -> str | None:
    """The role of the text judge in the encoder's training: it scores scene and style, which that did not teach."""
    return networks.get(network_fingerprint(judges.texts.model))
