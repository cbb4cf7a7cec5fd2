"""What training and evaluation require of the rows, checked before any work and said when the rows are made."""

from taming_core.errors import TamingError
from taming_core.params.train import TrainParams
from taming_core.tables.rows import Rows


def require_rows(rows: Rows, p: TrainParams) -> None:
    """Require rows that these params can train on.

    Raises:
        TamingError: there are no object rows; `regularization` is above 0 without such rows; or both they and `prior`
            are given.
    """
    if not len(rows.objects):
        raise TamingError(
            "No training row holds an object. Add photos, or lower materialize.validation and materialize.test."
        )
    if p.regularization > 0 and p.prior is None and not len(rows.regularization):
        raise TamingError(
            f"train.regularization is {p.regularization}, but the rows hold no text-image pairs. Set it to 0, run "
            "`taming materialize --regularization FOLDER`, or have train.prior images drawn."
        )
    if p.prior is not None and len(rows.regularization):
        raise TamingError(
            f"train.prior is {p.prior}, but the rows hold {len(rows.regularization)} text-image pairs. Set it to null, "
            "or run `taming materialize` without --regularization."
        )


def identities_of(rows: Rows) -> dict[str, bool]:
    """Each identity of the object rows, and whether all is well with its views: it has a second one.

    An object beside the main one of its photo is an identity of its own, of which no other view is expected.
    """
    columns = [rows.column(name) for name in ("identity", "references", "row_id")]
    found = dict[str, bool]()
    for i in rows.objects.tolist():
        identity, references, row_id = (column[i] for column in columns)
        found[identity] = found.get(identity, False) or bool(references) or identity == row_id
    return found


def require_identities(rows: Rows, split: str) -> None:
    """Require two identities or more in the rows of a split, or recognition would be trivial.

    Raises:
        TamingError: there are fewer.
    """
    if (count := len(identities_of(rows))) < 2:
        found = "1 identity" if count else "no identities"
        raise TamingError(
            f"The split {split} has {found}, and evaluation needs two or more. Add photos of more objects, or raise "
            f"materialize.{split}, and run `taming materialize` again."
        )
